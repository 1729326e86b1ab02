"""One client connection.

`twisted.web.http.HTTPChannel` collects each body before anyone sees the request, answers a
broken one with a bare 400 and pauses its transport once per request. This channel keeps that
class's side towards responses (`dynamo.api.outlet`) and replaces its side towards requests:

- bodies of at most `COLLECT_MAX` bytes are collected, larger and chunked ones handed to the
  handler as they come (`dynamo.api.body`), the sender paused while nobody reads;
- an answer that is ready before the body has come is sent, and what still comes is thrown away,
  up to a bound, so that the client gets to read the answer; then the connection closes;
- every state has a deadline.

The states are those of the request side:

    HEAD --head--> BODY --last byte--> WAIT --answered--> HEAD
                     |                                     |
                     '---- answered early, or refused -----'--> DRAIN --> CLOSED
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from dynamo.api import head as heads
from dynamo.api.body import Arriving, Whole, incomplete
from dynamo.api.deadline import Deadline
from dynamo.api.errors import answer_error
from dynamo.api.framing import Framing
from dynamo.api.head import Head
from dynamo.api.outlet import Outlet
from dynamo.api.request import Request
from dynamo.errors import BadRequest, TooLarge

if TYPE_CHECKING:
    from dynamo.api.site import Site

COLLECT_MAX = 64 * 1024
HEAD_BYTES_MAX = 32 * 1024
PIPELINED_MAX = 16 * 1024

HEAD, BODY, WAIT, DRAIN, CLOSED = range(5)


@implementer(IHalfCloseableProtocol)
class Channel(Outlet):
    """See the module."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.factory = site
        self._deadline = Deadline(site.reactor, self._late)
        self._state = HEAD
        self._buffer = b""
        self._partial = False
        self._pumping = False
        self._request: Request | None = None
        self._collected: list[bytes] | None = None
        self._framing: Framing | None = None
        self._uninvited = False
        self._drained = 0
        self._end_of_input = False
        self._sender_paused = False
        self._reading = True

    # From the transport.

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.opened(self)
        self._deadline.within(self.site.idle)

    def dataReceived(self, data: bytes) -> None:
        state = self._state
        if state is HEAD:
            self._buffer = self._buffer + data if self._buffer else data
            self._pump()
        elif state is BODY:
            self._deadline.within(self.site.silence)
            self._body_data(data)
        elif state is WAIT:
            self._buffer += data
            if len(self._buffer) > PIPELINED_MAX:
                self._sync_reading()
        elif state is DRAIN:
            self._drain(data)

    def readConnectionLost(self) -> None:
        """The client sends no more; it may still be reading."""
        self._end_of_input = True
        if self._state is HEAD:
            self._pump()
        elif self._state is BODY:
            self._break_body(incomplete())
        elif self._state is DRAIN:
            self._close()

    def writeConnectionLost(self) -> None:
        """Our own half-close was done; nothing follows from it."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._state = CLOSED
        self._buffer = b""
        self._deadline.stop()
        request, self._request = self._request, None
        if request is not None:
            request.connectionLost(reason)
        self.release()
        self.site.closed(self)

    def blocked_changed(self) -> None:
        if self._state is WAIT:
            if self.blocked:
                self._deadline.within(self.site.idle)
            else:
                self._deadline.never()
        self._sync_reading()

    # For the request.

    def stays_open(self) -> bool:
        """Whether another request may follow the present one."""
        if self._state is BODY:
            self.persistent = 0
        return bool(self.persistent)

    def requestDone(self, request: Any) -> None:
        """The present request has been answered."""
        self._request = None
        if self._state is BODY:
            self._begin_drain()
        elif self._state is not WAIT:
            return
        elif self.persistent:
            self._state = HEAD
            self._deadline.within(self.site.idle)
            if not self._reading:
                self._sync_reading()
            if self._buffer or self._end_of_input:
                self._pump()
        elif self._buffer:
            self._framing = None
            self._begin_drain()
        else:
            self._close()

    @property
    def busy(self) -> bool:
        """Whether a request is being handled."""
        return self._request is not None

    def close_when_done(self) -> None:
        """Closes after the answer to the present request, at once if there is none."""
        self.persistent = 0
        if self._state is HEAD and not self._buffer:
            self._close()

    def abort(self) -> None:
        """Breaks the connection off."""
        self._state = CLOSED
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.abortConnection()

    def loseConnection(self) -> None:
        """Closes once what was written has gone out."""
        self._close()

    # For the body (`dynamo.api.body.Sender`).

    def pause_sender(self) -> None:
        self._sender_paused = True
        if self._state is BODY:
            self._deadline.never()
        self._sync_reading()

    def resume_sender(self) -> None:
        self._sender_paused = False
        if self._state is BODY:
            self._deadline.within(self.site.silence)
        self._sync_reading()

    def invite_sender(self) -> None:
        if self._uninvited:
            self._uninvited = False
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Heads.

    def _pump(self) -> None:
        """Takes requests from the buffer until one is being handled or more is needed."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._state is HEAD and self._buffer and self._take_head():
                pass
        finally:
            self._pumping = False
        if self._end_of_input and self._state is HEAD:
            if self._buffer:
                self._refuse_bytes(heads.BadHead("The request ended inside its head."))
            else:
                self._close()

    def _take_head(self) -> bool:
        """One head from the buffer; False if it is not all there."""
        buffer = self._buffer
        while buffer[:2] == b"\r\n":
            # Some clients end a body with an empty line too many (RFC 9112 §2.2).
            buffer = buffer[2:]
        end = buffer.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX + 4)
        if end < 0:
            self._buffer = buffer
            self._partial_head(buffer)
            return False
        self._buffer = buffer[end + 4 :]
        self._partial = False
        self._deadline.never()
        try:
            head = heads.parse(buffer[:end])
        except BadRequest as error:
            self._refuse_bytes(error, buffer[:end])
            return False
        self._begin(head)
        return True

    def _partial_head(self, buffer: bytes) -> None:
        if buffer and not self._partial:
            # From the first byte on: a head that trickles in is late as a whole.
            self._partial = True
            self._deadline.within(self.site.silence)
        if len(buffer) > HEAD_BYTES_MAX:
            detail = f"The request's head is larger than {HEAD_BYTES_MAX} bytes."
            self._refuse_bytes(BadRequest("headers_too_large", detail), buffer)
            return
        try:
            heads.check(buffer)
        except heads.BadHead as error:
            self._refuse_bytes(error, buffer)

    def _refuse_bytes(self, error: BadRequest, block: bytes = b"") -> None:
        """Answers what is no request, in the manner of the face it seems to be meant for."""
        answer = answer_error(error, heads.target(block))
        self.send(self.site.whole(answer, b"Connection: close\r\n"))
        self._buffer = b""
        self._framing = None
        self._begin_drain()

    # Bodies.

    def _begin(self, head: Head) -> None:
        """Starts on a request whose head is here."""
        request = self._request = Request(self, head)
        self.persistent = head.keep_alive and not self.site.closing
        length, buffer = head.length, self._buffer
        streamed = length is None or length > COLLECT_MAX or head.expects_continue
        if length is not None and len(buffer) >= length and (length == 0 or not streamed):
            self._state = WAIT
            request.body = Whole(buffer[:length])
            self._buffer = buffer[length:]
            request.process()
            return
        self._state = BODY
        self._buffer = b""
        limit = self.site.body_limit
        self._framing = Framing(length, limit)
        self._uninvited = head.expects_continue and not buffer
        self._collected = None
        if length is not None and length > limit:
            request.refuse(TooLarge("body", limit))
        elif streamed:
            request.body = Arriving(length, self)
            self.widen(True)
        else:
            self._collected = []
        if self._state is BODY:
            self._deadline.within(self.site.silence)
        if buffer:
            # What came with the head, before the handler is asked: it may be all there is.
            self.dataReceived(buffer)
        if streamed and not request.finished:
            request.process()

    def _body_data(self, data: bytes) -> None:
        framing, request = self._framing, self._request
        if framing is None or request is None:
            return
        try:
            piece, rest = framing.receive(data)
        except (BadRequest, TooLarge) as error:
            self._break_body(error)
            return
        if rest is not None:
            self.widen(False)
            # First the state, as feeding wakes the handler, which may answer at once.
            self._state = WAIT
            self._deadline.never()
            self._buffer = rest
        if self._collected is not None:
            self._collected.append(piece)
            if rest is not None:
                request.body = Whole(b"".join(self._collected))
                self._collected = None
                request.process()
        elif isinstance(request.body, Arriving):
            body = request.body
            if piece:
                body.feed(piece)
            if rest is not None:
                body.end()

    def _break_body(self, error: BadRequest | TooLarge) -> None:
        """The body will not come as announced. What still comes is thrown away."""
        self.persistent = 0
        self._deadline.never()
        self._framing = None
        request = self._request
        if request is None:
            return
        if self._collected is not None:
            request.refuse(error)
        elif isinstance(request.body, Arriving):
            request.body.fail(error)

    # Ending.

    def _begin_drain(self) -> None:
        """The answer is out, the client may still be sending."""
        self._state = DRAIN
        self.persistent = 0
        self._drained = 0
        if self._end_of_input:
            self._close()
            return
        self._deadline.within(self.site.drain_seconds)
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.loseWriteConnection()
        self._sync_reading()

    def _drain(self, data: bytes) -> None:
        self._drained += len(data)
        ended = self._drained > self.site.drain_bytes
        if self._framing is not None:
            try:
                ended = ended or self._framing.receive(data)[1] is not None
            except (BadRequest, TooLarge):
                ended = True
        if ended:
            self._close()

    def _close(self) -> None:
        if self._state is CLOSED:
            return
        self._state = CLOSED
        self._buffer = b""
        transport: Any = self.transport
        transport.unregisterProducer()
        self._deadline.within(self.site.idle)
        transport.loseConnection()

    def _sync_reading(self) -> None:
        """Reads exactly when there is room for what would come."""
        if self._end_of_input or self._state is CLOSED:
            return
        state = self._state
        wanted = not (
            (state is BODY and self._sender_paused)
            or (state is WAIT and len(self._buffer) > PIPELINED_MAX)
            or (state is HEAD and self.blocked)
        )
        if wanted is self._reading:
            return
        self._reading = wanted
        transport: Any = self.transport
        if wanted:
            transport.resumeProducing()
        else:
            transport.pauseProducing()

    def _late(self) -> None:
        """What had to happen has not."""
        silence = BadRequest("request_timeout", "The rest of the request did not come in time.")
        if self._state is HEAD:
            if self._buffer:
                self._refuse_bytes(silence)
            else:
                self._close()
        elif self._state is BODY:
            self._break_body(silence)
        elif self._state is DRAIN:
            self._close()
        else:
            # A client that does not read its answer, or a connection that does not close.
            self.abort()
