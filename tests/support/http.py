"""A client of a face without a network: real channel, in-memory transport, hand-moved clock."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from dynamo.api.channel import Channel
from dynamo.api.site import Site


@implementer(ITCPTransport)
class Wire(StringTransport):
    """A TCP transport in memory. It counts pauses and notes a half-close; if `always_full`, each
    write fills it."""

    def __init__(self) -> None:
        super().__init__()
        self.half_closed = False
        self.pauses = 0
        self.aborted = False
        self.always_full = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.always_full and self.producer is not None:
            self.producer.pauseProducing()

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None: ...

    def getTcpKeepAlive(self) -> bool:
        return False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def pauseProducing(self) -> None:
        self.pauses += 1
        super().pauseProducing()

    def unregisterProducer(self) -> None:
        if self.producer is not None:
            super().unregisterProducer()

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    @property
    def paused(self) -> bool:
        return self.producerState == "paused"


@attrs.frozen
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to a site."""

    def __init__(self, site: Site) -> None:
        self.wire = Wire()
        self.channel: Channel = site.buildProtocol(None)
        self.channel.makeConnection(self.wire)
        self._methods: list[str] = []

    def send(self, data: bytes) -> None:
        """Bytes as they are; nothing is delivered to a transport that does not read."""
        if not self.wire.disconnecting and not self.wire.aborted:
            self.channel.dataReceived(data)

    def ask(
        self,
        method: str,
        path: str | bytes,
        body: bytes | None = None,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Response:
        """One request and its answer, which must come at once."""
        already = len(self.responses())
        self.send(request_bytes(method, path, body, headers))
        self._methods.append(method)
        return self.responses()[already]

    def half_close(self) -> None:
        self.channel.readConnectionLost()

    def vanish(self) -> None:
        self.channel.connectionLost(Failure(ConnectionLost()))

    def close(self) -> None:
        self.channel.connectionLost(Failure(ConnectionDone()))

    @property
    def closed(self) -> bool:
        return bool(self.wire.disconnecting)

    def responses(self) -> list[Response]:
        """All whole answers so far, without interim ones."""
        return read_responses(self.wire.value(), self._methods)


def request_bytes(
    method: str,
    path: str | bytes,
    body: bytes | None = None,
    headers: Mapping[str, str | bytes] | None = None,
) -> bytes:
    """A request as a plain client writes it."""
    target = path if isinstance(path, bytes) else path.encode()
    lines = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: node"]
    for name, value in (headers or {}).items():
        lines.append(
            name.encode() + b": " + (value if isinstance(value, bytes) else value.encode())
        )
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def read_responses(data: bytes, methods: list[str] | None = None) -> list[Response]:
    """The complete responses in `data`; `methods` says which of them answer a HEAD."""
    responses: list[Response] = []
    while b"\r\n\r\n" in data:
        block, _, rest = data.partition(b"\r\n\r\n")
        lines = block.decode("latin-1").split("\r\n")
        version, code, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1"
        status = int(code)
        if status == 100:
            data = rest
            continue
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        at = len(responses)
        head = methods is not None and at < len(methods) and methods[at] == "HEAD"
        size = 0 if head or status in (204, 304) else int(headers["content-length"])
        if len(rest) < size:
            break
        responses.append(Response(status, headers, rest[:size]))
        data = rest[size:]
    return responses


def chunked(body: bytes, size: int = 1000) -> bytes:
    """A body in chunked coding."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def multipart(
    *parts: tuple[str, bytes, str | None], boundary: str = "frontier"
) -> tuple[bytes, str]:
    """A form of (name, value, file name or None) and its Content-Type."""
    pieces = []
    for name, value, filename in parts:
        disposition = f'form-data; name="{name}"'
        if filename is not None:
            disposition += f'; filename="{filename}"\r\nContent-Type: text/x-test'
        pieces.append(
            f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + value + b"\r\n"
        )
    body = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


class Errors(list[Any]):
    """What was logged at level error or above; a test that expects some empties it."""


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[Errors]:
    """No test leaves an error in the log, nor a failure that nobody looked at."""
    errors = Errors()

    def observe(event: Any) -> None:
        if event["log_level"] >= LogLevel.error:
            errors.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield errors
        gc.collect(1)
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not errors, [e.get("log_failure") or e.get("log_format") for e in errors]


__all__ = [
    "Client",
    "Clock",
    "Errors",
    "Response",
    "Wire",
    "chunked",
    "logged_errors",
    "multipart",
    "read_responses",
    "request_bytes",
]
