"""Damage on one node: no client notices it, and what the others have brings it back."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo.background import mending
from dynamo.coordinator.bodies import CHUNK_BYTES
from dynamo.coordinator.requests import Options
from dynamo.core.record import Record
from dynamo.errors import Corrupt, QuorumNotMet
from dynamo.wire import messages
from tests.shell.test_bodies import body_of
from tests.support.cluster import TestCluster

BIG = body_of(2 * CHUNK_BYTES + 5)


def stored(body: bytes = b"x", size: int = 3, **more: Any) -> TestCluster:
    """A cluster in which every owner has the file."""
    cluster = TestCluster(size, **more)
    cluster.put(cluster.ranking("k")[0], "k", body)
    cluster.pass_time(2)
    return cluster


def unread(cluster: TestCluster, name: str) -> bool:
    """Whether the node says that it does not know, rather than something wrong."""
    try:
        cluster.nodes[name].held("k")
    except Corrupt:
        return True
    return False


@pytest.mark.parametrize("at", ["n1", "n2", "n3"])
@pytest.mark.parametrize("broken", ["n1", "n2", "n3"])
def test_a_damaged_record_is_never_served(broken: str, at: str) -> None:
    """Whichever node has it and whichever is asked: the client gets the bytes."""
    cluster = stored()
    cluster.nodes[broken].damage("k")
    for _ in range(2):
        assert cluster.bodies(at, "k") == [b"x"]
    page = cluster.run(_list(cluster, at))
    assert [entry.key for entry in page.objects] == ["k"]


async def _list(cluster: TestCluster, at: str) -> Any:
    return await cluster.nodes[at].door.list(
        "b", prefix="", delimiter="", start_after="", limit=10, options=Options()
    )


def test_a_read_that_meets_a_damaged_record_has_it_mended() -> None:
    """Counted once, and then it is what the others have."""
    cluster = stored()
    node = cluster.nodes["n1"]
    before = node.owned("k")
    node.damage("k")
    cluster.bodies("n1", "k")
    cluster.bodies("n1", "k")
    assert unread(cluster, "n1")
    cluster.mend("n1")
    assert node.owned("k") == before
    assert node.corrupt == ["record"]
    assert node.upkeep.mender.progress() == (1, 0)
    assert cluster.bodies("n1", "k", r=3) == [b"x"]


def test_a_damaged_record_counts_for_no_read() -> None:
    """Not as "not found" either: with another owner away there are too few answers."""
    cluster = stored()
    cluster.nodes["n1"].damage("k")
    cluster.cut("n2")
    for at in ("n1", "n3"):
        with pytest.raises(QuorumNotMet):
            cluster.get(at, "k")
    cluster.mend("n1")
    assert unread(cluster, "n1")
    with pytest.raises(QuorumNotMet):
        cluster.get("n3", "k")
    cluster.heal("n2")
    cluster.mend("n1")
    assert cluster.bodies("n3", "k", r=3) == [b"x"]


def test_a_record_is_mended_only_with_all_that_may_know_of_it() -> None:
    """One owner missed a write that this node and the one that is away acknowledged: its word
    alone would lose it."""
    cluster = TestCluster(3)
    cluster.put("n1", "k", b"old")
    cluster.pass_time(1)
    cluster.told("n1", "n3", "dead")
    cluster.put("n1", "k", b"new")
    cluster.pass_time(1)
    for node in cluster.nodes.values():
        node.copies.hints.counts.clear()
    cluster.told("n1", "n3", "alive")
    assert [v.body for v in cluster.nodes["n3"].owned("k").versions] == [b"old"]
    cluster.cut("n2")
    cluster.nodes["n1"].damage("k")
    assert unread(cluster, "n1")
    cluster.mend("n1")
    assert unread(cluster, "n1")
    cluster.heal("n2")
    cluster.mend("n1")
    assert [v.body for v in cluster.nodes["n1"].owned("k").versions] == [b"new"]


def test_of_five_owners_three_others_are_enough() -> None:
    """Any two that acknowledged a write with this node include one of them."""
    cluster = stored(size=5, n=5)
    cluster.nodes["n1"].damage("k")
    cluster.cut("n5")
    assert unread(cluster, "n1")
    cluster.cut("n4")
    cluster.mend("n1")
    assert unread(cluster, "n1")
    cluster.heal("n4")
    cluster.mend("n1")
    assert not unread(cluster, "n1")


def test_an_answer_counts_only_with_those_its_node_awaits_hints_from() -> None:
    """A node just back may not know what this one did; who kept it for it is asked as well."""
    cluster = TestCluster(4)
    a, b, c, d = cluster.ranking("k")
    cluster.put(a, "k", b"old")
    cluster.pass_time(1)
    cluster.cut(b)
    cluster.cut(c)
    cluster.put(a, "k", b"new")
    cluster.pass_time(1)
    cluster.heal(b)
    cluster.heal(c)
    assert cluster.nodes[d].copies.hints.counts
    cluster.nodes[a].copies.hints.counts.clear()
    cluster.nodes[a].damage("k")
    assert unread(cluster, a)
    cluster.mend(a)
    assert [v.body for v in cluster.nodes[a].owned("k").versions] == [b"new"]


def test_a_stand_ins_copy_is_mended_too() -> None:
    """From the owners that are there; then it is handed on."""
    cluster = TestCluster(4)
    a, _, c, d = cluster.ranking("k")
    cluster.cut(c)
    cluster.put(a, "k", b"x")
    cluster.pass_time(1)
    node = cluster.nodes[d]
    node.damage("k", "held")
    assert unread(cluster, d)
    cluster.heal(c)
    cluster.hand_off()
    assert cluster.hints()
    cluster.mend(d)
    assert [v.body for v in node.held("k").versions] == [b"x"]
    cluster.hand_off()
    assert cluster.hints() == {}
    assert [v.body for v in cluster.nodes[c].owned("k").versions] == [b"x"]


@pytest.mark.parametrize("at", ["n1", "n2"])
def test_a_write_that_meets_damage_goes_through_another_node(at: str) -> None:
    """It replaces what the others have, and reaches the damaged node as well."""
    cluster = stored(b"old")
    cluster.nodes["n1"].damage("k")
    made = cluster.put(at, "k", b"new")
    assert made.coordinator != "n1"
    cluster.pass_time(2)
    for reader in cluster.names:
        assert cluster.bodies(reader, "k") == [b"new"]
    cluster.mend("n1")
    assert [v.body for v in cluster.nodes["n1"].owned("k").versions] == [b"new"]
    cluster.put("n1", "k", b"newer")
    assert cluster.bodies("n2", "k", r=3) == [b"newer"]


def test_dots_that_were_lost_are_not_given_out_again() -> None:
    """The node acknowledged a write alone and lost it; its next one is another, not the same."""
    cluster = TestCluster(3)
    lost = cluster.put("n1", "k", b"old")
    cluster.pass_time(1)
    cluster.nodes["n1"].damage("k")
    unread(cluster, "n1")
    cluster.mend("n1")
    made = cluster.put("n1", "k", b"new", context={})
    assert made.version.id != lost.version.id
    assert made.version.actor == "n1~1~2"
    assert sorted(cluster.bodies("n2", "k", r=3)) == [b"new", b"old"]


def test_two_damaged_copies_are_mended_from_the_third() -> None:
    """Neither waits for what the other has lost."""
    cluster = stored()
    before = cluster.nodes["n3"].owned("k")
    for name in ("n1", "n2"):
        cluster.nodes[name].damage("k")
    with pytest.raises(QuorumNotMet):
        cluster.get("n3", "k")
    cluster.mend()
    assert [cluster.nodes[name].owned("k") for name in ("n1", "n2")] == [before, before]
    assert cluster.bodies("n1", "k", r=3) == [b"x"]


def test_a_damaged_peer_stands_for_nobody_who_is_silent() -> None:
    """With a third owner away, what only it has is waited for."""
    cluster = stored(size=5, n=5)
    for name in ("n1", "n2"):
        cluster.nodes[name].damage("k")
        assert unread(cluster, name)
    cluster.cut("n5")
    cluster.mend()
    assert unread(cluster, "n1")
    cluster.heal("n5")
    cluster.mend()
    assert not unread(cluster, "n1")


def test_what_all_owners_have_lost_is_not_said_not_to_be_there() -> None:
    """Reads fail until a client has written it again."""
    cluster = stored()
    for name in cluster.names:
        cluster.nodes[name].damage("k")
    for _ in range(2):
        with pytest.raises(QuorumNotMet):
            cluster.get("n1", "k")
        for name in cluster.names:
            assert unread(cluster, name)
        cluster.mend()
    cluster.put("n1", "k", b"new")
    cluster.pass_time(1)
    cluster.mend()
    assert cluster.bodies("n2", "k", r=3) == [b"new"]


def test_latest_buckets_are_mended_by_their_rule() -> None:
    """The highest stamp stays."""
    cluster = stored(b"old", conflicts="latest")
    cluster.pass_time(1)
    cluster.put("n2", "k", b"new")
    cluster.pass_time(1)
    cluster.nodes["n1"].damage("k")
    unread(cluster, "n1")
    cluster.mend("n1")
    assert [v.body for v in cluster.nodes["n1"].owned("k").versions] == [b"new"]


def test_a_file_nobody_else_has_stays_unread_until_it_is_overwritten() -> None:
    """It is not "not found": the client hears 503, and may write it again."""
    cluster = stored(size=1, n=1)
    cluster.nodes["n1"].damage("k")
    for _ in range(2):
        with pytest.raises(QuorumNotMet):
            cluster.get("n1", "k")
        cluster.mend("n1")
    cluster.put("n1", "k", b"new")
    assert cluster.bodies("n1", "k") == [b"new"]


@pytest.mark.parametrize("at", ["n1", "n2"])
def test_a_damaged_chunk_is_never_served(at: str) -> None:
    """Another holder's takes its place, the bad one is set aside, counted once and mended."""
    cluster = stored(BIG)
    node = cluster.nodes["n1"]
    digest = node.owned("k").versions[0].chunks[1]
    good = node.chunks.stored[digest]
    node.rot(digest)
    cluster.cut("n3")
    assert cluster.stream(at, "k") == BIG
    cluster.run(_read_here(cluster, digest))
    assert digest not in node.chunks.stored
    assert node.chunks.aside[digest] != good
    cluster.mend("n1")
    assert node.chunks.stored[digest] == good
    assert node.corrupt == ["chunk"]
    assert node.upkeep.mender.progress() == (1, 0)


async def _read_here(cluster: TestCluster, digest: bytes) -> None:
    """Makes sure that the node has met it, whoever served the client."""
    with pytest.raises(Exception, match="chunk"):
        await cluster.nodes["n1"].local.read_chunk(digest)


def test_a_chunk_that_is_gone_is_fetched_again_when_somebody_wants_it() -> None:
    """A record names it; that nobody set it aside makes no difference."""
    cluster = stored(BIG)
    node = cluster.nodes["n1"]
    digest = node.owned("k").versions[0].chunks[0]
    good = node.chunks.stored.pop(digest)
    assert cluster.stream("n1", "k") == BIG
    cluster.mend("n1")
    assert node.chunks.stored[digest] == good
    assert node.corrupt == []


def test_a_chunk_that_is_none_of_this_nodes_is_not_fetched() -> None:
    """A node that reads for a client has no use for a copy."""
    cluster = stored(BIG, size=4)
    *_, outsider = cluster.ranking("k")
    assert cluster.stream(outsider, "k") == BIG
    cluster.mend(outsider)
    assert cluster.nodes[outsider].chunks.stored == {}


def test_a_chunk_nobody_gives_is_tried_again() -> None:
    """When its holders are back."""
    cluster = stored(BIG)
    node = cluster.nodes["n1"]
    digest = node.owned("k").versions[0].chunks[0]
    node.rot(digest)
    cluster.run(_read_here(cluster, digest))
    cluster.cut("n2")
    cluster.cut("n3")
    cluster.mend("n1")
    assert node.upkeep.mender.progress() == (0, 1)
    cluster.heal("n3")
    cluster.mend("n1")
    assert node.upkeep.mender.progress() == (1, 0)


def test_a_record_is_mended_with_its_chunks() -> None:
    """Both were damaged."""
    cluster = stored(BIG)
    node = cluster.nodes["n1"]
    for digest in node.owned("k").versions[0].chunks:
        del node.chunks.stored[digest]
    node.damage("k")
    cluster.bodies("n1", "k")
    cluster.mend("n1")
    cluster.cut("n2")
    cluster.cut("n3")
    assert cluster.stream("n1", "k", r=1) == BIG


def test_a_peer_that_is_silent_holds_nobody_up() -> None:
    """Its answer is waited for so long; then the others count."""
    cluster = stored(size=5, n=5)
    cluster.link("n1", "n5").hang = True
    cluster.nodes["n1"].damage("k")
    assert unread(cluster, "n1")
    began = cluster.clock.seconds()
    cluster.mend("n1")
    assert not unread(cluster, "n1")
    assert cluster.clock.seconds() - began <= mending.PATIENCE_S + 1


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scrub finds the rest again."""
    monkeypatch.setattr(mending, "WAITING_MAX", 2)
    mender = TestCluster(1).nodes["n1"].upkeep.mender
    for i in range(5):
        mender.record(b"bucket-1", b"%d" % i)
    assert mender.progress() == (0, 2)


def test_damage_all_over_is_mended_without_a_wrong_answer() -> None:
    """Every record of one node, at random places of its row, while clients read and write."""
    cluster = TestCluster(3)
    for i in range(40):
        cluster.put(cluster.names[i % 3], f"f{i}", b"%d" % i)
    cluster.pass_time(2)
    node = cluster.nodes["n2"]
    records = {f"f{i}": node.owned(f"f{i}") for i in range(40)}
    for key in records:
        node.damage(key, at=cluster.rng.randrange(80))
    for i in range(40):
        assert cluster.bodies(cluster.names[i % 3], f"f{i}") == [b"%d" % i]
    cluster.scrub("n2")
    assert {key: node.owned(key) for key in records} == records
    assert node.corrupt == ["record"] * 40


def test_peers_hear_of_damage_as_a_fault() -> None:
    """`Corrupt`, and neither an empty record nor a broken exchange."""
    cluster = stored()
    cluster.nodes["n1"].damage("k")
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    for op in (
        messages.Read(incarnation, b"k", True),
        messages.Inspect(incarnation, b"k"),
        messages.Scan(incarnation, b"", b"", 10),
    ):
        with pytest.raises(Corrupt):
            cluster.wait(cluster.nodes["n2"].view.replica("n1").call(op))
    merged = cluster.wait(
        cluster.nodes["n2"].view.replica("n1").call(messages.Merge(incarnation, b"k", Record()))
    )
    assert merged.context == {}
