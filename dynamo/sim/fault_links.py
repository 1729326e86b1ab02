"""Faults of the network: what is done to paths and to connections.

Faults may overlap on a path. What holds on one follows from its own values and all that is active
on it, so that the end of one fault does not end another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionLost

from dynamo.sim.network import Machine, Path
from dynamo.sim.plan import Fault

if TYPE_CHECKING:
    from dynamo.sim.world import World

FOREVER = float("inf")

LINK_KINDS = {
    "loss": "Datagrams are lost, `amount` of them.",
    "doubling": "Datagrams arrive twice, `amount` of them.",
    "latency": "Everything takes up to twice `amount` seconds longer, datagrams out of order.",
    "bandwidth": "Streams carry no more than `amount` bytes a second.",
    "stream_stall": "Streams stand still, datagrams pass.",
    "reset": "Every connection between two nodes is reset.",
    "half_open": "One of two nodes loses its connections with the other, which is not told.",
    "partition": "Two groups of nodes hear nothing of each other.",
    "one_way": "What one group of nodes sends does not reach the others; what they send arrives.",
    "bridge": "Two groups of nodes hear of each other only what one node between them says.",
    "client_cut": "A client's machine and a node hear nothing of each other.",
}
"""Targets: of the first five, one node (all its paths), two (those between them) or more (all
among them); of `bridge` the node between first, then one group; of groups, one of the two."""

CUTTING = frozenset(("partition", "one_way", "bridge", "client_cut"))


class Links:
    """Begins and ends faults of the network."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._on: dict[Path, dict[int, Fault]] = {}
        self._own: dict[Path, tuple[float, float, float]] = {}

    def begin(self, number: int, fault: Fault) -> str:
        """Lets it happen; gives the reason if there is nothing to do it to."""
        if not any(self._world.hosts[name].node for name in fault.targets):
            return f"{', '.join(fault.targets)} down"
        if fault.kind == "reset":
            return self._reset(*self._pair(fault))
        if fault.kind == "half_open":
            return self._half_open(*self._pair(fault))
        paths = self._paths(fault)
        for path in paths:
            self._own.setdefault(path, (path.latency, path.jitter, path.bandwidth))
            self._on.setdefault(path, {})[number] = fault
            self._follow(path)
        return "" if paths else "no such path"

    def end(self, number: int) -> None:
        """It is over."""
        for path, faults in self._on.items():
            if faults.pop(number, None) is not None:
                self._follow(path)

    def _follow(self, path: Path) -> None:
        """Makes a path what its own values and the faults on it say."""
        blocked = path.cut or path.stalled_until == FOREVER
        path.latency, path.jitter, path.bandwidth = self._own[path]
        arriving, path.twice, cut, stalled = 1.0, 0.0, False, False
        for fault in self._on[path].values():
            if fault.kind == "loss":
                arriving *= 1.0 - fault.amount
            elif fault.kind == "doubling":
                path.twice = max(path.twice, fault.amount)
            elif fault.kind == "latency":
                path.latency += fault.amount
                path.jitter += fault.amount
            elif fault.kind == "bandwidth":
                path.bandwidth = min(path.bandwidth, fault.amount)
            cut = cut or fault.kind in CUTTING
            stalled = stalled or fault.kind == "stream_stall"
        path.loss = 1.0 - arriving
        path.cut = cut
        path.stalled_until = FOREVER if stalled else 0.0
        if blocked and not cut and not stalled:
            self._world.network.open(path)

    # Which ones.

    def _pair(self, fault: Fault) -> tuple[Machine, Machine]:
        here, there = fault.targets
        return self._world.hosts[here].machine, self._world.hosts[there].machine

    def _paths(self, fault: Fault) -> list[Path]:
        network, nodes = self._world.network, self._world.hosts
        ips = [nodes[name].machine.ip for name in fault.targets]
        rest = [host.machine.ip for name, host in nodes.items() if name not in fault.targets]
        if fault.kind == "one_way":
            return network.paths(ips, rest)
        if fault.kind in ("partition", "bridge"):
            group = ips[1:] if fault.kind == "bridge" else ips
            return network.paths(group, rest) + network.paths(rest, group)
        if fault.kind == "client_cut":
            return self._to_client(ips[0], fault.amount)
        if len(ips) == 1:
            everyone = list(network.machines)
            return network.paths(ips, everyone) + network.paths(everyone, ips)
        return network.paths(ips, ips)

    def _to_client(self, node: str, amount: float) -> list[Path]:
        """`amount`, from 0 to 1, says which client."""
        network = self._world.network
        nodes = {host.machine.ip for host in self._world.hosts.values()}
        clients = [ip for ip in network.machines if ip not in nodes]
        if not clients:
            return []
        client = clients[min(int(amount * len(clients)), len(clients) - 1)]
        return [network.path(client, node), network.path(node, client)]

    # Connections.

    def _reset(self, here: Machine, there: Machine) -> str:
        network = self._world.network
        ends = network.between(here, there) + network.between(there, here)
        for end in ends:
            if end.out is not None:
                end.out.drop()
            end.lost(ConnectionLost())
        return "" if ends else "no connections"

    def _half_open(self, here: Machine, there: Machine) -> str:
        ends = self._world.network.between(here, there)
        for end in ends:
            if end.out is not None:
                end.out.drop()
            end.lost(ConnectionLost())
        return "" if ends else "no connections"
