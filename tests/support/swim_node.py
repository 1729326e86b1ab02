"""One node of the virtual network, and the invariants that its machine must keep."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from dynamo.core import suspicion
from dynamo.core.effects import MemberChanged
from dynamo.core.members import Liveness
from dynamo.core.rumours import QUEUE_MAX
from dynamo.core.swim import Swim
from dynamo.wire.datagrams import Codec


@attrs.frozen
class Seen:
    """One event at one observer."""

    at: float
    observer: str
    event: str
    name: str
    cause: str


@attrs.define
class Node:
    """One process: its machine, its disk and its place in the network."""

    name: str
    address: str
    swim: Swim
    codec: Codec
    disk: dict[str, Any]
    running: bool = True
    paused_until: float = 0.0
    held_until: float = 0.0
    woken: float = -1.0
    inbox: deque[tuple[str, bytes]] = attrs.field(factory=deque)
    outbox: list[Callable[[], None]] = attrs.field(factory=list)
    late: list[Callable[[], None]] = attrs.field(factory=list)
    highest: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    suspected: dict[str, tuple[float, int]] = attrs.field(factory=dict)
    refused: set[str] = attrs.field(factory=set)
    stopped: str = ""
    stalled: float = 0.0


def check_invariants(node: Node, now: float) -> None:
    """After each call: nobody believes itself dead, queues are bounded, alarms are ahead, and no
    stored incarnation fell."""
    swim = node.swim
    assert swim.me.liveness in (Liveness.ALIVE, Liveness.LEFT), "believes itself dead"
    assert swim.pending <= QUEUE_MAX
    assert swim.wake_at >= now, "an alarm was set in the past"
    for member in swim.members():
        held = node.highest.get(member.name, (-1, -1))
        if member.claim != held:
            assert member.claim > held, f"{node.name}: incarnation of {member.name} fell"
            node.highest[member.name] = member.claim


def check_verdict(node: Node, effect: MemberChanged, now: float) -> None:
    """A verdict by the node itself has a suspicion before it that lasted the shortest time-out;
    time in which the process stood still does not count (notices round it)."""
    if "suspected for" in effect.cause:
        begun, count = node.suspected[effect.member.name]
        settings = node.swim._local.settings
        low, _ = suspicion.bounds(settings, max(1, count - 1))
        low *= settings.refused_share if effect.member.name in node.refused else 1
        assert now - node.stalled - begun >= low - 1e-2, effect
