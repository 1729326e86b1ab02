"""A tombstone goes when every member agrees, and not before; what was deleted stays deleted."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo.core.record import Record
from dynamo.errors import NotReady
from dynamo.storage import graves
from dynamo.wire import messages, reaping
from tests.support.cluster import TestCluster, TestNode


def rows(node: TestNode, table: str) -> int:
    return sum(1 for _ in node.engine.view().scan(table, b""))


def left(cluster: TestCluster) -> list[int]:
    """Records on every node."""
    return [rows(node, "records") for node in cluster.nodes.values()]


def deleted(size: int = 3, keys: int = 20, **more: Any) -> TestCluster:
    """A cluster with that many tombstones."""
    cluster = TestCluster(size, **more)
    for i in range(keys):
        cluster.put("n1", f"k{i}")
        cluster.delete(f"n{i % size + 1}", f"k{i}")
    cluster.pass_time(1)
    return cluster


@pytest.mark.parametrize("conflicts", ["siblings", "latest"])
def test_tombstones_go_when_all_agree(conflicts: str) -> None:
    cluster = deleted(5, conflicts=conflicts)
    cluster.put("n2", "stays")
    cluster.pass_time(1)
    assert cluster.reap() == 0
    assert sum(left(cluster)) == 3
    assert sum(rows(node, "graves") for node in cluster.nodes.values()) == 0
    assert sum(node.graves.reaped for node in cluster.nodes.values()) == 60
    assert cluster.bodies("n4", "stays") == [b"x"]
    cluster.compare_all()
    assert sum(left(cluster)) == 3
    assert not cluster.live("n3", "k1")


def test_a_member_that_is_away_keeps_them_all() -> None:
    cluster = deleted(4)
    before = left(cluster)
    cluster.cut("n4")
    cluster.pass_time(3600)
    assert cluster.reap() == 60
    assert left(cluster) == before
    assert cluster.nodes["n1"].tombstones.waits_for == "n4 must be there to agree"
    cluster.heal("n4")
    assert cluster.reap() == 0


def test_a_member_that_only_seems_to_be_there_keeps_them_all() -> None:
    cluster = deleted(4)
    cluster.cut("n4", known=False)
    assert cluster.reap() == 60


def test_a_hint_or_a_copy_for_another_keeps_a_tombstone() -> None:
    cluster = TestCluster(5)
    cluster.put("n1", "k")
    owners, others = cluster.ranking("k")[:3], cluster.ranking("k")[3:]
    cluster.cut(owners[2])
    cluster.delete(owners[0], "k")
    cluster.heal(owners[2])
    cluster.pass_time(1)
    assert any(cluster.hints().values()), others
    assert cluster.reap() > 0
    cluster.hand_off()
    assert cluster.reap() == 0
    assert left(cluster) == [0] * 5


def test_an_owner_that_missed_the_delete_keeps_it_until_it_was_told() -> None:
    cluster = TestCluster(3)
    cluster.put("n1", "k")
    cluster.pass_time(1)
    cluster.cut("n3")
    cluster.delete("n1", "k")
    for node in cluster.nodes.values():
        for _, hint in node.copies.hints.batch(node.engine.view(), "n3", b"", 10):
            cluster.wait(node.copies.drop_hints("n3", node.actor, [hint]))
    cluster.heal("n3")
    assert cluster.reap() == 2
    assert cluster.nodes["n3"].owned("k").live()
    cluster.compare_all()
    assert cluster.reap() == 0
    assert left(cluster) == [0, 0, 0]


def owners_of(cluster: TestCluster, key: str) -> tuple[str, str, str]:
    first, second, third = cluster.ranking(key)[:3]
    return first, second, third


def test_a_read_that_began_before_the_delete_holds_it_up_and_brings_nothing_back() -> None:
    """The read repair carries a version that is deleted while the read is under way."""
    cluster = TestCluster(4)
    cluster.put("n1", "k")
    cluster.pass_time(1)
    outsider = cluster.ranking("k")[3]
    owners = owners_of(cluster, "k")
    for owner in owners[1:]:
        cluster.link(outsider, owner).delay = 0.05
    slow = cluster.link(outsider, owners[2])
    reading = cluster.start(cluster.nodes[outsider].door.get("b", "k", options=_all_three()))
    cluster.pass_time(0.001)
    cluster.delete(owners[0], "k")
    slow.delay = 3.0
    cluster.reap()
    cluster.wait(reading)
    cluster.pass_time(10)
    assert not cluster.live(owners[1], "k")
    cluster.reap()
    cluster.compare_all()
    assert left(cluster) == [0] * 4


def _all_three() -> Any:
    from dynamo.coordinator.requests import Options

    return Options(r=3)


def test_what_is_written_meanwhile_is_kept() -> None:
    """Between the look and the burial somebody creates the key anew."""
    cluster = deleted(3, 1)
    leader = owners_of(cluster, "k0")[0]
    trying = cluster.start(cluster.nodes[leader].tombstones.step())
    cluster.pass_time(0.006)
    writing = cluster.start(cluster.put_later(owners_of(cluster, "k0")[1], "k0", b"new"))
    cluster.wait(trying)
    cluster.wait(writing)
    cluster.pass_time(5)
    assert cluster.bodies("n1", "k0") == [b"new"]
    assert cluster.reap() == 0
    cluster.compare_all()
    assert [len(node.owned("k0").live()) for node in cluster.nodes.values()] == [1, 1, 1]


@pytest.mark.parametrize("unreached", [0, 1, 2])
def test_a_crash_between_two_burials_is_made_good(unreached: int) -> None:
    cluster = deleted(3, 1)
    leader, *_ = owners_of(cluster, "k0")
    victim = owners_of(cluster, "k0")[unreached]
    node = cluster.nodes[victim]
    node.local.handlers[reaping.GravesBury] = lambda op: cluster.restart(victim) and None
    trying = cluster.start(cluster.nodes[leader].tombstones.step())
    trying.addErrback(lambda failure: None)
    cluster.pass_time(30)
    assert len([n for n in cluster.nodes.values() if n.owned("k0").known()]) >= 1
    cluster.compare_all()
    assert cluster.reap() == 0
    assert left(cluster) == [0, 0, 0]


def test_a_key_made_anew_gets_no_dot_twice_and_is_seen_by_nobody_s_old_context() -> None:
    cluster = TestCluster(3)
    made = cluster.put("n1", "k", b"one")
    old = made.context
    cluster.delete("n1", "k", context=old)
    cluster.pass_time(1)
    assert cluster.reap() == 0
    cluster.put("n1", "k", b"two")
    cluster.put("n2", "k", b"three", context=old)
    cluster.pass_time(1)
    assert sorted(cluster.bodies("n3", "k")) == [b"three", b"two"]


def test_the_floor_outlives_a_restart_and_ends_with_the_hand() -> None:
    cluster = TestCluster(3)
    for _ in range(5):
        cluster.put("n1", "k")
    cluster.delete("n1", "k")
    cluster.pass_time(1)
    assert cluster.reap() == 0
    cluster.restart("n1")
    cluster.put("n1", "other")
    cluster.pass_time(1)
    signed = {v.id for n in cluster.nodes.values() for v in n.owned("other").versions}
    assert signed == {"n1.6"} or signed == {"n2.6"} or signed == {"n3.6"}


def test_a_tombstone_from_the_future_stays_until_its_time_has_come() -> None:
    cluster = TestCluster(3, conflicts="latest")
    cluster.put("n1", "k")
    ahead = cluster.wall_ms() + 30_000
    cluster.nodes["n1"].hybrid.observe(cluster.wall_ms(), ahead << 16)
    cluster.delete("n1", "k")
    cluster.pass_time(1)
    assert cluster.reap() == 3
    cluster.pass_time(40)
    assert cluster.reap() == 0


def test_the_count_of_tombstones_follows_the_records() -> None:
    cluster = deleted(3, 7)
    cluster.put("n1", "k0")
    cluster.pass_time(1)
    for node in cluster.nodes.values():
        view = node.engine.view()
        assert graves.count(view) == 6 == rows(node, "graves")
        assert [key for _, _, key in graves.walk(view)] == sorted(
            [b"k%d" % i for i in range(1, 7)],
            key=lambda key: _place(node, key),
        )


def _place(node: TestNode, key: bytes) -> bytes:
    from dynamo.storage.places import place

    return place(node.table.get("b").incarnation, key)


def test_deleting_what_never_was_leaves_nothing_and_equal_trees() -> None:
    cluster = TestCluster(3)
    cluster.delete("n1", "never")
    cluster.delete("n2", "never", context={})
    cluster.pass_time(1)
    assert left(cluster) == [0, 0, 0]
    cluster.put("n1", "never")
    cluster.compare_all()
    assert all(not node.repair.partitions()[0]["differing"] for node in cluster.nodes.values())


def test_a_merge_into_a_deleted_bucket_leaves_nothing() -> None:
    cluster = deleted(3, 3)
    node = cluster.nodes["n2"]
    bucket = node.table.get("b")
    cluster.wait(node.table.merge([bucket.delete(2**60)]))
    record = Record({"n1": 9}, ())
    for hint_for in ("", "n3"):
        op = messages.Merge(bucket.incarnation, b"late", record, False, hint_for)
        cluster.wait(node.local.call(op))
    assert not node.copies.read(bucket.incarnation, b"late").known()
    assert not node.copies.hints.counts


def test_nothing_is_reaped_while_the_ring_changes() -> None:
    """Nor answered: who is to be asked is not settled."""
    cluster = deleted(4)
    cluster.found("n1", "n2", "n3")
    cluster.change(*cluster.names)
    before = left(cluster)
    assert cluster.reap() == 60
    assert left(cluster) == before
    node = cluster.nodes["n1"]
    for stage in ("coming", "going"):
        assert node.view.layout.stage == stage
        asked = reaping.GravesSettle(f"{node.view.ring.version}/{node.view.layout.version}", 0)
        with pytest.raises(NotReady, match="The ring is changing"):
            cluster.wait(node.local.call(asked))
        if stage == "coming":
            cluster.switch()
    assert cluster.reap() == 60
    cluster.end()
    clear = [node.clearing for node in cluster.nodes.values()]
    cluster.compare_all()
    for _ in range(100):
        busy = [cluster.run(clearing.step()) for clearing in clear]
        if not any(busy):
            break
    assert cluster.reap() == 0


@pytest.mark.parametrize("same_ring", [True, False])
def test_a_change_of_the_ring_breaks_an_attempt(same_ring: bool) -> None:
    """Even one that is over by the next question, and came to nothing."""
    cluster = deleted(4)
    cluster.found(*cluster.names)
    for link in [cluster.link(a, b) for a in cluster.names for b in cluster.names]:
        link.delay = 0.01
    leader = cluster.nodes[cluster.ranking("k0")[0]]
    stepping = cluster.start(leader.tombstones.step())
    cluster.pass_time(0.03)
    assert any(isinstance(op, reaping.GravesSettle) for _, _, op in cluster.network.sent)
    cluster.change("n1", "n2", "n3")
    if same_ring:
        cluster.change(*cluster.names)
        assert leader.view.layout.stage == "steady"
    before = left(cluster)
    assert cluster.wait(stepping) is False
    assert left(cluster) == before
