"""For each mutant one small act at its seam, and whether it came out as it should.

A probe is true of the code as it is and false of the code with the fault in it. Nothing here is
about whether a simulation notices: only that a mutant does what it says.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred

from dynamo.coordinator.requests import Options
from dynamo.core import merkle, preference, quorum, sightings
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.members import Liveness
from dynamo.core.record import EMPTY, Record
from dynamo.errors import Corrupt, DynamoError, MissingChunks, NotOffered, PeerBroke, QuorumNotMet
from dynamo.storage import broken, ledger
from dynamo.storage.chunks import digest_of
from dynamo.storage.committer import Committer
from dynamo.storage.memory_engine import MemoryEngine
from dynamo.wire import codec, messages
from tests.support.cluster import TestCluster
from tests.support.disk import INCARNATION, Disk, draft, now, record
from tests.support.shells import World
from tests.support.swim_machine import Bed
from tests.support.swim_machine import record as member

Probe = Callable[[], bool]
PROBES: dict[str, Probe] = {}


def probe(name: str) -> Callable[[Probe], Probe]:
    """Names the mutant that a function is the probe of."""

    def note(function: Probe) -> Probe:
        assert name not in PROBES
        PROBES[name] = function
        return function

    return note


def ids(of: Record) -> list[str]:
    return [version.id for version in of.versions]


def shown(of: Record) -> list[bytes]:
    return sorted(version.body for version in of.live())


# Records.


@probe("latest-for-siblings")
def _() -> bool:
    return len(record("1", "a").merge(record("2", "b")).versions) == 2


@probe("merge-drops-a-side")
def _() -> bool:
    return ids(record("1", "a").merge(record("2", "b"))) == ["a.1", "b.1"]


@probe("merge-ignores-context")
def _() -> bool:
    old = record("1", "a")
    deleted = old.put(None, actor="b", stamp=2)
    return old.merge(deleted).versions == ()


@probe("merge-forgets-context")
def _() -> bool:
    return Record({"b": 1}).merge(Record({"a": 3})).context == {"a": 3, "b": 1}


@probe("retry-makes-a-sibling")
def _() -> bool:
    once = EMPTY.put(draft("1"), actor="a", stamp=1, context={})
    return len(once.put(draft("1"), actor="a", stamp=2, context={}).live()) == 1


@probe("put-keeps-what-it-covers")
def _() -> bool:
    return ids(record("1", "a").put(draft("2"), actor="b", stamp=2)) == ["b.1"]


@probe("dot-counted-from-context")
def _() -> bool:
    return ids(record("1", "a").put(draft("2"), actor="a", stamp=2, context={})) == ["a.1", "a.2"]


@probe("delete-drops-unseen")
def _() -> bool:
    return ids(record("1", "a").put(None, actor="a", stamp=2, context={})) == ["a.1"]


@probe("context-ignored")
def _() -> bool:
    cluster = TestCluster(3)
    cluster.put("n1", "k", b"1", context={})
    cluster.put("n1", "k", b"2", context={})
    return len(cluster.nodes["n1"].owned("k").versions) == 2


@probe("tombstone-forgotten")
def _() -> bool:
    disk = Disk()
    disk.put(b"k", draft("1"))
    disk.put(b"k", None)
    return disk.read(b"k").context == {"me": 1}


@probe("stamp-below-what-it-replaces")
def _() -> bool:
    disk = Disk()
    disk.merge(b"k", record("1", stamp=500))
    return disk.put(b"k", draft("2"), stamp=7).versions[0].stamp == 501


# Quorums.


@probe("w-minus-one")
def _() -> bool:
    tally = quorum.WriteTally(2)
    tally.ask("b")
    tally.ack("a", {})
    return tally.verdict == "pending"


@probe("r-minus-one")
def _() -> bool:
    return len(TestCluster(3).get("n1", "k", r=2).replicas) == 2


@probe("awaiting-ignored")
def _() -> bool:
    tally = quorum.ReadTally(1)
    tally.answer("a", EMPTY, ["b"])
    return tally.counted() == ()


@probe("stand-ins-outvote")
def _() -> bool:
    tally = quorum.ReadTally(1, stand_ins=frozenset("b"))
    tally.ask("a")
    tally.answer("b", EMPTY)
    return tally.verdict == "pending"


@probe("held-copy-unread")
def _() -> bool:
    disk = Disk()
    disk.hold("n2", b"k", record("1"))
    return disk.read(b"k").known()


@probe("strict-is-sloppy")
def _() -> bool:
    cluster = TestCluster(4)
    ranking = cluster.ranking("k")
    cluster.cut(ranking[2])
    written = cluster.put(ranking[0], "k", options={"quorum": "strict"})
    cluster.pass_time(1)
    return ranking[3] not in written.replicas and cluster.hints().get(ranking[3]) is None


@probe("owners-not-distinct")
def _() -> bool:
    return preference.prefer("abcd", 3, lambda _: True, False).owners == ("a", "b", "c")


@probe("owners-by-viewer")
def _() -> bool:
    cluster = TestCluster(5)
    seen = {
        cluster.nodes[name].door.preferences.of(INCARNATION, b"k", 3, False).owners
        for name in cluster.names
    }
    return len(seen) == 1


@probe("timers-leak")
def _() -> bool:
    cluster = TestCluster(3)
    cluster.get("n1", "k")
    cluster.pass_time(60)
    return not cluster.clock.getDelayedCalls()


@probe("conditional-write-ignored")
def _() -> bool:
    from dynamo.api import parameters

    try:
        parameters.refuse_conditional_write({b"if-match": b'"x"'})
    except NotOffered:
        return True
    return False


# Storage.


@probe("acknowledge-before-fsync")
def _() -> bool:
    synced: list[Deferred[Any]] = []

    def run(call: Callable[[], Any], /) -> Deferred[Any]:
        result = call()
        done: Deferred[Any] = Deferred()
        synced.append(done)
        return done.addCallback(lambda _: result)

    heard: list[object] = []
    Committer(MemoryEngine(), run).submit(lambda txn: "done").addCallback(heard.append)
    early = list(heard)
    synced[0].callback(None)
    return not early and heard == ["done"]


@probe("sends-before-it-stores")
def _() -> bool:
    cluster = TestCluster(3)
    answered = cluster.nodes["n1"].copies.coordinate(
        INCARNATION, b"k", draft("1"), actor="n1", stamp=1, context=None
    )
    early = answered.called
    cluster.pass_time(1)
    return not early and cluster.nodes["n1"].copies.read(INCARNATION, b"k").known()


@probe("batch-loses-its-last")
def _() -> bool:
    disk = Disk()
    many = [(INCARNATION, key, record("1"), False) for key in (b"a", b"b")]
    now(disk.copies.merge_all(many))
    return disk.read(b"b").known()


@probe("actor-kept-after-a-wipe")
def _() -> bool:
    world = World()
    world.form("n1", "n2", "n3")
    world.run(5)
    world.nodes["n2"].kill()
    world.run(30)
    world.start("n2", "n1", wipe=True)
    world.run(30)
    return world.nodes["n2"].identity.actor == "n2~2"


@probe("rollback-unnoticed")
def _() -> bool:
    mine, seen = sightings.Origin("n1", 7, "now", 3), sightings.Origin("n1", 7, "before", 4)
    return sightings.rolled_back(mine, [seen])


@probe("hand-kept")
def _() -> bool:
    disk = Disk()
    disk.put(b"k", draft("1"), owner=False, missed_by=["n2"])
    disk.drop("n2")
    return ledger.signs_as(disk.engine.view(), "me") == "me~1~2"


@probe("chunks-unverified")
def _() -> bool:
    disk = Disk()
    digest = disk.chunk(b"whole")
    disk.chunks.stored[digest] = b"whale"
    try:
        return now(disk.chunks.read(digest)) == b"whole"
    except Corrupt:
        return True


@probe("chunk-freed-too-early")
def _() -> bool:
    disk = Disk()
    digest = disk.chunk(b"shared")
    for key in (b"a", b"b"):
        disk.put(key, draft(key.decode(), b"", digest))
    disk.put(b"a", None)
    return disk.chunks.has(digest)


@probe("discard-without-looking")
def _() -> bool:
    disk = Disk()
    digest = disk.chunk(b"used")
    disk.put(b"k", draft("1", b"", digest))
    now(disk.copies.discard([digest]))
    return disk.chunks.has(digest)


@probe("chunks-never-freed")
def _() -> bool:
    disk = Disk()
    digest = disk.chunk(b"used")
    disk.put(b"k", draft("1", b"", digest))
    disk.put(b"k", None)
    return not disk.chunks.has(digest)


@probe("record-without-chunks")
def _() -> bool:
    disk = Disk()
    absent = record("1", "a", 1, digest_of(b"absent"))
    with suppress(MissingChunks):
        disk.merge(b"k", absent)
    return disk.read(b"k") == EMPTY


def refuses(call: Callable[[], object]) -> bool:
    """Whether it finds damage."""
    try:
        call()
    except Corrupt:
        return True
    return False


@probe("rows-unverified")
def _() -> bool:
    sealed = codec.seal("records", b"row", b"what was said")
    return refuses(lambda: codec.unseal("records", b"row", sealed[:-1] + b"X"))


@probe("damage-is-not-found")
def _() -> bool:
    return refuses(lambda: broken.require(broken.Kept(EMPTY, b"what is left"), b"k"))


# Hints.


@probe("hint-skipped")
def _() -> bool:
    disk = Disk()
    disk.put(b"k", draft("1"), missed_by=["n2"])
    return disk.copies.hints.counts == {"n2": 1}


@probe("stand-in-without-hint")
def _() -> bool:
    disk = Disk()
    disk.hold("n2", b"k", record("1"))
    return disk.copies.hints.counts == {"n2": 1}


@probe("late-owner-without-hint")
def _() -> bool:
    cluster = TestCluster(3)
    a, _, c = cluster.ranking("k")
    cluster.cut(c, known=False)
    cluster.put(a, "k")
    cluster.pass_time(1)
    return cluster.hints() == {a: {c: 1}}


def handed(**faults: Any) -> tuple[TestCluster, str, str]:
    """Three owners, of which the last missed a write and is back; the links to it as said."""
    cluster = TestCluster(3)
    a, _, c = cluster.ranking("k")
    cluster.cut(c)
    cluster.put(a, "k")
    cluster.pass_time(1)
    cluster.heal(c)
    for name, value in faults.items():
        setattr(cluster.link(a, c), name, value)
    with suppress(DynamoError):
        cluster.run(cluster.nodes[a].handoff.step())
    return cluster, a, c


@probe("handoff-drops-unacknowledged")
def _() -> bool:
    cluster, a, c = handed(down=True)
    return cluster.hints() == {a: {c: 1}}


@probe("handoff-to-another")
def _() -> bool:
    cluster, _, c = handed()
    return cluster.nodes[c].owned("k").known()


@probe("hint-dropped-though-changed")
def _() -> bool:
    disk = Disk()
    disk.hold("n2", b"k", record("1"))
    sent = [h for _, h in disk.copies.hints.batch(disk.engine.view(), "n2", b"", 9)]
    disk.hold("n2", b"k", record("2", "b"))
    now(disk.copies.drop_hints("n2", "me", sent))
    return disk.copies.hints.counts == {"n2": 1}


def repaired() -> TestCluster:
    """One of three owners lacks the newer of two writes and nothing but a read will tell it."""
    cluster = TestCluster(3)
    cluster.put("n1", "k", b"old")
    cluster.pass_time(1)
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    newer = cluster.nodes["n1"].owned("k").put(draft("new", b"new"), actor="x", stamp=2**60)
    for name in ("n1", "n2"):
        cluster.wait(cluster.nodes[name].copies.merge(incarnation, b"k", newer))
    cluster.get("n1", "k", r=3)
    cluster.pass_time(1)
    return cluster


@probe("no-read-repair")
def _() -> bool:
    return shown(repaired().nodes["n3"].owned("k")) == [b"new"]


@probe("repair-writes-the-stale-back")
def _() -> bool:
    cluster = TestCluster(3)
    cluster.put("n1", "k", b"old")
    cluster.pass_time(1)
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    newer = cluster.nodes["n1"].owned("k").put(draft("new", b"new"), actor="x", stamp=2**60)
    cluster.wait(cluster.nodes["n2"].copies.merge(incarnation, b"k", newer))
    cluster.get("n1", "k", r=3)
    cluster.pass_time(1)
    return all(shown(cluster.nodes[name].owned("k")) == [b"new"] for name in ("n1", "n3"))


# Anti-entropy.


def compared() -> bool:
    """Ten keys that one owner alone has, and the others compare with it."""
    cluster = TestCluster(3)
    cluster.compare_all()
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    keys = [f"k{number}" for number in range(10)]
    for key in keys:
        cluster.wait(cluster.nodes["n1"].copies.merge(incarnation, key.encode(), record(key)))
    cluster.compare_all()
    return all(node.owned(key).known() for node in cluster.nodes.values() for key in keys)


for _name in (
    "owners-never-compared",
    "tree-skips-leaves",
    "tree-out-of-step",
    "mending-pulls-only",
    "odd-partitions-never-compared",
):
    probe(_name)(compared)


@probe("tree-blind-to-context")
def _() -> bool:
    one, two = Record({"a": 1}), Record({"a": 2})
    return merkle.fingerprint(b"place", one) != merkle.fingerprint(b"place", two)


@probe("scrub-idle")
def _() -> bool:
    cluster = TestCluster(1, n=1)
    scrub = cluster.nodes["n1"].upkeep.scrub
    for _ in range(20):
        cluster.run(scrub.step())
        cluster.pass_time(1)
    return scrub.passes > 0


@probe("mended-by-the-first")
def _() -> bool:
    cluster = TestCluster(3)
    cluster.put("n1", "k")
    cluster.pass_time(1)
    node = cluster.nodes["n1"]
    node.damage("k")
    cluster.cut("n3")
    with suppress(Corrupt):
        node.copies.read(cluster.nodes["n1"].table.get("b").incarnation, b"k")
    cluster.mend("n1")
    return refuses(lambda: node.owned("k"))


@probe("refill-counts-too-early")
def _() -> bool:
    cluster = TestCluster(3)
    cluster.put("n1", "k")
    cluster.pass_time(1)
    node = cluster.wipe("n1")
    return node.whole.awaits(cluster.nodes["n2"].table.get("b").incarnation, b"k") == ("n2", "n3")


@probe("reaped-without-those-away")
def _() -> bool:
    cluster = TestCluster(3)
    cluster.put("n1", "k")
    cluster.delete("n1", "k")
    cluster.pass_time(1)
    cluster.cut("n3")
    return cluster.reap() == 3


# Buckets and listings.


@probe("incarnation-ignored")
def _() -> bool:
    return Bucket("b", 1).incarnation != Bucket("b", 2).incarnation


@probe("bucket-answered-early")
def _() -> bool:
    cluster = TestCluster(3)
    partition = cluster.ring.partition(b"buckets!", b"new")
    first, _, last = cluster.ring.ranking(partition)
    cluster.link(first, last).delay = 0.2
    cluster.link(first, last).refuse = lambda op: (
        PeerBroke(last, "is asked nothing") if isinstance(op, messages.BucketRead) else None
    )
    cluster.run(cluster.nodes[first].door.create_bucket("new", Properties()))
    return all(node.table.get("new").exists for node in cluster.nodes.values())


@probe("buckets-not-exchanged")
def _() -> bool:
    world = World()
    world.form("n1", "n2")
    world.run(5)
    world.nodes["n2"].kill()
    world.run(30)
    world.nodes["n1"].buckets.merge([Bucket("b").create(1, 1, Properties())])
    world.run(1)
    world.start("n2", "n1")
    world.run(30)
    return world.nodes["n2"].buckets.get("b").exists


def listed(cluster: TestCluster, at: str, limit: int = 10, **options: Any) -> list[str]:
    page = cluster.run(
        cluster.nodes[at].door.list(
            "b", prefix="", delimiter="", start_after="", limit=limit, options=Options(**options)
        )
    )
    return [entry.key for entry in page.objects]


@probe("page-drops-its-last")
def _() -> bool:
    cluster = TestCluster(1, n=1)
    for key in ("a", "b", "c"):
        cluster.put("n1", key)
    return listed(cluster, "n1", 2) == ["a", "b"]


@probe("listing-hears-one")
def _() -> bool:
    cluster = TestCluster(3)
    cluster.put("n1", "k")
    cluster.pass_time(1)
    cluster.cut("n1")
    cluster.delete("n2", "k")
    cluster.pass_time(1)
    cluster.heal("n1")
    for node in cluster.nodes.values():
        node.view.knows_hints = False
    return listed(cluster, "n1") == []


@probe("listing-ignores-awaiting")
def _() -> bool:
    cluster = TestCluster(3)
    cluster.cut("n3")
    cluster.put("n1", "k")
    cluster.pass_time(1)
    cluster.heal("n3")
    for link in cluster.around("n1"):
        link.down = True
    cluster.told("n3", "n1", "suspect")
    cluster.nodes["n3"].view.awaiting = lambda: ("n1",)  # type: ignore[method-assign]
    try:
        return listed(cluster, "n3", r=1) == ["k"]
    except QuorumNotMet:
        return True


# Members.


@probe("refutation-ignored")
def _() -> bool:
    bed = Bed().know(member("n2", 1, Liveness.SUSPECT))
    bed.exchange(member("n2", 2))
    return bed.liveness("n2") == "alive"


@probe("accused-does-not-refute")
def _() -> bool:
    bed = Bed().know(member("n2"))
    before = bed.swim.me.incarnation
    accused = bed.swim.me.become(Liveness.SUSPECT)
    bed.exchange(accused, by="n2")
    return bed.swim.me.incarnation > before


@probe("suspect-is-dead-for-ever")
def _() -> bool:
    world = World()
    world.form("n1", "n2", "n3")
    world.run(5)
    world.apart("n2")
    world.run(60)
    world.heal()
    world.run(120)
    return world.nodes["n1"].view.is_healthy("n2")


@probe("dead-lose-ownership")
def _() -> bool:
    world = World()
    n1, _, n3 = world.form("n1", "n2", "n3")
    n3.kill()
    world.until(lambda: n1.liveness()["n3"] == "dead", "n3 is dead")
    return n1.ring() == {"n1", "n2", "n3"}
