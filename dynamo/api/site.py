"""The faces of a node behind one listening port.

    site(DocumentedFace(coordinator, status).app, ResourceFace(coordinator).app,
         reactor=reactor, body_limit=limit)

Each face is a Klein app, best a `Face`. Their routes are gathered into one map, in which a path
is what the client sent: still percent-encoded, no slashes merged, nothing redirected. A handler
gets the encoded pieces and decodes them once (`dynamo.core.names.decode_path`).
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from wsgiref.handlers import format_date_time

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site as WebSite
from werkzeug import exceptions
from werkzeug.routing import BaseConverter, Map, Rule

from dynamo.api.channel import Channel
from dynamo.api.errors import Answer, MethodNotAllowed, NoSuchRoute
from dynamo.api.request import NO_BODY, Request
from dynamo.api.shortcut import Shortcut

SERVER = b"dynamo"

Handler = TypeVar("Handler", bound=Callable[..., Any])

Observer = Callable[[str, str, int, float], None]
"""Told of every answered request: route, method, status, seconds."""

Waited = Callable[[float, float], None]
"""Told of foreground requests: the time now, and the seconds from having the request whole to the
first byte of its answer. What streams in is left out, and so is how fast a client reads."""


class Rest(BaseConverter):
    """`<rest:name>`: everything to the end of the path, slashes and all; it may be empty."""

    regex = "(?s:.*)"
    weight = 300
    part_isolating = False


class Face(Klein):
    """A Klein app for one face. Its routes may use `<rest:name>`, and may return an `Answer`."""

    def __init__(self) -> None:
        super().__init__()
        self.url_map.converters["rest"] = Rest

    if TYPE_CHECKING:

        def route(self, url: str, **options: Any) -> Callable[[Handler], Handler]:  # type: ignore[override]
            """As in Klein, whose own type knows no `Answer`."""


class Router(Resource):
    """Finds the handler of a request and follows it.

    Stands in for `klein.resource.KleinResource`, which binds a new map adapter for each request,
    to whatever the Host header says (an odd one raises), and wraps each call in five Deferreds.
    """

    isLeaf = True

    def __init__(self, apps: tuple[Klein, ...]) -> None:
        super().__init__()
        self._map = Map(
            strict_slashes=False,
            merge_slashes=False,
            redirect_defaults=False,
            converters={"rest": Rest},
        )
        self._apps = apps
        for index, app in enumerate(apps):
            for rule in app.url_map.iter_rules():
                copy = rule.empty()
                copy.strict_slashes = copy.merge_slashes = False
                copy.endpoint = (index, rule.endpoint)
                self._map.add(copy)
        self._map.update()
        self._adapter = self._map.bind("node", "")
        self._shortcut = Shortcut(self._map.iter_rules())

    def render(self, request: Request) -> Any:  # type: ignore[override]
        """Runs the handler; the request sees to the answer."""
        try:
            rule, arguments = self._match(request)
            request.route = rule.rule
            index, endpoint = rule.endpoint
            result = self._apps[index].execute_endpoint(endpoint, request, **arguments)
        except Exception:
            request.fail(Failure())
            return
        if isinstance(result, Deferred):
            request.follow(result)
        else:
            request.conclude(result)

    def _match(self, request: Request) -> tuple[Rule, Any]:
        path, method = request.path, request.method.decode("ascii")
        text = path.decode("ascii")  # `dynamo.api.head` has escaped what is not
        found = self._shortcut.find(method, text)
        if found is not None:
            return found
        try:
            return self._adapter.match(text, method, return_rule=True)
        except exceptions.MethodNotAllowed as wrong:
            allowed = tuple(sorted(wrong.valid_methods or ()))
            raise MethodNotAllowed(method, allowed) from None
        except exceptions.HTTPException:
            raise NoSuchRoute("Nothing is served under this path.") from None


class Site(WebSite):
    """Makes a `Channel` for each connection. Times are in seconds."""

    noisy = False

    def __init__(
        self,
        router: Router,
        *,
        reactor: Any,
        body_limit: int,
        silence: float,
        idle: float,
        drain_bytes: int,
        drain_seconds: float,
        observe: Observer | None,
        foreground: Waited | None,
    ) -> None:
        super().__init__(router, reactor=reactor, timeout=idle)
        self.router = router
        self.body_limit = body_limit
        self.silence = silence
        self.idle = idle
        self.drain_bytes = drain_bytes
        self.drain_seconds = drain_seconds
        self._observe = observe
        self._foreground = foreground
        self._second = -1
        self._date = b""
        self._lines: dict[int, bytes] = {}
        self._channels: dict[Channel, None] = {}
        self.closing = False
        self._emptied: Deferred[None] = Deferred()

    def buildProtocol(self, addr: Any) -> Channel:  # type: ignore[override]
        return Channel(self)

    def startFactory(self) -> None:
        """No access log, hence no clock for it."""

    def stopFactory(self) -> None:
        """See `startFactory`."""

    def log(self, request: Any) -> None:
        """No access log."""

    def opened(self, channel: Channel) -> None:
        """A connection was made."""
        self._channels[channel] = None

    def closed(self, channel: Channel) -> None:
        """A connection is gone."""
        self._channels.pop(channel, None)
        if self.closing and not self._channels and not self._emptied.called:
            self._emptied.callback(None)

    @property
    def in_flight(self) -> int:
        """How many requests are being handled."""
        return sum(channel.busy for channel in self._channels)

    def finish(self) -> Deferred[None]:
        """Lets what is in flight be answered and closes every connection after it; fires when
        none is left. Stop listening first, call it once, and `abort` what takes too long."""
        self.closing = True
        for channel in list(self._channels):
            channel.close_when_done()
        if not self._channels:
            self._emptied.callback(None)
        return self._emptied

    def abort(self) -> None:
        """Breaks all connections off."""
        for channel in list(self._channels):
            channel.abort()

    def observed(self, request: Request) -> None:
        """Tells the observer of an answered request."""
        if self._observe is not None:
            seconds = self.reactor.seconds() - request.started
            method = request.method.decode("ascii")
            self._observe(request.route or "none", method, request.code, seconds)

    def waited(self, begun: float) -> None:
        """Tells of a foreground request begun then, whose answer begins now."""
        if self._foreground is not None:
            now = self.reactor.seconds()
            self._foreground(now, now - begun)

    def date(self) -> bytes:
        """The Date header's value, made anew each second."""
        second = int(self.reactor.seconds())
        if second != self._second:
            self._second = second
            self._date = format_date_time(second).encode()
            self._lines.clear()
        return self._date

    def status_line(self, status: int) -> bytes:
        """The first lines of a response: status, Server and Date."""
        date = self.date()
        line = self._lines.get(status)
        if line is None:
            phrase = HTTPStatus(status).phrase.encode()
            line = b"HTTP/1.1 %d %s\r\nServer: %s\r\nDate: %s\r\n" % (status, phrase, SERVER, date)
            self._lines[status] = line
        return line

    def whole(self, answer: Answer, more: bytes = b"") -> bytes:
        """A response as bytes, for a client that made no request."""
        fields = b"".join(b"%s: %s\r\n" % field for field in answer.headers)
        body = b"" if answer.status in NO_BODY else answer.body
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        return self.status_line(answer.status) + fields + more + length + body


def site(
    *apps: Klein,
    reactor: Any,
    body_limit: int,
    silence: float = 20.0,
    idle: float = 75.0,
    drain_bytes: int = 4 * 1024 * 1024,
    drain_seconds: float = 5.0,
    observe: Observer | None = None,
    foreground: Waited | None = None,
) -> Site:
    """A factory to listen with. `reactor` gives time alone.

    `body_limit`: bytes a request's body may have. `silence`: seconds in which something of an
    unfinished request has to come. `idle`: seconds an unused connection is kept, and in which a
    client has to read something of its answer. `drain_*`: how much, and how long, is still
    read of a request that was answered early.
    """
    return Site(
        Router(apps),
        reactor=reactor,
        body_limit=body_limit,
        silence=silence,
        idle=idle,
        drain_bytes=drain_bytes,
        drain_seconds=drain_seconds,
        observe=observe,
        foreground=foreground,
    )
