"""What counts as a client's wait: small requests for objects, until their first byte."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dynamo.api.channel import COLLECT_MAX
from dynamo.api.documented import DocumentedFace
from dynamo.api.peer import PeerFace
from dynamo.api.resource import ResourceFace
from dynamo.api.site import site
from dynamo.wire import messages
from dynamo.wire.signing import Signer
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.http import Client, multipart, request_bytes

K = "/v1/buckets/b/objects/k"
LARGE = b"x" * (COLLECT_MAX + 1)
BUCKET, NAME = ("bucket", b"b", None), ("name", b"k", None)


class Watch:
    """A client of the public faces, and the waits they told of, as (now, seconds)."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.coordinator = FakeCoordinator()
        self.coordinator.bucket("b")
        self.coordinator.file("b", "k", b"small")
        self.told: list[tuple[float, float]] = []
        faces = site(
            DocumentedFace(self.coordinator, dict).app,
            ResourceFace(self.coordinator).app,
            reactor=self.clock,
            body_limit=1 << 24,
            foreground=lambda *wait: self.told.append(wait),
        )
        self.client = Client(faces)

    def held(self, request: bytes, seconds: float) -> None:
        """Sends a request that the coordinator takes so long for."""
        hold: Deferred[Any] = Deferred()
        self.coordinator.hold = hold
        self.client.send(request)
        self.clock.advance(seconds)
        self.coordinator.hold = None
        hold.callback(None)


def posted(path: str, *fields: tuple[str, bytes, str | None]) -> bytes:
    body, kind = multipart(*fields)
    return request_bytes("POST", path, body, {"Content-Type": kind})


@pytest.mark.parametrize(
    "request_",
    [
        request_bytes("GET", K),
        request_bytes("HEAD", K),
        request_bytes("GET", K + "?version=n1.1"),
        request_bytes("GET", "/v1/buckets/b/objects/none"),
        request_bytes("PUT", K, b"x" * COLLECT_MAX),
        request_bytes("DELETE", K),
        request_bytes("GET", "/file/b/k"),
        posted("/read/file/", BUCKET, NAME),
        posted("/create/file/", BUCKET, ("name", b"new", None), ("file", b"x", "f")),
        posted("/update/file/", BUCKET, NAME, ("file", b"x", "f")),
        posted("/delete/file/", BUCKET, NAME),
    ],
)
def test_requests_for_objects_count(request_: bytes) -> None:
    """Once each, with what the coordinator took."""
    watch = Watch()
    watch.clock.advance(50)
    watch.held(request_, 0.25)
    assert watch.told == [(50.25, 0.25)]


@pytest.mark.parametrize(
    "request_",
    [
        request_bytes("PUT", "/v1/buckets/new"),
        request_bytes("GET", "/v1/buckets"),
        request_bytes("GET", "/v1/buckets/b/objects"),
        request_bytes("GET", "/v1/buckets/b/objects/"),
        request_bytes("PUT", K, LARGE),
        request_bytes("PUT", K + "?w=0", b"x"),
        request_bytes("GET", K + "?none=1"),
        posted("/create/bucket/", NAME),
        posted("/update/file/", BUCKET, NAME, ("file", LARGE, "f")),
        posted("/status/"),
        request_bytes("GET", "/nowhere"),
    ],
)
def test_others_do_not(request_: bytes) -> None:
    """What reads much, streams in, or never comes to the replicas says nothing of their load."""
    watch = Watch()
    watch.held(request_, 0.25)
    assert len(watch.client.responses()) == 1
    assert watch.told == []


def test_how_fast_a_client_sends_and_reads_does_not_count() -> None:
    """A small body that trickles in, and a large one that is hardly taken."""
    watch = Watch()
    data = request_bytes("PUT", K, b"0123456789")
    watch.client.send(data[:-5])
    watch.clock.advance(3)
    watch.client.send(data[-5:])
    assert watch.told == [(3.0, 0.0)]

    watch.coordinator.file("b", "large", LARGE * 10)
    watch.client.wire.always_full = True
    watch.client.send(request_bytes("GET", "/v1/buckets/b/objects/large"))
    assert watch.told == [(3.0, 0.0), (3.0, 0.0)], "told at the first byte"


class SlowReplica:
    """Answers batches when it is told to."""

    def __init__(self) -> None:
        self.held: Deferred[list[Any]] = Deferred()

    async def answer(self, ops: list[Any]) -> list[Any]:
        return await self.held


READ = messages.Read(b"incarnat", b"k", True)
SCAN = messages.Scan(b"incarnat", b"", b"", 10)


@pytest.mark.parametrize(
    ("ops", "counts"), [([READ], True), ([READ] * 3, True), ([SCAN], False), ([READ, SCAN], False)]
)
def test_other_nodes_requests_count_if_clients_wait_for_them(ops: list[Any], counts: bool) -> None:
    """A batch that has anything else in it does not."""
    local: Any = SlowReplica()
    nothing: Any = None
    told: list[tuple[float, float]] = []
    clock = Clock()
    face = PeerFace(local, Signer(()), lambda: 0.0, nothing, nothing)
    faces = site(
        face.app, reactor=clock, body_limit=1 << 20, foreground=lambda *wait: told.append(wait)
    )
    client = Client(faces)
    client.send(request_bytes("POST", "/peer/ops", messages.encode(ops)))
    clock.advance(0.5)
    local.held.callback([])
    assert client.responses()[0].status == 200
    assert told == ([(0.5, 0.5)] if counts else [])
