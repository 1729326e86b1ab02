"""A cluster: machines, their disks and clocks, and the nodes that run on them.

    world = World(seed=7, size=5)
    for name in world.names: world.start(name)
    world.schedule.run_until(...)

A node ends in one of three ways: `stop` asks it to, as SIGTERM does; `kill` ends the process, and
its machine answers for it (refused connections, written pages kept); `cut_power` ends the machine:
nobody answers, and what was not synced may be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from dynamo.config import Config, build
from dynamo.node import Node
from dynamo.sim.clocks import WallClock
from dynamo.sim.disk import Drive
from dynamo.sim.network import Machine, Network
from dynamo.sim.pipes import FIN
from dynamo.sim.reactor import Reactor, Threads, current
from dynamo.sim.schedule import Schedule
from dynamo.sim.tell import CLUSTER
from dynamo.sim.trace import Trace

API_PORT, CLUSTER_PORT = 8001, 7001


@attrs.define(eq=False)
class Host:
    """A machine for a node. `node` is the one running, None if none is; `starts` counts them."""

    name: str
    machine: Machine
    drive: Drive
    wall: WallClock
    config: Config
    node: Node | None = None
    reactor: Reactor | None = None
    starts: int = 0


class World:
    """Everything one seed decides. `settings` go into each node's configuration, by section.

    `founders`: how many of the machines found the cluster, 0 for all; the ring may change then, and
    a node's seeds are the members of the ring as it starts. `absent` are machines whose node has
    no part in the cluster: not yet, or not any more. `members`: the ring's, as far as known.
    `since`: when each that has a part was first started for it.
    """

    def __init__(
        self,
        seed: int | str,
        size: int,
        *,
        founders: int = 0,
        settings: dict[str, dict[str, Any]] | None = None,
        write: Callable[[str], object] | None = None,
        traced: bool = False,
    ) -> None:
        self.seed = seed
        self.schedule = Schedule()
        self.trace = Trace(self.schedule.seconds, write, on=traced)
        self.network = Network(self.schedule, Random(f"{seed}:network"), self.trace)
        self.hosts: dict[str, Host] = {}
        self.began = self.schedule.now
        self.calm_since: float | None = self.schedule.now
        """Since when nothing is wrong, in virtual time; None while something is."""
        self._settings = settings or {}
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.members = tuple(self.names[: founders or size])
        self.changing = bool(founders)
        self.absent = dict.fromkeys(self.names[founders or size :])
        self.since = dict.fromkeys(self.members, float("-inf"))
        for number, name in enumerate(self.names, 1):
            self.hosts[name] = self._host(name, number)

    # Machines.

    def _host(self, name: str, number: int) -> Host:
        ip = f"10.0.{number // 250}.{number % 250 + 1}"
        machine = self.network.machine(name, ip)
        drive = Drive(Threads(machine), Random(f"{self.seed}:disk:{name}"))
        wall = WallClock(self.schedule, Random(f"{self.seed}:clock:{name}").uniform(-0.05, 0.05))
        config = self._config(name, ip)
        return Host(name, machine, drive, wall, config)

    def _config(self, name: str, ip: str, weight: float = 1.0) -> Config:
        seeds = ["10.0.0.2", "10.0.0.3"]
        if self.changing and self.hosts:
            known = [member for member in self.members if member in self.hosts]
            seeds = [self.hosts[n].machine.ip for n in known if n != name] or seeds
        sections = {section: dict(given) for section, given in self._settings.items()}
        sections.setdefault("cluster", {}).update(
            name=CLUSTER, seeds=[f"{seed}:{CLUSTER_PORT}" for seed in seeds]
        )
        sections.setdefault("node", {}).update(name=name, data_dir="/disk", weight=weight)
        sections["listen"] = {"api": f"{ip}:{API_PORT}", "cluster": f"{ip}:{CLUSTER_PORT}"}
        return build(sections)

    def client_machine(self, name: str, number: int) -> Machine:
        """A machine for clients."""
        return self.network.machine(name, f"10.1.0.{number}")

    def present(self) -> list[str]:
        """The names of those that have a part in the cluster, whether they run or not."""
        return [name for name in self.names if name not in self.absent]

    def reweigh(self, name: str, weight: float) -> None:
        """Another weight in a node's configuration; it counts from its next start on."""
        host = self.hosts[name]
        host.config = self._config(name, host.machine.ip, weight)

    # Nodes.

    def start(self, name: str) -> bool:
        """Starts a node on a machine with power; whether it came up."""
        host = self.hosts[name]
        assert host.node is None, f"{name} is running"
        if not host.machine.up:
            self.network.power_on(host.machine)
        host.starts += 1
        host.reactor = Reactor(host.machine)
        rng = Random(f"{self.seed}:node:{name}:{host.starts}")
        if self.changing and self.schedule.now > self.began:
            # Its operator knows who is there by now.
            self.reweigh(name, host.config.node.weight)
        node = Node(host.config, host.reactor, rng, host.wall, host.drive.open)
        node.on_left = partial(self.schedule.callLater, 0.0, self._left, name, node)
        self.trace.add(name, f"starts ({host.starts})")
        host.node = node
        current[0] = name
        try:
            node.startService()
        except SystemExit as error:
            self.trace.add(name, f"does not start: {error}")
            host.drive.kill()
            self._end(host)
            return False
        finally:
            current[0] = ""
        return True

    def _left(self, name: str, node: Node) -> None:
        if self.hosts[name].node is node and node.running:
            self.stop(name)

    def stop(self, name: str) -> Deferred[None]:
        """Asks a node to stop, in its next turn; fires when it has."""
        host = self.hosts[name]
        node = host.node
        assert node is not None, f"{name} is not running"
        self.trace.add(name, "is asked to stop")

        def stopped(result: object) -> object:
            if host.node is node:
                self._end(host)
            return result

        def stop() -> None:
            node.stopService().addBoth(stopped).addBoth(over.callback)

        over: Deferred[None] = Deferred()
        assert host.reactor is not None
        host.reactor.soon(stop)
        return over

    def kill(self, name: str) -> None:
        """kill -9: the process is gone, its machine is not."""
        self.trace.add(name, "is killed")
        host = self.hosts[name]
        host.drive.kill()
        self._end(host)

    def cut_power(self, name: str) -> None:
        """The machine is off."""
        self.trace.add(name, "loses power")
        host = self.hosts[name]
        host.machine.up = False
        host.drive.crash()
        self._end(host)

    def _end(self, host: Host) -> None:
        """The kernel, if there is one, closes what the process had open."""
        machine = host.machine
        assert host.reactor is not None
        host.reactor.end()
        host.node = host.reactor = None
        for end in list(machine.ends):
            if machine.up and end.out is not None:
                end.out.send(FIN)
            elif end.out is not None:
                end.out.drop()
            end.vanish()
        machine.end_process()

    def running(self) -> list[str]:
        """The names of the nodes that run."""
        return [name for name, host in self.hosts.items() if host.node is not None]

    def node(self, name: str) -> Node:
        """A running node."""
        node = self.hosts[name].node
        assert node is not None, f"{name} is not running"
        return node

    def run_for(self, seconds: float) -> None:
        """Lets time pass."""
        self.schedule.run_until(self.schedule.now + seconds)
