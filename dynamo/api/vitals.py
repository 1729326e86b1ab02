"""How a node is: whether it can serve, and the numbers a scraper reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dynamo.api.metrics import Reading
from dynamo.background.clearing import Clearing
from dynamo.background.divergence import Tally
from dynamo.background.refill import Refill
from dynamo.background.runner import Runner
from dynamo.background.transfer import Transfer
from dynamo.background.upkeep import Upkeep
from dynamo.cluster.membership import Membership
from dynamo.coordinator.terms import Defaults
from dynamo.core.quorum import majority
from dynamo.ports import ClusterView
from dynamo.replica.graves import GraveKeeper
from dynamo.replica.lane import Lane
from dynamo.storage import graves
from dynamo.storage.chunks import Chunks
from dynamo.storage.committer import Committer
from dynamo.storage.copies import Copies
from dynamo.storage.engine import Engine

WORDS = ("alive", "suspect", "dead", "left")


def why_not_ready(view: Membership, defaults: Defaults) -> str:
    """One sentence on why this node cannot meet its default quorum; "" if it can."""
    if not view.joined:
        return view.why_not_joined()
    if not view.layout.in_ring(view.name):
        return f"{view.name} is joining: it takes over what it will own, and serves meanwhile."
    if view.layout.role(view.name) == "leaving":
        return f"{view.name} is leaving: it hands over what it has, and serves meanwhile."
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


def status(view: Membership) -> dict[str, str]:
    """Every known member and whether it is there, in the two words of `/status/`."""
    return {
        m.name: "Live" if m.liveness in ("alive", "suspect") else "Down" for m in view.members()
    }


def crowded(committer: Committer, view: ClusterView, filled: Iterable[Lane]) -> bool:
    """Whether more waits for the disk, or for a healthy member, than goes in one piece. `filled`:
    the lanes in which anything waits."""
    return committer.behind or any(lane.behind and view.is_healthy(lane.peer) for lane in filled)


def readings(
    copies: Copies,
    engine: Engine,
    chunks: Chunks,
    view: Membership,
    runner: Runner,
    upkeep: Upkeep,
    repair: Tally,
    keeper: GraveKeeper,
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
    yield Reading("scrub_passes", {(): upkeep.scrub.passes}, counter=True)
    yield Reading("mended", {(): upkeep.mender.mended}, counter=True)
    hints = {(target,): count for target, count in copies.hints.counts.items()}
    yield Reading("hints_pending", hints, ("target",))
    yield Reading("members", liveness, ("liveness",))
    yield Reading("gossip_health_score", {(): view.gossip.health})
    yield Reading("gossip_packets", gossip.packets, ("direction", "kind"), counter=True)
    moved = {(direction,): n for direction, n in gossip.bytes.items()}
    yield Reading("gossip_bytes", moved, ("direction",), counter=True)
    dropped = {(reason,): n for reason, n in gossip.dropped.items()}
    yield Reading("gossip_dropped", dropped, ("reason",), counter=True)
    yield Reading("antientropy_exchanges", {(): repair.compared}, counter=True)
    yield Reading("antientropy_keys_listed", {(): repair.listed}, counter=True)
    yield Reading("antientropy_keys_read", {(): repair.read}, counter=True)
    yield Reading("antientropy_keys_repaired", {(): repair.repaired}, counter=True)
    yield Reading("tombstones", {(): graves.count(engine.view())})
    yield Reading("tombstones_reaped", {(): keeper.reaped}, counter=True)
    yield Reading("late_requests_refused", {(): keeper.fences.refused}, counter=True)
    events = {(name,): n for name, n in view.gossip.counts.items()}
    yield Reading("gossip_events", events, ("event",), counter=True)
    yield Reading("background_share", {(): runner.admitted().share})
    steps = {(name,): n for name, n in runner.steps().items()}
    yield Reading("background_steps", steps, ("task",), counter=True)


def moving_readings(refill: Refill, transfer: Transfer, clearing: Clearing) -> Iterable[Reading]:
    """How far this node is with taking back what was on a lost disk, and with moving data for a
    change of the ring."""
    state, coming = refill.pulling.state, transfer.pulling.state
    left = state.left if refill.identity.refilling else 0
    yield Reading("refill_partitions_left", {(): left})
    yield Reading("transfer_partitions_left", {(): coming.left})
    yield Reading("transfer_bytes", {(): state.bytes + coming.bytes}, counter=True)
    yield Reading("transfer_keys", {(): state.keys + coming.keys}, counter=True)
    yield Reading("transfer_hints_passed", {(): transfer.passing.passed}, counter=True)
    yield Reading("records_cleared", {(): clearing.dropped}, counter=True)
