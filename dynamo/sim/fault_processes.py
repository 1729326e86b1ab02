"""Faults of machines: processes that end, stand still or are slow, and clocks that are wrong.

A node that was taken down belongs to the fault that did it until that is over; then it is started
again, as often as it takes, as a service manager would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dynamo.sim.plan import Fault

if TYPE_CHECKING:
    from dynamo.sim.world import Host, World

PROCESS_KINDS = {
    "kill": "A process is killed, and started again later.",
    "power_cut": "A machine loses power, and what was not synced; it comes back later.",
    "stop": "A node is asked to stop, and started again later.",
    "crash_many": "Several machines lose power at the same moment (`amount` < 0.5: processes are "
    "killed).",
    "relapse": "A machine loses power, comes back, and loses it again after `amount` seconds.",
    "pause": "A process gets no turn.",
    "slow": "Every event costs a node `amount` seconds of work.",
    "clock_jump": "A wall clock is set wrong by `amount` seconds, and set right later.",
    "clock_drift": "A wall clock gains `amount` seconds a second, and is set right later.",
}

RESTART_S = 1.0
"""After this time a node that would not start, or ended, is started again."""


class Processes:
    """Begins and ends faults of machines. `changed` is called when a node was started."""

    def __init__(self, world: World, changed: Callable[[], None]) -> None:
        self._world = world
        self._changed = changed
        self.owner: dict[str, int] = {}
        """Which fault keeps a node down."""
        self.rising: dict[str, None] = {}
        """The nodes that are to be started and are not yet."""
        self._on: dict[int, Fault] = {}
        self._starts: dict[int, int] = {}
        self._asked: dict[str, int] = {}

    def free(self, fault: Fault) -> list[Host]:
        """Its targets that run and are not on their way down."""
        hosts = [self._world.hosts[name] for name in fault.targets]
        return [
            host
            for host in hosts
            if host.node is not None and host.node.running and host.name not in self.owner
        ]

    def begin(self, number: int, fault: Fault) -> str:
        """Lets it happen; gives the reason if there is nothing to do it to."""
        hosts = self.free(fault)
        if not hosts or (len(hosts) < 2 and fault.kind == "crash_many"):
            return f"{', '.join(fault.targets)} down"
        self._on[number] = fault
        for host in hosts:
            self._starts[number] = host.starts
            self._begin(number, fault, host)
        return ""

    def _begin(self, number: int, fault: Fault, host: Host) -> None:
        kind = fault.kind
        if kind in ("pause", "slow"):
            self._follow(host)
        elif kind == "clock_jump":
            host.wall.jump(fault.amount)
        elif kind == "clock_drift":
            host.wall.drift(fault.amount)
        else:
            self.take_down(number, host.name, kind, fault.amount)
            if kind == "relapse":
                schedule = self._world.schedule
                again = min(RESTART_S, fault.seconds / 2)
                schedule.callLater(again, self._come_back, number, host.name, fault.amount)

    def take_down(self, number: int, name: str, how: str, amount: float = 1.0) -> None:
        """Ends a node; it is the fault's until `let_up`."""
        self.owner[name] = number
        if how == "stop":
            self._asked[name] = self._world.hosts[name].starts
            self._world.stop(name)
        elif how == "kill" or (how == "crash_many" and amount < 0.5):
            self._world.kill(name)
        else:
            self._world.cut_power(name)

    def _come_back(self, number: int, name: str, seconds: float) -> None:
        if self.owner.get(name) == number and self._world.start(name):
            starts = self._world.hosts[name].starts
            self._world.schedule.callLater(seconds, self._go_again, number, name, starts)

    def _go_again(self, number: int, name: str, starts: int) -> None:
        host = self._world.hosts[name]
        if self.owner.get(name) == number and host.node is not None and host.starts == starts:
            self._world.cut_power(name)

    def end(self, number: int) -> None:
        """It is over."""
        fault = self._on.pop(number, None)
        if fault is not None:
            for name in fault.targets:
                host = self._world.hosts[name]
                if fault.kind in ("pause", "slow"):
                    self._follow(host)
                elif fault.kind.startswith("clock"):
                    self._set_clock(host)
        self.let_up(number)

    def let_up(self, number: int) -> None:
        """Starts the nodes again that this fault keeps down."""
        for name in [name for name, owner in self.owner.items() if owner == number]:
            del self.owner[name]
            host = self._world.hosts[name]
            if host.node is not None and self._asked.get(name) == host.starts:
                self._world.kill(name)  # it has not managed to stop
            self.rise(name)

    def rise(self, name: str) -> None:
        """Starts a node, now or as soon as it will start; one with no part stays as it is."""
        if name in self._world.absent:
            self.rising.pop(name, None)
            self._changed()
            return
        if self._world.hosts[name].node is None and name not in self.owner:
            self.rising[name] = None
            if not self._world.start(name):
                self._world.schedule.callLater(RESTART_S, self.rise, name)
                return
        self.rising.pop(name, None)
        self._changed()

    def _follow(self, host: Host) -> None:
        """Makes a machine what the faults on its present process say."""
        faults = [
            fault
            for number, fault in self._on.items()
            if host.name in fault.targets and self._starts[number] == host.starts
        ]
        machine = host.machine
        machine.burden = max((f.amount for f in faults if f.kind == "slow"), default=0.0)
        paused = any(f.kind == "pause" for f in faults)
        if paused:
            machine.pause()
        elif machine.paused:
            machine.resume()

    def _set_clock(self, host: Host) -> None:
        drifts = jump = 0.0
        for fault in self._on.values():
            if host.name in fault.targets:
                drifts += fault.amount if fault.kind == "clock_drift" else 0.0
                jump += fault.amount if fault.kind == "clock_jump" else 0.0
        host.wall.set_right()
        host.wall.jump(jump)
        host.wall.drift(drifts)
