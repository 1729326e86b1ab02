"""Owners that differ find out where, at a cost that follows the difference, and become equal."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo.background import antientropy, divergence
from dynamo.coordinator.bodies import CHUNK_BYTES
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.record import EMPTY, Record
from dynamo.core.ring import Member, Ring
from dynamo.errors import DynamoError, NotReady
from dynamo.storage import rows
from dynamo.storage.chunks import digest_of
from dynamo.wire import messages
from tests.shell.test_bodies import body_of
from tests.support.cluster import TestCluster
from tests.support.disk import draft

BIG = body_of(3 * CHUNK_BYTES + 5)


def write(cluster: TestCluster, name: str, key: str, body: bytes | None = b"x", **more: Any) -> Any:
    """A write that one owner has and no other hears of, as after its hint was lost."""
    node = cluster.nodes[name]
    chunks: list[bytes] = []
    for at in range(0, len(body or b""), CHUNK_BYTES) if len(body or b"") > CHUNK_BYTES else ():
        piece = (body or b"")[at : at + CHUNK_BYTES]
        chunks.append(digest_of(piece))
        cluster.wait(node.chunks.write(chunks[-1], piece))
    made = draft(f"{name} {key} {node.hybrid.last}", b"" if chunks else body or b"", *chunks)
    asked = {
        "actor": node.actor,
        "stamp": node.hybrid.tick(cluster.wall_ms()),
        "context": None,
        **more,
    }
    incarnation = node.table.get("b").incarnation
    return cluster.wait(
        node.copies.coordinate(incarnation, key.encode(), None if body is None else made, **asked)
    )


def owned(cluster: TestCluster, key: str) -> list[Record]:
    """The owners' own copies."""
    owners = cluster.ranking(key)[: cluster.ring.copies]
    return [cluster.nodes[name].owned(key) for name in owners]


def equal(cluster: TestCluster, key: str) -> bool:
    records = owned(cluster, key)
    return records[0].known() and all(record == records[0] for record in records)


def tally(cluster: TestCluster, what: str) -> int:
    return sum(getattr(node.repair.tally, what) for node in cluster.nodes.values())


def asked(cluster: TestCluster, kind: type[Any]) -> list[Any]:
    return [op for _, _, op in cluster.network.sent if type(op) is kind]


def test_equal_owners_cost_one_root_for_each_partition_and_pair() -> None:
    """And no other question: many partitions in one request."""
    cluster = TestCluster(3)
    for i in range(50):
        cluster.put("n1", f"k{i}")
    cluster.pass_time(2)
    cluster.network.sent.clear()
    cluster.compare_all()
    assert {type(op) for _, _, op in cluster.network.sent} == {messages.TreeRoots}
    assert len(cluster.network.sent) == 6
    assert tally(cluster, "compared") == 3 * cluster.ring.partitions
    assert tally(cluster, "listed") == tally(cluster, "read") == 0


def test_what_one_owner_alone_has_reaches_the_others() -> None:
    """In one round, and what is listed and read follows what differs, not what is stored."""
    cluster = TestCluster(3)
    for i in range(300):
        cluster.put("n1", f"k{i}", b"%d" % i)
    cluster.pass_time(2)
    for i in range(10):
        write(cluster, cluster.names[i % 3], f"extra{i}")
    cluster.compare_all()
    assert all(equal(cluster, f"extra{i}") for i in range(10))
    assert 20 <= tally(cluster, "read") <= 30
    assert tally(cluster, "listed") <= 60
    assert 20 <= tally(cluster, "repaired") <= 30
    cluster.network.sent.clear()
    cluster.compare_all()
    assert {type(op) for _, _, op in cluster.network.sent} == {messages.TreeRoots}


@pytest.mark.parametrize("at", ["n1", "n2", "n3"])
def test_older_and_newer_become_the_newer_on_both_sides(at: str) -> None:
    """Whichever of the two asks: what is newer is pulled or pushed."""
    cluster = TestCluster(3)
    for i in range(6):
        cluster.put("n1", f"k{i}", b"old")
    cluster.pass_time(2)
    for i in range(6):
        write(cluster, at, f"k{i}", b"new")
    cluster.compare_all()
    for i in range(6):
        assert equal(cluster, f"k{i}")
        assert [v.body for v in owned(cluster, f"k{i}")[0].live()] == [b"new"]


def test_siblings_and_tombstones_travel() -> None:
    """What two owners wrote without knowing of each other is kept twice; a delete deletes."""
    cluster = TestCluster(3)
    for key in ("gone", "both"):
        cluster.put("n1", key, b"old")
    cluster.pass_time(2)
    write(cluster, "n2", "gone", None)
    write(cluster, "n1", "both", b"one")
    write(cluster, "n3", "both", b"two")
    cluster.compare_all()
    assert equal(cluster, "gone")
    assert equal(cluster, "both")
    assert owned(cluster, "gone")[0].live() == ()
    assert sorted(v.body for v in owned(cluster, "both")[0].live()) == [b"one", b"two"]


def test_in_a_latest_bucket_the_newest_stays() -> None:
    """The bucket's rule holds for what anti-entropy merges as well."""
    cluster = TestCluster(3, conflicts="latest")
    write(cluster, "n1", "k", b"first", latest=True)
    cluster.pass_time(1)
    write(cluster, "n2", "k", b"second", latest=True)
    cluster.compare_all()
    assert equal(cluster, "k")
    assert [v.body for v in owned(cluster, "k")[0].versions] == [b"second"]


@pytest.mark.parametrize("at", ["n1", "n3"])
def test_chunked_bodies_travel(at: str) -> None:
    """Chunks go first, to whoever lacks them."""
    cluster = TestCluster(3)
    write(cluster, at, "big", BIG)
    cluster.compare_all()
    assert equal(cluster, "big")
    for name in cluster.names:
        assert sorted(map(len, cluster.nodes[name].chunks.stored.values())) == [
            5,
            *[CHUNK_BYTES] * 3,
        ]


def test_a_node_that_lost_everything_gets_it_back() -> None:
    """More keys than one answer lists and one step mends."""
    cluster = TestCluster(3)
    for i in range(400):
        write(cluster, "n1", f"k{i}")
    cluster.compare_all()
    assert all(equal(cluster, f"k{i}") for i in range(400))


def test_long_lists_are_read_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is cut off is asked on from where it ended."""
    monkeypatch.setattr("dynamo.replica.trees.KEYS_MAX", 2)
    monkeypatch.setattr(divergence, "KEYS_AT_ONCE", 1)
    cluster = TestCluster(3)
    for i in range(300):
        if i % 2:
            cluster.put("n2", f"k{i}")
        else:
            write(cluster, "n2", f"k{i}")
    cluster.pass_time(2)
    cluster.compare_all()
    assert all(equal(cluster, f"k{i}") for i in range(300))
    assert any(op.after for op in asked(cluster, messages.TreeKeys))
    looked_at = {int(op.key[1:]) for op in asked(cluster, messages.Inspect)}
    assert not [i for i in looked_at if i % 2], "what is beyond the end of an answer is not news"


def test_writes_under_way_do_not_count_as_divergence() -> None:
    """What differed for a moment is looked at again before anything is read or sent."""
    cluster = TestCluster(3)
    write(cluster, "n1", "k")
    for node in cluster.nodes.values():
        while cluster.run(node.census.step()):
            pass
    for _ in range(6):
        for node in cluster.nodes.values():
            cluster.run(node.repair.step())
    assert sum(node.repair.mending for node in cluster.nodes.values()) > 0
    for node in cluster.nodes.values():
        assert not [p for p in node.repair.partitions() if p["differing"]]
    record = cluster.nodes["n1"].owned("k")
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    for name in ("n2", "n3"):
        cluster.wait(cluster.nodes[name].copies.merge(incarnation, b"k", record))
    cluster.compare_all()
    assert tally(cluster, "repaired") == 0
    told = [p for p in cluster.nodes["n1"].repair.partitions() if p["differing"]]
    assert told == []


@pytest.mark.parametrize("who", ["n1", "n2", "n3"])
def test_it_goes_on_after_a_restart(who: str) -> None:
    """Trees are counted anew from what is on disk; what differed still does, and is mended."""
    cluster = TestCluster(3)
    for i in range(30):
        cluster.put("n1", f"k{i}")
        write(cluster, "n2", f"extra{i}")
    cluster.pass_time(2)
    for node in cluster.nodes.values():
        while cluster.run(node.census.step()):
            pass
    stepping = [cluster.start(node.repair.step()) for node in cluster.nodes.values()]
    cluster.pass_time(0.0025)
    cluster.restart(who)
    for step in stepping:
        step.addErrback(lambda _: None)
    cluster.pass_time(15)
    cluster.compare_all()
    assert all(equal(cluster, f"extra{i}") for i in range(30))


def test_a_peer_that_is_away_is_compared_with_when_it_is_back() -> None:
    """And nobody asks it before."""
    cluster = TestCluster(3)
    cluster.compare_all()
    cluster.cut("n3")
    write(cluster, "n1", "k")
    cluster.network.sent.clear()
    cluster.compare_all()
    assert "n3" not in {there for _, there, _ in cluster.network.sent}
    assert cluster.nodes["n2"].owned("k").known()
    cluster.heal("n3")
    cluster.compare_all()
    assert equal(cluster, "k")


@pytest.mark.parametrize("fault", ["down", "deaf"])
def test_a_link_that_breaks_amid_a_round_costs_only_time(fault: str) -> None:
    """What was not mended is found again when the peer has had a rest."""
    cluster = TestCluster(3)
    for i in range(20):
        write(cluster, "n1", f"k{i}")
    for node in cluster.nodes.values():
        while cluster.run(node.census.step()):
            pass
    for _ in range(4):
        for node in cluster.nodes.values():
            cluster.run(node.repair.step())
    for link in cluster.around("n1"):
        setattr(link, fault, True)
    cluster.pass_time(2)
    for _ in range(6):
        for node in cluster.nodes.values():
            cluster.run(node.repair.step(), 600)
    cluster.heal("n1")
    cluster.pass_time(antientropy.RETRY_S + 1)
    cluster.compare_all()
    assert all(equal(cluster, f"k{i}") for i in range(20))


def test_hints_are_given_the_time_to_arrive() -> None:
    """What handoff is about to bring is not sent twice; but nobody waits for it for ever."""
    cluster = TestCluster(2, n=2)
    for i in range(4):
        write(cluster, "n1", f"k{i}", missed_by=["n2"])
    cluster.compare_all()
    assert not any(cluster.nodes["n2"].owned(f"k{i}").known() for i in range(4))
    assert tally(cluster, "compared") == 0
    cluster.pass_time(3 * cluster.interval)
    for _ in range(3):
        for node in cluster.nodes.values():
            while cluster.run(node.repair.step()):
                pass
        cluster.pass_time(2)
    assert all(equal(cluster, f"k{i}") for i in range(4))


def test_a_damaged_record_stops_nothing() -> None:
    """It is told as differing; all others are mended."""
    cluster = TestCluster(3)
    for key in ("bad", *(f"k{i}" for i in range(10))):
        cluster.put("n1", key)
    cluster.pass_time(2)
    for i in range(10):
        write(cluster, "n2", f"k{i}", b"new")
    write(cluster, "n2", "bad", b"new")
    node = cluster.nodes["n1"]
    place = rows.row(node.table.get("b").incarnation, b"bad")
    cluster.wait(node.committer.submit(lambda txn: txn.put("records", place, b"\x01\xff")))
    cluster.compare_all()
    assert all(equal(cluster, f"k{i}") for i in range(10))
    cluster.pass_time(cluster.interval)
    cluster.compare_all()
    incarnation = node.table.get("b").incarnation
    partition = cluster.ring.partition(incarnation, b"bad")
    told = {p["id"]: p["differing"] for p in node.repair.partitions() if p["differing"]}
    assert list(told) == [partition]


def test_keys_go_to_as_many_owners_as_their_bucket_wants() -> None:
    """A bucket with one copy is not compared where only one owns it, nor spread; one with more
    than the default is compared on all that own it."""
    for n in (1, 2, 3):
        cluster = TestCluster(4, n=2)
        bucket = cluster.nodes["n1"].table.get("b")
        changed = bucket.change(bucket.stamp + 1, Properties(n=n))
        for node in cluster.nodes.values():
            cluster.wait(node.table.merge([changed]))
        for i in range(12):
            first = cluster.ranking(f"k{i}")[0]
            write(cluster, first, f"k{i}")
        cluster.compare_all()
        cluster.compare_all()
        for i in range(12):
            holders = {m for m in cluster.names if cluster.nodes[m].owned(f"k{i}").known()}
            assert holders == set(cluster.ranking(f"k{i}")[:n]), (n, i)


def test_a_listing_has_no_keys_that_the_other_should_not_own() -> None:
    """Neither those of buckets that want fewer copies nor those of buckets that are gone."""
    cluster = TestCluster(3)
    node = cluster.nodes["n1"]
    one, gone = (
        Bucket(name).create(1, 1, Properties(n=n)) for name, n in (("one", 1), ("c", None))
    )
    cluster.wait(node.table.merge([one, gone]))
    for i in range(100):
        record = Record().put(draft(str(i)), actor="n1", stamp=1, context={})
        for bucket in (one, gone, node.table.get("b")):
            cluster.wait(node.copies.merge(bucket.incarnation, b"k%d" % i, record))
    cluster.wait(node.table.merge([gone.delete(2)]))

    def listed(copies: int) -> list[bytes]:
        leaves = range(node.trees.shape.leaves)
        found = [node.keeper.listing(copies, p, leaves, b"") for p in range(64)]
        assert all(last == b"" for _, last in found)
        return [placed.incarnation for keys, _ in found for placed in keys.values()]

    assert listed(3) == [node.table.get("b").incarnation] * 100
    assert listed(1) == [one.incarnation] * 100


def test_keys_of_deleted_buckets_are_left_alone() -> None:
    """What one owner has reaped already is not brought back by another."""
    cluster = TestCluster(3)
    write(cluster, "n1", "k")
    gone = cluster.nodes["n1"].table.get("b")
    for node in cluster.nodes.values():
        cluster.wait(node.table.merge([gone.delete(gone.stamp + 1)]))
    cluster.compare_all()
    for name in ("n2", "n3"):
        record = cluster.nodes[name].copies.apart(gone.incarnation, b"k")[0]
        assert record == EMPTY
    assert tally(cluster, "read") == 0


def test_what_operators_are_told() -> None:
    """Per partition: its owners, when all pairs were last equal, and how many keys differ."""
    cluster = TestCluster(3)
    told = cluster.nodes["n1"].repair.partitions()
    assert [p["id"] for p in told] == list(range(cluster.ring.partitions))
    assert {p["last_equal"] for p in told} == {None}
    cluster.compare_all()
    first = cluster.wall_s()
    told = cluster.nodes["n1"].repair.partitions()
    assert all(first - 60 < p["last_equal"] <= first for p in told)
    assert all(p["owners"] == list(cluster.ring.owners(p["id"], 3)) for p in told)
    cluster.pass_time(1000)
    write(cluster, "n1", "k")

    def refuse(op: object) -> DynamoError | None:
        return NotReady("not now") if type(op) in (messages.Merge, messages.Read) else None

    for link in cluster.around("n1"):
        link.refuse = refuse
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    partition = cluster.ring.partition(incarnation, b"k")
    cluster.compare_all()
    told = {p["id"]: p for p in cluster.nodes["n1"].repair.partitions()}
    assert told[partition]["last_equal"] <= first
    assert [p for p in told if told[p]["differing"]] == [partition]
    exchanged = cluster.nodes["n1"].local.exchanged(incarnation, b"k")
    assert exchanged is not None
    assert exchanged >= first


def test_each_partition_of_a_pair_is_asked_about_by_one_of_the_two() -> None:
    """Once in an interval; sooner when nothing is written; later while there is load."""
    cluster = TestCluster(3)
    cluster.compare_all()
    cluster.network.sent.clear()
    nodes = cluster.nodes.values()
    cluster.pass_time(cluster.interval / 2)
    for node in nodes:
        node.committer.commits += 1
        assert not cluster.run(node.repair.step())
        node.committer.commits += 1
        assert not cluster.run(node.repair.step())
    cluster.pass_time(cluster.interval / 100)
    for node in nodes:
        assert cluster.run(node.repair.step()), "it is quiet and half the interval has passed"
    cluster.pass_time(cluster.interval)
    for _ in range(10):
        for node in nodes:
            node.committer.commits += 1
            cluster.run(node.repair.step())
    pairs = [
        (min(here, there), max(here, there), partition)
        for here, there, op in cluster.network.sent
        if type(op) is messages.TreeRoots
        for partition in op.partitions
    ]
    assert len(set(pairs)) == 3 * cluster.ring.partitions
    assert max(pairs.count(pair) for pair in set(pairs)) <= 2


def test_a_new_owner_is_brought_what_the_others_have() -> None:
    """When the ring changes, all pairs of the new one are compared soon; who owns a key no more
    keeps what it has."""
    cluster = TestCluster(4)
    small = Ring([Member(name) for name in cluster.names[:3]], cluster.ring.partitions, 3)
    whole = cluster.ring
    for node in cluster.nodes.values():
        node.view.ring = small
    cluster.ring = small
    for i in range(60):
        write(cluster, cluster.names[i % 3], f"k{i}")
    cluster.compare_all()
    assert all(equal(cluster, f"k{i}") for i in range(60))
    cluster.ring = whole
    for node in cluster.nodes.values():
        node.view.ring = whole
        while cluster.run(node.repair.step()):
            pass
    cluster.compare_all()
    assert all(equal(cluster, f"k{i}") for i in range(60))
    assert any(cluster.nodes["n4"].owned(f"k{i}").known() for i in range(60))
    assert all(cluster.nodes["n1"].owned(f"k{i}").known() for i in range(60))


def test_rounds_are_with_those_that_share_a_partition() -> None:
    """Of a large ring those are few; a bucket of more copies makes them more."""
    cluster = TestCluster(12, partitions=4)
    cluster.put("n1", "k")
    repair = cluster.nodes["n2"].repair
    cluster.run(repair.step())
    ring = cluster.ring

    def sharers(copies: int) -> set[str]:
        groups = [ring.owners(partition, copies) for partition in range(ring.partitions)]
        return {name for group in groups if "n2" in group for name in group} - {"n2"}

    assert set(repair._rounds) == sharers(3)
    assert len(repair._rounds) < 11
