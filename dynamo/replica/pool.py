"""The HTTP client every `RemoteReplica` of a node shares.

Connections are kept, a bounded number to each peer, and never retried behind our back: whether a
write may be sent again is the coordinator's to decide.
"""

from __future__ import annotations

from typing import Any

from treq.client import HTTPClient
from twisted.web.client import Agent, HTTPConnectionPool

CONNECT_S = 2.0
CONNECTIONS_MAX = 16
IDLE_S = 60


def peer_client(reactor: Any) -> tuple[HTTPClient, HTTPConnectionPool]:
    """A client and its pool, which is to be closed in the end."""
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = CONNECTIONS_MAX
    pool.cachedConnectionTimeout = IDLE_S
    pool.retryAutomatically = False
    agent = Agent(reactor, connectTimeout=CONNECT_S, pool=pool)
    return HTTPClient(agent), pool
