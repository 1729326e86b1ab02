"""How a simulated connection comes about: ports that listen, and attempts to reach them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.base import BaseConnector
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure
from zope.interface import implementer

from dynamo.sim.network import Machine, Network
from dynamo.sim.pipes import RESET
from dynamo.sim.streams import End

if TYPE_CHECKING:
    from dynamo.sim.reactor import Reactor


class Connector(BaseConnector):
    """An attempt to connect, and then the connection."""

    def __init__(self, reactor: Reactor, host: str, port: int, factory: Any, timeout: float):
        super().__init__(factory, timeout, reactor)  # type: ignore[arg-type]
        self._host, self._port = host, port

    def getDestination(self) -> IPv4Address:
        return IPv4Address("TCP", self._host, self._port)

    def _makeTransport(self) -> Any:
        reactor: Any = self.reactor
        machine: Machine = reactor.machine
        if self._host not in machine.network.machines:
            # Nobody has this address: packets vanish and the attempt times out.
            return _Nowhere(self)
        here = IPv4Address("TCP", machine.ip, machine.ephemeral_port())
        end = End(reactor, here, self.getDestination())
        end.connector = self
        network = machine.network
        _Greeting(network, end, network.machines[self._host], self._port).set_out()
        return end


class _Nowhere:
    def __init__(self, connector: Connector) -> None:
        self._connector: Connector | None = connector

    def failIfNotConnected(self, error: Exception) -> None:
        connector, self._connector = self._connector, None
        if connector is not None:
            connector.connectionFailed(Failure(error))


AGAIN_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""How long after the one before a greeting that met silence is sent again (RFC 6298)."""


class _Greeting:
    """SYN out, SYN-ACK or reset back. What is cut meets silence, and is sent again."""

    def __init__(self, network: Network, near: End, there: Machine, port: int) -> None:
        self._network = network
        self._near = near
        self._there = there
        self._port = port
        self._again = iter(AGAIN_S)

    def set_out(self) -> None:
        """Sends the SYN, unless nobody waits for the connection any more."""
        if self._near.connector is None or self._near.reactor.dead:
            return
        path = self._network.path(self._near.machine.ip, self._there.ip)
        self._network.later(self._network.delay(path), self._arrive)

    def _passes(self, here: Machine, there: Machine) -> bool:
        path = self._network.path(here.ip, there.ip)
        return not path.cut and self._network.schedule.now >= path.stalled_until

    def _arrive(self) -> None:
        near, there = self._near, self._there
        if not self._passes(near.machine, there) or not there.up:
            self._later(self.set_out)
            return
        back = self._network.path(there.ip, near.machine.ip)
        port = there.tcp.get(self._port)
        if port is None:
            self._network.later(self._network.delay(back), self._refused)
            return
        far = End(port.reactor, near.getPeer(), near.getHost())
        near.join(far)
        far.join(near)
        port.reactor.soon(port.accept, far)
        self._network.later(self._network.delay(back), self._accepted)

    def _refused(self) -> None:
        if self._passes(self._there, self._near.machine):
            error = ConnectionRefusedError("Connection refused")
            self._near.reactor.soon(self._near.failIfNotConnected, error)
        else:
            self._later(self.set_out)

    def _accepted(self) -> None:
        far = self._near.far
        if self._passes(self._there, self._near.machine):
            self._near.reactor.soon(self._made)
        elif far is not None and not self._later(self._accepted):
            far.lost(ConnectionLost())

    def _later(self, act: Callable[[], None]) -> bool:
        """Does it after the next wait, if there is one left."""
        seconds = next(self._again, None)
        if seconds is not None:
            self._network.later(seconds, act)
        return seconds is not None

    def _made(self) -> None:
        near = self._near
        connector = near.connector
        if connector is None:  # given up meanwhile
            assert near.out is not None
            near.out.send(RESET)
            return
        protocol = connector.buildProtocol(near.getPeer())
        if protocol is None:
            assert near.out is not None
            near.out.send(RESET)
            return
        near.open(protocol)


@implementer(IListeningPort)
class StreamPort:
    """A listening TCP port."""

    def __init__(self, reactor: Reactor, port: int, factory: Any) -> None:
        self.reactor = reactor
        self._machine = reactor.machine
        self._port = port
        self._factory = factory

    def startListening(self) -> None:
        self._factory.doStart()
        self._machine.tcp[self._port] = self

    def stopListening(self) -> Deferred[None]:
        if self._machine.tcp.get(self._port) is self:
            del self._machine.tcp[self._port]
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", self._machine.ip, self._port)

    def accept(self, end: End) -> None:
        """A connection from elsewhere."""
        protocol = None
        if self._machine.tcp.get(self._port) is self:
            protocol = self._factory.buildProtocol(end.getPeer())
        if protocol is None:
            assert end.out is not None
            end.out.send(RESET)
        else:
            end.open(protocol)
