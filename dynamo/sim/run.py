"""One simulated run: draws a plan from a seed, carries it out, and says what came of it."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs

from dynamo.api.vitals import why_not_ready
from dynamo.sim import faults, situations, workload
from dynamo.sim.clients import Clients
from dynamo.sim.fault_links import LINK_KINDS
from dynamo.sim.fault_rings import STAYING_MIN
from dynamo.sim.faults import FAILURES, Faults
from dynamo.sim.history import History
from dynamo.sim.logs import Listener
from dynamo.sim.notes import Notes
from dynamo.sim.oracle import Oracle
from dynamo.sim.plan import Fault, Operation, Plan
from dynamo.sim.situations import Scenes
from dynamo.sim.tally import Tally
from dynamo.sim.world import World

READY_S = 60.0
"""A new cluster is ready within this time."""
SETTLE_S = 120.0
"""When all is well again, nodes run and clients end within this time."""
LOOK_S = 0.5
SIZES = (5, 5, 5, 5, 5, 5, 3, 4, 7)
OPERATIONS = 300
HINTS_ALONE_SHARE = 0.2
CHANGES_SHARE = 0.5
READS_MEND_SHARE = 0.5
REBORN_SHARE = 0.15
MEMBERS_MAX, HOSTS_MAX = 5, 7
"""Where the ring changes: how many members found it at most, and how many machines there are."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of a run. Times are virtual seconds but `cpu`, which is of this machine.

    `operations`: how many by kind and outcome. `faults`: how many were injected, by kind.
    `excused`: what the oracle let pass, by reason. `settled_after`: from the last fault's end until
    the cluster had settled. `digest`: of the trace, "" if there was none.
    """

    seed: int
    size: int
    seconds: float
    operations: Counter[str]
    faults: Counter[str]
    tally: Tally
    excused: Counter[str]
    settled_after: float
    digest: str
    cpu: float = attrs.field(eq=False)


@attrs.frozen
class _Stage:
    """What a run has before anything is drawn to happen in it. `founders`: how many found the
    cluster if its ring changes, 0 if it does not; `links`: nothing but links fails."""

    seed: int
    names: tuple[str, ...]
    clients: int
    seconds: float
    founders: int
    links: bool

    def dice(self, what: str) -> Random:
        """Of their own for each purpose: what is drawn for one leaves the others as they are."""
        return Random(f"{self.seed}:{what}")


def plan(seed: int, *, size: int = 0, seconds: float = 0.0) -> Plan:
    """Everything that will be done in the run of `seed`; 0 lets the seed choose."""
    rng = Random(f"{seed}:plan")
    size = size or rng.choice(SIZES)
    seconds = seconds or round(rng.uniform(80.0, 110.0), 3)
    founders = 0
    if changes(seed):
        founders = min(size, MEMBERS_MAX)
        size = min(founders + rng.choice((1, 2, 2)), HOSTS_MAX)
    names = tuple([f"n{number}" for number in range(1, size + 1)])
    stage = _Stage(seed, names, rng.randint(2, 4), seconds, founders, hints_alone(seed))
    scenes = situations.draw(
        stage.dice("scenes"),
        situations.situation(seed, bool(founders)),
        names=names,
        founders=founders,
        clients=stage.clients,
        seconds=seconds,
        links=stage.links,
    )
    drawn = _faults(stage, scenes)
    return Plan(
        seed=seed,
        size=size,
        clients=stage.clients,
        seconds=seconds,
        operations=_operations(stage, scenes, drawn),
        faults=drawn,
        founders=founders,
    )


def _faults(stage: _Stage, scenes: Scenes | None) -> tuple[Fault, ...]:
    names, seconds = stage.names, stage.seconds
    if scenes is not None:
        drawn = scenes.faults
    else:
        kinds = LINK_KINDS if stage.links else FAILURES
        drawn = faults.draw(stage.dice("faults"), names=names, seconds=seconds, kinds=kinds)
        if stage.founders:
            drawn = _amid(stage.seed, drawn, names, stage.founders, seconds)
    drawn += faults.draw_around_flips(stage.dice("apart"), drawn, names=names)
    last = stage.dice("last")
    return drawn + faults.draw_last(last, names=names, seconds=seconds, links=stage.links)


def _operations(
    stage: _Stage, scenes: Scenes | None, drawn: tuple[Fault, ...]
) -> tuple[Operation, ...]:
    """In the order of time: those of any run, those around some faults, and those that a situation
    or a bucket's many lives need."""
    names, clients, seconds = stage.names, stage.clients, stage.seconds
    found = list(
        workload.draw(
            stage.dice("operations"),
            names=names,
            clients=clients,
            seconds=seconds,
            rate=OPERATIONS / seconds,
            members=STAYING_MIN if stage.founders else 0,
        )
    )

    def first() -> int:
        return max(operation.number for operation in found) + 1

    dice = stage.dice("around")
    found += workload.around(dice, drawn, names=names, clients=clients, first=first())
    if scenes is not None:
        begin = first()
        found += [attrs.evolve(o, number=o.number + begin) for o in scenes.operations]
    if stage.dice("reborn").random() < REBORN_SHARE:
        dice = stage.dice("lives")
        found += workload.lives(dice, names=names, clients=clients, seconds=seconds, first=first())
    # What is drawn around a late fault must not fall into the checks at rest.
    found = [operation for operation in found if operation.at < seconds]
    return tuple(sorted(found, key=lambda o: (o.at, o.number)))


def _amid(
    seed: int, drawn: tuple[Fault, ...], names: Sequence[str], founders: int, seconds: float
) -> tuple[Fault, ...]:
    """Changes of the ring amid the failures that were drawn, or half of them, or none."""
    rng = Random(f"{seed}:changes")
    kept = tuple([fault for fault in drawn if rng.random() < 0.5])
    drawn = rng.choice((drawn, kept, kept, ()))
    changed = faults.draw_changes(
        rng, names=names, founders=founders, seconds=seconds, links=hints_alone(seed)
    )
    return tuple(sorted((*drawn, *changed), key=lambda fault: fault.at))


def changes(seed: int) -> bool:
    """Whether the ring changes in this run."""
    return Random(f"{seed}:ring").random() < CHANGES_SHARE


def hints_alone(seed: int) -> bool:
    """Whether anti-entropy never comes in this run, so that it hides no hint that was forgotten.
    Then only links fail: what a node that ends has not told needs anti-entropy."""
    return Random(f"{seed}:repair").random() < HINTS_ALONE_SHARE


def reads_mend(seed: int) -> bool:
    """Whether reads are to mend what differs in the end: not everywhere, for they hide it then."""
    share = Random(f"{seed}:reads mend").random()
    return share < READS_MEND_SHARE and not hints_alone(seed)


def settings(seed: int) -> dict[str, dict[str, Any]]:
    """The nodes' configuration, which varies a little from seed to seed."""
    rng = Random(f"{seed}:settings")
    partitions = rng.choice((64, 64, 64, 16))
    partitions = situations.PARTITIONS.get(situations.situation(seed, changes(seed)), partitions)
    return {
        "cluster": {"partitions": partitions},
        # Not "wan": the oracle gives a mended cluster less time than that takes to notice.
        "gossip": {"profile": rng.choice(("lan", "lan", "lan", "local"))},
        "limits": {"request_timeout": 5.0, "shutdown_grace": 5.0},
        "repair": {
            "interval": 3600.0 if hints_alone(seed) else 10.0,
            "scrub_interval": rng.choice((10.0, 30.0)),
        },
    }


def run(
    plan: Plan, *, traced: bool = False, write: Callable[[str], object] | None = None
) -> Outcome:
    """Carries a plan out. `write` is given each line of the trace."""
    cpu = time.process_time()
    # When what nobody holds is cleared away must not depend on what ran before in this process.
    gc.collect()
    gc.disable()
    try:
        world = World(
            plan.seed,
            plan.size,
            founders=plan.founders,
            settings=settings(plan.seed),
            traced=traced,
            write=write,
        )
        tally = Tally()
        with Listener(world, tally):
            outcome = _Run(plan, world, tally).outcome()
            gc.collect()  # errors that nobody took are told now
        digest = world.trace.digest() if traced else ""
    finally:
        gc.enable()
    return attrs.evolve(outcome, digest=digest, cpu=time.process_time() - cpu)


def run_seed(seed: int) -> Outcome:
    """The run of a seed."""
    return run(plan(seed))


class _Run:
    def __init__(self, plan: Plan, world: World, tally: Tally) -> None:
        self._plan = plan
        self._world = world
        self._tally = tally
        self._history = History()
        self._oracle = Oracle(world, self._history, tally)
        self._oracle.reads_mend = reads_mend(plan.seed)
        self._notes = Notes(world, tally, self._history.watcher)
        self._history.watcher = self._notes
        self._clients = self._oracle.clients = Clients(world, plan, self._history)
        self._faults = Faults(world, self._oracle)
        self._settled_after = 0.0

    def outcome(self) -> Outcome:
        world = self._world
        for name in world.present():
            self._oracle.watch(world.hosts[name])
        for name in world.present():
            world.start(name)
        if self._ready():
            self._clients.prepare()
            self._clients.begin()
            self._faults.begin(self._plan.faults)
            world.run_for(self._plan.seconds)
            away = self._faults.cut_off()
            if away:
                self._oracle.cut_off(away)
            world.trace.add("sim", "everything is mended")
            self._faults.heal()
            self._settle()
        return Outcome(
            seed=self._plan.seed,
            size=self._plan.size,
            seconds=world.schedule.now - world.began,
            operations=self._notes.counts,
            faults=self._faults.injected,
            tally=self._tally,
            excused=self._oracle.excused,
            settled_after=self._settled_after,
            digest="",
            cpu=0.0,
        )

    def _wait(self, for_what: Callable[[], str], seconds: float) -> str:
        """Until it gives "", which it then gives; what it gives last if that takes too long."""
        schedule = self._world.schedule
        end = schedule.now + seconds
        while why := for_what():
            if schedule.now >= end:
                return why
            self._world.run_for(LOOK_S)
        return ""

    def _ready(self) -> bool:
        world = self._world

        def why_not() -> str:
            for name in world.present():
                node = world.node(name)
                why = why_not_ready(node.view, node.defaults)
                alive = sum(m.liveness == "alive" for m in node.view.members())
                if why or alive < len(world.present()):
                    return f"{name}: {why or f'sees {alive} members'}"
            return ""

        why = self._wait(why_not, READY_S)
        if why:
            self._broken("I15", f"A new cluster is not ready after {READY_S:g} s. {why}")
        else:
            world.trace.add("sim", "the cluster is ready")
        return not why

    def _settle(self) -> None:
        def why_not() -> str:
            if not self._clients.idle():
                return "A client still waits for an answer."
            if not self._faults.calm:
                return f"Only {', '.join(world.running())} run."
            return ""

        world = self._world
        began = world.schedule.now
        why = self._wait(why_not, SETTLE_S)
        if why:
            self._broken("I6", f"Not quiet {SETTLE_S:g} s after the last fault. {why}")
        else:
            self._oracle.settle(self._faults.release, self._faults.rot)
        self._settled_after = world.schedule.now - began
        self._notes.tell_violations()

    def _broken(self, invariant: str, text: str) -> None:
        world = self._world
        self._tally.broken(invariant, world.schedule.now - world.began, text)
