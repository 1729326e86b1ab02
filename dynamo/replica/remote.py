"""Another node's copies, across peer HTTP (treq over a persistent pool).

Operations go in lanes by what they wait for, so that a read never stands behind an fsync and
neither behind a whole coordinated write. Chunks are streams of their own. Every wait has an end:
a peer that says nothing for `timeout` seconds is unreachable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import treq
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.python.failure import Failure

from dynamo.core.sightings import Origin
from dynamo.errors import MissingChunks, PeerBroke, PeerUnreachable, StorageFull
from dynamo.replica.lane import Lane
from dynamo.replica.lateness import Lateness
from dynamo.replica.pool import NO_COOKIES, peer_url
from dynamo.wire import agreeing, hello, messages, reaping
from dynamo.wire.hello import Hello
from dynamo.wire.messages import Op, Reply
from dynamo.wire.signing import HEADER, TIME, Signer

LANES: dict[type[Op], str] = {
    messages.Read: "read",
    messages.Inspect: "read",
    messages.BucketRead: "read",
    messages.BucketList: "read",
    messages.ChunksMissing: "read",
    messages.Scan: "scan",
    messages.TreeRoots: "tree",
    messages.TreeLevel: "tree",
    messages.TreeKeys: "tree",
    messages.Pull: "pull",
    reaping.GravesLook: "reap",
    reaping.GravesSettle: "reap",
    reaping.GravesSeal: "reap",
    reaping.GravesBury: "reap",
    agreeing.LayoutRead: "agree",
    agreeing.LayoutPrepare: "agree",
    agreeing.LayoutAccept: "agree",
    agreeing.LayoutLearn: "agree",
    messages.Merge: "write",
    messages.BucketMerge: "write",
    messages.ChunksDiscard: "write",
    messages.Coordinate: "forward",
    messages.BucketMake: "forward",
}
IN_FLIGHT = {
    "read": 1,
    "scan": 2,
    "tree": 1,
    "pull": 2,
    "reap": 1,
    "agree": 4,
    "write": 1,
    "forward": 8,
}
OPS = b"/peer/ops"
SILENT_S = 1.0
T = TypeVar("T")
ANSWER_BYTES_MAX = 64 * 1024 * 1024


class RemoteReplica:
    """The member `name` at `address` ("host:port"). `clock` is the reactor.

    `evidence(name, ok)` is told how each request went, `heard` who answered and how far its disk
    is; `origin()` says the same of this node. `timeout` is in seconds of silence. `filled` has the
    lanes, to any member, in which something waits. A lane is made when it is first used: most
    members of a large cluster have nothing to say to most others.
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        http: HTTPClient,
        clock: Any,
        wall_clock: Callable[[], float],
        signer: Signer,
        timeout: float,
        evidence: Callable[[str, bool], None],
        origin: Callable[[], Origin | None] = lambda: None,
        heard: Callable[[Origin], None] = lambda origin: None,
        filled: set[Lane] | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self._ahead = 0.0
        self._ops = peer_url(address, OPS.decode())
        self._http = http
        self._clock = clock
        self._wall_clock = wall_clock
        self._signer = signer
        self._timeout = timeout
        self._patience: Lateness | None = None
        self._evidence = evidence
        self._origin = origin
        self._heard = heard
        self._lanes: dict[str, Lane] = {}
        self._filled = filled

    def call(self, op: Op) -> Deferred[Reply]:
        name = LANES[type(op)]
        lane = self._lanes.get(name)
        if lane is None:
            lane = Lane(self.name, self._clock, self._send, IN_FLIGHT[name], self._filled)
            self._lanes[name] = lane
        return lane.call(op)

    @property
    def gathering(self) -> bool:
        return "read" in self._lanes and self._lanes["read"].waiting

    def read_chunk(self, digest: bytes) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self._read_chunk(digest))

    def write_chunk(self, digest: bytes, data: bytes) -> Deferred[None]:
        return Deferred.fromCoroutine(self._write_chunk(digest, data))

    async def hello(self, timeout: float, *, asker: str = "") -> Hello:
        """Asks the node who it is and how it fares, and what it saw of the `asker`, or of all."""
        path = b"/peer/hello" + (b"?for=" + quote(asker).encode() if asker else b"")
        _, data = await self._exchange(b"GET", path, b"", timeout)
        try:
            return hello.decode_hello(data)
        except PeerBroke as error:
            raise PeerBroke(self.name or self.address, error.detail) from None

    async def exchange_state(self, state: bytes, timeout: float) -> bytes:
        """Sends this node's whole view of the members; returns the peer's."""
        code, data = await self._exchange(b"POST", b"/peer/state", state, timeout)
        if code != 200:
            raise PeerBroke(self.name or self.address, f"answered {code} to a state")
        return data

    def _send(self, ops: Sequence[Op]) -> Deferred[Sequence[Reply]]:
        return Deferred.fromCoroutine(self._post(ops))

    async def _post(self, ops: Sequence[Op]) -> Sequence[Reply]:
        body = messages.encode(ops, self._origin())
        code, data = await self._exchange(b"POST", OPS, body, self._timeout)
        if code != 200:
            raise PeerBroke(self.name, f"answered {code} to a batch")
        origin, replies = messages.open_replies(data)
        if origin is not None:
            self._heard(origin)
        return replies

    async def _read_chunk(self, digest: bytes) -> bytes:
        path = b"/peer/chunks/" + digest.hex().encode()
        code, data = await self._exchange(b"GET", path, b"", self._timeout)
        if code == 404:
            raise MissingChunks((digest,))
        if code != 200:
            raise PeerBroke(self.name, f"answered {code} to a chunk's name")
        return data

    async def _write_chunk(self, digest: bytes, data: bytes) -> None:
        path = b"/peer/chunks/" + digest.hex().encode()
        code, _ = await self._exchange(b"PUT", path, data, self._timeout)
        if code == 507:
            raise StorageFull(f"The disk of {self.name} is full.")
        if code != 200:
            raise PeerBroke(self.name, f"answered {code} to a chunk")

    async def _exchange(
        self, method: bytes, path: bytes, body: bytes, timeout: float
    ) -> tuple[int, bytes]:
        """One request, signed if need be, and its whole answer.

        A signature is fresh by the peer's clock. One that is refused is made again with the time
        the peer said it is there, so that a clock that is off costs a request and no more.
        """
        code, told, data = await self._signed(method, path, body, timeout)
        if code == 401 and told is not None:
            self._ahead = told - self._wall_clock()
            code, told, data = await self._signed(method, path, body, timeout)
        if code == 401:
            raise PeerBroke(self.name, "does not share this cluster's secret")
        return code, data

    async def _signed(
        self, method: bytes, path: bytes, body: bytes, timeout: float
    ) -> tuple[int, float | None, bytes]:
        headers: dict[bytes | str, bytes | str] = {}
        if self._signer.required:
            now = self._wall_clock() + self._ahead
            headers[HEADER] = self._signer.sign(now, method, path, body)
        began = self._clock.seconds()
        try:
            return await self._ask(method, path, body, headers, timeout)
        except (ConnectError, ConnectingCancelledError) as error:
            self._evidence(self.name, False)
            raise PeerUnreachable(self.name, "refused the connection", sent=False) from error
        except CancelledError as error:
            self._given_up(began)
            raise PeerUnreachable(self.name, "was not waited for") from error
        except TimeoutError as error:
            self._evidence(self.name, False)
            raise PeerUnreachable(self.name, f"said nothing for {timeout:g} s") from error
        except PeerBroke:
            raise
        except Exception as error:
            if _given_up(error):
                self._given_up(began)
                raise PeerUnreachable(self.name, "was not waited for") from error
            self._evidence(self.name, False)
            why = Failure(error).getErrorMessage()
            raise PeerUnreachable(self.name, f"broke off ({why})") from error

    def _within(self, timeout: float, asked: Deferred[T]) -> Deferred[T]:
        if timeout == self._timeout:
            if self._patience is None:
                self._patience = Lateness(self._clock, timeout)
            return self._patience.limit(asked, _too_late)
        return asked.addTimeout(timeout, self._clock, _too_late)

    def _given_up(self, began: float) -> None:
        """Nobody waited any longer: that says something of the peer if it was silent for long."""
        if self._clock.seconds() - began >= SILENT_S:
            self._evidence(self.name, False)

    async def _ask(
        self,
        method: bytes,
        path: bytes,
        body: bytes,
        headers: dict[bytes | str, bytes | str],
        timeout: float,
    ) -> tuple[int, float | None, bytes]:
        """The answer's status, the time it gives (if it gives one), and its body."""
        asked = self._http.request(
            method.decode(),
            self._ops if path == OPS else peer_url(self.address, path.decode()),
            headers=headers,
            data=body or None,
            cookies=NO_COOKIES,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,
        )
        response = await self._within(timeout, asked)
        pieces: list[bytes] = []
        size = 0

        def collect(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            if size > ANSWER_BYTES_MAX:
                raise PeerBroke(self.name, "answered more than a node may")
            pieces.append(piece)

        await self._within(timeout, treq.collect(response, collect))
        self._evidence(self.name, True)
        told = None
        if response.code == 401:
            told = _seconds(response.headers.getRawHeaders(TIME, [b""])[0])
        return response.code, told, b"".join(pieces)


def _too_late(result: Any = None, seconds: float = 0.0) -> Any:
    """In a timeout's place the HTTP client reports a request that was broken off."""
    raise TimeoutError(seconds, "peer")


def _given_up(error: Exception) -> bool:
    """Whether the HTTP client broke a request off because nobody waits for it any more."""
    reasons = getattr(error, "reasons", None) or ()
    return any(isinstance(why, Failure) and why.check(CancelledError) for why in reasons)


def _seconds(text: bytes) -> float | None:
    try:
        told = float(text)
    except ValueError:
        return None
    return told if math.isfinite(told) else None
