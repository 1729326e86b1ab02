"""UDP of a simulated machine: late, lost, doubled, out of order, as the path has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IUDPTransport
from zope.interface import implementer

from dynamo.sim.tell import datagram_text

if TYPE_CHECKING:
    from dynamo.sim.reactor import Reactor

PAYLOAD_MAX = 65507


@implementer(IListeningPort, IUDPTransport)
class DatagramPort:
    """An open UDP port; also the transport of its protocol."""

    def __init__(self, reactor: Reactor, port: int, protocol: Any) -> None:
        self._reactor = reactor
        self._machine = reactor.machine
        self._network = reactor.machine.network
        self._port = port
        self._protocol = protocol

    def startListening(self) -> None:
        self._machine.udp[self._port] = self
        self._protocol.makeConnection(self)

    def stopListening(self) -> Deferred[None]:
        if self._machine.udp.get(self._port) is self:
            del self._machine.udp[self._port]
            self._protocol.doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", self._machine.ip, self._port)

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        assert addr is not None
        network, host = self._network, addr[0]
        if len(packet) > PAYLOAD_MAX:
            raise OSError("message too long")
        if not isinstance(addr[1], int) or not 0 < addr[1] < 65536:
            raise OverflowError("port must be 0-65535")
        if self._reactor.dead or host not in network.machines:
            return
        path = network.path(self._machine.ip, host)
        if network.trace.on:
            name = network.machines[host].name
            network.trace.add(self._machine.name, f"udp > {name} {datagram_text(packet)}")
        if path.cut:
            network.counts["datagram_cut"] += 1
            return
        if path.loss and network.rng.random() < path.loss:
            network.counts["datagram_lost"] += 1
            return
        network.later(network.delay(path), self._arrive, packet, addr)
        if path.twice and network.rng.random() < path.twice:
            network.counts["datagram_twice"] += 1
            network.later(network.delay(path) * 3, self._arrive, packet, addr)

    def _arrive(self, packet: bytes, addr: tuple[str, int]) -> None:
        machine = self._network.machines[addr[0]]
        port = machine.udp.get(addr[1])
        if port is not None and machine.up:
            port.receive(packet, (self._machine.ip, self._port))

    def receive(self, packet: bytes, sender: tuple[str, int]) -> None:
        """A datagram is here: the process gets it at its next turn."""
        self._reactor.soon(self._hand_over, packet, sender)

    def _hand_over(self, packet: bytes, sender: tuple[str, int]) -> None:
        if self._machine.udp.get(self._port) is self:
            self._protocol.datagramReceived(packet, sender)

    def connect(self, host: str, port: int) -> None:
        raise NotImplementedError("Nobody here connects a UDP port.")

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Nobody here broadcasts."""

    def getBroadcastAllowed(self) -> bool:
        return False
