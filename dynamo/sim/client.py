"""HTTP/1.1 as the simulated clients speak it: requests over kept connections, one at a time each.

Nothing is tried twice: a request whose answer does not come may have been done, and the caller
has to know. What comes back is the answer, or one word for how it failed.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs
from httptools import HttpParserError, HttpResponseParser
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from dynamo.sim.reactor import Reactor

IDLE_MAX = 4
"""Idle connections kept to one node."""

Word = Literal["", "refused", "lost", "timeout"]


@attrs.frozen
class Answer:
    """What became of a request. `headers` by lower-case name; `body` whole.

    `failed`: "refused" (nobody listens), "lost" (the connection broke), "timeout", "" for an
    answer. `sent`: whether the node may have seen any of the request. `stale`: it was lost on a
    connection kept from an earlier request before any of the answer came, as happens where the
    node has been restarted meanwhile; the other kept connections to that node are given up too.
    """

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    failed: Word = ""
    sent: bool = True
    stale: bool = False

    def header(self, name: bytes) -> str:
        """A header's value, "" without one."""
        return self.headers.get(name, b"").decode("utf-8", "replace")


def request_bytes(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes = b""
) -> bytes:
    """A whole request."""
    lines = [method + b" " + target + b" HTTP/1.1\r\nHost: sim"]
    lines += [name + b": " + value for name, value in headers]
    if body or method in (b"PUT", b"POST"):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Caller:
    """One client's connections to the nodes."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._idle: dict[tuple[str, int], list[_Line]] = {}

    def ask(
        self, place: tuple[str, int], request: bytes, *, head: bool = False, seconds: float
    ) -> Deferred[Answer]:
        """Sends `request` to a node at (IP, port); fires with an `Answer`, and never fails.

        `head`: the answer has no body, whatever it announces. `seconds`: how long to wait."""
        asked = _Asked(request, head, Deferred())
        idle = self._idle.setdefault(place, [])
        if idle:
            line = idle.pop()
        else:
            line = _Line(self._reactor, idle)
            line.connect(place, seconds)
        asked.timer = self._reactor.callLater(seconds, line.give_up)
        line.carry(asked)
        return asked.answer


@attrs.define(eq=False)
class _Asked:
    """A request and who waits for its answer."""

    request: bytes
    head: bool
    answer: Deferred[Answer]
    timer: IDelayedCall | None = None

    def done(self, answer: Answer) -> None:
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self.answer.callback(answer)


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, line: _Line) -> None:
        self._line = line

    def buildProtocol(self, addr: Any) -> Protocol:
        return self._line

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._line.not_made(reason)


class _Line(Protocol):
    """A connection, and the request it carries."""

    transport: Any

    def __init__(self, reactor: Reactor, idle: list[_Line]) -> None:
        self._reactor = reactor
        self._idle = idle
        self._asked: _Asked | None = None
        self._connector: Any = None
        self._open = self._over = self._used = False
        self._renew()

    def connect(self, place: tuple[str, int], seconds: float) -> None:
        """Sets out."""
        self._connector = self._reactor.connectTCP(*place, _Factory(self), seconds + 1.0)

    def carry(self, asked: _Asked) -> None:
        """Takes a request, to be sent as soon as the connection is there."""
        self._asked = asked
        if self._open:
            self.transport.write(asked.request)

    def give_up(self) -> None:
        """The client has waited long enough."""
        asked, self._asked = self._asked, None
        sent, self._over = self._open, True
        if self._open:
            self.transport.abortConnection()
        else:
            self._connector.stopConnecting()
        if asked is not None:
            asked.done(Answer(0, {}, b"", "timeout", sent))

    def not_made(self, reason: Failure) -> None:
        """There is no connection to be had."""
        asked, self._asked = self._asked, None
        self._over = True
        if asked is not None:
            refused = reason.check(ConnectionRefusedError) is not None
            asked.done(Answer(0, {}, b"", "refused" if refused else "timeout", False))

    # As the transport's protocol.

    def connectionMade(self) -> None:
        self._open = True
        if self._asked is not None:
            self.transport.write(self._asked.request)

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._break_off()
            return
        if self._complete:
            self._finish()

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self._open, self._over = False, True
        if self in self._idle:
            self._idle.remove(self)
        asked, self._asked = self._asked, None
        if asked is None:
            return
        stale = self._used and not self._begun
        if stale:
            for line in list(self._idle):
                line._break_off()
        asked.done(Answer(0, {}, b"", "lost", stale=stale))

    # As the parser's.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        # The parser forgets it with the end of the message.
        self._keep = self._parser.should_keep_alive()
        if self._asked is not None and self._asked.head:
            self._complete = True

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        self._complete = True

    def _renew(self) -> None:
        self._parser = HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._complete = self._keep = self._begun = False

    def _finish(self) -> None:
        asked, self._asked = self._asked, None
        if asked is None:
            self._break_off()  # an answer nobody asked for
            return
        answer = Answer(self._parser.get_status_code(), self._headers, b"".join(self._body))
        keep = self._keep and len(self._idle) < IDLE_MAX
        self._renew()
        self._used = True
        if keep:
            self._idle.append(self)
        else:
            self._over = True
            self.transport.loseConnection()
        asked.done(answer)

    def _break_off(self) -> None:
        asked, self._asked = self._asked, None
        self._over = True
        if self in self._idle:
            self._idle.remove(self)
        self.transport.abortConnection()
        if asked is not None:
            asked.done(Answer(0, {}, b"", "lost"))
