"""TCP of a simulated machine, as a protocol sees it.

An end that is gone answers a segment with a reset, if its machine has power; one whose machine has
none leaves the other end half open. Close, half close, abort and producers behave as
`twisted.internet.tcp` has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from dynamo.sim.network import Machine
from dynamo.sim.pipes import FIN, RESET, Pipe
from dynamo.sim.tell import stream_text

if TYPE_CHECKING:
    from dynamo.sim.connecting import Connector
    from dynamo.sim.reactor import Reactor

WINDOW_BYTES = 256 * 1024
"""Bytes under way and unread at which a sender is asked to pause."""

READ_BYTES = 64 * 1024
"""What a protocol is given at once at most, as twisted's reactors do."""


@implementer(ITCPTransport, IConsumer, IPushProducer)
class End:
    """One end of a connection, as a transport."""

    # What `dynamo.replica.pool` sets on twisted's transports.
    SEND_LIMIT = bufferSize = 64 * 1024

    def __init__(self, reactor: Reactor, here: IPv4Address, there: IPv4Address) -> None:
        self.reactor = reactor
        self.machine: Machine = reactor.machine
        self.network = self.machine.network
        self.far_machine = self.network.machines[there.host]
        self._here, self._there = here, there
        self.protocol: Any = None
        self.connector: Connector | None = None
        self.connected = False
        self.disconnecting = False
        self.far: End | None = None
        self.out: Pipe | None = None
        self.unread = 0
        self._inbox: list[Any] = []
        self._reading = True
        self._closing_soon = False
        self._write_closed = False
        self._told_full = False
        self._producer: Any = None
        self._streaming = False

    # Made and unmade.

    def join(self, far: End) -> None:
        """Both ends of a connection know each other from here on."""
        self.far = far
        self.out = Pipe(self.network, self, far)

    def open(self, protocol: Any) -> None:
        """The connection is made."""
        self.connected = True
        self.protocol = protocol
        self.machine.ends[self] = None
        protocol.makeConnection(self)

    def vanish(self) -> None:
        """The process is gone, or its machine without power: nobody is told here."""
        self.connected = False
        self.machine.ends.pop(self, None)
        self._inbox.clear()

    def lost(self, error: Exception) -> None:
        """The kernel says that the connection is over; the protocol hears in its next turn."""
        if self.connected:
            self.reactor.soon(self._lose, error)

    def _lose(self, error: Exception) -> None:
        if not self.connected:
            return
        self.connected = False
        self.machine.ends.pop(self, None)
        self._inbox.clear()
        reason = Failure(error)
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        protocol = self.protocol
        if self.network.trace.on:
            what = type(error).__name__
            self.network.trace.add(
                self.machine.name, f"tcp {self._label()} is over for this side: {what}"
            )
        if self.connector is not None:
            # As twisted does: the protocol first, then the connector.
            protocol.connectionLost(reason)
            self.connector.connectionLost(reason)
        else:
            protocol.connectionLost(reason)

    def failIfNotConnected(self, error: Exception) -> None:
        """The connector gives up, or somebody cancelled the attempt."""
        connector, self.connector = self.connector, None
        if connector is not None and not self.connected:
            connector.connectionFailed(Failure(error))

    # Receiving.

    def arrived(self, data: bytes) -> None:
        """A segment is here."""
        self.unread += len(data)
        self._take(data)

    def marked(self, mark: object) -> None:
        """The far end closed, or there is no such connection."""
        if mark is RESET:
            self._inbox.clear()
            self.lost(ConnectionLost())
        else:
            self._take(mark)

    def _take(self, what: Any) -> None:
        if not self.connected:
            if what is not FIN:
                self._refuse()
            return
        if self.network.trace.on and isinstance(what, bytes):
            text = stream_text(what)
            if text:
                self.network.trace.add(self.machine.name, f"tcp < {self.far_machine.name} {text}")
        self._inbox.append(what)
        if self._reading and len(self._inbox) == 1:
            self.reactor.soon(self._read)

    def _refuse(self) -> None:
        """A segment came for a connection this machine knows nothing of."""
        if self.machine.up and self.out is not None:
            self.out.drop()
            self.out.send(RESET)

    def _read(self) -> None:
        while self._inbox and self._reading and self.connected:
            what = self._inbox[0]
            if what is FIN:
                self._inbox.pop(0)
                self._far_closed()
                continue
            if len(what) > READ_BYTES:
                self._inbox[0] = what[READ_BYTES:]
                what = what[:READ_BYTES]
            else:
                self._inbox.pop(0)
            self.unread -= len(what)
            self._make_room()
            self.protocol.dataReceived(what)

    def _far_closed(self) -> None:
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is not None and not self._write_closed:
            half.readConnectionLost()
        else:
            self._lose(ConnectionDone())

    def _make_room(self) -> None:
        """The sender may have waited for this reading."""
        far = self.far
        if far is not None and far._told_full and self.unread < WINDOW_BYTES // 2:
            back = self.network.delay(self.network.path(self.machine.ip, far.machine.ip))
            self.network.later(back, far.has_room)

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        if self.connected and not self._reading:
            self._reading = True
            if self._inbox:
                self.reactor.soon(self._read)

    def stopProducing(self) -> None:
        self.loseConnection()

    # Sending.

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes | bytearray | memoryview), type(data)
        if not data or not self.connected or self._write_closed or self.reactor.dead:
            return
        assert self.out is not None
        assert self.far is not None
        self.out.write(bytes(data))
        if self._producer is not None and not self._told_full and self._under_way() > WINDOW_BYTES:
            self._told_full = True
            if self._streaming:
                self._producer.pauseProducing()

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def _under_way(self) -> int:
        assert self.out is not None
        assert self.far is not None
        flying = sum(sum(map(len, w)) for _, w in self.out.queue if isinstance(w, list))
        return flying + self.far.unread

    def has_room(self) -> None:
        """The far end has read."""
        if self._told_full and self.connected:
            self.reactor.soon(self._resume_producer)

    def _resume_producer(self) -> None:
        if self._told_full and self.connected and self._producer is not None:
            self._told_full = False
            self._producer.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("Another producer is registered.")
        if not self.connected:
            producer.stopProducing()
            return
        self._producer, self._streaming = producer, streaming
        self._told_full = False
        if not streaming:
            self.reactor.soon(self._pull)

    def _pull(self) -> None:
        if self._producer is None or self._streaming or not self.connected:
            return
        if self._under_way() > WINDOW_BYTES:
            self._told_full = True
            return
        self._producer.resumeProducing()
        self.reactor.soon(self._pull)

    def unregisterProducer(self) -> None:
        self._producer = None
        self._told_full = False
        if self.disconnecting:
            self._close_soon()

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            if self._producer is None:
                self._close_soon()

    def _close_soon(self) -> None:
        if not self._closing_soon:
            self._closing_soon = True
            self.reactor.soon(self._close)

    def _close(self) -> None:
        if self.connected:
            assert self.out is not None
            if not self._write_closed:
                self.out.send(FIN)
            self._lose(ConnectionDone())

    def loseWriteConnection(self) -> None:
        if self.connected and not self._write_closed:
            assert self.out is not None
            self._write_closed = True
            self.out.send(FIN)
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is not None:
                self.reactor.soon(half.writeConnectionLost)

    def abortConnection(self) -> None:
        if self.connected and not self.reactor.dead:
            assert self.out is not None
            self.disconnecting = True
            self.out.drop()
            self.out.send(RESET)
            self.lost(ConnectionAborted())

    # Who is who.

    def getHost(self) -> IPv4Address:
        return self._here

    def getPeer(self) -> IPv4Address:
        return self._there

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no Nagle here."""

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing is probed here."""

    def getTcpKeepAlive(self) -> bool:
        return False

    def _label(self) -> str:
        return f"{self._here.host}:{self._here.port}-{self._there.host}:{self._there.port}"
