"""How a node is: whether it can serve, and the numbers a scraper reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dynamo.api.metrics import Reading
from dynamo.background.divergence import Tally
from dynamo.cluster.membership import Membership
from dynamo.coordinator.terms import Defaults
from dynamo.core.quorum import majority
from dynamo.core.refilling import Refilling
from dynamo.storage.chunks import Chunks
from dynamo.storage.copies import Copies
from dynamo.storage.engine import Engine

WORDS = ("alive", "suspect", "dead", "left")


def why_not_ready(view: Membership, defaults: Defaults) -> str:
    """One sentence on why this node cannot meet its default quorum; "" if it can."""
    if not view.joined:
        return view.why_not_joined()
    joining = [m.name for m in view.members() if m.liveness == "alive" and m.role == "joining"]
    if joining:
        return f"Waiting for {', '.join(joining)} to finish joining."
    members = view.ring.members
    n = min(defaults.n, len(members))
    needed = max(
        majority(n) if count == "quorum" else min(count, n) for count in (defaults.r, defaults.w)
    )
    healthy = [m.name for m in members if view.is_healthy(m.name)]
    if len(healthy) >= needed:
        return ""
    gone = ", ".join(m.name for m in members if m.name not in healthy)
    return (
        f"The default quorum needs {needed} of {n} nodes and {len(healthy)} are alive; "
        f"not alive: {gone}."
    )


def readings(
    copies: Copies, engine: Engine, chunks: Chunks, view: Membership, repair: Tally
) -> Iterable[Reading]:
    """What is read when somebody looks."""
    objects, size = copies.totals()
    liveness = Counter({(word,): 0 for word in WORDS})
    liveness.update((m.liveness,) for m in view.members())
    gossip = view.gossip
    yield Reading("objects", {(): objects})
    yield Reading("bytes_stored", {(): size})
    yield Reading("store_bytes", {(): engine.bytes_used()})
    yield Reading("chunk_bytes", {(): chunks.bytes_used()})
    hints = {(target,): count for target, count in copies.hints.counts.items()}
    yield Reading("hints_pending", hints, ("target",))
    yield Reading("members", liveness, ("liveness",))
    yield Reading("gossip_health_score", {(): view.health})
    yield Reading("gossip_packets", gossip.packets, ("direction", "kind"), counter=True)
    moved = {(direction,): n for direction, n in gossip.bytes.items()}
    yield Reading("gossip_bytes", moved, ("direction",), counter=True)
    dropped = {(reason,): n for reason, n in gossip.dropped.items()}
    yield Reading("gossip_dropped", dropped, ("reason",), counter=True)
    yield Reading("antientropy_exchanges", {(): repair.compared}, counter=True)
    yield Reading("antientropy_keys_listed", {(): repair.listed}, counter=True)
    yield Reading("antientropy_keys_read", {(): repair.read}, counter=True)
    yield Reading("antientropy_keys_repaired", {(): repair.repaired}, counter=True)
    events = {(name,): n for name, n in view.counts.items()}
    yield Reading("gossip_events", events, ("event",), counter=True)


def refill_readings(state: Refilling, refilling: bool) -> Iterable[Reading]:
    """How far this node is with taking back what was on a lost disk."""
    yield Reading("refill_partitions_left", {(): state.left if refilling else 0})
    yield Reading("transfer_bytes", {(): state.bytes}, counter=True)
