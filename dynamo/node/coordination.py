"""The coordinator of a node, put together."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from dynamo.cluster.membership import Membership
from dynamo.config import Config
from dynamo.coordinator.bodies import Bodies
from dynamo.coordinator.buckets import Buckets
from dynamo.coordinator.door import Door
from dynamo.coordinator.listing import Lister
from dynamo.coordinator.preferences import Preferences
from dynamo.coordinator.reads import Reader
from dynamo.coordinator.repair import Repairer
from dynamo.coordinator.terms import Defaults
from dynamo.coordinator.writes import Writer
from dynamo.core.clock import HybridClock
from dynamo.core.grace import Grace
from dynamo.replica.local import LocalReplica
from dynamo.replica.wholeness import Wholeness
from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable
from dynamo.wire.messages import BucketMake, Coordinate


def build_door(
    *,
    config: Config,
    defaults: Defaults,
    view: Membership,
    copies: Copies,
    table: BucketTable,
    local: LocalReplica,
    reactor: Any,
    rng: random.Random,
    hybrid: HybridClock,
    wall_ms: Callable[[], int],
    actor: Callable[[], str],
    grace: Grace,
    counted: Callable[[str, str], None],
    whole: Wholeness,
) -> Door:
    """The coordinator, and in `local` what peers may ask of it. `wall_ms` is in milliseconds since
    the epoch; `grace` hears of what carries records, `counted(operation, outcome)` is for metrics.
    """
    preferences = Preferences(view)
    asking: dict[str, Any] = {
        "view": view,
        "preferences": preferences,
        "clock": reactor,
        "counted": counted,
    }
    timing: dict[str, Any] = {"hybrid": hybrid, "wall_ms": wall_ms}
    writer = Writer(copies=copies, actor=actor, lacks=whole.lacks, grace=grace, **asking, **timing)
    buckets = Buckets(view=view, table=table, clock=reactor, defaults=defaults, **timing)
    local.handlers[Coordinate] = lambda op: Deferred.fromCoroutine(writer.coordinate(op))
    local.handlers[BucketMake] = lambda op: Deferred.fromCoroutine(buckets.make(op))
    return Door(
        name=config.node.name,
        view=view,
        preferences=preferences,
        defaults=defaults,
        buckets=buckets,
        writer=writer,
        reader=Reader(local_read=copies.read, awaits=whole.awaits, **asking),
        repairer=Repairer(grace=grace, **asking),
        bodies=Bodies(
            view=view,
            clock=reactor,
            rng=rng,
            max_bytes=config.limits.max_object_bytes,
            timeout=config.limits.request_timeout,
        ),
        lister=Lister(view=view, clock=reactor),
    )
