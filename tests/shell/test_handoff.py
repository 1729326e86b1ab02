"""Hints flow back to their owners: all of them, chunks first, whatever is interrupted."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo.background import handoff as handoff_module
from dynamo.coordinator.bodies import CHUNK_BYTES
from dynamo.core.record import Record
from dynamo.errors import Corrupt
from dynamo.storage import rows
from dynamo.storage.copies import Copies
from dynamo.wire import messages
from tests.shell.test_bodies import body_of
from tests.support.cluster import TestCluster

BIG = body_of(3 * CHUNK_BYTES + 5)


def away(cluster: TestCluster, name: str, writes: int, prefix: str = "k") -> None:
    """So many files are written while a node is away; then it is back."""
    cluster.cut(name)
    at = next(n for n in cluster.names if n != name)
    for i in range(writes):
        cluster.put(at, f"{prefix}{i:03d}", b"%d" % i)
    cluster.pass_time(1)
    cluster.heal(name)


def missing(cluster: TestCluster, name: str, writes: int, prefix: str = "k") -> int:
    """How many of them the node has not been told."""
    owned = [cluster.nodes[name].owned(f"{prefix}{i:03d}") for i in range(writes)]
    return sum(1 for record in owned if not record.live())


def test_all_that_was_missed_is_told() -> None:
    """In batches, until no hint is left."""
    cluster = TestCluster(3)
    away(cluster, "n3", 200)
    assert cluster.hints() == {"n1": {"n3": 200}}
    assert cluster.nodes["n1"].handoff.progress() == (0, 200)
    assert cluster.run(cluster.nodes["n1"].handoff.step())
    batch = handoff_module.BATCH
    assert cluster.nodes["n1"].handoff.progress() == (batch, 200 - batch)
    assert missing(cluster, "n3", 200) == 200 - handoff_module.BATCH
    cluster.hand_off()
    assert missing(cluster, "n3", 200) == 0
    assert cluster.hints() == {}


def test_large_bodies_end_a_batch() -> None:
    """Their chunks count: sixty-four of them at once would keep all clients waiting."""
    cluster = TestCluster(3)
    cluster.cut("n3")
    for i in range(4):
        cluster.put("n1", f"k{i:03d}", body_of(5 * CHUNK_BYTES + i))
    cluster.pass_time(1)
    cluster.heal("n3")
    assert cluster.run(cluster.nodes["n1"].handoff.step())
    assert missing(cluster, "n3", 4) == 2, "with the second it is more than eight MiB"
    cluster.hand_off()
    assert missing(cluster, "n3", 4) == 0


def test_a_stand_in_keeps_no_copy_afterwards() -> None:
    """Rows and chunks kept for others go with their last hint."""
    cluster = TestCluster(4)
    a, _, c, d = cluster.ranking("k")
    cluster.cut(c)
    cluster.put(a, "k", BIG)
    cluster.pass_time(2)
    assert len(cluster.nodes[d].chunks.stored) == 4
    cluster.heal(c)
    cluster.hand_off()
    assert cluster.nodes[c].owned("k") == cluster.nodes[a].owned("k")
    assert cluster.stream(c, "k", r=1) == BIG
    cluster.pass_time(1)
    assert cluster.nodes[d].chunks.stored == {}
    assert list(cluster.nodes[d].engine.view().scan("held", b"")) == []
    assert list(cluster.nodes[d].engine.view().scan("hints", b"")) == []


def test_nothing_is_sent_to_who_is_not_healthy() -> None:
    """And a step with nothing to do says so."""
    cluster = TestCluster(3)
    away(cluster, "n3", 1)
    for liveness in ("suspect", "dead"):
        cluster.believe("n3", liveness)  # type: ignore[arg-type]
        assert cluster.run(cluster.nodes["n1"].handoff.step()) is False
    assert cluster.run(cluster.nodes["n2"].handoff.step()) is False
    assert cluster.hints() == {"n1": {"n3": 1}}


@pytest.mark.parametrize("who", ["n1", "n3"])
def test_it_goes_on_after_a_crash_of_either_side(who: str) -> None:
    """The hints left are the work left."""
    cluster = TestCluster(3)
    away(cluster, "n3", 150)
    stepping = cluster.start(cluster.nodes["n1"].handoff.step())
    cluster.pass_time(0.0035)
    cluster.restart(who)
    stepping.addErrback(lambda _: None)
    cluster.hand_off()
    assert missing(cluster, "n3", 150) == 0
    assert cluster.hints() == {}


def test_an_interrupted_delivery_keeps_its_hints() -> None:
    """Refused, silent, or its answer lost: nothing is dropped that was not acknowledged."""
    for fault in ("down", "hang", "deaf"):
        cluster = TestCluster(3)
        away(cluster, "n3", 5)
        setattr(cluster.link("n1", "n3"), fault, True)
        assert cluster.run(cluster.nodes["n1"].handoff.step()) is False
        assert cluster.hints() == {"n1": {"n3": 5}}
        cluster.heal("n3")
        cluster.hand_off()
        assert missing(cluster, "n3", 5) == 0


def test_a_hint_that_changed_while_it_was_delivered_stays() -> None:
    """The newer write is told in the next round."""
    cluster = TestCluster(4)
    a, _, c, d = cluster.ranking("k")
    cluster.cut(c)
    cluster.put(a, "k", b"old")
    cluster.pass_time(1)
    for name in (d, a):
        cluster.link(name, c).down = False
        cluster.link(name, c).delay = 0.5
    cluster.told(d, c, "alive")
    stepping = cluster.start(cluster.nodes[d].handoff.step())
    cluster.pass_time(0.2)
    cluster.put(a, "k", b"new")
    cluster.wait(stepping)
    assert cluster.nodes[c].owned("k").live()[0].body == b"old"
    assert cluster.hints() == {d: {c: 1}}
    cluster.heal(c)
    cluster.hand_off()
    assert cluster.nodes[c].owned("k").live()[0].body == b"new"
    assert cluster.hints() == {}


def test_chunks_are_sent_before_the_record_that_names_them() -> None:
    """I2: the owner never holds a record whose bytes it lacks, and is sent only what it lacks."""
    cluster = TestCluster(3)
    cluster.put("n1", "same", BIG[: 2 * CHUNK_BYTES])
    cluster.pass_time(2)
    cluster.cut("n3")
    cluster.put("n1", "k", BIG)
    cluster.pass_time(2)
    cluster.heal("n3")
    cluster.network.sent.clear()
    cluster.hand_off()
    what = [w if isinstance(w, tuple) else type(w) for _, to, w in cluster.network.sent]
    writes = [w for w in what if isinstance(w, tuple)]
    assert [kind for kind, _ in writes] == ["write", "write"]
    assert what.index(writes[-1]) < len(what) - 1 - what[::-1].index(messages.Merge)
    assert cluster.stream("n3", "k", r=1) == BIG


def test_chunks_this_node_lost_come_from_others() -> None:
    """The keeper of the hint need not be the one that has the bytes."""
    cluster = TestCluster(3)
    cluster.cut("n3")
    cluster.put("n1", "k", BIG)
    cluster.pass_time(2)
    cluster.heal("n3")
    cluster.nodes["n1"].chunks.stored.clear()
    cluster.hand_off()
    assert cluster.stream("n3", "k", r=1) == BIG


def test_one_hint_that_cannot_be_delivered_does_not_hold_up_the_others() -> None:
    """A chunk nobody has any more, a record that does not decode: the rest is told."""
    cluster = TestCluster(3)
    cluster.cut("n3")
    cluster.put("n1", "lost", BIG)
    cluster.put("n1", "bad", b"x")
    cluster.pass_time(1)
    away(cluster, "n3", 100)
    for name in ("n1", "n2"):
        cluster.nodes[name].chunks.stored.clear()
    node = cluster.nodes["n1"]
    place = rows.row(node.table.get("b").incarnation, b"bad")
    cluster.wait(node.committer.submit(lambda txn: txn.put("records", place, b"\x01\xff")))
    for _ in range(20):
        cluster.run(node.handoff.step())
    assert missing(cluster, "n3", 100) == 0
    assert cluster.hints() == {"n1": {"n3": 2}}


def test_a_full_target_is_tried_again() -> None:
    """Its hints stay until it has room."""
    cluster = TestCluster(3)
    away(cluster, "n3", 10)
    cluster.nodes["n3"].engine.bytes_max = 0
    assert cluster.run(cluster.nodes["n1"].handoff.step()) is False
    cluster.nodes["n3"].engine.bytes_max = None
    cluster.hand_off()
    assert missing(cluster, "n3", 10) == 0


def test_hints_are_dropped_on_a_full_disk_too() -> None:
    """Handing on is how room comes back."""
    cluster = TestCluster(3)
    away(cluster, "n3", 10)
    cluster.nodes["n1"].engine.bytes_max = 0
    cluster.hand_off()
    assert missing(cluster, "n3", 10) == 0
    assert cluster.hints() == {}


def test_several_owners_share_one_kept_copy() -> None:
    """It stays until the last of them was told."""
    cluster = TestCluster(5)
    a, b, c, d, e = cluster.ranking("k")
    for name in (a, b, c, e):
        cluster.cut(name)
    cluster.put(d, "k", b"x", options={"w": 1})
    cluster.pass_time(1)
    assert cluster.hints() == {d: {a: 1, b: 1, c: 1}}
    for n, name in enumerate((b, a, c), 1):
        cluster.heal(name)
        for other in (a, b, c, e):
            if other != name:
                cluster.told(d, other, "dead")
        cluster.link(d, name).down = False
        cluster.run(cluster.nodes[d].handoff.step())
        assert cluster.nodes[name].owned("k").live()
        cluster.pass_time(1)
        assert cluster.nodes[d].held("k").known() is (n < 3)


def test_deletes_are_handed_on_as_well() -> None:
    """I3: an owner that slept through a delete learns of it, and does not bring the file back."""
    cluster = TestCluster(3)
    cluster.put("n1", "k", b"x")
    cluster.pass_time(1)
    cluster.cut("n3")
    cluster.delete("n1", "k")
    cluster.pass_time(1)
    cluster.heal("n3")
    cluster.hand_off()
    for name in cluster.names:
        assert cluster.live(name, "k", r=3) == ()
        assert cluster.live(name, "k", r=1) == ()


def test_a_late_hint_does_not_kill_the_file_made_again() -> None:
    """I4 (riak_kv 679): delete, hand on, create again, then an old copy arrives."""
    cluster = TestCluster(4)
    a, b, c, d = cluster.ranking("k")
    cluster.cut(c)
    cluster.put(a, "k", b"old")
    cluster.pass_time(1)
    cluster.believe(c, "alive")
    cluster.cut(d)
    for name in (a, b):
        cluster.link(name, c).down = False
        cluster.link(c, name).down = False
    cluster.delete(a, "k")
    cluster.put(a, "k", b"new", context={})
    cluster.pass_time(1)
    cluster.heal(d)
    cluster.heal(c)
    cluster.hand_off()
    for name in cluster.names:
        assert cluster.bodies(name, "k", r=3) == [b"new"]


def test_one_slow_owner_does_not_hold_up_another() -> None:
    """Each member is told at its own pace."""
    cluster = TestCluster(5)
    for name in ("n4", "n5"):
        cluster.cut(name)
    for i in range(30):
        cluster.put("n1", f"k{i}", b"x")
    cluster.pass_time(1)
    for name in ("n4", "n5"):
        cluster.heal(name)
    for name in cluster.names:
        cluster.link(name, "n4").hang = True
    steps = [cluster.start(cluster.nodes[n].handoff.step()) for n in ("n1", "n2", "n3")]
    cluster.pass_time(1)
    for step in steps:
        step.addErrback(lambda _: None)
    assert all("n5" not in hints for hints in cluster.hints().values())


def test_a_replaced_actor_gives_no_dot_of_the_copies_it_handed_on() -> None:
    """I5 and I1: what this node writes after it dropped its copy neither takes the place of its
    earlier dots nor claims to have seen them."""
    cluster = TestCluster(4)
    a, b, c, d = cluster.ranking("k")
    for name in (a, b, c):
        cluster.cut(name)
    first = cluster.put(d, "k", b"1", options={"w": 1}).version
    cluster.pass_time(1)
    for name in (a, b, c):
        cluster.heal(name)
    cluster.hand_off()
    cluster.pass_time(1)
    assert not cluster.nodes[d].held("k").known()
    for name in (a, b, c):
        cluster.cut(name)
    cluster.restart(d)
    for name in (a, b, c):
        cluster.told(d, name, "dead")
    second: Any = cluster.put(d, "k", b"2", context={}, options={"w": 1}).version
    assert (first.id, second.id) == (f"{d}.1", f"{d}~1~2.1")
    for name in (a, b, c):
        cluster.heal(name)
    cluster.hand_off()
    assert sorted(cluster.bodies(a, "k", r=3)) == [b"1", b"2"]


def ring_without(cluster: TestCluster, gone: str) -> None:
    """The member is taken out of the ring, all the way."""
    cluster.change(*[name for name in cluster.names if name != gone])
    cluster.switch()
    cluster.end()


def test_what_is_kept_for_who_is_gone_goes_to_the_present_owners() -> None:
    """Copies, chunks and hints: nothing is left of it, and all owners have it."""
    cluster = TestCluster(5)
    cluster.found(*cluster.names)
    a, b, c, d, e = cluster.ranking("k")
    for name in (a, b, c, e):
        cluster.cut(name)
    cluster.put(d, "k", BIG, options={"w": 1})
    cluster.pass_time(2)
    assert cluster.hints() == {d: {a: 1, b: 1, c: 1}}
    for name in (b, c, e):
        for other in (b, c, d, e):
            cluster.told(name, other, "alive")
            cluster.told(d, other, "alive")
            for link in (cluster.link(name, other), cluster.link(other, name)):
                link.down = False
    cluster.hand_off()
    assert cluster.hints() == {d: {a: 1}}, "who is dead may come back"
    ring_without(cluster, a)
    cluster.hand_off()
    assert cluster.hints() == {}
    owners = cluster.ranking("k")[:3]
    for name in owners:
        assert cluster.nodes[name].owned("k").live()
        assert cluster.stream(name, "k", r=1) == BIG
    for node in cluster.nodes.values():
        assert list(node.engine.view().scan("held", b"")) == []
        assert list(node.engine.view().scan("hints", b"")) == []


def test_a_keeper_that_owns_the_key_now_takes_its_copy() -> None:
    cluster = TestCluster(4)
    cluster.found(*cluster.names)
    a, b, c, d = cluster.ranking("k")
    cluster.cut(a)
    for name in (b, c):
        cluster.link(d, name).down = cluster.link(name, d).down = True
        cluster.told(d, name, "dead")
    cluster.put(d, "k", b"x", options={"w": 1})
    cluster.pass_time(1)
    for name in (b, c):
        cluster.heal(name)
    cluster.cut(a)
    ring_without(cluster, a)
    assert not cluster.nodes[d].owned("k").known()
    cluster.hand_off()
    assert all(cluster.nodes[name].owned("k").live() for name in (b, c, d))
    assert cluster.hints() == {}
    assert list(cluster.nodes[d].engine.view().scan("held", b"")) == []


def test_an_owner_that_is_away_gets_a_hint_of_its_own() -> None:
    cluster = TestCluster(5)
    cluster.found(*cluster.names)
    key = next(f"k{i}" for i in range(100) if cluster.ranking(f"k{i}")[0] == "n5")
    a, b = cluster.ranking(key)[:2]
    cluster.cut(a)
    cluster.put(b, key)
    cluster.pass_time(1)
    keeper = next(iter(cluster.hints()))
    assert cluster.hints() == {keeper: {a: 1}}
    ring_without(cluster, a)
    away = next(name for name in cluster.ranking(key)[:3] if name != keeper)
    cluster.cut(away)
    cluster.hand_off()
    assert cluster.hints() == {keeper: {away: 1}}
    cluster.heal(away)
    cluster.cut(a)
    cluster.hand_off()
    assert cluster.hints() == {}
    assert all(cluster.nodes[name].owned(key).live() for name in cluster.ranking(key)[:3])


def test_who_is_gone_itself_hands_over_nothing() -> None:
    """Others may have buried since what it keeps."""
    cluster = TestCluster(5)
    cluster.found(*cluster.names)
    a, b, c, d, _ = cluster.ranking("k")
    for name in (a, b, c):
        cluster.cut(name)
    cluster.put(d, "k", options={"w": 1})
    cluster.pass_time(2)
    before = cluster.hints()
    assert d in before
    ring_without(cluster, d)
    for name in (a, b, c):
        cluster.heal(name)
    assert not cluster.run(cluster.nodes[d].handoff.step())
    assert cluster.hints()[d] == before[d]


def test_what_an_owner_does_not_take_is_kept_though_its_target_is_gone() -> None:
    cluster = TestCluster(4)
    cluster.found(*cluster.names)
    a, b = cluster.ranking("k")[:2]
    cluster.cut(a)
    cluster.put(b, "k")
    cluster.pass_time(1)
    (keeper,) = cluster.hints()
    ring_without(cluster, a)
    other = next(name for name in cluster.ranking("k")[:3] if name != keeper)
    cluster.link(keeper, other).down = True
    cluster.hand_off()
    assert cluster.hints() == {keeper: {a: 1}}
    cluster.link(keeper, other).down = False
    cluster.hand_off()
    assert cluster.hints() == {}


def test_hints_that_cannot_be_told_for_two_are_left_to_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step that told nobody anything says so, wherever it is for each of them: else it would be
    done again at once, for as long as what is to be told is damaged."""
    cluster = TestCluster(3)
    node = cluster.nodes["n1"]
    for name in ("n2", "n3"):
        cluster.cut(name)
    cluster.put("n1", "k", options={"w": 1})
    cluster.pass_time(1)
    for name in ("n2", "n3"):
        cluster.heal(name)
    assert cluster.hints() == {"n1": {"n2": 1, "n3": 1}}

    def damaged(copies: Copies, incarnation: bytes, key: bytes) -> Record:
        raise Corrupt("a bit flipped")

    monkeypatch.setattr(Copies, "read", damaged)
    cluster.told("n1", "n3", "dead")
    assert not cluster.run(node.handoff.step())
    cluster.told("n1", "n3", "alive")
    assert not any(cluster.run(node.handoff.step()) for _ in range(6))
