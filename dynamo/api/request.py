"""One HTTP request and its answer.

A handler reads `request.body` and returns an `Answer`, or streams one:

    request.begin(200, headers)         # with Content-Length
    async for piece in pieces:
        await request.send(piece)       # waits while the client does not read
    request.finish()

An exception becomes the answer that `dynamo.api.errors` has for it; once an answer has begun it
can only be broken off, so that a client never takes a part for the whole. When the client goes
away the handler is cancelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request as WebRequest

from dynamo.api.body import Arriving, Whole, incomplete
from dynamo.api.errors import Answer, answer_error, status_of
from dynamo.api.head import Head
from dynamo.log import make_logger

if TYPE_CHECKING:
    from dynamo.api.channel import Channel

_log = make_logger()

NOTHING = Whole(b"")
SEND_BYTES = 256 * 1024
"""At most so much is handed to the transport before a look at whether the client reads."""

NO_BODY = frozenset((204, 304))


class Request(WebRequest):
    """A request whose parts are made only when something looks at them.

    `twisted.web` builds two `Headers`, two addresses and a cookie jar for each request; the
    attributes they live in are properties here. `head.fields` has the headers at no cost.
    """

    channel: Any
    site: Any
    transport: Any
    body: Whole | Arriving = NOTHING
    running: Deferred[Any] | None = None
    route: str = ""
    foreground: bool = False
    """Set by a handler before it waits: somebody waits for this answer and for little else, so how
    long it takes says how busy this node is."""

    def __init__(self, channel: Channel, head: Head) -> None:
        # Deliberately without super().__init__(): see above. What follows is what the methods
        # of the bases that are still used here rely on.
        self.channel = channel
        self.transport = channel.transport
        self.site = channel.site
        self.notifications = []
        self.cookies = []
        self.received_cookies = {}
        self.queued = False
        self._adapterCache: dict[Any, Any] = {}
        self.head = head
        self.method = head.method
        self.path = head.path
        self.uri = head.path + b"?" + head.query if head.query else head.path
        self.clientproto = b"HTTP/1.0" if head.http10 else b"HTTP/1.1"
        self.prepath = []
        self.postpath = []
        self._request_headers: Headers | None = None
        self._response_headers: Headers | None = None
        self._args: dict[bytes, list[bytes]] | None = None
        self.started = self.begun = channel.site.reactor.seconds()

    # What twisted.web keeps as attributes.

    @property
    def requestHeaders(self) -> Headers:  # type: ignore[override]
        if self._request_headers is None:
            self._request_headers = Headers({k: [v] for k, v in self.head.fields.items()})
        return self._request_headers

    @property
    def responseHeaders(self) -> Headers:  # type: ignore[override]
        if self._response_headers is None:
            self._response_headers = Headers()
        return self._response_headers

    @property
    def args(self) -> dict[bytes, list[bytes]]:  # type: ignore[override]
        if self._args is None:
            self._args = parse_qs(self.head.query, keep_blank_values=True)
        return self._args

    @property
    def client(self) -> IAddress:  # type: ignore[override]
        peer: IAddress = self.transport.getPeer()
        return peer

    @property
    def host(self) -> IAddress:  # type: ignore[override]
        host: IAddress = self.transport.getHost()
        return host

    def header(self, name: bytes) -> str | None:
        """A request header by lower-case name, as text; each byte is one character."""
        value = self.head.fields.get(name)
        return None if value is None else value.decode("latin-1")

    # Answering.

    def answer(self, answer: Answer) -> None:
        """Sends a whole response, in one write."""
        status, body = answer.status, answer.body
        parts = self._head_parts(status, answer.headers)
        if status in NO_BODY:
            parts.append(b"\r\n")
        else:
            parts.append(b"Content-Length: %d\r\n\r\n" % len(body))
            if self.method != b"HEAD":
                parts.append(body)
        self.channel.send(b"".join(parts))
        self.finish()

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Sends the head of a streamed response; `headers` must have its Content-Length."""
        parts = self._head_parts(status, headers)
        parts.append(b"\r\n")
        self.channel.send(b"".join(parts))

    async def send(self, piece: bytes) -> None:
        """Sends a piece of the body, and waits until the client has room for more."""
        for at in range(0, len(piece), SEND_BYTES):
            if self._disconnected:
                return
            channel = self.channel
            channel.send(piece[at : at + SEND_BYTES] if len(piece) > SEND_BYTES else piece)
            if channel.blocked:
                await channel.unblocked()

    def _head_parts(self, status: int, headers: list[tuple[bytes, bytes]]) -> list[bytes]:
        assert not self.startedWriting, "a request is answered once"
        self.startedWriting = 1
        self.code = status
        channel = self.channel
        if self.foreground and type(self.body) is Whole:
            channel.site.waited(self.begun)
        parts = [channel.site.status_line(status)]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if not channel.stays_open():
            parts.append(b"Connection: close\r\n")
        return parts

    def write(self, data: bytes) -> None:
        """For handlers written for `twisted.web`: headers by `setHeader`, then the bytes."""
        if not self.startedWriting and not self._disconnected:
            self.setHeader(b"Date", self.site.date())
            if not self.channel.stays_open():
                self.setHeader(b"Connection", b"close")
        super().write(data)

    def abort(self) -> None:
        """Breaks the connection: the answer that was begun cannot be completed."""
        if self.channel is not None and not self.finished:
            self.channel.abort()

    def finish(self) -> None:
        """The answer is complete."""
        if self._disconnected or self.finished:
            return
        self.site.observed(self)
        super().finish()

    # Running the handler.

    def process(self) -> None:
        """Hands the request to its route. A body that was waited for is here by now."""
        self.begun = self.site.reactor.seconds()
        self.site.router.render(self)

    def follow(self, running: Deferred[Any]) -> None:
        """Answers with what the handler comes to."""
        self.running = running
        running.addCallbacks(self.conclude, self.fail)
        running.addErrback(self.fail)

    def conclude(self, result: Any) -> None:
        """Answers with what the handler returned."""
        self.running = None
        if self.finished or self._disconnected:
            return
        if type(result) is Answer:
            self.answer(result)
            return
        if isinstance(result, str):
            result = result.encode()
        if isinstance(result, bytes):
            if not self.startedWriting:
                self.setHeader(b"Content-Length", b"%d" % len(result))
            self.write(result)
        self.finish()

    def fail(self, failure: Failure) -> None:
        """Answers with an error, if there is still somebody and something to answer."""
        self.running = None
        error = failure.value
        assert error is not None
        if status_of(error) is None and not self._disconnected:
            _log.failure("Unexpected error in {path!r}", failure=failure, path=self.path)
        self.refuse(error)

    def refuse(self, error: BaseException) -> None:
        """Answers with an error."""
        if self._disconnected or self.finished:
            return
        if self.startedWriting:
            self.abort()
        else:
            self.answer(answer_error(error, self.path))

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone: the handler is told by its body and by cancelling it."""
        super().connectionLost(reason)
        if isinstance(self.body, Arriving):
            self.body.fail(incomplete())
        running, self.running = self.running, None
        if running is not None:
            running.cancel()
