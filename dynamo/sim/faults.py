"""What goes wrong in a run: the kinds there are, how they are drawn, and who makes them happen.

Each seed has a random half of the kinds, as in swarm testing (Groce et al., ISSTA 2012): what all
of them together would hide comes to light where some are absent. Some plans have one fault after
the other, most have them overlap. All are over before a run is judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Protocol

import attrs

from dynamo.sim.fault_disks import DISK_KINDS, SPOILING, Disks
from dynamo.sim.fault_links import LINK_KINDS, Links
from dynamo.sim.fault_processes import PROCESS_KINDS, Processes
from dynamo.sim.fault_rings import COMING, RING_KINDS, Rings
from dynamo.sim.plan import LASTING_S, Fault

if TYPE_CHECKING:
    from dynamo.core.layout import Layout
    from dynamo.sim.disk import Drive
    from dynamo.sim.world import World

FAILURES: dict[str, str] = {**LINK_KINDS, **PROCESS_KINDS, **DISK_KINDS}
KINDS: dict[str, str] = {**FAILURES, **RING_KINDS}
"""Every kind, and in a sentence what it does."""

NOT_YET: dict[str, str] = {}
"""Kinds that are not drawn, because the code has nothing yet that would mend them."""

SECONDS_MIN, SECONDS_MAX = 0.05, 60.0
ONCE = frozenset(("reset", "half_open", "chunk_flip", "record_flip"))
PAIRED = frozenset(("reset", "half_open"))
GROUPED = frozenset(("partition", "one_way"))

LAST = ("partition", "partition", "isolate", "kill", "power_cut")
LAST_S = (8.0, 20.0)
APART_S, THEN_S = 8.0, 18.0
"""For so long before and after a flip some cannot be reached; after it long enough for them to be
held dead, and to be awaited by nobody."""
HOLD_S = 0.01
"""How often it is looked whether a node is back."""

_AMOUNTS: dict[str, tuple[float, float]] = {
    "loss": (0.05, 0.95),
    "doubling": (0.05, 0.9),
    "latency": (0.002, 2.0),
    "bandwidth": (20e3, 1e6),
    "slow": (0.0005, 0.01),
    "relapse": (0.001, 3.0),
    "clock_jump": (0.05, 1e5),
    "clock_drift": (0.0005, 0.5),
    "disk_slow": (3.0, 300.0),
    "rejoin": (0.3, 10.0),
    "reweigh": (0.4, 4.0),
}
"""From where to where; drawn evenly by magnitude."""


def draw(
    rng: Random, *, names: Sequence[str], seconds: float, kinds: Iterable[str] = FAILURES
) -> tuple[Fault, ...]:
    """The faults of one run on the nodes `names`, in the order of their begin."""
    kinds = [kind for kind in kinds if kind not in NOT_YET and rng.random() < 0.5]
    if not kinds:
        return ()
    rng.shuffle(kinds)
    frail = rng.choice(names)
    single = rng.random() < 0.3
    faults = rng.randint(1, 14)
    made, at = [], rng.uniform(0.0, 5.0)
    for number in range(faults):
        # A kind that was drawn for this seed comes at least once, if there are faults enough.
        kind = kinds[number % len(kinds)] if number < len(kinds) else rng.choice(kinds)
        if not single:
            at = rng.uniform(0.0, seconds * 0.95)
        fault = _fault(rng, kind, at, names, frail)
        if single and fault.at >= seconds:
            break
        made.append(fault)
        at += fault.seconds + rng.uniform(0.0, 10.0)
    return tuple(sorted(made, key=lambda fault: fault.at))


def draw_changes(
    rng: Random, *, names: Sequence[str], founders: int, seconds: float, links: bool
) -> tuple[Fault, ...]:
    """Changes of the ring: one after the other, or at any times. `links`: only such as end no
    node without its having told what it knows."""
    kinds = ("join", "join", "rejoin", "leave", "leave", "remove", "remove", "replace", "reweigh")
    frail, spare = rng.choice(names[:founders]), list(names[founders:])
    rng.shuffle(spare)
    apart, at, made = rng.random() < 0.5, rng.uniform(1.0, 15.0), []
    for number in range(rng.randint(2, 6)):
        kind = rng.choice(("join", "leave") if links else kinds)
        if not number and rng.random() < 0.5:
            kind = "join"
        if kind in COMING:
            # Who left may come anew.
            targets = rng.sample(list(names), 2) if rng.random() < 0.5 else spare[:2]
            targets = targets[: rng.choice((1, 1, 2))]
        else:
            targets = [frail if kind == "replace" else rng.choice(names)]
        if not apart:
            at = rng.uniform(1.0, seconds * 0.9)
        lasts = rng.uniform(12.0, 40.0) if kind not in COMING else rng.uniform(10.0, 12.0)
        fault = _fault(rng, kind, at, targets, frail)
        made.append(attrs.evolve(fault, targets=tuple(targets), seconds=round(lasts, 3)))
        if rng.random() < 0.6:
            made.append(_drag(rng, at, names, links))
        at += rng.uniform(4.0, 25.0)
    return tuple(sorted((f for f in made if f.at < seconds), key=lambda fault: fault.at))


def _drag(rng: Random, at: float, names: Sequence[str], links: bool) -> Fault:
    """Something that makes one node slow to follow a change, so that it lasts."""
    kind = "latency" if links else rng.choice(("latency", "disk_slow", "slow", "stream_stall"))
    lasts = rng.uniform(2.0, 10.0)
    fault = _fault(rng, kind, max(at + rng.uniform(-1.0, 1.0), 0.0), names, rng.choice(names))
    targets, amount = (rng.choice(names),), {"latency": 0.3, "disk_slow": 100.0}.get(kind)
    amount = fault.amount if amount is None else round(amount * rng.uniform(0.3, 2.0), 3)
    return attrs.evolve(fault, targets=targets, seconds=round(lasts, 3), amount=amount)


def draw_last(
    rng: Random, *, names: Sequence[str], seconds: float, links: bool
) -> tuple[Fault, ...]:
    """One that is over only when everything is mended, so that hints wait for some node then;
    in half of the runs."""
    if rng.random() < 0.5:
        return ()
    kind = rng.choice(("partition", "isolate") if links else LAST)
    at = seconds - rng.uniform(*LAST_S)
    # As many as can be without most: of some keys only stand-ins and one owner are left.
    count = max(1, (len(names) - 1) // 2) if kind == "partition" else 1
    kind = "partition" if kind == "isolate" else kind
    targets = tuple(rng.sample(list(names), count))
    return (Fault(at=round(at, 3), kind=kind, targets=targets, seconds=LASTING_S),)


def draw_around_flips(
    rng: Random, drawn: Sequence[Fault], *, names: Sequence[str]
) -> tuple[Fault, ...]:
    """So that a damaged record cannot be mended by those who can be reached, mostly.

    Two of the node's peers are away before the flip and lack what the other two have; then those
    two are away. Whoever mends by too few answers forgets what only the node itself had."""
    made: list[Fault] = []
    for fault in drawn:
        if fault.kind != "record_flip" or fault.at < APART_S or len(names) != 5:
            continue
        if rng.random() < 0.2:
            continue
        others = [name for name in names if name != fault.targets[0]]
        rng.shuffle(others)
        first, then = (others[0], others[1]), (others[2], others[3])
        at = fault.at - APART_S
        made += [
            Fault(at=round(at, 3), kind="partition", targets=first, seconds=APART_S - 0.3),
            Fault(at=round(fault.at - 0.35, 3), kind="partition", targets=then, seconds=THEN_S),
        ]
        made += [attrs.evolve(fault, at=round(fault.at + 0.01 * n, 3)) for n in (1, 2)]
    return tuple(made)


def _fault(rng: Random, kind: str, at: float, names: Sequence[str], frail: str) -> Fault:
    seconds = 0.0 if kind in ONCE else _between(rng, SECONDS_MIN, SECONDS_MAX)
    amount = _between(rng, *_AMOUNTS[kind]) if kind in _AMOUNTS else rng.random()
    if kind in ("clock_jump", "clock_drift") and rng.random() < 0.5:
        amount = -amount
    return Fault(
        at=round(at, 3),
        kind=kind,
        targets=_targets(rng, kind, names, frail),
        seconds=round(seconds, 3),
        amount=round(amount, 6),
    )


def _targets(rng: Random, kind: str, names: Sequence[str], frail: str) -> tuple[str, ...]:
    if kind in SPOILING:
        return (frail,)
    if kind in PAIRED:
        count = 2
    elif kind in GROUPED:
        count = rng.randint(1, len(names) - 1)
    elif kind == "bridge":
        count = rng.randint(2, len(names) - 1)
    elif kind == "crash_many":
        count = rng.randint(2, len(names))
    elif kind in LINK_KINDS and kind != "client_cut":
        count = rng.choice((1, 2, len(names)))
    else:
        count = 1
    return tuple(rng.sample(list(names), count))


def _between(rng: Random, least: float, most: float) -> float:
    """Evenly by magnitude."""
    return float(least * (most / least) ** rng.random())


class Watched(Protocol):
    """What faults ask and tell the oracle."""

    def settled(self) -> bool: ...

    def spoiled(self, name: str, knowing: bool = False) -> None: ...

    def lags(self, row: bytes) -> bool: ...

    def layout(self) -> Layout: ...

    def joins(self, name: str) -> None: ...

    def serves(self, text: str) -> None: ...


class Faults:
    """Makes faults happen, and end. `injected` counts those that did something, by kind."""

    def __init__(self, world: World, oracle: Watched) -> None:
        self._world = world
        self._links = Links(world)
        self._processes = Processes(world, self._look)
        self._disks = Disks(world, self._processes, oracle.settled, oracle.spoiled, oracle.lags)
        self._rings = Rings(
            world,
            self._processes,
            layout=oracle.layout,
            joins=oracle.joins,
            spoiled=oracle.spoiled,
            may_spoil=self._disks.may_spoil,
            links_well=self._are_links_well,
            wrong=oracle.serves,
        )
        self._active: dict[int, Fault] = {}
        self._numbers = count()
        self._healed = False
        self._back: list[str] = []
        self._held: list[Drive] = []
        self.injected: Counter[str] = Counter()

    def begin(self, faults: Iterable[Fault]) -> None:
        """Their `at` counts from now."""
        for fault in faults:
            self._world.schedule.callLater(fault.at, self._begin, next(self._numbers), fault)

    def cut_off(self) -> tuple[str, ...]:
        """Who is cut off and in the minority, if that is all that is wrong."""
        active = list(self._active.values())
        if len(active) != 1 or active[0].kind != "partition" or self._processes.rising:
            return ()
        present = self._world.present()
        away = tuple([name for name in active[0].targets if name in present])
        return away if 2 * len(away) < len(present) else ()

    def heal(self) -> None:
        """Ends every fault, and lets none begin any more. Nodes that are down are started. Of those
        cut off until now, being the fewer, the disks stand still from when another node finds them
        well until `release`: so it can be seen what is shown while hints for them wait."""
        self._healed = True
        names = self._world.present()
        cut_off = [f.targets for f in self._active.values() if f.kind == "partition"]
        few = [
            targets if 2 * len(targets) < len(names) else sorted(set(names) - set(targets))
            for targets in ([t for t in cut if t in names] for cut in cut_off)
        ]
        for number in list(self._active):
            self._end(number)
        for name in names:
            self._processes.rise(name)
        self._back = list(dict.fromkeys(name for some in few for name in some))
        self._hold()
        self._look()

    def _hold(self) -> None:
        world = self._world
        self._back = [name for name in self._back if name not in world.absent]
        for name in list(self._back):
            others = [h.node for h in world.hosts.values() if h.name != name and h.node is not None]
            drive = world.hosts[name].drive
            if drive.is_open and any(node.view.is_healthy(name) for node in others):
                self._back.remove(name)
                self._held.append(drive)
                drive.stalled = True
        if self._back:
            world.schedule.callLater(HOLD_S, self._hold)

    def release(self) -> None:
        """Now nothing is wrong any more."""
        self._back.clear()
        for drive in self._held:
            drive.stalled = False
        self._held.clear()
        self._look()

    def rot(self) -> None:
        """Lets bits flip at rest, where nobody reads: only a scrub can find them then."""
        self._disks.rot()

    @property
    def calm(self) -> bool:
        """Whether every fault is over; disks may still be held."""
        return not self._active and not self._processes.rising

    def _are_links_well(self) -> bool:
        return not any(fault.kind in LINK_KINDS for fault in self._active.values())

    def _part(self, kind: str) -> Links | Processes | Disks | Rings:
        if kind in LINK_KINDS:
            return self._links
        if kind in RING_KINDS:
            return self._rings
        return self._processes if kind in PROCESS_KINDS else self._disks

    def _begin(self, number: int, fault: Fault) -> None:
        if self._healed:
            return
        trace, whom = self._world.trace, ", ".join(fault.targets)
        if trace.on:
            trace.add("fault", f"{fault.kind} {whom} {fault.amount:g} for {fault.seconds:g} s")
        self._active[number] = fault
        self._look()
        why_not = self._part(fault.kind).begin(number, fault)
        if why_not:
            trace.add("fault", f"{fault.kind} {whom} skipped: {why_not}")
            del self._active[number]
        else:
            self.injected[fault.kind] += 1
            self._world.schedule.callLater(fault.seconds, self._end, number)
        self._look()

    def _end(self, number: int) -> None:
        fault = self._active.get(number)
        if fault is None:
            return
        self._world.trace.add("fault", f"{fault.kind} {', '.join(fault.targets)} is over")
        self._part(fault.kind).end(number)
        del self._active[number]
        self._look()

    def _look(self) -> None:
        """Keeps `calm_since` true. While a disk is held, a node may well not come to serve."""
        if not self.calm or self._back or self._held:
            self._world.calm_since = None
        elif self._world.calm_since is None:
            self._world.calm_since = self._world.schedule.now
