"""What must hold, whatever goes wrong, and who watches that it does.

    oracle = Oracle(world, history, tally)
    for host in world.hosts.values(): oracle.watch(host)      # before the first start
    clients = Clients(world, plan, history); oracle.clients = clients
    ...                                                       # the run
    oracle.settle()                                           # all nodes up, no fault left

It knows what clients sent and got (`dynamo.sim.history`) and what each commit put on each drive
(`registry`); it asks the nodes nothing but what a client may ask, the ring, and their trees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import attrs

from dynamo.core.layout import Layout
from dynamo.sim.clients import Clients
from dynamo.sim.clocks import EPOCH_S
from dynamo.sim.history import History
from dynamo.sim.oracle.listed import ListingChecks
from dynamo.sim.oracle.live import LiveChecks
from dynamo.sim.oracle.registry import Registry
from dynamo.sim.oracle.repaired import RepairChecks
from dynamo.sim.oracle.rest import RestChecks
from dynamo.sim.oracle.returned import ReturnChecks
from dynamo.sim.oracle.rings import RingChecks
from dynamo.sim.oracle.trees import TreeChecks
from dynamo.sim.schedule import START_S
from dynamo.sim.tally import Tally
from dynamo.sim.workload import APART_KEYS
from dynamo.sim.world import Host, World

SETTLE_S = 120.0
STEP_S, SOON_S = 1.0, 0.02
WHOLE_S = 15.0
"""For so long it is waited that all see each other before hints are in; then it is not tried."""
LOOK_S = 0.25


@attrs.frozen
class Description:
    """An invariant in one sentence. `exercised`: whether a run can put it to the test; if not,
    `why` says what is missing."""

    text: str
    exercised: bool = True
    why: str = ""


INVARIANTS: dict[str, Description] = {
    "I1": Description(
        "No acknowledged write is lost: at rest each acknowledged version is shown by every node "
        "at every R, or was replaced by a write that had seen it or carried no context."
    ),
    "I2": Description(
        "No phantom: every version a client is shown was submitted for that key, whole."
    ),
    "I3": Description(
        "No resurrection: what an acknowledged write or delete replaced is never shown again once "
        "all is quiet."
    ),
    "I4": Description("A key made again after its deletion is not killed by what is left of it."),
    "I5": Description("A dot (actor, counter) of a key never names two writes, on any disk, ever."),
    "I6": Description(
        "At rest the owners of a key hold equal records, nobody keeps copies or hints for others, "
        "and every chunk that a record names is there. At each commit every chunk is durable that "
        "a row comes to name with it; no trees say at any time that records are equal which "
        "are not; and owners that answer a read are equal soon after it."
    ),
    "I7": Description(
        "A record on a disk only grows: the next one knows all that the last one knew; and what "
        "leaves a stand-in is with the owner."
    ),
    "I8": Description(
        "Sessions: what a client had seen when it wrote never comes back beside what it wrote."
    ),
    "I9": Description(
        "In a strict bucket with R+W>N a read or listing shows what was acknowledged before it "
        "began, and any read shows what every owner had on disk before it began; also while the "
        "ring changes."
    ),
    "I10": Description(
        "When a client hears that W nodes have its write, W disks have it, durably."
    ),
    "I11": Description("No write is shown twice; siblings are writes that were truly concurrent."),
    "I12": Description(
        "What lists is what GETs, in order, once; and objects and bytes are counted right."
    ),
    "I13": Description("No client is ever given bytes other than those submitted."),
    "I14": Description("A conditional write answers 501 and is not done."),
    "I15": Description(
        "When nothing has been wrong for a while, every operation succeeds in its time."
    ),
    "I16": Description(
        "Nothing is lost when the ring changes: all adopt the same layouts; a strict write has W "
        "owners in the ring there is and in the coming one; as reads go over, R of the new owners "
        "cannot miss it; what leaves a disk for good is on others, and at rest on its owners' "
        "alone; and who is in no ring does not serve."
    ),
    "I17": Description(
        "Old and new versions work in one cluster.", False, "There is one version of the format."
    ),
    "I18": Description("A node at rest waits for few things, however much it has done."),
}


class Oracle:
    """See the module. `excused` counts what was let pass because no system could have kept it, or
    because of a known limit, by reason. `reads_mend`: whether it is tried that reads mend; if not,
    what only anti-entropy can mend is not read before it has had its time."""

    def __init__(self, world: World, history: History, tally: Tally) -> None:
        self.world = world
        self.tally = tally
        self.registry = Registry(history, tally, self._now)
        self.live = LiveChecks(
            history, self.registry, tally, self._now, self._calm_since, len(world.names)
        )
        self.rings = RingChecks(world, self.live)
        self._trees = TreeChecks(self.rings)
        self.registry.adopted, self.registry.cleared = self.rings.adopted, self.rings.cleared
        self.registry.owners, self.registry.away = self.rings.owners, self._away
        self.registry.stored.drive = lambda name: world.hosts[name].drive
        self.live.owners = self.rings.all_owners
        self.live.by_all_rings, self.live.serves = self.rings.by_all_rings, self._serves
        history.watcher = self.live
        self.live.whole, self.live.well = self._whole, self._well
        self._rest: RestChecks | None = None
        self.reads_mend = True
        self._apart = 0.0
        self._unequal: dict[bytes, None] = {}
        world.schedule.callLater(LOOK_S, self._look)

    @property
    def excused(self) -> Counter[str]:
        """What was let pass, by reason."""
        return self.live.excused

    @property
    def clients(self) -> Clients:
        """Who reads for the oracle in the end; to be set before `settled` or `settle`."""
        assert self._rest is not None, "the oracle has no clients yet"
        return self._rest.clients

    @clients.setter
    def clients(self, clients: Clients) -> None:
        self._rest = RestChecks(self.world, self.live, clients, rings=self.rings)

    def watch(self, host: Host) -> None:
        """Looks on at a drive; to be called before the node's first start."""
        host.drive.on_commit = self.registry.watch(host.name)

    def spoiled(self, name: str, knowing: bool = False) -> None:
        """A drive was wiped, rolled back, or lost or damaged something that was durable: what only
        it had is excused from here on. `knowing`: its node meets a checksum that is wrong, and is
        to answer for nothing of the kind before others have told what it was."""
        if name not in self.registry.mirrors:
            return  # It counts for nothing any more.
        self.live.spoiled[name] = self.world.schedule.now
        if not knowing:
            self.live.emptied[name] = self.world.schedule.now
        self.live.damaged[name] = self.world.hosts[name].starts
        self.registry.reread(name, self.world.hosts[name].drive.durable())

    def layout(self) -> Layout:
        """The last that was decided."""
        return self.rings.latest

    def joins(self, name: str) -> None:
        """A machine has a part in the cluster from now on, with an empty drive."""
        self.watch(self.world.hosts[name])

    def serves(self, text: str) -> None:
        """A node serves though it is in no ring."""
        self.tally.broken("I16", self._now(), text)

    def _serves(self, name: str, since: float) -> bool:
        at = self.world.since.get(name)
        return at is not None and at <= since and name not in self.world.absent

    def _away(self, name: str, other: str) -> bool:
        node = self.world.hosts[name].node
        return node is not None and not (
            node.view.is_healthy(other) or node.view.is_doubtful(other)
        )

    def lags(self, row: bytes) -> bool:
        """Whether it is one of the keys that are written while some owners are away, and they do
        not hold the same."""
        assert self._rest is not None
        found = self.registry.locate(row)
        known = found is not None and found.place[1].startswith(APART_KEYS)
        return known and bool(self._rest.unequal([row]))

    def settled(self) -> bool:
        """Whether all is quiet: no client busy, every node well in the eyes of every other, no
        hints, nothing lost or damaged that is not mended, owners equal."""
        registry = self.registry
        assert self._rest is not None
        if not self.clients.idle():
            return False
        if any(m.hints or m.rotten for m in registry.mirrors.values()):
            return False
        if not self._whole() or any(
            self._rest.lacking(name) for name in self.live.spoiled if name in registry.mirrors
        ):
            return False
        if self.rings.why_not_steady() or set(self.world.running()) != set(self.world.present()):
            return False
        return not self._unequal_now()

    def _unequal_now(self) -> list[bytes]:
        """The rows whose owners do not hold the same."""
        assert self._rest is not None
        rows = list(dict.fromkeys((*self._unequal, *self.registry.dirty)))
        self.registry.dirty.clear()
        self._unequal = dict.fromkeys(self._rest.unequal(rows))
        return list(self._unequal)

    def cut_off(self, away: Sequence[str]) -> None:
        """Checks what is shown while `away` are cut off and nothing else is wrong; time passes."""
        rest, registry = self._rest, self.registry
        assert rest is not None
        if self.rings.why_not_steady():
            return
        self._wait(lambda: self._without(away), LOOK_S, WHOLE_S)
        if self._without(away):
            rows = dict.fromkeys(row for m in registry.mirrors.values() for row in m.records)
            ReturnChecks(rest, ListingChecks(rest)).reachable(list(rows), away)

    def _without(self, away: Sequence[str]) -> bool:
        """Whether all others see that these are away, and none else."""
        names = self.world.present()
        others = [self.world.hosts[name].node for name in names if name not in away]
        return all(
            node is not None
            and node.view.joined
            and not node.identity.refilling
            and all(node.view.is_healthy(name) == (name not in away) for name in names)
            for node in others
        )

    def settle(
        self,
        release: Callable[[], None] = lambda: None,
        rot: Callable[[], None] = lambda: None,
    ) -> None:
        """Waits until all is quiet, and checks what must hold then; time passes. `release` is
        called when every node has seen every other and was asked what it shows; `rot` in the end:
        what it damages has to be whole again though nobody reads it."""
        assert self._rest is not None
        rest, repair = self._rest, RepairChecks(self._rest)
        if self.reads_mend:
            repair.pause()
        self._wait(self._whole, SOON_S, WHOLE_S)
        if self._whole() and not self.rings.why_not_steady():
            returned, rows = ReturnChecks(rest, ListingChecks(rest)), self._unequal_now()
            returned.readable(rows if self.reads_mend else returned.hinted(rows))
        release()
        if self.reads_mend:
            if self._whole() and not self.rings.why_not_steady():
                repair.mended(self._unequal_now())
            repair.resume()
        self._wait(self.settled, STEP_S)
        rest.apart = self._apart
        if not self._whole():
            self.tally.broken(
                "I6", self._now(), "Not every node is well in the eyes of all others."
            )
        why = self.rings.why_not_steady()
        if why:
            self.tally.broken("I16", self._now(), f"The ring does not come to rest. {why}")
        rest.converged()
        ListingChecks(rest).listings(rest.read_all())
        if self.settled():
            rot()
            self._wait(self.settled, STEP_S)
            rest.mended()

    def _wait(self, until: Callable[[], bool], step: float, most: float = SETTLE_S) -> None:
        end = self.world.schedule.now + most
        while not until() and self.world.schedule.now < end:
            self.world.run_for(step)

    def _whole(self) -> bool:
        """Whether all nodes run, see each other, and have what was on a lost disk."""
        nodes = [self.world.hosts[name].node for name in self.world.present()]
        return self._well() and not any(n is not None and n.identity.refilling for n in nodes)

    def _well(self) -> bool:
        """Whether all nodes run and see each other."""
        names = self.world.present()
        nodes = [self.world.hosts[name].node for name in names]
        return all(
            node is not None
            and node.view.joined
            and all(node.view.is_healthy(name) for name in names)
            for node in nodes
        )

    def _now(self) -> float:
        return self.world.schedule.now - START_S

    def _calm_since(self) -> float | None:
        return getattr(self.world, "calm_since", None)

    def _look(self) -> None:
        self.rings.look()
        self._trees.look()
        if self._rest is None or not self._whole():
            self.live.whole_since = None
        elif self.live.whole_since is None:
            self.live.whole_since = self.world.schedule.now
        if self._rest is None or not self._well():
            self.live.well_since = None
        elif self.live.well_since is None:
            self.live.well_since = self.world.schedule.now
        now = EPOCH_S + self.world.schedule.now - START_S
        wrong = [host.wall() - now for host in self.world.hosts.values()]
        self._apart = max(self._apart, max(wrong) - min(wrong), *wrong, *(-w for w in wrong))
        self.world.schedule.callLater(LOOK_S, self._look)


__all__ = ["INVARIANTS", "Description", "Oracle"]
