"""The demo's HTTP: one request, one bounded wait, and a refusal is an answer too."""

from __future__ import annotations

from typing import Any

import attrs
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.web.client import Agent, HTTPConnectionPool, RequestTransmissionFailed, ResponseFailed

CONNECT_SECONDS = 2.0
REQUEST_SECONDS = 15.0


@attrs.frozen
class Reply:
    """An answer; status 0 means that there was none and `body` says why."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def __str__(self) -> str:
        text = " ".join(self.body[:300].decode("utf-8", "replace").split())
        return f"{self.status} {text}" if self.status else f"no answer ({text})"


class Client:
    """Asks nodes over connections of its own, which it does not keep."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        pool = HTTPConnectionPool(reactor, persistent=False)
        self._http = HTTPClient(Agent(reactor, connectTimeout=CONNECT_SECONDS, pool=pool))

    async def ask(self, method: str, url: str, body: bytes | None = None) -> Reply:
        """One request with a time limit; never raises for what a network or a node does."""
        exchange = Deferred.fromCoroutine(self._exchange(method, url, body))
        try:
            return await exchange.addTimeout(REQUEST_SECONDS, self._reactor)
        except DeferredTimeout:
            return Reply(0, b"it took too long")
        except (ConnectError, ConnectionClosed, ResponseFailed, RequestTransmissionFailed) as error:
            return Reply(0, str(error).encode())

    async def _exchange(self, method: str, url: str, body: bytes | None) -> Reply:
        response = await self._http.request(method, url, data=body)
        return Reply(response.code, await response.content())
