"""Turning "host:port" into what a datagram can be sent to.

Numbers are used as they are. A name is looked up by the reactor, the answer kept for half a
minute and then asked for again for as long as it is used: names may move, and may not resolve yet
when a node starts.
"""

from __future__ import annotations

import ipaddress
from typing import Any

KEPT_S = 30.0
NAMES_MAX = 10_000

Where = tuple[str, int]


class Resolver:
    """`clock` is the reactor: it knows the time and has a resolver."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._known: dict[str, Where] = {}
        self._fresh_until: dict[str, float] = {}

    def now(self, address: str) -> Where | None:
        """Where to send, as far as is known now; a look-up is begun when that is due."""
        known = self._known.get(address)
        if known is not None and address not in self._fresh_until:
            return known
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            self._look_up(address, host, int(port))
            return self._known.get(address)
        if len(self._known) > NAMES_MAX:
            self._known.clear()
            self._fresh_until.clear()
        self._known[address] = (host, int(port))
        return self._known[address]

    def _look_up(self, address: str, host: str, port: int) -> None:
        now = self._clock.seconds()
        if now < self._fresh_until.get(address, 0):
            return
        self._fresh_until[address] = now + KEPT_S

        def found(ip: str) -> None:
            self._known[address] = (ip, port)

        def missing(_: object) -> None:
            self._fresh_until[address] = self._clock.seconds() + 1.0

        self._clock.resolve(host).addCallbacks(found, missing)
