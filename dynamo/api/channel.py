"""One client connection.

`twisted.web.http.HTTPChannel` collects each body before anyone sees the request, answers a
broken one with a bare 400 and pauses its transport once per request. This channel keeps that
class's side towards responses and replaces its side towards requests:

- bodies of at most `COLLECT_MAX` bytes are collected, larger and chunked ones handed to the
  handler as they come (`dynamo.api.body`), the sender paused while nobody reads;
- an answer that is ready before the body has come is sent, and what still comes is thrown away,
  up to a bound, so that the client gets to read the answer; then the connection closes;
- every state has a deadline; one timer per connection serves them all.

The states are those of the request side:

    HEAD --head--> BODY --last byte--> WAIT --answered--> HEAD
                     |                                     |
                     '---- answered early, or refused -----'--> DRAIN --> CLOSED
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, ITCPTransport
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

# The decoder is private to twisted.web, which offers no other; writing a second one would be
# the greater risk.
from twisted.web.http import HTTPChannel, _ChunkedTransferDecoder, _MalformedChunkedDataError
from zope.interface import implementer

from dynamo.api import head as heads
from dynamo.api.body import Arriving, Whole, incomplete
from dynamo.api.errors import answer_error
from dynamo.api.head import Head
from dynamo.api.request import Request
from dynamo.errors import BadRequest, TooLarge

if TYPE_CHECKING:
    from dynamo.api.site import Site

COLLECT_MAX = 64 * 1024
HEAD_BYTES_MAX = 32 * 1024
PIPELINED_MAX = 16 * 1024
NEVER = float("inf")

HEAD, BODY, WAIT, DRAIN, CLOSED = range(5)


@implementer(IHalfCloseableProtocol)
class Channel(HTTPChannel):
    """See the module."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.factory = site
        self.blocked = False
        self._state = HEAD
        self._buffer = b""
        self._request: Request | None = None
        self._collected: list[bytes] | None = None
        self._decoder: Any = None
        self._remaining: int | None = 0
        self._received = 0
        self._decoded = 0
        self._partial = False
        self._uninvited = False
        self._end_of_input = False
        self._sender_paused = False
        self._reading = True
        self._pumping = False
        self._drained = 0
        self._unblocked: Deferred[None] | None = None
        self._deadline = NEVER
        self._timer: IDelayedCall | None = None
        self._timer_at = NEVER
        self._socket: Connection | None = None

    # From the transport.

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        if isinstance(transport, Connection):
            self._socket = transport
        self._networkProducer = transport
        transport.registerProducer(self, True)
        self._expect_within(self.site.idle)

    def dataReceived(self, data: bytes) -> None:
        state = self._state
        if state is HEAD:
            self._buffer = self._buffer + data if self._buffer else data
            self._pump()
        elif state is BODY:
            self._expect_within(self.site.silence)
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
        self._reading = False
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        request, self._request = self._request, None
        unblocked, self._unblocked = self._unblocked, None
        if request is not None:
            body = getattr(request, "body", None)
            if isinstance(body, Arriving):
                body.fail(incomplete())
            request.connectionLost(reason)
        if unblocked is not None:
            unblocked.cancel()

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self.blocked = True
        if self._requestProducer is not None:
            self._requestProducer.pauseProducing()
        if self._state in (BODY, WAIT):
            self._expect_within(self.site.idle)
        self._sync_reading()

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self.blocked = False
        if self._requestProducer is not None:
            self._requestProducer.resumeProducing()
        if self._state is WAIT:
            self._deadline = NEVER
        self._sync_reading()
        unblocked, self._unblocked = self._unblocked, None
        if unblocked is not None:
            unblocked.callback(None)

    # For the request.

    def send(self, data: bytes) -> None:
        """Writes, at once where nothing is waiting to be written.

        Twisted's `write` always waits for the poll to say that the socket is writable, which
        costs two system calls to ask and one turn of the loop. `writeSomeData` is the call it
        then makes; the two private attributes are its queue, which must be empty so that
        nothing is overtaken.
        """
        socket = self._socket
        if (
            socket is not None
            and not socket._tempDataLen
            and not socket.dataBuffer
            and socket.connected
            and not socket.disconnecting
        ):
            sent = socket.writeSomeData(data)
            if isinstance(sent, int):
                if sent == len(data):
                    return
                data = data[sent:]
        transport: Any = self.transport
        transport.write(data)

    def unblocked(self) -> Deferred[None]:
        """Fires when the transport has room again."""
        if self._unblocked is None:
            self._unblocked = Deferred(self._forget_unblocked)
        return self._unblocked

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
            pass
        elif self.persistent:
            self._state = HEAD
            self._expect_within(self.site.idle)
            if self._buffer or self._end_of_input:
                self._pump()
            if not self._reading:
                self._sync_reading()
        elif self._buffer:
            self._remaining = None
            self._begin_drain()
        else:
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
        self._deadline = NEVER
        self._sync_reading()

    def resume_sender(self) -> None:
        self._sender_paused = False
        if self._state is BODY:
            self._expect_within(self.site.silence)
        self._sync_reading()

    def invite_sender(self) -> None:
        if self._uninvited:
            self._uninvited = False
            if self._state is BODY and not self._received:
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
            self._input_ended()

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
        self._deadline = NEVER
        try:
            head = heads.parse(buffer[:end])
        except BadRequest as error:
            self._refuse_bytes(error)
            return False
        self._begin(head)
        return True

    def _partial_head(self, buffer: bytes) -> None:
        if buffer and not self._partial:
            # From the first byte on: a head that trickles in is late as a whole.
            self._partial = True
            self._expect_within(self.site.silence)
        if len(buffer) > HEAD_BYTES_MAX:
            detail = f"The request's head is larger than {HEAD_BYTES_MAX} bytes."
            self._refuse_bytes(BadRequest("headers_too_large", detail))
        elif not heads.plausible(buffer[:64]):
            self._refuse_bytes(heads.BadHead("This is not the beginning of a request."))

    def _input_ended(self) -> None:
        """The client has half-closed and every whole request of its is answered."""
        if self._buffer:
            self._refuse_bytes(heads.BadHead("The request ended inside its head."))
        else:
            self._close()

    def _refuse_bytes(self, error: BadRequest) -> None:
        """Answers what is no request."""
        answer = answer_error(error, b"/")
        self.send(self.site.whole(answer, b"Connection: close\r\n"))
        self._buffer = b""
        self._decoder = self._remaining = None
        self._begin_drain()

    # Bodies.

    def _begin(self, head: Head) -> None:
        """Starts on a request whose head is here."""
        request = self._request = Request(self, head)
        self.persistent = head.keep_alive
        length, buffer = head.length, self._buffer
        self._decoder, self._remaining = None, length
        streamed = length is None or length > COLLECT_MAX or head.expects_continue
        if length is not None and len(buffer) >= length and not streamed:
            self._state = WAIT
            request.body = Whole(buffer[:length])
            self._buffer = buffer[length:]
            request.process()
            return
        self._state = BODY
        self._buffer = b""
        self._received = self._decoded = 0
        self._uninvited = head.expects_continue
        self._collected = None if streamed else []
        limit = self.site.body_limit
        if length is not None and length > limit:
            request.body = Whole(b"")
            request.refuse(TooLarge("body", limit))
        elif streamed:
            request.body = Arriving(length, self)
        if length is None:
            self._decoder = _ChunkedTransferDecoder(self._chunk, self._chunks_ended)
        self._expect_within(self.site.silence)
        if buffer:
            self.dataReceived(buffer)
        if streamed and not request.finished:
            request.process()

    def _body_data(self, data: bytes) -> None:
        self._received += len(data)
        remaining = self._remaining
        if self._decoder is not None:
            self._decode(data)
        elif remaining is None:
            return
        elif len(data) < remaining:
            self._remaining = remaining - len(data)
            self._accept(data)
        else:
            self._last(data[:remaining], data[remaining:])

    def _accept(self, data: bytes) -> None:
        request = self._request
        if self._collected is not None:
            self._collected.append(data)
        elif request is not None and isinstance(request.body, Arriving):
            request.body.feed(data)

    def _last(self, data: bytes, rest: bytes) -> None:
        """The body's last bytes, and what came after them."""
        request = self._request
        assert request is not None
        # First the state, as feeding wakes the handler, which may answer at once.
        self._state = WAIT
        self._deadline = NEVER
        self._buffer = rest
        if self._collected is not None:
            request.body = Whole(b"".join([*self._collected, data]))
            self._collected = None
            request.process()
        elif isinstance(request.body, Arriving):
            body = request.body
            if data:
                body.feed(data)
            body.end()

    def _decode(self, data: bytes) -> None:
        try:
            self._decoder.dataReceived(data)
        except _MalformedChunkedDataError:
            self._decoder = None
            if self._state is BODY:
                self._break_body(BadRequest("bad_chunking", "The body is not validly chunked."))
            elif self._state is DRAIN:
                self._close()

    def _chunk(self, data: bytes) -> None:
        if self._state is not BODY:
            return
        self._decoded += len(data)
        if self._decoded > self.site.body_limit:
            self._break_body(TooLarge("body", self.site.body_limit))
        else:
            self._accept(data)

    def _chunks_ended(self, rest: bytes) -> None:
        self._decoder = None
        if self._state is BODY:
            self._last(b"", rest)
        elif self._state is DRAIN:
            self._close()

    def _break_body(self, error: BadRequest | TooLarge) -> None:
        """The body will not come as announced."""
        self.persistent = 0
        self._deadline = NEVER
        request = self._request
        if request is None:
            return
        if self._collected is not None:
            self._collected = None
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
        self._expect_within(self.site.drain_seconds)
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.loseWriteConnection()
        self._sender_paused = False
        self._sync_reading()

    def _drain(self, data: bytes) -> None:
        self._drained += len(data)
        if self._drained > self.site.drain_bytes:
            self._close()
        elif self._decoder is not None:
            self._decode(data)
        elif self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining <= 0:
                self._close()

    def _close(self) -> None:
        if self._state is CLOSED:
            return
        self._state = CLOSED
        self._buffer = b""
        transport: Any = self.transport
        transport.unregisterProducer()
        self._expect_within(self.site.idle)
        transport.loseConnection()

    # Reading and time.

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

    def _expect_within(self, seconds: float) -> None:
        """Something has to happen within `seconds`, or `_late` is called."""
        self._deadline = deadline = self.site.reactor.seconds() + seconds
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self.site.reactor.callLater(seconds, self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, NEVER
        if self._deadline == NEVER:
            return
        left = self._deadline - self.site.reactor.seconds()
        if left > 0:
            self._expect_within(left)
        else:
            self._late()

    def _late(self) -> None:
        silence = BadRequest("request_timeout", "The rest of the request did not come in time.")
        if self._state is HEAD:
            if self._buffer:
                self._refuse_bytes(silence)
            else:
                self._close()
        elif self._state is BODY and not self.blocked:
            self._break_body(silence)
        elif self._state is DRAIN:
            self._close()
        else:
            # A client that does not read its answer, or a connection that does not close.
            self.abort()

    def _forget_unblocked(self, _: Deferred[None]) -> None:
        self._unblocked = None
