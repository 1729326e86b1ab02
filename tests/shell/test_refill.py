"""A wiped node takes back what the other owners have, at a bounded rate, and says who it lacks."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo.background import pulling
from dynamo.background.pulling import LOST_RETRY_S, ROUND_MAX
from dynamo.coordinator.bodies import CHUNK_BYTES
from dynamo.coordinator.requests import Options
from dynamo.core.record import Record
from dynamo.errors import QuorumNotMet
from dynamo.wire import messages
from tests.shell.test_antientropy import write
from tests.shell.test_bodies import body_of
from tests.support.cluster import TestCluster, TestNode


def wiped(cluster: TestCluster, *names: str) -> list[TestNode]:
    """These come back empty, under other actors."""
    return [cluster.wipe(name) for name in names]


def refill(cluster: TestCluster, *nodes: TestNode, steps: int = 2000) -> bool:
    """Steps all nodes until these are whole; whether they are."""
    for node in cluster.nodes.values():
        while cluster.run(node.census.step()):
            pass
    for _ in range(steps):
        busy = [cluster.run(node.refill.step()) for node in nodes]
        if all(node.identity.whole for node in nodes):
            return True
        if not any(busy):
            return False
    return False


def equal(cluster: TestCluster, key: str) -> Record:
    """The record that all owners of a key hold alike."""
    copies = [node.owned(key) for node in cluster.nodes.values()]
    assert copies[0] == copies[1] == copies[2], key
    return copies[0]


def test_everything_comes_back_in_batches_and_with_its_chunks() -> None:
    cluster = TestCluster(3)
    for i in range(300):
        cluster.put("n1", f"k{i}", b"%d" % i)
    cluster.put("n2", "big", body_of(2 * CHUNK_BYTES + 5))
    cluster.put("n2", "gone")
    cluster.delete("n2", "gone")
    cluster.pass_time(2)
    (node,) = wiped(cluster, "n1")
    cluster.network.sent.clear()
    assert refill(cluster, node)
    for key in [*(f"k{i}" for i in range(300)), "big"]:
        assert equal(cluster, key).live()
    assert not equal(cluster, "gone").live()
    assert cluster.stream("n1", "big", r=1) == body_of(2 * CHUNK_BYTES + 5)
    sent = [type(op) for _, _, op in cluster.network.sent]
    assert sent.count(messages.Pull) <= 64, "one for each partition"
    assert {who for who, _, op in cluster.network.sent if isinstance(op, messages.Merge)} == set()
    asked = {to for _, to, op in cluster.network.sent if isinstance(op, messages.Pull)}
    assert asked == {"n2", "n3"}, "the work is shared"
    assert node.refilling.bytes > 2 * CHUNK_BYTES
    assert not node.identity.refilling
    node = cluster.restart("n1")
    assert node.identity.whole


def test_the_rate_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "KEYS_PER_S", 50)
    cluster = TestCluster(3)
    for i in range(300):
        cluster.put("n1", f"k{i}")
    cluster.pass_time(2)
    (node,) = wiped(cluster, "n1")
    began = cluster.clock.seconds()
    assert refill(cluster, node)
    assert cluster.clock.seconds() - began >= 300 / 50


def test_until_then_an_answer_waits_for_the_other_owners_that_are_there() -> None:
    cluster = TestCluster(3)
    cluster.put("n1", "k")
    cluster.pass_time(2)
    (node,) = wiped(cluster, "n1")
    incarnation = node.table.get("b").incarnation
    assert sorted(node.whole.awaits(incarnation, b"k")) == ["n2", "n3"]
    assert sorted(node.whole.awaits_listed(incarnation)) == ["n2", "n3"]
    cluster.told("n1", "n2", "suspect")
    assert sorted(node.whole.awaits(incarnation, b"k")) == ["n2", "n3"]
    cluster.told("n1", "n2", "dead")
    assert node.whole.awaits(incarnation, b"k") == ("n3",)
    assert node.whole.awaits_listed(incarnation) == ("n3",)
    cluster.told("n1", "n2", "alive")
    assert refill(cluster, node)
    assert node.whole.awaits(incarnation, b"k") == node.whole.awaits_listed(incarnation) == ()


def test_before_it_knows_who_it_is_a_node_waits_for_everybody() -> None:
    cluster = TestCluster(5)
    cluster.put("n1", "k")
    (node,) = wiped(cluster, "n1")
    node.identity.actor, node.identity.refilling = "", False
    incarnation = node.table.get("b").incarnation
    assert node.whole.awaits(incarnation, b"k") == ("n2", "n3", "n4", "n5")
    assert node.whole.awaits_listed(incarnation) == ("n2", "n3", "n4", "n5")
    assert not cluster.run(node.refill.step())


def test_a_read_of_its_own_copy_does_not_sit_and_wait() -> None:
    cluster = TestCluster(3)
    cluster.put("n1", "k", b"x")
    cluster.pass_time(2)
    wiped(cluster, "n1")
    for r in (1, 2, 3):
        for name in cluster.names:
            began = cluster.clock.seconds()
            assert cluster.bodies(name, "k", r=r)[0] == b"x"
            assert cluster.clock.seconds() - began < 0.05, (name, r)


def test_one_whose_peers_are_doubtful_asks_them_at_once() -> None:
    cluster = TestCluster(3)
    cluster.put("n1", "k", b"x")
    cluster.pass_time(2)
    wiped(cluster, "n1")
    for name in ("n2", "n3"):
        cluster.told("n1", name, "suspect")
    began = cluster.clock.seconds()
    assert cluster.bodies("n1", "k", r=1) == [b"x"]
    assert cluster.clock.seconds() - began < 0.05


def test_two_that_were_wiped_fill_up_from_the_third() -> None:
    cluster = TestCluster(3)
    for i in range(40):
        cluster.put("n1", f"k{i}")
    cluster.pass_time(2)
    first, second = wiped(cluster, "n1", "n2")
    assert refill(cluster, first, second)
    for i in range(40):
        assert equal(cluster, f"k{i}").live()


def test_others_leave_what_differs_to_the_refill() -> None:
    cluster = TestCluster(3)
    for i in range(40):
        cluster.put("n1", f"k{i}")
    cluster.pass_time(2)
    (node,) = wiped(cluster, "n1")
    cluster.compare_all()
    assert not any(node.owned(f"k{i}").known() for i in range(40))
    assert refill(cluster, node)
    write(cluster, "n1", "new")
    cluster.pass_time(10)
    cluster.compare_all()
    assert equal(cluster, "new").live(), "afterwards it takes part again"


def test_an_owner_that_is_away_is_asked_when_it_is_back() -> None:
    cluster = TestCluster(3)
    write(cluster, "n3", "k")
    cluster.cut("n3")
    (node,) = wiped(cluster, "n1")
    for name in ("n2", "n3"):
        cluster.told("n1", name, "dead" if name == "n3" else "alive")
    assert not refill(cluster, node)
    assert node.refilling.left == 64
    incarnation = node.table.get("b").incarnation
    cluster.heal("n3")
    assert node.whole.awaits(incarnation, b"k") == ("n3",)
    node.refill.appeared("n3")
    assert refill(cluster, node)
    assert node.owned("k").live()


def test_a_strict_read_does_not_count_on_what_a_disk_no_longer_knows() -> None:
    """Of the two that took a write one lost its disk and the other is away: who is left has to say
    that it cannot tell, not that there is nothing. Listings too."""
    cluster = TestCluster(3)
    cluster.cut("n3")
    cluster.put("n1", "k", b"x")
    cluster.heal("n3")
    cluster.cut("n2")
    wiped(cluster, "n1")
    cluster.told("n1", "n2", "dead")
    for at in ("n1", "n3"):
        assert cluster.live(at, "k") == (), "a sloppy read does with those that are there"
        with pytest.raises(QuorumNotMet):
            cluster.live(at, "k", quorum="strict")
        with pytest.raises(QuorumNotMet):
            listed(cluster, at, quorum="strict")
    cluster.heal("n2")
    for at in cluster.names:
        assert cluster.bodies(at, "k", quorum="strict") == [b"x"]
        assert listed(cluster, at, quorum="strict") == ["k"]


def listed(cluster: TestCluster, at: str, **options: Any) -> list[str]:
    door = cluster.nodes[at].door
    page = cluster.run(
        door.list("b", prefix="", delimiter="", start_after="", limit=9, options=Options(**options))
    )
    return [entry.key for entry in page.objects]


def test_what_cannot_be_had_whole_is_left_and_holds_up_nothing_else() -> None:
    cluster = TestCluster(3)
    cluster.put("n1", "big", body_of(CHUNK_BYTES))
    for i in range(100):
        cluster.put("n1", f"k{i}")
    cluster.pass_time(2)
    digest = next(iter(cluster.nodes["n2"].owned("big").chunk_digests()))
    kept = {name: cluster.nodes[name].chunks.stored.pop(digest) for name in ("n2", "n3")}
    (node,) = wiped(cluster, "n1")
    assert not refill(cluster, node)
    assert node.refilling.left == 1
    for i in range(100):
        assert equal(cluster, f"k{i}").live()
    incarnation = node.table.get("b").incarnation
    assert sorted(node.whole.awaits(incarnation, b"big")) == ["n2", "n3"]
    for _ in range(3):
        cluster.pass_time(LOST_RETRY_S)
        assert not refill(cluster, node), "it is not given up"
    cluster.nodes["n3"].chunks.stored[digest] = kept["n3"]
    assert not refill(cluster, node), "it is not asked for all the time"
    cluster.pass_time(LOST_RETRY_S)
    assert refill(cluster, node)
    assert node.owned("big").live()


def test_few_partitions_are_taken_on_at_once() -> None:
    cluster = TestCluster(3, partitions=1024)
    (node,) = wiped(cluster, "n1")
    cluster.network.sent.clear()
    assert refill(cluster, node)
    sizes = [len(op.roots) for _, _, op in cluster.network.sent]  # type: ignore[attr-defined]
    assert sum(sizes) == 2 * 1024
    assert max(sizes) <= ROUND_MAX


def test_what_was_put_back_is_refilled_over_a_restart() -> None:
    cluster = TestCluster(3)
    node = cluster.nodes["n1"]
    done = node.identity.begin_hand(70_000)
    assert not node.identity.whole, "at once"
    cluster.wait(done)
    node = cluster.restart("n1")
    assert not node.identity.whole
    assert refill(cluster, node)
    assert cluster.restart("n1").identity.whole


def test_a_read_through_it_takes_one_round() -> None:
    cluster = TestCluster(3)
    cluster.put("n1", "k", b"x")
    cluster.pass_time(2)
    wiped(cluster, "n1")
    link = cluster.link("n1", "n2")
    began = cluster.clock.seconds()
    assert cluster.live("n1", "k", r=2)
    assert cluster.clock.seconds() - began < 3 * link.delay


def test_what_it_coordinates_is_later_than_what_it_lost() -> None:
    cluster = TestCluster(3, conflicts="latest")
    ahead = cluster.wall_ms() + 3_600_000
    write(cluster, "n2", "k", b"old", stamp=ahead << 16, latest=True)
    cluster.compare_all()
    wiped(cluster, "n1")
    for body, context in ((b"blind", None), (b"seen", {"n2": 1})):
        cluster.put("n1", "k", body, context=context)
        assert cluster.bodies("n2", "k", r=3) == [body]
