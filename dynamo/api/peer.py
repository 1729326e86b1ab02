"""The face for other nodes: batches of operations, chunks, and who this node is.

    POST /peer/ops             a batch (`dynamo.wire.messages`), answered when all of it is done
    GET|PUT /peer/chunks/HEX   one chunk's bytes
    GET /peer/hello?for=NAME   who this node is, as JSON, and what it saw of that member (without a
                               name, of all); a probe when UDP fails
    POST /peer/state           a full exchange of what both know of the members

With `cluster.secret` set, every request must be signed (`dynamo.wire.signing`).
"""

from __future__ import annotations

from collections.abc import Callable

from dynamo.api.body import read_all
from dynamo.api.errors import Answer, json_answer
from dynamo.api.request import Request
from dynamo.api.site import Face
from dynamo.core.fences import Fences
from dynamo.core.layout import compatible
from dynamo.core.sightings import Origin
from dynamo.errors import (
    Corrupt,
    DynamoError,
    MissingChunks,
    NotReady,
    PeerBroke,
    StorageFault,
    StorageFull,
)
from dynamo.replica.local import LocalReplica
from dynamo.wire import hello, messages
from dynamo.wire.datagrams import STATE_BYTES_MAX, BadDatagram
from dynamo.wire.faults import fault
from dynamo.wire.hello import Hello
from dynamo.wire.signing import HEADER, TIME, Signer

BATCH_BYTES_MAX = 16 * 1024 * 1024
CHUNK_BYTES_MAX = 4 * 1024 * 1024
CARRIERS = (messages.Merge, messages.Coordinate)
"""What may bring back what was deleted, if it comes long after its time."""
BY_RING = (*CARRIERS, messages.Read, messages.Scan)
"""What depends on who owns what."""
FOREGROUND: frozenset[type] = frozenset((messages.Read, messages.Merge, messages.Coordinate))
"""What other nodes' clients wait for. A merge may also be a hint that returns; it waits for the
same disk."""
BYTES = [(b"Content-Type", b"application/octet-stream")]


class PeerFace:
    """See the module. `hello(asker)` says who this node is; `exchange(state)` takes a peer's view
    of the members and gives ours; `origin()` says how far this node's disk is, `heard` takes what a
    peer says of its own. What `fences` holds off may read here, and changes nothing. `layout()` is
    the version this node goes by, and the lowest it still takes: who goes by less, or by one that
    is no neighbour, is refused until one of the two has caught up."""

    app = Face()

    def __init__(
        self,
        local: LocalReplica,
        signer: Signer,
        wall_clock: Callable[[], float],
        hello: Callable[[str], Hello],
        exchange: Callable[[bytes], bytes],
        origin: Callable[[], Origin | None] = lambda: None,
        heard: Callable[[Origin], None] = lambda origin: None,
        fences: Fences | None = None,
        layout: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self._layout = layout
        self._fences = fences or Fences()
        self._local = local
        self._signer = signer
        self._wall_clock = wall_clock
        self._hello = hello
        self._exchange = exchange
        self._origin = origin
        self._heard = heard

    @app.route("/peer/ops", methods=["POST"])
    async def ops(self, request: Request) -> Answer:
        body = await read_all(request.body, BATCH_BYTES_MAX, "batch")
        if not self._allowed(request, body):
            return self._stranger()
        try:
            origin, ops = messages.open_ops(body)
        except PeerBroke as error:
            return json_answer({"error": error.code, "detail": error.detail}, 400)
        if origin is not None:
            self._heard(origin)
        kinds: set[type[messages.Op]] = {type(op) for op in ops}
        request.foreground = kinds <= FOREGROUND
        why = self._why_not(origin, kinds)
        if why:
            refused = fault(NotReady(why))
            return Answer(200, [], messages.encode([refused] * len(ops), self._origin()))
        replies = await self._local.answer(ops)
        return Answer(200, [], messages.encode(replies, self._origin()))

    @app.route("/peer/chunks/<name>", methods=["GET"])
    async def read_chunk(self, request: Request, name: str) -> Answer:
        if not self._allowed(request, b""):
            return self._stranger()
        try:
            return Answer(200, BYTES, await self._local.read_chunk(_digest(name)))
        except StorageFault as error:
            return _refusal(404, error)

    @app.route("/peer/chunks/<name>", methods=["PUT"])
    async def write_chunk(self, request: Request, name: str) -> Answer:
        body = await read_all(request.body, CHUNK_BYTES_MAX, "chunk")
        if not self._allowed(request, body):
            return self._stranger()
        try:
            await self._local.write_chunk(_digest(name), body)
        except StorageFull as error:
            return _refusal(507, error)
        except (MissingChunks, Corrupt) as error:
            return _refusal(400, error)
        return json_answer({})

    @app.route("/peer/state", methods=["POST"])
    async def state(self, request: Request) -> Answer:
        body = await read_all(request.body, STATE_BYTES_MAX, "state")
        if not self._allowed(request, body):
            return self._stranger()
        try:
            return Answer(200, BYTES, self._exchange(body))
        except BadDatagram as bad:
            return json_answer({"error": "bad_state", "detail": bad.reason}, 400)

    @app.route("/peer/hello", methods=["GET"])
    async def hello(self, request: Request) -> Answer:
        if not self._allowed(request, b""):
            return self._stranger()
        said = self._hello(request.args.get(b"for", [b""])[0].decode("utf-8", "replace"))
        return Answer(200, [(b"Content-Type", b"application/json")], hello.encode_hello(said))

    def _why_not(self, origin: Origin | None, kinds: set[type[messages.Op]]) -> str:
        """Why a batch is refused as a whole, "" if it is not."""
        if not kinds.isdisjoint(CARRIERS) and not self._fences.passes(origin):
            return "This was given up by its sender long ago."
        (mine, floor), theirs = self._layout(), origin.layout if origin is not None else 0
        if not compatible(mine, theirs, floor) and not kinds.isdisjoint(BY_RING):
            return f"This node goes by layout {mine} of the ring, and the sender by {theirs}."
        return ""

    def _stranger(self) -> Answer:
        detail = "This node answers only requests signed with its cluster's secret."
        now = b"%.3f" % self._wall_clock()
        return json_answer({"error": "unauthorized", "detail": detail}, 401, [(TIME, now)])

    def _allowed(self, request: Request, body: bytes) -> bool:
        if not self._signer.required:
            return True
        signature = (request.header(HEADER.lower()) or "").encode("latin-1")
        now = self._wall_clock()
        return self._signer.verify(now, signature, request.method, request.uri, body)


def _refusal(status: int, error: DynamoError) -> Answer:
    return json_answer({"error": error.code, "detail": str(error)}, status)


def _digest(name: str) -> bytes:
    try:
        return bytes.fromhex(name)
    except ValueError:
        raise Corrupt("A chunk is named by 64 hexadecimal digits.") from None
