"""Whole runs: nothing breaks while one thing goes wrong; what is broken on purpose is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from dynamo.api.documented import DocumentedFace
from dynamo.background.scrub import Scrub
from dynamo.coordinator.writes import Half, Spread
from dynamo.sim.clients import Clients
from dynamo.sim.history import History
from dynamo.sim.oracle import INVARIANTS, Oracle
from dynamo.sim.oracle.returned import ReturnChecks
from dynamo.sim.plan import Plan
from dynamo.sim.tally import Tally
from dynamo.sim.workload import draw
from dynamo.sim.world import World
from dynamo.storage.copies import Copies
from dynamo.storage.owned import own, owned

QUIET: dict[str, dict[str, Any]] = {
    "log": {"level": "critical"},
    "repair": {"scrub_interval": 10.0},
}
EVERY_RUN = {"I1", "I2", "I3", "I5", "I6", "I7", "I8", "I9", "I10", "I12", "I13", "I14"}


class Run:
    """Five nodes, four clients, a few seconds; `fault(world, oracle)` is called as they begin."""

    def __init__(self, seed: int, fault: Callable[[World, Oracle], None] | None = None) -> None:
        self.world = world = World(seed, 5, settings=QUIET, traced=True)
        self.tally, history = Tally(), History()
        self.oracle = Oracle(world, history, self.tally)
        for host in world.hosts.values():
            self.oracle.watch(host)
        for name in world.names:
            world.start(name)
        world.run_for(8)
        rng = Random(f"{seed}:plan")
        operations = draw(rng, names=world.names, clients=4, seconds=6, rate=60)
        plan = Plan(
            seed=seed, size=5, clients=4, seconds=6, operations=operations, faults=()
        )  # fmt: skip
        self.clients = self.oracle.clients = Clients(world, plan, history)
        self.clients.prepare()
        if fault is None:
            world.calm_since = world.schedule.now - 100  # type: ignore[attr-defined]
        else:
            fault(world, self.oracle)
        self.clients.begin()
        world.run_for(6)
        world.schedule.run_while(lambda: not self.clients.idle(), world.schedule.now + 20)
        assert self.clients.idle()
        self.oracle.settle(rot=self.rot)

    def rot(self) -> None:
        """A bit flips in a record that others have too."""
        others = [host.drive.durable() for host in self.world.hosts.values() if host.name != "n2"]

        def elsewhere(table: str, row: bytes, value: bytes) -> bool:
            return any(view.get(table, row) == value for view in others)

        assert self.world.hosts["n2"].drive.flip_record(Random(1), elsewhere)
        self.oracle.spoiled("n2", knowing=True)

    def broken(self) -> set[str]:
        return {violation.invariant for violation in self.tally.violations}


def kill(world: World, oracle: Oracle) -> None:
    world.schedule.callLater(1.0, world.kill, "n2")
    world.schedule.callLater(4.0, world.start, "n2")


def cut(world: World, oracle: Oracle) -> None:
    here = [world.hosts["n3"].machine.ip]
    there = [world.hosts[name].machine.ip for name in world.names]
    for path in (*world.network.paths(here, there), *world.network.paths(there, here)):
        world.schedule.callLater(1.0, setattr, path, "cut", True)
        world.schedule.callLater(4.0, world.network.open, path)


def wipe(world: World, oracle: Oracle) -> None:
    def lose() -> None:
        world.kill("n4")
        world.hosts["n4"].drive.wipe()
        oracle.spoiled("n4")

    world.schedule.callLater(1.0, lose)
    world.schedule.callLater(3.0, world.start, "n4")


@pytest.mark.parametrize("fault", [None, kill, cut, wipe])
def test_one_thing_going_wrong_breaks_nothing(fault: Any) -> None:
    """And every invariant that such a run can try was tried."""
    run = Run(1, fault)
    assert [v.text for v in run.tally.violations] == []
    assert set(run.tally.exercised) >= EVERY_RUN | ({"I15"} if fault is None else set())
    assert set(run.tally.exercised) <= set(INVARIANTS)


def test_the_same_seed_is_the_same_run() -> None:
    """To the last line of its trace."""
    first, second = Run(2, kill), Run(2, kill)
    assert first.world.trace.digest() == second.world.trace.digest()
    assert first.tally == second.tally


def test_an_acknowledgement_before_w_disks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that answers at once and sends nothing breaks more than I10."""

    def begin(self: Spread) -> None:
        for half in self._halves:
            half.tally.ack(self._writer.view.name, self.record.context)
        self.answered.callback(None)

    monkeypatch.setattr(Spread, "begin", begin)
    assert run_is_broken() >= {"I10", "I9"}


def test_a_merge_that_forgets_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that takes what comes for all there is."""

    def merge(self: Copies, txn: Any, effects: Any, bucket: bytes, key: bytes, *new: Any) -> Any:
        own(txn, effects, bucket, key, owned(txn, bucket, key), new[0])
        return new[0]

    monkeypatch.setattr(Copies, "_merge", merge)
    assert run_is_broken(cut) >= {"I7"}


def test_a_write_that_ignores_its_context_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client had seen stays beside what it wrote."""

    async def context(self: Any, fields: Any, bucket: str, key: str) -> Any:
        return {}

    monkeypatch.setattr(DocumentedFace, "_context", context)
    assert run_is_broken() >= {"I8", "I3"}


def test_damage_at_rest_that_nobody_finds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrub that does nothing."""

    async def step(self: Scrub) -> bool:
        return False

    monkeypatch.setattr(Scrub, "step", step)
    assert run_is_broken() == {"I6"}


@pytest.mark.parametrize("reads_mend", [True, False])
def test_what_only_anti_entropy_can_mend_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, reads_mend: bool
) -> None:
    """Where no reads are to mend: hints for who was killed are forgotten, and none of the keys that
    it lacks is read before the cluster has come to rest."""
    asked: list[bytes] = []

    def away(world: World, oracle: Oracle) -> None:
        world.schedule.callLater(3.9, world.kill, "n5")
        world.schedule.callLater(5.9, world.start, "n5")
        oracle.reads_mend = reads_mend

    def forget(self: Spread, half: Half, owner: str) -> None:
        pass

    def readable(self: ReturnChecks, rows: Sequence[bytes]) -> None:
        asked.extend(rows)

    monkeypatch.setattr(Spread, "_help", forget)
    monkeypatch.setattr(ReturnChecks, "readable", readable)
    assert run_is_broken(away) == set()
    assert bool(asked) == reads_mend


def run_is_broken(fault: Any = None) -> set[str]:
    return Run(3, fault).broken()
