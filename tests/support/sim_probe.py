"""Probes on a simulated cluster: datagrams and streams of the test's own, beside the nodes'."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol

from dynamo.core.layout import NONE, Layout
from dynamo.sim.faults import Faults
from dynamo.sim.network import Machine
from dynamo.sim.plan import Fault
from dynamo.sim.reactor import Reactor
from dynamo.sim.world import World

UDP_PORT, TCP_PORT = 9001, 9002


class Ear(DatagramProtocol):
    """Keeps what comes, with the time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.heard: list[tuple[float, bytes]] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.heard.append((self.world.schedule.now, datagram))


class Line(Protocol):
    """One end of a stream: what it got, with the times, and how it ended."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.got = b""
        self.times: list[float] = []
        self.ended = ""

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        self.times.append(self.world.schedule.now)

    def connectionLost(self, reason: Any = None) -> None:
        self.ended = reason.type.__name__


class Lines(ClientFactory):
    """Makes lines, for either side."""

    noisy = False

    def __init__(self, world: World) -> None:
        self.world = world
        self.made: list[Line] = []
        self.failed = ""

    def buildProtocol(self, addr: Any) -> Line:
        self.made.append(Line(self.world))
        return self.made[-1]

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failed = reason.type.__name__


class FakeOracle:
    """Says what it is told to, and remembers whose disk was spoiled."""

    def __init__(self) -> None:
        self.is_settled = False
        self.told: list[str] = []
        self.knowing: list[bool] = []
        self.last = NONE

    def settled(self) -> bool:
        return self.is_settled

    def spoiled(self, name: str, knowing: bool = False) -> None:
        self.told.append(name)
        self.knowing.append(knowing)

    def lags(self, row: bytes) -> bool:
        return False

    def layout(self) -> Layout:
        return self.last

    def joins(self, name: str) -> None:
        self.told.append(f"{name} joins")

    def serves(self, text: str) -> None:
        self.told.append(text)


class Bench:
    """A cluster that runs, its faults, and probes on every machine."""

    def __init__(self, size: int = 3, *, nodes: bool = True, clients: int = 0) -> None:
        self.world = World(7, size, settings={"cluster": {"partitions": 16}}, traced=True)
        self.oracle = FakeOracle()
        self.faults = Faults(self.world, self.oracle)
        self.ears: dict[str, Ear] = {}
        self.lines: dict[str, Lines] = {}
        self.reactors: dict[str, Reactor] = {}
        if nodes:
            for name in self.world.names:
                self.world.start(name)
        machines = [self.world.hosts[name].machine for name in self.world.names]
        machines += [self.world.client_machine(f"c{n}", n) for n in range(1, clients + 1)]
        for machine in machines:
            self.probe(machine)
        self.world.run_for(2.0)

    def probe(self, machine: Machine) -> None:
        """Listens on a machine; again after the process there has ended."""
        reactor = self.reactors[machine.name] = Reactor(machine)
        self.ears[machine.name] = Ear(self.world)
        reactor.listenUDP(UDP_PORT, self.ears[machine.name])
        self.lines[machine.name] = Lines(self.world)
        reactor.listenTCP(TCP_PORT, self.lines[machine.name])

    def ip(self, name: str) -> str:
        """The address of a machine."""
        return self.reactors[name].machine.ip

    def inject(self, kind: str, *targets: str, seconds: float = 10.0, amount: float = 0.0) -> None:
        """Begins a fault now."""
        self.faults.begin(
            [Fault(at=0.0, kind=kind, targets=targets, seconds=seconds, amount=amount)]
        )
        self.world.run_for(0.0)

    def tell(self, here: str, there: str, times: int = 1, within: float = 1.0) -> int:
        """How many of so many datagrams arrive within so many seconds each."""
        port = self.reactors[here].machine.udp[UDP_PORT]
        before = len(self.ears[there].heard)
        for number in range(times):
            port.write(b"%d" % number, (self.ip(there), UDP_PORT))
            self.world.run_for(within)
        return len(self.ears[there].heard) - before

    def connect(self, here: str, there: str, within: float = 1.0) -> tuple[Line, Line]:
        """Both ends of a new stream."""
        factory = Lines(self.world)
        self.reactors[here].connectTCP(self.ip(there), TCP_PORT, factory)
        self.world.run_for(within)
        return factory.made[0], self.lines[there].made[-1]

    def hears(self, here: str, there: str) -> tuple[bool, bool]:
        """Whether a datagram passes each way."""
        return bool(self.tell(here, there)), bool(self.tell(there, here))
