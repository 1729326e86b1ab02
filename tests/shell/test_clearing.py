"""What others own is dropped when each of them was shown to hold it, and not a moment before."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from dynamo.background import clearing as clearing_module
from dynamo.background.clearing import RETRY_S
from dynamo.coordinator.bodies import CHUNK_BYTES
from dynamo.core.buckets import Properties
from dynamo.core.merkle import fingerprint
from dynamo.errors import NotReady
from dynamo.replica import trees
from dynamo.storage import ledger, surplus
from dynamo.storage.places import place
from dynamo.wire import messages
from tests.shell.test_antientropy import write
from tests.shell.test_bodies import body_of
from tests.shell.test_transfer import cluster_of, count, fill, transfer
from tests.support.cluster import TestCluster, TestNode

KEYS = 60


def clear(cluster: TestCluster, *names: str, steps: int = 500) -> int:
    """Steps these nodes (all, if none is named) until they do nothing; records dropped so far."""
    nodes = [cluster.nodes[name] for name in names or cluster.names]
    count(cluster)
    for _ in range(steps):
        busy = [cluster.run(node.clearing.step()) for node in nodes]
        if not any(busy):
            return sum(node.clearing.dropped for node in nodes)
    raise AssertionError("clearing does not come to an end")


def grown(keys: int = KEYS) -> TestCluster:
    """A fourth node has just come into the ring."""
    cluster = cluster_of(3, 4)
    fill(cluster, keys)
    cluster.change(*cluster.names)
    assert transfer(cluster) == cluster.names
    cluster.switch()
    return cluster


def owners(cluster: TestCluster, key: str) -> tuple[str, ...]:
    return cluster.ranking(key)[:3]


def holders(cluster: TestCluster, key: str) -> set[str]:
    return {n for n, node in cluster.nodes.items() if node.owned(key).known()}


def moved(cluster: TestCluster, keys: int = KEYS) -> str:
    """A key that an old owner holds which is one no more."""
    return next(f"k{i}" for i in range(keys) if "n4" in owners(cluster, f"k{i}"))


def leaver(cluster: TestCluster, key: str) -> TestNode:
    """The member that owns the key no more."""
    return cluster.nodes[next(n for n in cluster.names if n not in owners(cluster, key))]


def test_what_every_owner_holds_is_dropped_and_no_record_is_sent() -> None:
    cluster = grown()
    assert clear(cluster) == 0, "not while the ring changes"
    cluster.end()
    cluster.network.sent.clear()
    dropped = clear(cluster)
    assert dropped == sum(1 for i in range(KEYS) if "n4" in owners(cluster, f"k{i}")) > 0
    for i in range(KEYS):
        assert holders(cluster, f"k{i}") == set(owners(cluster, f"k{i}"))
    assert {type(op) for _, _, op in cluster.network.sent} == {messages.TreeKeys}
    assert all(node.clearing.waits_for == "" for node in cluster.nodes.values())
    assert cluster.nodes["n1"].clearing.progress()[1] == 0
    cluster.compare_all()
    assert clear(cluster) == dropped, "and nothing comes back"


def test_a_ring_of_no_layout_is_left_alone() -> None:
    cluster = TestCluster(4)
    stranger = cluster.nodes[cluster.ranking("k")[3]]
    write(cluster, stranger.name, "k")
    assert clear(cluster) == 0
    assert stranger.owned("k").known()


def test_who_is_in_no_ring_any_more_keeps_what_it_has() -> None:
    cluster = cluster_of(4, 4)
    fill(cluster, KEYS)
    cluster.change("n1", "n2", "n3")
    assert transfer(cluster) == cluster.names
    cluster.switch()
    cluster.end()
    held = [i for i in range(KEYS) if cluster.nodes["n4"].owned(f"k{i}").known()]
    assert held
    assert clear(cluster) == 0
    assert all(cluster.nodes["n4"].owned(f"k{i}").known() for i in held)


@pytest.mark.parametrize("conflicts", ["siblings", "latest"])
def test_what_an_owner_lacks_is_handed_over_first(conflicts: str) -> None:
    cluster = TestCluster(4, conflicts=conflicts)
    cluster.found(*cluster.names)
    key = "k"
    last = cluster.ranking(key)[3]
    body = body_of(2 * CHUNK_BYTES + 5)
    write(cluster, last, key, body, latest=conflicts == "latest")
    assert clear(cluster, last) == 1
    assert holders(cluster, key) == set(owners(cluster, key))
    digests = cluster.nodes[owners(cluster, key)[0]].owned(key).chunk_digests()
    assert len(digests) == 3
    for name in owners(cluster, key):
        assert set(cluster.nodes[name].chunks.stored) == digests
    cluster.pass_time(1)
    assert cluster.nodes[last].chunks.stored == {}, "its chunks are freed"
    assert cluster.nodes[last].copies.totals() == (0, 0)


def test_owners_that_are_behind_or_beside_it_get_to_know_it() -> None:
    """One has nothing, one an older state, one another version."""
    cluster = TestCluster(4)
    cluster.found(*cluster.names)
    a, b, c, d = cluster.ranking("k")
    first = write(cluster, d, "k", b"old")
    incarnation = cluster.nodes[a].table.get("b").incarnation
    cluster.wait(cluster.nodes[b].copies.merge(incarnation, b"k", first))
    write(cluster, d, "k", b"new", context=dict(first.context))
    write(cluster, c, "k", b"aside")
    assert clear(cluster, d) == 1
    assert holders(cluster, "k") == {a, b, c}
    bodies = {n: sorted(v.body for v in cluster.nodes[n].owned("k").live()) for n in (a, b, c)}
    assert bodies == {a: [b"new"], b: [b"new"], c: [b"aside", b"new"]}


def test_a_later_state_with_the_owners_is_enough() -> None:
    cluster = TestCluster(4)
    cluster.found(*cluster.names)
    a, b, c, d = cluster.ranking("k")
    first = write(cluster, d, "k", b"old")
    incarnation = cluster.nodes[a].table.get("b").incarnation
    cluster.wait(cluster.nodes[a].copies.merge(incarnation, b"k", first))
    later = write(cluster, a, "k", b"new")
    for name in (b, c):
        cluster.wait(cluster.nodes[name].copies.merge(incarnation, b"k", later))
    cluster.network.sent.clear()
    assert clear(cluster, d) == 1
    assert not any(isinstance(op, messages.Merge) for _, _, op in cluster.network.sent)
    assert [v.body for v in cluster.nodes[b].owned("k").live()] == [b"new"]


def test_every_owner_has_to_be_there() -> None:
    cluster = grown()
    cluster.end()
    key = moved(cluster)
    node, away = leaver(cluster, key), owners(cluster, key)[2]
    cluster.cut(away)
    clear(cluster, node.name)
    assert node.owned(key).known()
    assert node.clearing.waits_for == f"{away} must be there to take over what this node held."
    assert node.clearing.progress()[1] is None
    cluster.heal(away)
    assert node.owned(key).known()
    node.clearing.appeared()
    clear(cluster, node.name)
    assert not node.owned(key).known()
    assert node.clearing.waits_for == ""


@pytest.mark.parametrize("fault", ["refuses", "full", "forgets"])
def test_what_an_owner_does_not_take_stays(fault: str) -> None:
    cluster = TestCluster(4)
    cluster.found(*cluster.names)
    a, b, c, d = cluster.ranking("k")
    write(cluster, d, "k")
    count(cluster)
    if fault == "full":
        cluster.nodes[b].engine.bytes_max = 0
    elif fault == "refuses":
        cluster.link(d, b).refuse = lambda op: (
            NotReady("no") if isinstance(op, messages.Merge) else None
        )
    else:
        done = cluster.nodes[b].local.handlers[messages.Merge]
        cluster.nodes[b].local.handlers[messages.Merge] = lambda op: messages.MergeReply({})
    node = cluster.nodes[d]
    for _ in range(20):
        cluster.run(node.clearing.step())
    assert node.owned("k").live()
    assert node.clearing.dropped == 0
    why = "1 records could not be handed over to all who own them."
    assert node.clearing.waits_for == why
    cluster.nodes[b].engine.bytes_max = None
    cluster.link(d, b).refuse = lambda op: None
    if fault == "forgets":
        cluster.nodes[b].local.handlers[messages.Merge] = done
    assert not cluster.run(node.clearing.step()), "not at once"
    cluster.pass_time(RETRY_S)
    assert clear(cluster, d) == 1
    assert holders(cluster, "k") == {a, b, c}


def test_a_record_that_changed_since_it_was_compared_stays() -> None:
    cluster = grown()
    cluster.end()
    key = moved(cluster)
    node = leaver(cluster, key)
    count(cluster)
    for name in owners(cluster, key):
        cluster.link(node.name, name).delay = 0.1
    stepping = cluster.start(node.clearing.step())
    cluster.pass_time(0.05)
    write(cluster, node.name, key, b"late")
    cluster.wait(stepping)
    assert node.clearing.dropped or not node.owned(key).known()
    assert b"late" in [v.body for v in node.owned(key).live()]
    for name in owners(cluster, key):
        cluster.link(node.name, name).delay = 0.001
    for _ in range(2):  # To the end of this round, and another one.
        clear(cluster, node.name)
        cluster.pass_time(RETRY_S)
    clear(cluster, node.name)
    assert not node.owned(key).known()
    for name in owners(cluster, key):
        assert b"late" in [v.body for v in cluster.nodes[name].owned(key).live()]


def test_a_change_of_the_ring_stops_it() -> None:
    cluster = grown()
    cluster.end()
    count(cluster)
    nodes = [cluster.nodes[name] for name in ("n1", "n2", "n3")]
    before = {n.name: n.engine.number() for n in nodes}
    for here in cluster.names:
        for there in cluster.names:
            cluster.link(here, there).delay = 0.1
    steps = [cluster.start(node.clearing.step()) for node in nodes]
    cluster.pass_time(0.05)
    cluster.change("n1", "n2", "n3")
    for step in steps:
        assert cluster.wait(step) is False
    assert {n.name: n.engine.number() for n in nodes} == before, "nothing was dropped"
    assert clear(cluster) == 0


def test_nothing_is_sent_once_the_ring_is_another() -> None:
    cluster = TestCluster(4)
    cluster.found(*cluster.names)
    d = cluster.ranking("k")[3]
    write(cluster, d, "k")
    count(cluster)
    for name in cluster.names:
        cluster.link(d, name).delay = 0.1
    stepping = cluster.start(cluster.nodes[d].clearing.step())
    cluster.pass_time(0.25)
    assert any(isinstance(op, messages.Inspect) for _, _, op in cluster.network.sent)
    cluster.change("n1", "n2", "n3")
    cluster.wait(stepping)
    assert not any(isinstance(op, messages.Merge) for _, _, op in cluster.network.sent)
    assert cluster.nodes[d].owned("k").live()


def test_owners_with_many_keys_answer_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies behind the part they told is not taken to be lacking."""
    monkeypatch.setattr(trees, "KEYS_MAX", 5)
    cluster = TestCluster(4, partitions=2)
    cluster.found(*cluster.names)
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    d = cluster.ranking("k")[3]
    for i in range(100):
        if cluster.ranking(f"k{i}")[3] == d:
            made = write(cluster, cluster.ranking("k")[0], f"k{i}")
            for name in cluster.names if i % 9 == 0 else cluster.ranking(f"k{i}")[:3]:
                node = cluster.nodes[name]
                cluster.wait(node.copies.merge(incarnation, b"k%d" % i, made))
    cluster.network.sent.clear()
    assert clear(cluster, d) > 2
    assert {type(op) for _, _, op in cluster.network.sent} == {messages.TreeKeys}


def test_a_damaged_row_is_not_dropped() -> None:
    """What has come since may be what was shown to be elsewhere; what it was, nobody knows."""
    cluster = TestCluster(4)
    node = cluster.nodes["n1"]
    made = write(cluster, "n2", "k")
    incarnation = node.table.get("b").incarnation
    mark = fingerprint(place(incarnation, b"k"), made)
    for damaged in (True, False):
        cluster.wait(node.copies.merge(incarnation, b"k", made))
        if damaged:
            node.damage("k")
            cluster.wait(node.copies.merge(incarnation, b"k", made))
        dropped = surplus.drop(node.copies, "n1", [(incarnation, b"k", mark)])
        assert cluster.wait(dropped) == (0 if damaged else 1)
        if damaged:
            cluster.mend("n1")


def test_the_next_dot_is_another_hands() -> None:
    """What this node knew of its own dots goes with the record: none is given out again, nor are
    earlier ones claimed."""
    cluster = TestCluster(4)
    cluster.found(*cluster.names)
    a, _, _, d = cluster.ranking("k")
    write(cluster, d, "k", b"1")
    node = cluster.nodes[d]
    assert ledger.signs_as(node.engine.view(), d) == d
    assert clear(cluster, d) == 1
    assert ledger.signs_as(node.engine.view(), d) == f"{d}~1~2"
    write(cluster, d, "k", b"2", context={})
    assert clear(cluster, d) == 2
    bodies = sorted(v.body for v in cluster.nodes[a].owned("k").live())
    assert bodies == [b"1", b"2"]


def test_a_record_without_own_dots_changes_no_hand() -> None:
    cluster = TestCluster(4)
    cluster.found(*cluster.names)
    a, _, _, d = cluster.ranking("k")
    incarnation = cluster.nodes[a].table.get("b").incarnation
    made = write(cluster, a, "k")
    cluster.wait(cluster.nodes[d].copies.merge(incarnation, b"k", made))
    assert clear(cluster, d) == 1
    assert ledger.signs_as(cluster.nodes[d].engine.view(), d) == d


def test_tombstones_are_handed_over_and_then_reaped() -> None:
    cluster = cluster_of(3, 4)
    fill(cluster, 20)
    for i in range(20):
        cluster.delete("n1", f"k{i}")
    cluster.pass_time(1)
    cluster.change(*cluster.names)
    assert cluster.reap() == 60, "not while the ring changes"
    assert cluster.nodes["n1"].tombstones.waits_for == "the ring is changing"
    assert transfer(cluster) == cluster.names
    cluster.switch()
    assert cluster.reap() > 60
    cluster.end()
    clear(cluster)
    assert sum(node.tombstones.pending() for node in cluster.nodes.values()) == 60
    assert cluster.reap() == 0
    assert not any(holders(cluster, f"k{i}") for i in range(20))


def test_a_surplus_version_keeps_a_tombstone_until_it_is_cleared() -> None:
    cluster = TestCluster(4)
    cluster.found(*cluster.names)
    d = cluster.ranking("k")[3]
    made = write(cluster, d, "k")
    a = cluster.ranking("k")[0]
    cluster.delete(a, "k", context=dict(made.context))
    cluster.pass_time(1)
    assert cluster.reap() == 3
    assert cluster.nodes[d].owned("k").live()
    clear(cluster)
    assert not cluster.nodes[d].owned("k").known()
    assert cluster.reap() == 0
    for name in cluster.names:
        assert not cluster.live(name, "k", r=3)


def test_fewer_copies_are_cleared_too() -> None:
    cluster = cluster_of(3, 3)
    fill(cluster, 30)
    changed = cluster.nodes["n1"].table.get("b").change(9, Properties(n=2))
    for node in cluster.nodes.values():
        cluster.wait(node.table.merge([changed]))
    for _ in range(3):
        clear(cluster)
    assert all(len(holders(cluster, f"k{i}")) == 2 for i in range(30))


def test_deleted_buckets_are_left_to_the_reaper() -> None:
    cluster = grown()
    cluster.end()
    for node in cluster.nodes.values():
        gone = node.table.get("b").delete(9)
        cluster.wait(node.table.merge([gone]))
    cluster.network.sent.clear()
    assert clear(cluster) == 0
    assert cluster.network.sent == []


def test_it_holds_a_grace_slot_while_it_works() -> None:
    cluster = grown()
    cluster.end()
    count(cluster)
    node = leaver(cluster, moved(cluster))
    mark = node.grace.mark()
    assert node.grace.passed(mark)
    stepping = cluster.start(node.clearing.step())
    later = node.grace.mark()
    assert not node.grace.passed(later)
    cluster.wait(stepping)
    assert node.grace.passed(later)


def test_it_goes_in_batches_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing_module, "KEYS_AT_ONCE", 3)
    monkeypatch.setattr(clearing_module, "KEYS_PER_S", 20)
    cluster = TestCluster(4, partitions=8)
    cluster.found(*cluster.names)
    made: Any = None
    keys = [f"k{i}" for i in range(200) if cluster.ranking(f"k{i}")[3] == "n1"]
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    for key in keys:
        made = write(cluster, "n2", key)
        for name in cluster.names:
            cluster.wait(cluster.nodes[name].copies.merge(incarnation, key.encode(), made))
    count(cluster)
    node, began, last = cluster.nodes["n1"], cluster.clock.seconds(), 0
    while cluster.run(node.clearing.step()):
        assert node.clearing.dropped - last <= 3
        last = node.clearing.dropped
    assert node.clearing.dropped == len(keys) > 20
    assert cluster.clock.seconds() - began > len(keys) / 21


def test_a_batch_takes_as_many_leaves_as_it_needs() -> None:
    """Where leaves have a key or two, many are listed together; where they have many, few are."""
    for at_first in (16, 256):
        cluster = TestCluster(4, partitions=1)
        cluster.found(*cluster.names)
        stray = cluster.ranking("k")[3]
        incarnation = cluster.nodes[stray].table.get("b").incarnation
        for i in range(300):
            made = write(cluster, cluster.ranking("k")[0], f"k{i}")
            for name in cluster.names:
                cluster.wait(cluster.nodes[name].copies.merge(incarnation, b"k%d" % i, made))
        count(cluster)
        node = cluster.nodes[stray]
        node.clearing._leaves = at_first
        dropped = [0]
        while cluster.run(node.clearing.step()):
            dropped.append(node.clearing.dropped)
        batches = [after - before for before, after in pairwise(dropped)]
        assert sum(batches) == 300
        assert max(batches) <= clearing_module.KEYS_AT_ONCE
        assert len(batches) <= 2 * 300 / clearing_module.KEYS_AT_ONCE
