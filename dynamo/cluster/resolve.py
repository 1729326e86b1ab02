"""Turning "host:port" into what a datagram can be sent to.

Numbers are used as they are. A name is looked up by the reactor, the answer kept for half a
minute and then asked for again for as long as it is used: names may move, and may not resolve yet
when a node starts.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.defer import maybeDeferred

KEPT_S = 30.0
AGAIN_S = 1.0
NAMES_MAX = 10_000

LOOK_UPS_MAX = 64
"""Look-ups under way at once; they share the reactor's few threads."""

Where = tuple[str, int]


class Resolver:
    """`clock` is the reactor: it knows the time and has a resolver."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._known: dict[str, Where] = {}
        self._fresh_until: dict[str, float] = {}
        self._looking = 0

    def now(self, address: str) -> Where | None:
        """Where to send, as far as is known now; a look-up is begun when that is due. None as well
        for what is no address."""
        known = self._known.get(address)
        if known is not None and address not in self._fresh_until:
            return known
        host, _, digits = address.rpartition(":")
        if not host or not digits.isdecimal() or not 0 < int(digits[:6]) < 65536:
            return None
        host, port = host.strip("[]"), int(digits)
        if len(self._known) + len(self._fresh_until) > NAMES_MAX:
            self._known.clear()
            self._fresh_until.clear()
        try:
            ipaddress.ip_address(host)
        except ValueError:
            self._look_up(address, host, port)
            return self._known.get(address)
        self._known[address] = (host, port)
        return self._known[address]

    def _look_up(self, address: str, host: str, port: int) -> None:
        now = self._clock.seconds()
        if now < self._fresh_until.get(address, 0) or self._looking >= LOOK_UPS_MAX:
            return
        self._fresh_until[address] = now + KEPT_S
        self._looking += 1

        def found(ip: str) -> None:
            self._known[address] = (ip, port)

        def missing(_: object) -> None:
            self._fresh_until[address] = self._clock.seconds() + AGAIN_S

        def done(_: object) -> None:
            self._looking -= 1

        looked_up = maybeDeferred(self._clock.resolve, host)
        looked_up.addCallbacks(found, missing).addCallback(done)
