"""Making and deleting buckets: known to all when answered, one outcome whoever races."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from dynamo.background.reaper import Reaper
from dynamo.coordinator.requests import Options, Upload
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.record import Draft
from dynamo.errors import BucketExists, DynamoError, NoSuchBucket, QuorumNotMet
from dynamo.wire import messages
from tests.support.cluster import Body, TestCluster

PLAIN = Properties()


def create(cluster: TestCluster, at: str, name: str = "new", **more: Any) -> Any:
    return cluster.run(cluster.nodes[at].door.create_bucket(name, Properties(**more)))


def delete(cluster: TestCluster, at: str, name: str = "new") -> Any:
    return cluster.run(cluster.nodes[at].door.delete_bucket(name))


def known(cluster: TestCluster, name: str = "new") -> list[bool]:
    return [node.table.get(name).exists for node in cluster.nodes.values()]


def serializer(cluster: TestCluster, name: str = "new") -> str:
    ring = cluster.ring
    return ring.ranking(ring.partition(b"buckets!", name.encode()))[0]


def test_a_bucket_is_there_for_everyone_when_answered() -> None:
    """And gone for everyone when its deletion is; no moment in between is needed."""
    cluster = TestCluster(5)
    for at in cluster.names:
        coordinator, bucket = create(cluster, at)
        assert coordinator == serializer(cluster)
        assert bucket.exists
        assert known(cluster) == [True] * 5
        delete(cluster, at)
        assert known(cluster) == [False] * 5


def test_a_name_is_given_once() -> None:
    """Whoever asks second is told, wherever it asks; so is who deletes what is not there."""
    cluster = TestCluster(3)
    create(cluster, "n1")
    for at in cluster.names:
        with pytest.raises(BucketExists):
            create(cluster, at)
    delete(cluster, "n2")
    for at in cluster.names:
        with pytest.raises(NoSuchBucket):
            delete(cluster, at)
        with pytest.raises(NoSuchBucket):
            cluster.run(cluster.nodes[at].door.find_bucket("new"))


def test_put_makes_or_changes() -> None:
    """The flag says which; properties become those sent."""
    cluster = TestCluster(3)
    door = cluster.nodes["n1"].door
    assert cluster.run(door.put_bucket("new", Properties(n=2)))[2] is True
    assert cluster.run(door.put_bucket("new", Properties(n=1)))[2] is False
    assert cluster.run(cluster.nodes["n3"].door.find_bucket("new")).properties == Properties(n=1)
    assert [b.name for b in cluster.run(door.list_buckets())] == ["b", "new"]


def test_two_racing_creates_have_one_winner() -> None:
    """Changes of one name go through one node."""
    cluster = TestCluster(5)
    racing = [
        cluster.start(cluster.nodes[at].door.create_bucket("new", PLAIN)) for at in cluster.names
    ]
    outcomes = []
    for race in racing:
        try:
            cluster.wait(race)
            outcomes.append("made")
        except BucketExists:
            outcomes.append("there")
    assert sorted(outcomes) == ["made"] + ["there"] * 4


def test_a_change_that_reached_some_is_finished_by_who_asks_again() -> None:
    """It finds nothing to change, and answers only when the others have it too."""
    cluster = TestCluster(3)
    first = serializer(cluster)
    other = next(name for name in cluster.names if name != first)
    made = Bucket("new").create(1, 1, PLAIN)
    for name in cluster.names:
        if name != other:
            cluster.wait(cluster.nodes[name].table.merge([made]))
    assert cluster.run(cluster.nodes[first].door.put_bucket("new", PLAIN))[2] is False
    assert known(cluster) == [True] * 3


@pytest.mark.parametrize("seed", range(10))
def test_racing_changes_through_nodes_that_disagree_who_is_there_end_in_one_state(
    seed: int,
) -> None:
    """Two nodes may both hold themselves for the one that serializes; the states still agree."""
    cluster = TestCluster(5, seed=seed)
    first = serializer(cluster)
    for other in cluster.names[::2]:
        if other != first:
            cluster.told(other, first, "suspect")
    for here in cluster.names:
        for there in cluster.names:
            cluster.link(here, there).jitter = 0.05
    races = []
    for _ in range(6):
        at = cluster.rng.choice(cluster.names)
        door = cluster.nodes[at].door
        work = door.create_bucket("new", PLAIN) if cluster.rng.random() < 0.6 else None
        races.append(cluster.start(work if work is not None else door.delete_bucket("new")))
        cluster.pass_time(cluster.rng.random() * 0.1)
    for race in races:
        with suppress(DynamoError):
            cluster.wait(race)
    cluster.pass_time(1)
    assert len({str(node.table.get("new")) for node in cluster.nodes.values()}) == 1


def test_a_name_made_again_starts_empty() -> None:
    """Deleting a bucket takes its files along at once."""
    cluster = TestCluster(3)
    create(cluster, "n1")
    put(cluster, "n1", "new", b"old")
    delete(cluster, "n2")
    create(cluster, "n3")
    found = cluster.run(cluster.nodes["n1"].door.get("new", "k", options=Options()))
    assert found.record.live() == ()


def put(cluster: TestCluster, at: str, bucket: str, body: bytes) -> None:
    upload = Upload(body=Body(body))
    cluster.run(cluster.nodes[at].door.put(bucket, "k", upload, options=Options()))
    cluster.pass_time(1)


def test_a_dead_member_does_not_hold_a_change_up() -> None:
    """It learns of it when it is back, before it serves."""
    cluster = TestCluster(3)
    cluster.cut("n3")
    before = cluster.clock.seconds()
    create(cluster, "n1")
    assert cluster.clock.seconds() - before < 0.5
    assert known(cluster) == [True, True, False]


def test_a_member_that_falls_silent_holds_a_change_up_only_until_it_is_found_dead() -> None:
    """The answer waits for live members; who is dead by now is none."""
    cluster = TestCluster(3)
    silent = next(name for name in cluster.names if name != serializer(cluster))
    asker = next(name for name in cluster.names if name not in (silent, serializer(cluster)))
    for link in cluster.around(silent):
        link.hang = True
    making = cluster.start(cluster.nodes[asker].door.create_bucket("new", PLAIN))
    cluster.pass_time(2.0)
    cluster.believe(silent, "dead")
    before = cluster.clock.seconds()
    cluster.wait(making)
    assert cluster.clock.seconds() - before < 3.0


def test_a_change_too_few_can_take_fails() -> None:
    """One of three is no quorum."""
    cluster = TestCluster(3)
    cluster.cut("n2")
    cluster.cut("n3")
    with pytest.raises(QuorumNotMet):
        create(cluster, "n1")
    with pytest.raises(QuorumNotMet):
        cluster.run(cluster.nodes["n1"].door.find_bucket("new"))


def test_a_live_member_that_cannot_be_told_fails_the_change_in_time() -> None:
    """The answer would promise what does not hold."""
    cluster = TestCluster(3)
    first = serializer(cluster)
    deaf = next(name for name in cluster.names if name != first)
    cluster.link(first, deaf).down = True
    before = cluster.clock.seconds()
    with pytest.raises(QuorumNotMet) as caught:
        create(cluster, first)
    assert deaf in caught.value.why
    assert cluster.clock.seconds() - before < 11


@pytest.mark.parametrize("fault", ["down", "hang", "deaf"])
@pytest.mark.parametrize("change", ["create", "delete"])
def test_a_change_whose_answer_is_lost_is_done_once_and_answered(fault: str, change: str) -> None:
    """The second try finds it done, and that is what was asked for."""
    cluster = TestCluster(5)
    first = serializer(cluster)
    asker = next(name for name in cluster.names if name != first)
    if change == "delete":
        create(cluster, first)
    setattr(cluster.link(asker, first), fault, True)
    if change == "create":
        create(cluster, asker)
    else:
        delete(cluster, asker)
    cluster.pass_time(12)
    assert known(cluster) == [change == "create"] * 5
    assert {n.table.get("new").generation for n in cluster.nodes.values()} == {1}


def test_a_refused_connection_leaves_no_doubt() -> None:
    """The next node's verdict is then the verdict: nobody is told that an old bucket is new."""
    cluster = TestCluster(5)
    first = serializer(cluster)
    asker = next(name for name in cluster.names if name != first)
    cluster.link(asker, first).down = True
    with pytest.raises(NoSuchBucket):
        delete(cluster, asker)
    create(cluster, first, n=1)
    with pytest.raises(BucketExists):
        create(cluster, asker, n=2)
    assert cluster.nodes[asker].table.get("new").properties == Properties(n=1)


def test_no_such_bucket_needs_a_quorum() -> None:
    """A node that missed the creation asks before it denies, and remembers what it learns."""
    cluster = TestCluster(3)
    cluster.cut("n3")
    create(cluster, "n1")
    cluster.heal("n3")
    assert cluster.run(cluster.nodes["n3"].door.find_bucket("new")).exists
    assert known(cluster) == [True] * 3


def test_a_bucket_deleted_while_a_node_is_away_stays_deleted() -> None:
    """Its hints bring no file back, for the old name or the new one."""
    cluster = TestCluster(3)
    create(cluster, "n1")
    put(cluster, "n1", "new", b"old")
    cluster.cut("n3")
    put(cluster, "n1", "new", b"newer")
    delete(cluster, "n1")
    create(cluster, "n2")
    cluster.heal("n3")
    states = cluster.nodes["n1"].table.states.values()
    cluster.wait(cluster.nodes["n3"].table.merge(states))
    cluster.hand_off()
    for at in cluster.names:
        found = cluster.run(cluster.nodes[at].door.get("new", "k", options=Options(r=3)))
        assert found.record.live() == ()


def test_the_reaper_frees_what_deleted_buckets_left() -> None:
    """Rows, chunks and totals, a stretch at a time."""
    cluster = TestCluster(3)
    create(cluster, "n1")
    cluster.put("n1", "kept")
    incarnation = cluster.nodes["n1"].table.get("new").incarnation
    draft = Draft(write=b"w", size=1, etag="", body=b"x")
    for node in cluster.nodes.values():
        for i in range(300):
            node.copies.coordinate(
                incarnation, b"%d" % i, draft, actor=node.actor, stamp=1, context=None
            )
    cluster.pass_time(1)
    put(cluster, "n1", "new", bytes(3_000_000))
    delete(cluster, "n2")
    for node in cluster.nodes.values():
        reaper = Reaper(copies=node.copies, buckets=node.table)
        assert reaper.progress() == (0, 0)
        for _ in range(10):
            cluster.run(reaper.step())
        assert reaper.progress() == (1, 0)
        cluster.pass_time(1)
        assert list(node.copies.scan(incarnation, b"", b"")) == []
        assert node.chunks.stored == {}
        assert node.copies.totals() == (1, 1)


def test_a_members_bucket_states_travel_in_pages() -> None:
    """A list larger than one reply is complete."""
    cluster = TestCluster(1)
    node = cluster.nodes["n1"]
    states = [node.table.get(f"name{i:04d}").create(1, 1, PLAIN) for i in range(2500)]
    cluster.wait(node.table.merge(states))
    found, after, done = [], "", False
    while not done:
        reply = cluster.wait(node.local.call(messages.BucketList(after)))
        assert isinstance(reply, messages.BucketsReply)
        found += [b.name for b in reply.buckets]
        after, done = found[-1], reply.done
    assert found == sorted(["b", *(b.name for b in states)])
