"""Machines and what lies between them.

A `Path` is one direction between two machines. What faults do to the network they do to paths:
lose datagrams, hold streams up, cut one direction or both. A stream never loses or reorders bytes;
what cannot pass waits, as TCP's retransmissions do, and after `GIVE_UP_S` the sender is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING, Any

import attrs

from dynamo.sim.schedule import Call, Schedule
from dynamo.sim.trace import Trace

if TYPE_CHECKING:
    from dynamo.sim.connecting import StreamPort
    from dynamo.sim.datagrams import DatagramPort
    from dynamo.sim.streams import End

GIVE_UP_S = 25.0
"""How long a stream is retransmitted before its sender hears that the connection is lost."""

RETRANSMIT_S = 0.4
"""At most so long after a path is open again, what waited arrives."""

EPHEMERAL = 32768


@attrs.define(eq=False)
class Path:
    """One direction. `latency` and `jitter` in seconds, `bandwidth` in bytes a second; `loss` and
    `twice`: the share of datagrams lost and doubled; `cut`: nothing passes; `stalled_until`: no
    stream passes before that time."""

    latency: float
    jitter: float
    bandwidth: float
    loss: float = 0.0
    twice: float = 0.0
    cut: bool = False
    stalled_until: float = 0.0
    waiting: dict[Any, None] = attrs.field(factory=dict)
    """Streams (`streams.Pipe`) with something that could not pass, in order."""


class Machine:
    """Something with an address, on which one process may run.

    `up`: it has power. `paused`: its process gets no turn (SIGSTOP, a hypervisor's whim), while
    its kernel still takes what comes. `burden`: seconds of work each event costs it.
    """

    def __init__(self, network: Network, name: str, ip: str) -> None:
        self.network = network
        self.name = name
        self.ip = ip
        self.up = True
        self.paused = False
        self.burden = 0.0
        self.udp: dict[int, DatagramPort] = {}
        self.tcp: dict[int, StreamPort] = {}
        self.ends: dict[End, None] = {}
        self._busy_until = 0.0
        self._held: list[Call] = []
        self._ephemeral = EPHEMERAL

    def ephemeral_port(self) -> int:
        """A port number for the near end of a connection."""
        self._ephemeral += 1
        if self._ephemeral > 60999:
            self._ephemeral = EPHEMERAL
        return self._ephemeral

    def pause(self) -> None:
        """No event happens here until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """What was due meanwhile happens now, in its order."""
        self.paused = False
        held, self._held = self._held, []
        for call in held:
            if call.due:
                self.network.schedule.put(call)

    def end_process(self) -> None:
        """What belonged to the process is gone with it."""
        self.udp.clear()
        self.tcp.clear()
        self._held.clear()
        self.paused = False
        self.burden = self._busy_until = 0.0

    def holds(self, call: Call) -> bool:
        """Whether an event waits because the process is paused."""
        if self.paused:
            call.due = True
            self._held.append(call)
        return self.paused

    def admits(self, call: Call) -> bool:
        """Whether an event may happen now; if not, it has been put off."""
        schedule = self.network.schedule
        if self.holds(call):
            return False
        if self.burden:
            if schedule.now < self._busy_until:
                call.due = True
                call.reset(self._busy_until - schedule.now)
                return False
            self._busy_until = schedule.now + self.burden
        return True


class Network:
    """All machines and paths. `counts` says what was done to traffic."""

    def __init__(self, schedule: Schedule, rng: Random, trace: Trace) -> None:
        self.schedule = schedule
        self.rng = rng
        self.trace = trace
        self.machines: dict[str, Machine] = {}
        self.counts: Counter[str] = Counter()
        self.names: dict[str, str] = {}
        self._paths: dict[tuple[str, str], Path] = {}

    def machine(self, name: str, ip: str) -> Machine:
        """Adds a machine."""
        made = self.machines[ip] = Machine(self, name, ip)
        self.names[name] = ip
        return made

    def path(self, here: str, there: str) -> Path:
        """The direction from one IP address to another."""
        found = self._paths.get((here, there))
        if found is None:
            found = Path(
                latency=self.rng.uniform(0.0001, 0.001),
                jitter=self.rng.uniform(0.0, 0.0005),
                bandwidth=125e6,
            )
            self._paths[here, there] = found
        return found

    def paths(self, here: Iterable[str], there: Iterable[str]) -> list[Path]:
        """Every direction from one of `here` to another one of `there`."""
        ends = list(there)
        return [self.path(a, b) for a in here for b in ends if a != b]

    def open(self, path: Path) -> None:
        """What waited on this path goes on."""
        path.cut = False
        path.stalled_until = 0.0
        waiting, path.waiting = path.waiting, {}
        for pipe in waiting:
            pipe.go_on(self.rng.uniform(0.0, RETRANSMIT_S))

    def power_on(self, machine: Machine) -> None:
        """A machine is there again; what was sent to it meanwhile arrives, if nothing is cut."""
        machine.up = True
        for (_, there), path in self._paths.items():
            if there == machine.ip and not path.cut and path.stalled_until <= self.schedule.now:
                self.open(path)

    def stall(self, path: Path, seconds: float) -> None:
        """Streams on this path wait for so long; datagrams pass."""
        path.stalled_until = self.schedule.now + seconds
        self.schedule.callLater(seconds, self._unstall, path, path.stalled_until)

    def _unstall(self, path: Path, until: float) -> None:
        if path.stalled_until == until and not path.cut:
            self.open(path)

    def delay(self, path: Path) -> float:
        """Seconds one packet takes."""
        return path.latency + path.jitter * self.rng.random()

    def between(self, here: Machine, there: Machine) -> list[End]:
        """The near ends, at `here`, of all connections with `there`."""
        return [end for end in here.ends if end.far_machine is there]

    def later(self, seconds: float, act: Callable[..., Any], *arguments: Any) -> Call:
        """Something the network does."""
        return self.schedule.call(seconds, None, act, arguments)
