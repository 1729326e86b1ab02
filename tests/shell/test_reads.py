"""The path of a read: R answers that count, merged, with bytes from whoever has them."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo.coordinator.requests import Options
from dynamo.core.record import Draft, Record, Version
from dynamo.errors import Corrupt, QuorumNotMet
from dynamo.storage import rows
from dynamo.wire import messages
from tests.support.cluster import TestCluster


def reads(cluster: TestCluster) -> list[tuple[str, bool]]:
    """Who was asked for a record since the last look, and whether for its bytes too."""
    asked = [(to, op.full) for _, to, op in cluster.network.sent if isinstance(op, messages.Read)]
    cluster.network.sent.clear()
    return asked


def settled(cluster: TestCluster, at: str = "n1", body: bytes = b"x", **more: Any) -> None:
    """A write that all targets have."""
    cluster.put(at, "k", body, **more)
    cluster.pass_time(1)
    reads(cluster)


def test_a_file_that_was_never_written_is_not_there() -> None:
    """An empty record, with everybody's word for it."""
    cluster = TestCluster(3)
    found = cluster.get("n1", "k")
    assert found.record.live() == ()
    assert len(found.replicas) == 2


def test_this_node_is_asked_first_and_others_for_digests_only() -> None:
    """Bytes travel once at most: here they are at hand, so only versions are compared."""
    cluster = TestCluster(3)
    settled(cluster)
    assert cluster.get("n1", "k").replicas[0] == "n1"
    assert [full for _, full in reads(cluster)] == [False]


def test_a_node_without_the_file_asks_one_other_for_the_bytes() -> None:
    """And the next one for the versions alone."""
    cluster = TestCluster(5)
    *_, outsider = cluster.ranking("k")
    settled(cluster, outsider)
    assert cluster.bodies(outsider, "k") == [b"x"]
    assert [full for _, full in reads(cluster)][:2] == [True, False]


def test_bytes_nobody_sent_are_fetched() -> None:
    """What only a digest showed is filled from the replica that has it."""
    cluster = TestCluster(3)
    settled(cluster, body=b"old")
    cluster.cut("n1")
    cluster.put("n2", "k", b"new")
    cluster.pass_time(1)
    cluster.heal("n1")
    cluster.nodes["n1"].view.knows_hints = False
    reads(cluster)
    assert cluster.bodies("n1", "k") == [b"new"]
    assert (True in [full for _, full in reads(cluster)]) is True


def test_a_late_answer_while_bytes_are_fetched_does_no_harm() -> None:
    """The third replica's answer may come at any moment, also between two questions."""
    cluster = TestCluster(3)
    settled(cluster, body=b"old")
    cluster.cut("n1")
    cluster.put("n2", "k", b"new")
    cluster.pass_time(1)
    cluster.heal("n1")
    cluster.nodes["n1"].view.knows_hints = False
    for late in (0.2, 0.16, 0.1):
        cluster.link("n1", "n2").delay = cluster.link("n1", "n3").delay = late
        for name, delay in (("n2", 0.09), ("n3", 0.03)):
            cluster.link("n1", name).delay = delay
            assert cluster.bodies("n1", "k") == [b"new"]
            cluster.pass_time(1)


def test_the_bytes_come_from_another_replica_when_the_first_goes_away() -> None:
    """A holder that dies between its digest and its bytes is replaced by one not yet asked."""
    cluster = TestCluster(3)
    settled(cluster, body=b"old")
    cluster.cut("n1")
    cluster.put("n2", "k", b"new")
    cluster.pass_time(1)
    cluster.heal("n1")
    cluster.nodes["n1"].view.knows_hints = False
    asked: list[str] = []

    def refuse(name: str) -> Any:
        def maybe(op: object) -> Exception | None:
            if isinstance(op, messages.Read) and op.full and not asked:
                asked.append(name)
                return Corrupt("gone")
            return None

        return maybe

    for name in ("n2", "n3"):
        cluster.link("n1", name).refuse = refuse(name)
    assert cluster.bodies("n1", "k") == [b"new"]
    assert asked


@pytest.mark.parametrize("fault", ["down", "hang", "deaf"])
def test_who_does_not_answer_is_replaced(fault: str) -> None:
    """Refusal at once, silence after a moment, never the client's timeout."""
    cluster = TestCluster(3)
    settled(cluster)
    for name in ("n2", "n3"):
        setattr(cluster.link("n1", name), fault, True)
        before = cluster.clock.seconds()
        assert cluster.live("n1", "k")[0].body == b"x"
        assert cluster.clock.seconds() - before < 0.2
        setattr(cluster.link("n1", name), fault, False)


def test_a_read_too_few_answer_says_who_did_not() -> None:
    """I15's other side: an error within the bound, with the count."""
    cluster = TestCluster(3)
    settled(cluster)
    cluster.cut("n2", known=False)
    cluster.link("n1", "n3").hang = True
    before = cluster.clock.seconds()
    with pytest.raises(QuorumNotMet) as caught:
        cluster.get("n1", "k", timeout=2.0)
    assert (caught.value.answered, caught.value.needed) == (1, 2)
    assert "n3: no answer" in caught.value.why
    assert cluster.clock.seconds() - before < 2.1


def test_an_owner_believed_dead_is_asked_when_nobody_else_is_left() -> None:
    """Belief may be wrong: better a late answer than none."""
    cluster = TestCluster(3)
    settled(cluster)
    cluster.believe("n2", "dead")
    cluster.believe("n3", "dead")
    assert len(cluster.get("n1", "k", r=3).replicas) == 3


def test_a_node_that_awaits_hints_does_not_count_alone() -> None:
    """What it missed is in the merge, or its answer is not enough."""
    cluster = TestCluster(3)
    settled(cluster, body=b"old")
    cluster.cut("n3")
    cluster.put("n1", "k", b"new")
    cluster.pass_time(1)
    cluster.heal("n3")
    cluster.cut("n1")
    cluster.told("n3", "n1", "alive")
    with pytest.raises(QuorumNotMet) as caught:
        cluster.get("n3", "k")
    assert "counts only with n1" in caught.value.why
    cluster.heal("n1")
    assert cluster.bodies("n3", "k") == [b"new"]


def test_a_stand_in_outside_the_list_is_asked_for_what_it_keeps() -> None:
    """An acknowledged write stays readable while a node that acknowledged it can be reached."""
    cluster = TestCluster(4)
    a, b, c, d = cluster.ranking("k")
    settled(cluster, a, b"old")
    cluster.cut(b)
    cluster.cut(c)
    written = cluster.put(a, "k", b"new")
    assert set(written.replicas) == {a, d}
    cluster.pass_time(1)
    for name in (b, c):
        cluster.heal(name)
    cluster.cut(a)
    assert cluster.bodies(b, "k") == [b"new"]
    assert cluster.bodies(c, "k") == [b"new"]
    assert cluster.bodies(d, "k") == [b"new"]


def test_a_stand_in_is_asked_though_the_reader_does_not_know_that_it_is_back() -> None:
    """The replicas that await its hints know: news of a return does not reach all at once."""
    cluster = TestCluster(6)
    a, b, c, d, e, reader = cluster.ranking("k")
    settled(cluster, a, b"old")
    cluster.cut(b)
    cluster.cut(c)
    cluster.put(a, "k", b"new")
    cluster.pass_time(1)
    for name in (b, c):
        cluster.heal(name)
    cluster.cut(a)
    for name in (d, e):
        cluster.told(reader, name, "dead")
    assert cluster.bodies(reader, "k") == [b"new"]


def test_a_stand_in_asked_for_what_it_keeps_is_no_replica() -> None:
    """It does not count towards R: a strict read keeps to the owners."""
    cluster = TestCluster(4)
    a, b, c, d = cluster.ranking("k")
    cluster.cut(c)
    cluster.put(a, "k", b"new")
    cluster.pass_time(1)
    cluster.heal(c)
    cluster.cut(a)
    found = cluster.get(c, "k", quorum="strict")
    assert set(found.replicas) == {b, c}
    cluster.cut(b)
    with pytest.raises(QuorumNotMet):
        cluster.get(c, "k", quorum="strict")
    assert cluster.nodes[d].held("k").live()


def test_a_corrupt_record_here_is_passed_over() -> None:
    """I13: it is no answer; the others' are."""
    cluster = TestCluster(3)
    settled(cluster)
    spoil(cluster, "n1")
    assert cluster.bodies("n1", "k") == [b"x"]
    assert cluster.bodies("n2", "k") == [b"x"]
    with pytest.raises(QuorumNotMet):
        cluster.get("n1", "k", r=3)


def spoil(cluster: TestCluster, name: str) -> None:
    node = cluster.nodes[name]
    place = rows.row(node.table.get("b").incarnation, b"k")
    cluster.wait(node.committer.submit(lambda txn: txn.put("records", place, b"\x01\xff\xff")))


def test_r_of_one_is_answered_from_here_at_once() -> None:
    """No message at all."""
    cluster = TestCluster(3)
    settled(cluster)
    assert cluster.get("n1", "k", r=1).replicas == ("n1",)
    assert reads(cluster) == []


def test_siblings_are_all_shown_with_their_bytes() -> None:
    """Each version comes whole, newest first, whoever held it."""
    cluster = TestCluster(3)
    for name in cluster.names:
        for link in cluster.around(name):
            link.hang = True
    for name in cluster.names:
        cluster.put(name, "k", name.encode(), context={}, options={"w": 1})
        cluster.pass_time(0.01)
    for name in cluster.names:
        cluster.heal(name)
    for name in cluster.names:
        assert cluster.bodies(name, "k", r=3) == [b"n3", b"n2", b"n1"]


@pytest.mark.parametrize("delete", [False, True])
def test_a_latest_bucket_shows_one_version_wherever_it_is_read(delete: bool) -> None:
    """Also where one node holds an owned copy and another for others, and for R=1."""
    cluster = TestCluster(4, conflicts="latest")
    a, b, c, d = cluster.ranking("k")
    record = version(1, "old")
    newer = version(2, "new", deleted=delete)
    node = cluster.nodes[d]
    incarnation = node.table.get("b").incarnation
    cluster.wait(node.copies.merge(incarnation, b"k", record, latest=True))
    cluster.wait(node.copies.hold_for(c, incarnation, b"k", newer, latest=True))
    for name in (a, b):
        cluster.told(d, name, "dead")
    shown = cluster.live(d, "k", r=1)
    assert [v.write for v in shown] == ([] if delete else [b"new"])


def version(stamp: int, write: str, *, deleted: bool = False) -> Record:
    made = Version(write, 1, stamp, write.encode(), 0, "", deleted=deleted)
    return Record({write: 1}, (made,))


def test_read_your_writes_and_monotonic_reads() -> None:
    """I8: with R+W>N a client that moves between nodes never sees less than before."""
    cluster = TestCluster(5, seed=3)
    context = None
    for step in range(40):
        at = cluster.rng.choice(cluster.names)
        written = cluster.put(at, "k", b"%d" % step, context=context)
        reader = cluster.rng.choice(cluster.names)
        found = cluster.get(reader, "k")
        assert [v.write for v in found.record.live()] == [written.version.write]
        context = found.record.context


def test_the_draft_of_a_version_is_what_was_sent() -> None:
    """Type and metadata come back as they were."""
    cluster = TestCluster(3)
    more = {"content_type": "text/plain", "meta": {"a": "b"}}
    cluster.put("n1", "k", b"x", upload=more)
    found = cluster.live("n2", "k")[0]
    assert (found.content_type, found.meta, found.size) == ("text/plain", {"a": "b"}, 1)
    assert found.body == b"x"
    assert Draft(write=b"", size=0, etag="").meta == {}


def lost_all_but_one(properties: dict[str, Any] | None = None) -> tuple[TestCluster, list[str]]:
    """Five nodes; two owners of "k" went away after it was written, and everybody knows."""
    cluster = TestCluster(5, **(properties or {}))
    ranking = cluster.ranking("k")
    settled(cluster, ranking[0])
    for gone in ranking[:2]:
        cluster.cut(gone)
    return cluster, list(ranking[2:])


@pytest.mark.parametrize("reader", [0, 1, 2], ids=["owner", "stand-in", "stand-in"])
def test_stand_ins_do_not_outvote_the_owner_that_is_left(reader: int) -> None:
    """What two nodes do not have because they only stand in is no "not found", even where one of
    them would be asked first because a batch is about to leave for it."""
    cluster, left = lost_all_but_one()
    for name in left[1:]:
        if name != left[reader]:
            far: Any = cluster.nodes[left[reader]].view.replica(name)
            far.gathering = True
    assert cluster.bodies(left[reader], "k") == [b"x"]


def test_a_listing_hears_the_owner_that_is_left() -> None:
    """A listing finds what a read finds."""
    cluster, left = lost_all_but_one()
    for node in left:
        page = cluster.run(
            cluster.nodes[node].door.list(
                "b", prefix="", delimiter="", start_after="", limit=10, options=Options()
            )
        )
        assert [listed.key for listed in page.objects] == ["k"]


def test_stand_ins_answer_when_no_owner_can() -> None:
    """What was written while all owners were away is read from those that stand in."""
    cluster = TestCluster(6)
    ranking = cluster.ranking("k")
    for gone in ranking[:3]:
        cluster.cut(gone)
    settled(cluster, ranking[3], b"meanwhile")
    assert cluster.bodies(ranking[4], "k") == [b"meanwhile"]


def test_owners_that_hang_are_waited_for_only_so_long() -> None:
    """Nobody knows yet that they do: stand-ins make up R once they were silent for a second."""
    cluster = TestCluster(5)
    ranking = cluster.ranking("k")
    settled(cluster, ranking[0])
    cluster.cut(ranking[1])
    cluster.cut(ranking[2], known=False)
    began = cluster.clock.seconds()
    assert cluster.bodies(ranking[3], "k") == [b"x"]
    assert cluster.clock.seconds() - began < 2.0
