"""The path of a write while the ring changes: W of each ring, everybody once, nobody forgotten."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from dynamo.coordinator.bodies import CHUNK_BYTES
from dynamo.coordinator.requests import Options, Upload
from dynamo.core.record import Record
from dynamo.errors import QuorumNotMet
from dynamo.wire.messages import Coordinate, Merge
from tests.shell.test_bodies import body_of
from tests.support.cluster import Body, TestCluster

BIG = bytes(range(256)) * 8192
OLD, NEW = ("n1", "n2", "n3"), ("n4", "n5", "n6")


def changing(before: tuple[str, ...], after: tuple[str, ...], **more: Any) -> TestCluster:
    """One ring is in place and another is coming."""
    cluster = TestCluster(7, **more)
    cluster.found(*before)
    cluster.change(*after)
    return cluster


def owners(cluster: TestCluster, key: str, n: int = 3) -> tuple[set[str], set[str]]:
    """By the ring, and by the one beside it."""
    view = cluster.nodes["n1"].view
    assert view.beside is not None
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    partition = view.ring.partition(incarnation, key.encode())
    return set(view.ring.ranking(partition)[:n]), set(view.beside.ranking(partition)[:n])


def a_key(cluster: TestCluster, fits: Any) -> str:
    """One whose owners by the two rings are as wanted."""
    return next(k for i in range(2000) if fits(*owners(cluster, k := f"k{i}")))


def holders(cluster: TestCluster, key: str = "k") -> set[str]:
    """Who has it as an owner."""
    return {name for name, node in cluster.nodes.items() if node.owned(key).live()}


def merges(cluster: TestCluster) -> Counter[str]:
    return Counter(there for _, there, op in cluster.network.sent if isinstance(op, Merge))


@pytest.mark.parametrize("switched", [False, True])
@pytest.mark.parametrize("at", ["n1", "n4", "n7"])
def test_a_write_reaches_both_rings(switched: bool, at: str) -> None:
    """Whoever is asked, and whichever of the two reads go by; one of the ring coordinates it."""
    cluster = changing(OLD, NEW)
    if switched:
        cluster.switch()
    written = cluster.put(at, "k", b"hello")
    reads = NEW if switched else OLD
    assert written.coordinator in reads
    assert set(written.context) <= set(reads), "an owner by the other ring gives out no dots"
    assert len({*written.replicas} & {*OLD}) >= 2
    assert len({*written.replicas} & {*NEW}) >= 2
    cluster.pass_time(1)
    assert holders(cluster) == {*OLD, *NEW}
    assert cluster.hints() == {}


@pytest.mark.parametrize("lost", [OLD[1:], NEW[1:]])
def test_w_is_needed_of_each_ring(lost: tuple[str, ...]) -> None:
    """Five of six acknowledgements are enough if the sixth is any; two of one ring missing is a
    failure that says how many that ring had."""
    for name in (*OLD[1:], *NEW):
        cluster = changing(OLD, NEW)
        cluster.cut(name, known=False)
        assert len(cluster.put("n1", "k").replicas) >= 4
    for known in (True, False):
        cluster = changing(OLD, NEW)
        for name in lost:
            cluster.cut(name, known=known)
        with pytest.raises(QuorumNotMet) as raised:
            cluster.put("n1", "k")
        assert raised.value.needed == 2
        if not known:
            assert raised.value.answered == 1


def test_the_answer_waits_for_the_slower_ring() -> None:
    """And not for the third of either."""
    cluster = changing(OLD, NEW)
    for name in ("n5", "n6"):
        cluster.link("n1", name).delay = 0.05
    cluster.link("n1", "n3").hang = True
    before = cluster.clock.seconds()
    cluster.put("n1", "k")
    assert 0.1 <= cluster.clock.seconds() - before < 0.2


def test_an_owner_by_both_rings_is_sent_it_once() -> None:
    """And counts in each."""
    cluster = changing(OLD, ("n2", "n3", "n4"))
    cluster.cut("n4", known=False)
    written = cluster.put("n1", "k", options={"w": 2})
    assert set(written.replicas) == {"n1", "n2", "n3"}
    cluster = changing(OLD, ("n1", "n2", "n4"))
    cluster.put("n1", "k")
    cluster.pass_time(1)
    assert merges(cluster) == {"n2": 1, "n3": 1, "n4": 1}
    assert holders(cluster) == {"n1", "n2", "n3", "n4"}


def test_a_coordinator_counts_only_for_rings_that_ask_it() -> None:
    """n1 is no owner by the coming ring; W there is by two others."""
    cluster = changing(OLD, NEW)
    cluster.cut("n5", known=False)
    cluster.cut("n6", known=False)
    with pytest.raises(QuorumNotMet):
        cluster.put("n1", "k")


def test_an_owner_by_one_ring_that_stands_in_by_the_other_takes_it_as_owner() -> None:
    """For whom it stands in, the coordinator keeps the hint; and it is sent it once."""
    cluster = changing(OLD, ("n2", "n3", "n4", "n5"))
    key = a_key(cluster, lambda old, new: "n2" not in new)
    cluster.cut("n5")
    cluster.put("n1", key)
    cluster.pass_time(1)
    assert merges(cluster) == {"n2": 1, "n3": 1, "n4": 1}
    assert holders(cluster, key) == {"n1", "n2", "n3", "n4"}
    assert cluster.hints() == {"n1": {"n5": 1}}
    cluster.heal("n5")
    cluster.hand_off()
    assert cluster.nodes["n5"].owned(key) == cluster.nodes["n1"].owned(key)


def test_a_stand_in_by_the_ring_that_owns_by_the_coming_one_takes_it_as_owner() -> None:
    """The other way round."""
    cluster = changing(("n1", "n2", "n3", "n4"), NEW)
    key = a_key(cluster, lambda old, new: old == {*OLD})
    cluster.cut("n3")
    cluster.put("n1", key)
    cluster.pass_time(1)
    assert merges(cluster) == {"n2": 1, "n4": 1, "n5": 1, "n6": 1}
    assert holders(cluster, key) == {"n1", "n2", *NEW}
    assert cluster.hints() == {"n1": {"n3": 1}}


@pytest.mark.parametrize("known", [True, False])
def test_absent_owners_of_either_ring_are_given_hints(known: bool) -> None:
    """Whether that was known before or came out by asking; all have it in the end."""
    cluster = changing(OLD, NEW)
    for name in ("n3", "n6"):
        cluster.cut(name, known=known)
    cluster.put("n1", "k")
    cluster.pass_time(15)
    assert {t for kept in cluster.hints().values() for t in kept} == {"n3", "n6"}
    for name in ("n3", "n6"):
        cluster.heal(name)
    cluster.hand_off()
    assert cluster.hints() == {}
    assert holders(cluster) == {*OLD, *NEW}


def test_a_stand_in_of_each_ring_keeps_the_hint_for_its_own() -> None:
    """Where there are nodes further down in both."""
    cluster = changing(("n1", "n2", "n3", "n7"), ("n4", "n5", "n6", "n7"))
    key = a_key(cluster, lambda old, new: old == {*OLD} and new == {*NEW})
    for name in ("n3", "n6"):
        cluster.cut(name)
    written = cluster.put("n1", key, options={"w": 3})
    assert "n7" in written.replicas
    cluster.pass_time(15)
    kept = cluster.hints()
    assert {t for targets in kept.values() for t in targets} == {"n3", "n6"}
    for name in ("n3", "n6"):
        cluster.heal(name)
    cluster.hand_off()
    assert holders(cluster, key) == {*OLD, *NEW}
    assert not cluster.nodes["n7"].held(key).known()


def test_who_owns_only_by_the_other_ring_does_not_coordinate() -> None:
    """Its copy may lack what is to be replaced: it hands the write on, as a stranger does."""
    cluster = changing(OLD, NEW)
    before = len(cluster.network.sent)
    cluster.delete("n4", "k")
    handed = [there for _, there, op in cluster.network.sent[before:] if isinstance(op, Coordinate)]
    assert len(handed) == 1
    assert handed[0] in OLD


class Late(Body):
    """A body with whose last piece another ring is coming."""

    def __init__(self, data: bytes, cluster: TestCluster) -> None:
        super().__init__(data)
        self._cluster: TestCluster | None = cluster

    async def read(self, size: int) -> bytes:
        piece = await super().read(size)
        if self._cluster is not None and self._at == self.length:
            self._cluster.change(*NEW)
            self._cluster = None
        return piece


def test_owners_of_a_ring_that_appears_during_an_upload_get_the_bytes() -> None:
    """The chunks went to the owners there were; the coordinator sends them on."""
    cluster = TestCluster(7)
    cluster.found(*OLD)
    upload = Upload(body=Late(BIG, cluster))
    door = cluster.nodes["n1"].door
    written = cluster.run(door.put("b", "k", upload, options=Options()))
    assert len({*written.replicas} & {*NEW}) >= 2
    cluster.pass_time(2)
    assert holders(cluster) == {*OLD, *NEW}
    for name in NEW:
        assert cluster.nodes[name].chunks.stored == cluster.nodes["n1"].chunks.stored
    assert cluster.hints() == {}
    cluster.switch()
    assert cluster.stream("n5", "k") == BIG


@pytest.mark.parametrize("fault", ["down", "suspect", "full", "slow"])
def test_one_faulty_owner_by_both_rings_keeps_no_large_body_out(fault: str) -> None:
    """All owners by the coming ring are sent it, not just W of them: any one of them may fail."""
    cluster = changing(OLD, ("n1", "n2", "n4"))
    if fault in ("down", "suspect"):
        cluster.cut("n2", known=False)
    if fault == "suspect":
        cluster.believe("n2", "suspect")
    if fault == "full":
        cluster.nodes["n2"].chunks.bytes_max = 0
    if fault == "slow":
        cluster.link("n1", "n2").chunk_delay = 1.0
    before = cluster.clock.seconds()
    large = body_of(12 * CHUNK_BYTES)
    written = cluster.put("n1", "k", large)
    assert {"n1", "n3", "n4"} <= {*written.replicas}
    assert cluster.clock.seconds() - before < 2.0
    assert cluster.stream("n3", "k") == large


@pytest.mark.parametrize("members", [OLD[:1], OLD[:2]])
def test_a_larger_ring_that_appears_during_an_upload_gets_as_many_copies_as_it_needs(
    members: tuple[str, ...],
) -> None:
    """Not as many as the ring had owners for when the upload began."""
    cluster = TestCluster(7)
    cluster.found(*members)
    upload = Upload(body=Late(BIG, cluster))
    door = cluster.nodes["n1"].door
    written = cluster.run(door.put("b", "k", upload, options=Options()))
    assert len({*written.replicas} & {*NEW}) >= 2
    cluster.pass_time(2)
    assert holders(cluster) == {*members, *NEW}


@pytest.mark.parametrize(("before", "after"), [(OLD[:1], OLD), (OLD[:1], NEW)])
def test_from_one_member_to_three(before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """A write is answered with most of the three there will be, not with one of them."""
    cluster = changing(before, after)
    for name in after:
        cluster.link("n1", name).delay = 0.02
    written = cluster.put("n1", "k")
    assert len({*written.replicas} & {*after}) >= 2
    cluster.pass_time(1)
    cluster.switch()
    cluster.end()
    for name in after:
        for other in after:
            cluster.link(name, other).delay = 0.001
    lost = next(name for name in reversed(written.replicas) if name in after[1:])
    cluster.cut(lost)
    assert cluster.bodies(next(n for n in after if n != lost), "k") == [b"x"]


def test_from_three_members_to_one() -> None:
    """The one there will be has it before the answer, and two of the three."""
    cluster = changing(OLD, ("n3",))
    cluster.cut("n3", known=False)
    with pytest.raises(QuorumNotMet):
        cluster.put("n1", "k")
    cluster = changing(OLD, ("n3",))
    cluster.link("n1", "n3").delay = 0.05
    assert "n3" in cluster.put("n1", "k").replicas
    cluster = changing(OLD, ("n3",))
    cluster.cut("n1", known=False)
    cluster.cut("n2", known=False)
    with pytest.raises(QuorumNotMet):
        cluster.put("n3", "k")


def test_a_record_is_the_same_in_both_rings() -> None:
    cluster = changing(OLD, NEW)
    cluster.put("n2", "k", b"one")
    cluster.put("n5", "k", b"two")
    cluster.delete("n7", "k")
    cluster.pass_time(2)
    held: list[Record] = [cluster.nodes[name].owned("k") for name in (*OLD, *NEW)]
    assert all(record == held[0] for record in held)
    assert held[0].live() == ()
