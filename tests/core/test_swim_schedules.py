"""Random schedules of faults on the virtual network.

The network checks the invariants after every step (see `tests.support.swim_network`): a stored
incarnation never falls, nobody believes itself dead, a verdict has its suspicion before it and
the shortest time-out between, no datagram is above the limit, queues are bounded. Here it is
asserted besides that all views are equal some time after the last fault.
"""

from __future__ import annotations

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dynamo.core.profiles import LAN, LOCAL
from tests.support.swim_network import SwimNetwork

QUICK = attrs.evolve(LOCAL, exchange_interval=3.0, remember_patience=2.0, name_patience=8.0)
CALM = 45.0
"""Seconds after which nothing of a fault may be left: the longest suspicion of this profile
(3.6 s, and another for what a restarted node remembers), some exchanges and reconnects."""

KINDS = (
    "kill",
    "restart",
    "move",
    "wipe",
    "pause",
    "leave",
    "split",
    "oneway",
    "loss",
    "udp",
    "duplicate",
    "describe",
    "doubt",
    "heal",
)
Action = tuple[str, int, float]
actions = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 6), st.floats(0.0, 4.0)), max_size=12
)


def act(net: SwimNetwork, names: list[str], action: Action) -> None:
    """Does one thing to the cluster, if it makes sense at this time."""
    kind, index, amount = action
    name = names[index % len(names)]
    node = net.nodes[name]
    if kind in ("leave", "describe", "doubt") and net.now < node.paused_until:
        return
    if kind in ("kill", "leave", "pause", "describe") and node.running:
        if kind == "kill":
            net.kill(name)
        elif kind == "leave":
            net.leave(name)
        elif kind == "pause":
            net.pause(name, amount)
        else:
            net.call(node, lambda swim: swim.describe(net.now, weight=1 + amount))
    elif kind in ("restart", "move", "wipe") and not node.running and node.stopped != "name_taken":
        # The seed stays where it is: with every address stale there would be no way back.
        moves = kind == "move" and name != "n0"
        address = f"{name}:{7001 + int(10 * amount)}" if moves else ""
        net.restart(name, address=address, wipe=kind == "wipe")
    elif kind == "split":
        net.split(names[: index + 1])
    elif kind == "oneway":
        net.cut = lambda a, b: a == name
    elif kind == "udp":
        net.cut = lambda a, b: name in (a, b)
        net.cut_streams = lambda a, b: False
    elif kind == "loss":
        net.loss = amount / 8
    elif kind == "duplicate":
        net.duplicate = amount / 4
    elif kind == "doubt" and node.running:
        other = names[(index + 1) % len(names)]
        net.call(node, lambda swim: swim.evidence(net.now, other, amount > 2))
    elif kind == "heal":
        net.heal()


def play(seed: int, count: int, schedule: list[Action]) -> SwimNetwork:
    """A cluster of `count`, the schedule, then calm."""
    net = SwimNetwork(seed, QUICK)
    names = net.cluster(count, settle=2.0)
    for action in schedule:
        act(net, names, action)
        net.run(action[2] / 2)
    net.heal()
    net.run(CALM)
    return net


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 7), actions)
@example(1, 3, [("wipe", 0, 0.0)])
def test_views_are_equal_some_time_after_the_last_fault(
    seed: int, count: int, schedule: list[Action]
) -> None:
    """Whatever happened, the survivors agree on every record, and the living are the living."""
    net = play(seed, count, schedule)
    if net.up:
        assert net.agreed(), {node.name: node.swim.members() for node in net.up}
    taken = [node for node in net.nodes.values() if node.stopped == "name_taken"]
    assert not taken


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_row_24_small_clusters_exhaustively(count: int) -> None:
    """memberlist 350, ringpop 169: every single death in clusters of 1 to 5 is found."""
    for victim in range(count):
        net = SwimNetwork(victim, LAN)
        names = net.cluster(count, settle=3.0)
        assert net.agreed()
        net.kill(names[victim])
        net.run(12.0)
        assert all(net.view(n).get(names[victim]) == "dead" for n in names if n != names[victim])
        assert len({s.name for s in net.events("failed")}) == (count > 1)
