"""The HTTP client every `RemoteReplica` of a node shares: treq over a pool that keeps connections.

A bounded number of connections to each peer stay open, and nothing is retried behind our back:
whether a write may be sent again is the coordinator's to decide.

Addresses are turned into endpoints and URLs once, not once per request: checking the same host
name against IDNA took a fifth of a small exchange.
"""

from __future__ import annotations

from typing import Any, cast

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.interfaces import (
    IConsumer,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

CONNECT_S = 2.0
CONNECTIONS_MAX = 16
IDLE_S = 60
TRANSFER_BYTES = 1024 * 1024
ENDPOINTS_MAX = 4096


class PeerURL(EncodedURL):
    """A URL made of ASCII from the start, so that there is nothing to convert at each use."""

    def to_uri(self) -> PeerURL:
        return self


def peer_url(address: str, path: str) -> PeerURL:
    """The URL of `path`, which begins with a slash, on the peer at `address` ("host:port")."""
    text = f"http://{address}{path}"
    if not text.isascii():
        text = EncodedURL.from_text(text).to_uri().to_text()
    return cast(PeerURL, PeerURL.from_text(text))


@implementer(IStreamClientEndpoint)
class _Promptly:
    """Connects and then sends what is written at once (no Nagle): requests are whole messages."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._endpoint.connect(protocolFactory).addCallback(_prompt)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """An endpoint for each address, kept."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._kept: dict[tuple[bytes, int], _Promptly] = {}

    def endpointForURI(self, uri: URI) -> _Promptly:
        where = (uri.host, uri.port)
        endpoint = self._kept.get(where)
        if endpoint is None:
            if len(self._kept) >= ENDPOINTS_MAX:
                self._kept.clear()
            endpoint = self._kept[where] = _Promptly(self._endpoint(uri))
        return endpoint

    def _endpoint(self, uri: URI) -> IStreamClientEndpoint:
        """For an address as a number no `HostnameEndpoint`: before it says that a connection was
        refused, that one waits 0.3 s for other addresses of the name."""
        host = uri.host.decode()
        if isIPAddress(host):
            return TCP4ClientEndpoint(self._reactor, host, uri.port, CONNECT_S)
        if isIPv6Address(host):
            return TCP6ClientEndpoint(self._reactor, host, uri.port, CONNECT_S)
        return HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=CONNECT_S)


def peer_client(reactor: Any) -> tuple[HTTPClient, HTTPConnectionPool]:
    """A client and its pool, which is to be closed in the end."""
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = CONNECTIONS_MAX
    pool.cachedConnectionTimeout = IDLE_S
    pool.retryAutomatically = False
    agent = Agent.usingEndpointFactory(reactor, _Endpoints(reactor), pool)
    return HTTPClient(agent, data_to_body_producer=_Whole), pool


@implementer(IBodyProducer)
class _Whole:
    """A body written in one go: it is in memory anyway, and no larger than a chunk or a batch."""

    def __init__(self, body: bytes) -> None:
        self.length: Any = len(body)
        self._body = body

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing more is produced."""

    def resumeProducing(self) -> None:
        """See `pauseProducing`."""

    def stopProducing(self) -> None:
        """See `pauseProducing`."""


def _prompt(protocol: IProtocol) -> IProtocol:
    made: Any = protocol
    transport = made.transport
    transport.setTcpNoDelay(True)
    # A chunk in one system call rather than eight or sixteen.
    transport.SEND_LIMIT = transport.bufferSize = TRANSFER_BYTES
    return protocol
