"""One direction of a simulated TCP connection: whole, in order, and late.

What one end writes within one turn leaves as one segment and arrives later, sometimes in two
pieces, never out of order. What cannot pass waits, and a sender whose segments cannot pass for
`GIVE_UP_S` is told that the connection is lost.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.error import ConnectionLost

from dynamo.sim.network import GIVE_UP_S, Machine, Network

SPLIT = 0.01
"""The share of segments that arrive in two pieces."""

FIN, RESET = object(), object()
"""What ends a stream: its writer closed, or there is no such connection."""


class Side(Protocol):
    """An end of a connection as the network sees it."""

    machine: Machine

    def arrived(self, data: bytes) -> None:
        """A segment is here."""

    def marked(self, mark: object) -> None:
        """`FIN` or `RESET` is here."""

    def lost(self, error: Exception) -> None:
        """The connection is over."""


class Pipe:
    """One direction of a connection: segments in order, from the end that writes to the other."""

    def __init__(self, network: Network, source: Side, sink: Side) -> None:
        self.network = network
        self.path = network.path(source.machine.ip, sink.machine.ip)
        self.source = source
        self.sink = sink
        self.queue: list[Any] = []
        self._free_at = 0.0
        self._last_at = 0.0
        self._turn = -1
        self._flying = False
        self._blocked_since = -1.0

    def write(self, data: bytes) -> None:
        """Sends bytes; those of one turn make one segment."""
        schedule = self.network.schedule
        now = schedule.now
        self._free_at = max(self._free_at, now) + len(data) / self.path.bandwidth
        if self._turn == schedule.turn and self.queue:
            self.queue[-1][1].append(data)
            return
        self._turn = schedule.turn
        self._push([data])

    def send(self, mark: object) -> None:
        """Sends the end of the stream, or a reset."""
        self._turn = -1
        self._push(mark)

    def _push(self, what: Any) -> None:
        at = max(self._free_at, self.network.schedule.now) + self.network.delay(self.path)
        self._last_at = at = max(at, self._last_at)
        self.queue.append((at, what))
        if not self._flying and self._blocked_since < 0:
            self._fly()

    def _fly(self) -> None:
        self._flying = True
        wait = max(self.queue[0][0] - self.network.schedule.now, 0.0)
        self.network.later(wait, self._arrive)

    def _arrive(self) -> None:
        self._flying = False
        if not self.queue:
            return
        network, path = self.network, self.path
        if path.cut or network.schedule.now < path.stalled_until or not self.sink.machine.up:
            self._wait()
            return
        _, what = self.queue.pop(0)
        self._turn = -1
        if isinstance(what, list):
            self._deliver(what[0] if len(what) == 1 else b"".join(what))
        else:
            self.sink.marked(what)
        if self.queue and not self._flying:
            self._fly()

    def _deliver(self, data: bytes) -> None:
        network = self.network
        if len(data) > 1 and network.rng.random() < SPLIT:
            cut = network.rng.randrange(1, len(data))
            network.counts["segment_split"] += 1
            self.queue.insert(0, (network.schedule.now + network.delay(self.path), [data[cut:]]))
            data = data[:cut]
        self.sink.arrived(data)

    def _wait(self) -> None:
        self.path.waiting[self] = None
        if self._blocked_since < 0:
            self._blocked_since = self.network.schedule.now
            self.network.counts["segment_held"] += 1
            self.network.later(GIVE_UP_S, self._give_up, self._blocked_since)

    def go_on(self, seconds: float) -> None:
        """The path is open: what waited is sent again."""
        self._blocked_since = -1.0
        if self.queue and not self._flying:
            self._flying = True
            self.network.later(seconds, self._arrive)

    def _give_up(self, since: float) -> None:
        if self._blocked_since == since:
            self.drop()
            self.source.lost(ConnectionLost())

    def drop(self) -> None:
        """Nothing of this arrives any more."""
        self.queue.clear()
        self.path.waiting.pop(self, None)
        self._blocked_since = -1.0
