"""Every client operation from any node: terms, expectations, staged bodies, the ambiguous rest."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo.coordinator.bodies import CHUNK_BYTES, STAGED_S
from dynamo.coordinator.requests import Options, Upload
from dynamo.coordinator.terms import Defaults, Terms, settle
from dynamo.core.buckets import Properties
from dynamo.errors import (
    FileExists,
    NoSuchBucket,
    NoSuchFile,
    NotReady,
    QuorumNotMet,
    StorageFull,
)
from tests.shell.test_bodies import body_of, stored
from tests.support.cluster import Body, TestCluster

BIG = body_of(3 * CHUNK_BYTES + 5)
ANY = Options()


def test_a_node_that_has_not_joined_does_nothing() -> None:
    """503 with the reason, for every operation."""
    cluster = TestCluster(3)
    cluster.nodes["n1"].view.joined = False
    door = cluster.nodes["n1"].door
    upload = Upload(body=Body(b"x"))
    operations: list[Any] = [
        door.create_bucket("c", Properties()),
        door.put_bucket("c", Properties()),
        door.delete_bucket("b"),
        door.find_bucket("b"),
        door.list_buckets(),
        door.put("b", "k", upload, options=ANY),
        door.stage(upload),
        door.delete("b", "k", options=ANY),
        door.get("b", "k", options=ANY),
        door.inspect("b", "k"),
    ]
    for operation in operations:
        with pytest.raises(NotReady, match="Waiting for the seeds"):
            cluster.run(operation)


def test_nothing_is_done_in_a_bucket_that_is_not_there() -> None:
    """404 from every node, after asking others."""
    cluster = TestCluster(3)
    for at in cluster.names:
        door = cluster.nodes[at].door
        upload = Upload(body=Body(b"x"))
        for work in (
            door.put("none", "k", upload, options=ANY),
            door.get("none", "k", options=ANY),
            door.delete("none", "k", options=ANY),
        ):
            with pytest.raises(NoSuchBucket):
                cluster.run(work)


def test_a_create_finds_the_file_there_and_an_update_finds_it_missing() -> None:
    """From any node, whichever wrote it; a deleted file is missing."""
    cluster = TestCluster(5)
    for at in cluster.names:
        with pytest.raises(NoSuchFile):
            cluster.put(at, "k", expect="present")
    cluster.put("n1", "k", expect="absent", context={})
    for at in cluster.names:
        with pytest.raises(FileExists):
            cluster.put(at, "k", expect="absent", context={})
        cluster.put(at, "k", expect="present")
    cluster.delete("n2", "k", expect="present")
    for at in cluster.names:
        with pytest.raises(NoSuchFile):
            cluster.delete(at, "k", expect="present")
    cluster.put("n3", "k", expect="absent", context={})


def test_racing_creates_lose_nothing() -> None:
    """One is refused, or both are kept as siblings."""
    for seed in range(10):
        cluster = TestCluster(5, seed=seed)
        for here in cluster.names:
            for there in cluster.names:
                cluster.link(here, there).jitter = 0.02
        racing = {
            at: cluster.start(cluster.put_later(at, "k", at.encode(), expect="absent", context={}))
            for at in cluster.names[:3]
        }
        made = set()
        for at, race in racing.items():
            try:
                cluster.wait(race)
                made.add(at.encode())
            except FileExists:
                pass
        cluster.pass_time(1)
        assert made
        assert set(cluster.bodies("n5", "k", r=3)) == made


def test_a_delete_leaves_what_its_context_had_not_seen() -> None:
    """And one without a context deletes all that its coordinator holds."""
    cluster = TestCluster(3)
    seen = cluster.put("n1", "k", b"one", context={}).context
    cluster.put("n2", "k", b"two", context={})
    cluster.pass_time(1)
    cluster.delete("n3", "k", context=seen)
    assert cluster.bodies("n1", "k", r=3) == [b"two"]
    cluster.delete("n3", "k")
    assert cluster.bodies("n1", "k", r=3) == []


def test_a_staged_body_is_stored_like_any_other() -> None:
    """Also from a node that keeps no copy, and then nothing stays behind on it."""
    cluster = TestCluster(5)
    for at in cluster.names:
        key = f"of {at}"
        put_staged(cluster, at, key, BIG)
        cluster.pass_time(STAGED_S + 5)
        assert cluster.stream("n1", key) == BIG
        cluster.delete("n1", key)
        cluster.pass_time(1)
        assert stored(cluster) == [0] * 5


def put_staged(cluster: TestCluster, at: str, key: str, body: bytes, **more: Any) -> Any:
    async def both() -> Any:
        door = cluster.nodes[at].door
        staged = await door.stage(Upload(body=Body(body), content_type="a/b"))
        return await door.put("b", key, staged, options=ANY, **more)

    return cluster.run(both())


@pytest.mark.parametrize("fault", ["down", "hang"])
@pytest.mark.parametrize("body", [b"small", BIG], ids=["inline", "chunks"])
def test_a_staged_body_needs_no_more_nodes_than_another(body: bytes, fault: str) -> None:
    """A target that nobody knows to be gone is left to handoff and not waited for."""
    cluster = TestCluster(3)
    setattr(cluster.link("n1", "n2"), fault, True)
    before = cluster.clock.seconds()
    put_staged(cluster, "n1", "k", body)
    assert cluster.clock.seconds() - before < 2
    cluster.pass_time(15)
    cluster.heal("n2")
    cluster.hand_off()
    assert cluster.nodes["n2"].owned("k") == cluster.nodes["n1"].owned("k")
    assert cluster.stream("n2", "k", r=1) == body


def test_a_staged_body_that_is_not_stored_is_freed() -> None:
    """Whether the put failed, or never came."""
    cluster = TestCluster(3)
    with pytest.raises(NoSuchFile):
        put_staged(cluster, "n1", "k", BIG, expect="present")
    cluster.run(cluster.nodes["n2"].door.stage(Upload(body=Body(BIG))))
    assert stored(cluster) == [4, 4, 0]
    cluster.pass_time(STAGED_S + 1)
    assert stored(cluster) == [0, 0, 0]
    for node in cluster.nodes.values():
        node.engine.bytes_max = 0
    with pytest.raises(StorageFull):
        put_staged(cluster, "n1", "k", BIG)
    cluster.pass_time(20)
    assert stored(cluster) == [0, 0, 0]


def test_inspect_says_what_each_node_holds() -> None:
    """Owned and held apart, with whom the hint is for; who does not answer is named."""
    cluster = TestCluster(4)
    a, b, c, d = cluster.ranking("k")
    cluster.cut(c)
    cluster.put(a, "k", b"x")
    cluster.pass_time(1)
    partition, preference, replies = cluster.run(cluster.nodes[a].door.inspect("b", "k"))
    assert cluster.ring.ranking(partition) == (a, b, c, d)
    assert preference.target(d) is not None
    assert list(replies) == [a, b, c, d]
    assert isinstance(replies[c], Exception)
    assert replies[a].owned.live()[0].stripped
    assert (replies[d].owned.live(), replies[d].hint_for) == ((), (c,))
    assert replies[d].held.live()[0].id == replies[a].owned.live()[0].id


DEFAULTS = Defaults(n=3, r="quorum", w="quorum", quorum="sloppy", timeout=10.0)


@pytest.mark.parametrize(
    ("options", "properties", "members", "expected"),
    [
        ({}, {}, 5, (3, 2, 2, False, False, 10.0)),
        ({}, {}, 1, (1, 1, 1, False, False, 10.0)),
        ({}, {"n": 5}, 5, (5, 3, 3, False, False, 10.0)),
        ({}, {"n": 9, "w": 9}, 4, (4, 3, 4, False, False, 10.0)),
        ({}, {"r": 1, "w": 3}, 5, (3, 1, 3, False, False, 10.0)),
        ({"r": 3, "w": 1}, {"r": 1, "w": 3}, 5, (3, 3, 1, False, False, 10.0)),
        ({"n": 1}, {"w": 2}, 5, (1, 1, 1, False, False, 10.0)),
        ({"r": "quorum"}, {"r": 3}, 5, (3, 2, 2, False, False, 10.0)),
        ({"quorum": "strict", "timeout": 1.5}, {}, 5, (3, 2, 2, True, False, 1.5)),
        ({"quorum": "sloppy"}, {"quorum": "strict"}, 5, (3, 2, 2, False, False, 10.0)),
        ({"timeout": 99.0}, {"conflicts": "latest"}, 5, (3, 2, 2, False, True, 10.0)),
    ],
)
def test_the_request_goes_before_its_bucket_and_that_before_the_defaults(
    options: Any, properties: Any, members: int, expected: Any
) -> None:
    """Cut to what there is, except for what the request itself asks."""
    n, r, w, strict, latest, timeout = expected
    found = settle(Options(**options), Properties(**properties), DEFAULTS, members, "write")
    assert found == Terms(n=n, r=r, w=w, strict=strict, latest=latest, timeout=timeout)


@pytest.mark.parametrize("options", [{"n": 4}, {"r": 4}, {"w": 4}, {"n": 2, "w": 3}])
def test_a_request_for_more_than_there_are_cannot_be_served(options: Any) -> None:
    """It is refused at once, with the number asked for."""
    with pytest.raises(QuorumNotMet) as caught:
        settle(Options(**options), Properties(), DEFAULTS, 3, "write")
    assert caught.value.needed == max(options.values())
    assert caught.value.answered == 0
