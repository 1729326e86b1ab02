"""The HTTP client every `RemoteReplica` of a node shares: treq over a pool that keeps connections.

A bounded number of connections to each peer stay open, and nothing is retried behind our back:
whether a write may be sent again is the coordinator's to decide.

Addresses are turned into endpoints and URLs once, not once per request: checking the same host
name against IDNA took a fifth of a small exchange. The same goes for taking a URL apart, and for
cookies, which no member sets: with both a request cost twice as much before its first byte.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import attrs
from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
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
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

SCHEME = "http://"
CONNECT_S = 2.0
CONNECTIONS_MAX = 16
IDLE_S = 60
TRANSFER_BYTES = 1024 * 1024
ENDPOINTS_MAX = 4096


class PeerURL(EncodedURL):
    """A URL made of ASCII from the start, so that there is nothing to convert at each use."""

    _text: str | None = None

    def to_uri(self) -> PeerURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        if self._text is None:
            self._text = super().to_text(with_password)
        return self._text


class _NoCookies(IndexableCookieJar):
    """A jar that takes nothing and gives nothing."""

    def add_cookie_header(self, request: object) -> None:
        """There is none."""

    def extract_cookies(self, response: object, request: object) -> None:
        """None is kept."""


NO_COOKIES = _NoCookies()
"""To be given with each request to a peer, for which treq would make a jar otherwise."""


@lru_cache(maxsize=ENDPOINTS_MAX)
def peer_url(address: str, path: str) -> PeerURL:
    """The URL of `path`, which begins with a slash, on the peer at `address` ("host:port")."""
    text = f"{SCHEME}{address}{path}"
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


@attrs.frozen
class _Member:
    """What an `Agent` finds out of a URL and is the same for all URLs of a member."""

    uri: URI
    connection: tuple[bytes, bytes, int]
    host: list[bytes]


class _PeerAgent(Agent):
    """Takes the URL of a member apart once. The methods with an underscore are those that
    `Agent.request` calls; what they get as the whole URL they need for the Host header alone."""

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        end = uri.index(b"/", len(SCHEME))
        to = self._member(uri[:end])
        headers = Headers() if headers is None else headers
        headers.setRawHeaders(b"Host", to.host)
        endpoint = self._getEndpoint(to.uri)
        return self._requestWithEndpoint(
            to.connection, endpoint, method, to.uri, headers, bodyProducer, uri[end:]
        )

    def _member(self, where: bytes) -> _Member:
        known: dict[bytes, _Member] = self.__dict__.setdefault("_members", {})
        member = known.get(where)
        if member is None:
            if len(known) >= ENDPOINTS_MAX:
                known.clear()
            if any(not 0x20 < byte < 0x7F for byte in where):
                raise ValueError(f"{where!r} is no address of a member")
            uri = URI.fromBytes(where)
            host = self._computeHostValue(uri.scheme, uri.host, uri.port)
            connection = (uri.scheme, uri.host, uri.port)
            member = known[where] = _Member(uri, connection, [host])
        return member


def peer_client(reactor: Any) -> tuple[HTTPClient, HTTPConnectionPool]:
    """A client and its pool, which is to be closed in the end."""
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = CONNECTIONS_MAX
    pool.cachedConnectionTimeout = IDLE_S
    pool.retryAutomatically = False
    agent = _PeerAgent.usingEndpointFactory(reactor, _Endpoints(reactor), pool)
    return HTTPClient(agent, NO_COOKIES, data_to_body_producer=_Whole), pool


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
