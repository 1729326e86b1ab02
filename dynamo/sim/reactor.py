"""The reactor of one simulated process: virtual time, and the ports of its machine.

It has what a node and its clients use of a reactor (`IReactorTime`, `IReactorTCP`, `IReactorUDP`,
a resolver, `callFromThread`), and nothing that touches the real machine. When the process ends,
nothing it asked for happens any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, DNSLookupError
from twisted.internet.interfaces import (
    IReactorFromThreads,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
)
from zope.interface import implementer

from dynamo.log import make_logger
from dynamo.sim.connecting import Connector, StreamPort
from dynamo.sim.datagrams import DatagramPort
from dynamo.sim.network import Machine
from dynamo.sim.schedule import Call

log = make_logger()

current: list[str] = [""]
"""The name of the machine whose turn it is; for what is logged."""


def take_turn(machine: Machine, act: Callable[..., Any], *a: Any, **kw: Any) -> None:
    """Lets the process of `machine` do something; what it raises is logged, as a reactor does."""
    before, current[0] = current[0], machine.name
    try:
        act(*a, **kw)
    except Exception:
        log.failure("Unhandled error in an event")
    finally:
        current[0] = before


class Threads:
    """The time in which the threads of a machine's process work; it stands still with it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._schedule = machine.network.schedule

    def seconds(self) -> float:
        """Virtual time."""
        return self._schedule.now

    def callLater(self, delay: float, act: Callable[..., Any], /, *arguments: Any) -> Call:
        """As the reactor's."""
        return self._schedule.call(delay, self, act, arguments)

    def perform(self, call: Call) -> None:
        """A step is due."""
        if not self._machine.holds(call):
            take_turn(self._machine, call.act, *call.arguments, **call.keywords)


@implementer(IReactorTime, IReactorTCP, IReactorUDP, IReactorFromThreads)
class Reactor:
    """One process on `machine`, from its start to its end."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.dead = False
        self._schedule = machine.network.schedule

    def end(self) -> None:
        """The process is no more. Its connections are the kernel's affair (`World`)."""
        self.dead = True

    # Time.

    def seconds(self) -> float:
        return self._schedule.now

    def callLater(self, delay: float, callable: Callable[..., Any], *a: Any, **kw: Any) -> Call:
        assert delay >= 0, f"a delay of {delay} s"
        return self._schedule.call(delay, self, callable, a, kw)

    def soon(self, act: Callable[..., Any], *arguments: Any) -> None:
        """Does it in the process's next turn: now, or when it gets one."""
        self._schedule.call(0.0, self, act, arguments)

    def getDelayedCalls(self) -> list[Call]:
        raise NotImplementedError("Nobody here asks for all delayed calls.")

    def callFromThread(self, callable: Callable[..., Any], *a: Any, **kw: Any) -> None:
        self._schedule.call(0.0, self, callable, a, kw)

    def perform(self, call: Call) -> None:
        """An event of this process is due."""
        if not self.dead and self.machine.admits(call):
            take_turn(self.machine, call.act, *call.arguments, **call.keywords)

    # Network.

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if port in self.machine.tcp:
            raise CannotListenError(interface, port, OSError("Address already in use"))
        made = StreamPort(self, port, factory)
        made.startListening()
        return made

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: Any = None,
    ) -> Connector:
        made = Connector(self, host, port, factory, timeout)
        made.connect()
        return made

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192
    ) -> DatagramPort:
        if port in self.machine.udp:
            raise CannotListenError(interface, port, OSError("Address already in use"))
        made = DatagramPort(self, port, protocol)
        made.startListening()
        return made

    def resolve(self, name: str, timeout: Any = None) -> Deferred[str]:
        """The address of a machine by its name."""
        ip = self.machine.network.names.get(name)
        if ip is None:
            return fail(DNSLookupError(f"no machine is called {name}"))
        return succeed(ip)
