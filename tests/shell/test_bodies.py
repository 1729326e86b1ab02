"""Bodies on their way in and out: whole or not at all, bounded, and from whoever has them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from blake3 import blake3

from dynamo.coordinator.bodies import CHUNK_BYTES, INLINE_MAX, LAG_MAX, WARM_CHUNKS, WINDOW
from dynamo.coordinator.requests import Options, Upload
from dynamo.errors import BadRequest, MissingChunks, QuorumNotMet, StorageFull, TooLarge
from tests.support.cluster import Body, TestCluster

LARGE = bytes(range(256)) * (INLINE_MAX // 64)


def body_of(size: int) -> bytes:
    """Bytes whose chunks all differ."""
    return b"".join(blake3(b"%d" % i).digest() for i in range(-(-size // 32)))[:size]


BIG = body_of(5 * CHUNK_BYTES + 17)


def stored(cluster: TestCluster) -> list[int]:
    """How many chunks each node keeps."""
    return [len(node.chunks.stored) for node in cluster.nodes.values()]


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(
    "size",
    [0, 1, INLINE_MAX, INLINE_MAX + 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, len(BIG)],
)
def test_a_body_of_any_size_comes_back(size: int, announced: bool) -> None:
    """The same bytes from every node, under their digest; small ones make no chunk."""
    cluster = TestCluster(3)
    body = body_of(size)
    work = cluster.nodes["n1"].door.put(
        "b", "k", Upload(body=Body(body, announced=announced)), options=Options()
    )
    written = cluster.run(work)
    cluster.pass_time(2)
    assert written.version.etag == blake3(body).hexdigest()
    for name in cluster.names:
        assert cluster.stream(name, "k") == body
    assert stored(cluster) == [0 if size <= INLINE_MAX else -(-size // CHUNK_BYTES)] * 3


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 0),
        (5, 5),
        (0, 1),
        (CHUNK_BYTES - 1, CHUNK_BYTES + 1),
        (CHUNK_BYTES, 2 * CHUNK_BYTES),
        (3, len(BIG)),
        (len(BIG) - 1, len(BIG)),
        (len(BIG), len(BIG)),
    ],
)
def test_any_stretch_of_a_body(start: int, stop: int) -> None:
    """Ranges across, along and inside chunks, down to none at all."""
    cluster = TestCluster(3)
    cluster.put("n1", "k", BIG)
    assert part(cluster, "n2", start, stop) == BIG[start:stop]


def part(cluster: TestCluster, at: str, start: int, stop: int) -> bytes:
    async def read() -> bytes:
        door = cluster.nodes[at].door
        found = await door.get("b", "k", options=Options())
        pieces = door.stream(found, found.record.live()[0], start, stop)
        return b"".join([piece async for piece in pieces])

    return cluster.run(read())


def test_chunks_travel_as_they_arrive() -> None:
    """The first one is on other nodes before the last one was read."""
    cluster = TestCluster(3)
    seen: list[list[int]] = []

    class Slow(Body):
        async def read(self, size: int) -> bytes:
            seen.append(stored(cluster))
            from twisted.internet.task import deferLater

            await deferLater(cluster.clock, 0.05)
            return await super().read(size)

    work = cluster.nodes["n1"].door.put("b", "k", Upload(body=Slow(BIG)), options=Options())
    cluster.run(work)
    assert seen[-1] == [5, 5, 5]
    assert seen[4] == [3, 3, 3]


def test_a_slow_target_is_dropped_and_told_later() -> None:
    """It is not waited for; its copy comes by handoff, whole."""
    cluster = TestCluster(3)
    cluster.link("n1", "n3").delay = 3.0
    body = body_of((LAG_MAX + 5) * CHUNK_BYTES)
    before = cluster.clock.seconds()
    written = cluster.put("n1", "k", body)
    assert cluster.clock.seconds() - before < 2
    assert set(written.replicas) == {"n1", "n2"}
    cluster.pass_time(20)
    assert cluster.hints() == {"n1": {"n3": 1}}
    cluster.link("n1", "n3").delay = 0.001
    cluster.hand_off()
    assert cluster.nodes["n3"].owned("k") == cluster.nodes["n1"].owned("k")
    assert stored(cluster) == [LAG_MAX + 5] * 3


def test_the_client_is_made_to_wait_when_fewer_than_w_keep_up() -> None:
    """Bounded: what is under way to a slow replica is never more than a few chunks."""
    cluster = TestCluster(3)
    for name in ("n2", "n3"):
        cluster.link("n1", name).delay = 0.2
    under_way: list[int] = []
    taken = 0

    class Counting(Body):
        async def read(self, size: int) -> bytes:
            nonlocal taken
            piece = await super().read(size)
            taken += 1 if len(piece) == CHUNK_BYTES else 0
            under_way.append(taken - stored(cluster)[1])
            return piece

    body = body_of(20 * CHUNK_BYTES)
    work = cluster.nodes["n1"].door.put("b", "k", Upload(body=Counting(body)), options=Options())
    cluster.run(work)
    assert max(under_way) <= LAG_MAX
    assert cluster.stream("n2", "k") == body


def test_a_short_body_leaves_room_and_a_long_one_fills_the_window() -> None:
    """Under way to the one that W needs as the next chunk is there: none at first, then more."""
    cluster = TestCluster(3)
    for name in ("n2", "n3"):
        cluster.link("n1", name).delay = 0.1
    under_way: list[int] = []

    class Counting(Body):
        async def read(self, size: int) -> bytes:
            piece = await super().read(size)
            if len(piece) == CHUNK_BYTES:
                under_way.append(1 + len(under_way) - stored(cluster)[1])
            return piece

    body = body_of(24 * CHUNK_BYTES)
    work = cluster.nodes["n1"].door.put("b", "k", Upload(body=Counting(body)), options=Options())
    cluster.run(work)
    # The first chunk is read in two pieces: the list begins as the second one is there.
    assert max(under_way[: WARM_CHUNKS - 1]) == 0
    assert max(under_way[: 2 * WARM_CHUNKS - 1]) == 1
    assert max(under_way) == WINDOW


def claims(body: bytes) -> dict[str, Any]:
    return {"md5": hashlib.md5(body).digest(), "sha256": hashlib.sha256(body).digest()}


@pytest.mark.parametrize("size", [3, len(BIG)])
def test_digests_that_hold_are_accepted(size: int) -> None:
    """MD5 and SHA-256 of the whole body, inline or in chunks."""
    cluster = TestCluster(3)
    body = BIG[:size]
    cluster.put("n1", "k", body, upload=claims(body))
    assert cluster.stream("n2", "k") == body


@pytest.mark.parametrize("delay", [0.0, 0.5])
@pytest.mark.parametrize("claim", ["md5", "sha256"])
@pytest.mark.parametrize("size", [3, len(BIG)])
def test_a_digest_that_does_not_hold_stores_nothing_anywhere(
    size: int, claim: str, delay: float
) -> None:
    """No record, and every chunk is freed on every node, also one that was still under way."""
    cluster = TestCluster(4)
    for name in cluster.names:
        cluster.link(cluster.ranking("k")[0], name).chunk_delay = delay
    wrong = {claim: claims(BIG[:size] + b"!")[claim]}
    with pytest.raises(BadRequest) as caught:
        cluster.put(cluster.ranking("k")[0], "k", BIG[:size], upload=wrong)
    assert caught.value.code == "digest_mismatch"
    cluster.pass_time(30)
    assert stored(cluster) == [0] * 4
    assert cluster.live("n2", "k") == ()


@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_a_client_that_goes_away_leaves_nothing(delay: float) -> None:
    """What arrived of the body is freed wherever it went, slow links or not."""
    cluster = TestCluster(3)
    for name in ("n2", "n3"):
        cluster.link("n1", name).chunk_delay = delay
    upload = Upload(body=Body(BIG, breaks_at=4 * CHUNK_BYTES))
    with pytest.raises(BadRequest):
        cluster.run(cluster.nodes["n1"].door.put("b", "k", upload, options=Options()))
    cluster.pass_time(30)
    assert stored(cluster) == [0] * 3


def test_a_write_that_finds_no_quorum_after_its_body_frees_it() -> None:
    """Nodes that took the chunks but not the record do not keep them."""
    cluster = TestCluster(3)
    for name in ("n2", "n3"):
        cluster.nodes[name].engine.bytes_max = 0
    with pytest.raises(StorageFull):
        cluster.put("n1", "k", BIG)
    cluster.pass_time(30)
    assert stored(cluster)[1:] == [0, 0]


def test_a_body_the_disks_have_no_room_for() -> None:
    """507 while it streams in, and what was stored of it is freed."""
    cluster = TestCluster(3)
    for node in cluster.nodes.values():
        node.chunks.bytes_max = 3 * CHUNK_BYTES
    with pytest.raises(StorageFull):
        cluster.put("n1", "k", BIG)
    cluster.pass_time(30)
    assert stored(cluster) == [0] * 3


def test_one_full_disk_of_three_is_no_failure() -> None:
    """The other two take it; the third is told when it has room."""
    cluster = TestCluster(3)
    cluster.nodes["n3"].chunks.bytes_max = 3 * CHUNK_BYTES
    cluster.put("n1", "k", BIG)
    cluster.pass_time(2)
    cluster.nodes["n3"].chunks.bytes_max = None
    cluster.hand_off()
    assert cluster.nodes["n3"].owned("k") == cluster.nodes["n1"].owned("k")
    assert stored(cluster) == [6] * 3


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_refused(announced: bool) -> None:
    """At once if it says so, else where it crosses the limit; nothing stays."""
    cluster = TestCluster(3)
    cluster.nodes["n1"].door.bodies.max_bytes = 3 * CHUNK_BYTES
    upload = Upload(body=Body(BIG, announced=announced))
    with pytest.raises(TooLarge):
        cluster.run(cluster.nodes["n1"].door.put("b", "k", upload, options=Options()))
    cluster.pass_time(5)
    assert stored(cluster) == [0] * 3


def test_targets_that_all_hang_fail_the_upload_in_time() -> None:
    """It says how many took the chunks."""
    cluster = TestCluster(3)
    for name in ("n2", "n3"):
        cluster.link("n1", name).hang = True
    with pytest.raises(QuorumNotMet):
        cluster.run(cluster.put_later("n1", "k", body_of(20 * CHUNK_BYTES)), seconds=25)
    cluster.pass_time(30)
    assert stored(cluster)[0] == 0


@pytest.mark.parametrize("damage", [None, b"flipped"])
def test_a_chunk_lost_or_damaged_here_comes_from_the_next_holder(damage: bytes | None) -> None:
    """I13: the client gets the right bytes and notices nothing."""
    cluster = TestCluster(3)
    cluster.put("n1", "k", BIG)
    cluster.pass_time(2)
    for name in ("n1", "n2"):
        kept = cluster.nodes[name].chunks.stored
        for digest in list(kept)[::2]:
            if damage is None:
                del kept[digest]
            else:
                kept[digest] = damage
    assert cluster.stream("n1", "k") == BIG


def test_a_chunk_nobody_has_whole_ends_the_stream() -> None:
    """An error in the middle, never wrong bytes."""
    cluster = TestCluster(3)
    cluster.put("n1", "k", BIG)
    cluster.pass_time(2)
    for node in cluster.nodes.values():
        node.chunks.stored[blake3(BIG[CHUNK_BYTES : 2 * CHUNK_BYTES]).digest()] = b"bad"
    with pytest.raises((QuorumNotMet, MissingChunks)):
        cluster.stream("n1", "k")


@pytest.mark.parametrize("fault", ["down", "hang"])
def test_a_holder_that_goes_away_mid_stream_is_replaced(fault: str) -> None:
    """The node that answers has no copy itself; the nearest holder dies after some chunks."""
    cluster = TestCluster(5)
    *owners, outsider, _ = cluster.ranking("k")
    cluster.put(owners[0], "k", BIG)
    cluster.pass_time(2)

    async def read() -> bytes:
        door = cluster.nodes[outsider].door
        found = await door.get("b", "k", options=Options())
        pieces = []
        async for piece in door.stream(found, found.record.live()[0], 0, len(BIG)):
            pieces.append(piece)
            setattr(cluster.link(outsider, owners[0]), fault, True)
        return b"".join(pieces)

    assert cluster.run(read(), seconds=100) == BIG


def test_a_stream_ended_early_leaves_nothing_running() -> None:
    """The chunk fetched ahead is let go of, quietly."""
    cluster = TestCluster(5)
    outsider = cluster.ranking("k")[-1]
    cluster.put("n1", "k", BIG)
    cluster.pass_time(2)

    async def read() -> bytes:
        door = cluster.nodes[outsider].door
        found = await door.get("b", "k", options=Options())
        pieces: Any = door.stream(found, found.record.live()[0], 0, len(BIG))
        first: bytes = await anext(pieces)
        await pieces.aclose()
        return first

    assert cluster.run(read()) == BIG[:CHUNK_BYTES]
    asked = len(cluster.network.sent)
    cluster.pass_time(20)
    assert len(cluster.network.sent) == asked
    assert cluster.clock.getDelayedCalls() == []


def test_two_files_share_their_chunks_until_both_are_gone() -> None:
    """Content is stored once and freed with its last reference."""
    cluster = TestCluster(1)
    cluster.put("n1", "k", BIG)
    cluster.put("n1", "l", BIG)
    assert stored(cluster) == [6]
    cluster.delete("n1", "k")
    cluster.pass_time(1)
    assert cluster.stream("n1", "l") == BIG
    cluster.delete("n1", "l")
    cluster.pass_time(1)
    assert stored(cluster) == [0]


def test_a_restart_sweeps_what_no_record_names() -> None:
    """A body whose coordinator died half-way takes no room for ever."""
    cluster = TestCluster(3)
    cluster.put("n1", "kept", BIG)
    uploading = cluster.start(cluster.put_later("n1", "k", body_of(30 * CHUNK_BYTES)[::-1]))
    cluster.pass_time(0.01)
    assert stored(cluster)[0] > 6
    cluster.restart("n1")
    assert stored(cluster)[0] == 6
    uploading.addErrback(lambda _: None)


def test_a_holder_thought_to_be_gone_is_asked_when_nobody_else_has_it() -> None:
    """A doubt that is out of date does not cost a download its last holder."""
    cluster = TestCluster(5)
    ranking = cluster.ranking("k")
    cluster.put(ranking[0], "k", LARGE)
    cluster.pass_time(1)
    reader, *others = ranking[3], *ranking[:2]
    found = cluster.get(reader, "k", r=3)
    cluster.told(reader, ranking[2], "suspect")
    pieces = cluster.nodes[reader].door.stream(found, found.record.live()[0], 0, len(LARGE))
    for name in others:
        cluster.cut(name)

    async def whole() -> bytes:
        return b"".join([piece async for piece in pieces])

    assert cluster.run(whole()) == LARGE
