"""What a node does that nobody waits for, put together."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from dynamo.api.metrics import Metrics
from dynamo.api.vitals import crowded
from dynamo.background.antientropy import AntiEntropy
from dynamo.background.census import Census
from dynamo.background.clearing import Clearing
from dynamo.background.divergence import Surroundings
from dynamo.background.handoff import Handoff
from dynamo.background.passing import Passing
from dynamo.background.pulling import Pulling
from dynamo.background.reaper import Reaper
from dynamo.background.refill import Refill
from dynamo.background.runner import Runner, Task
from dynamo.background.tombstones import TombstoneReaper
from dynamo.background.transfer import Transfer
from dynamo.background.upkeep import Upkeep
from dynamo.cluster.membership import Membership
from dynamo.config import Config
from dynamo.core.admission import Admission
from dynamo.core.refilling import Refilling
from dynamo.core.transfers import Moved
from dynamo.ports import Changing, Liveness
from dynamo.replica.graves import GraveKeeper
from dynamo.replica.lane import Lane
from dynamo.replica.local import LocalReplica
from dynamo.replica.trees import TreeKeeper
from dynamo.replica.wholeness import Wholeness
from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable, Identity
from dynamo.storage.trees import Trees

LOOK_S = 1.0
"""Seconds between two looks whether anything is to be compared."""

CLEAR_S = 5.0
"""Seconds between two looks whether this node holds what others own."""

REAP_S = 2.0
"""Seconds between two tries to reap tombstones."""


class Work:
    """The background tasks of a node, and the runner that steps them once it is started.

    `actor()` is the node's actor, `filled` has the lanes to members in which anything waits.
    """

    def __init__(
        self,
        *,
        config: Config,
        view: Membership,
        copies: Copies,
        table: BucketTable,
        local: LocalReplica,
        reactor: Any,
        actor: Callable[[], str],
        metrics: Metrics,
        graves: GraveKeeper,
        trees: Trees,
        identity: Identity,
        refilling: Refilling,
        whole: Wholeness,
        rng: random.Random,
        wall_clock: Callable[[], float],
        changing: Changing,
        filled: Iterable[Lane],
    ) -> None:
        self.admission = Admission(config.limits.background_latency)
        self.runner = Runner(
            reactor, self.admission, lambda: crowded(copies.committer, view, filled)
        )
        self.upkeep = _upkeep(config, view, copies, table, local, reactor, metrics)
        grace = self.upkeep.mender.grace = graves.grace
        keeper = TreeKeeper(copies, trees, table, wall_clock, lacking=whole.pair_lacks)
        keeper.share = lambda: self.admission.served(reactor.seconds())
        local.handlers.update(keeper.handlers())
        local.exchanged = keeper.exchanged
        around = Surroundings(view, keeper, grace)
        self.refill = Refill(Pulling(around, refilling, reactor), identity)
        pulling = Pulling(around, Refilling(view.name), reactor, moves=True)
        self.transfer = Transfer(pulling, Passing(around, reactor), changing)
        self.clearing = Clearing(around, actor, reactor)
        self.antientropy = AntiEntropy(around, config.repair.interval, reactor.seconds, rng)
        self._look_s = min(LOOK_S, config.repair.interval / 4)
        self._view, self._reaper = view, Reaper(copies=copies, buckets=table)
        self._seconds: Callable[[], float] = reactor.seconds
        self._census = Census(trees=trees, copies=copies, buckets=table)
        self._handoff = Handoff(view=view, copies=copies, buckets=table, actor=actor, grace=grace)
        self.tombstones = TombstoneReaper(
            view, copies, table, trees.copies_of, reactor, random.Random(rng.randbytes(16))
        )

    def start(self) -> None:
        """Begins to step all of it."""
        handoff, reaper = self._handoff, self._reaper
        self.runner.add(
            Task("handoff", handoff.step, idle_s=1.0, weight=4.0, progress=handoff.progress)
        )
        self.runner.add(
            Task("reaper", reaper.step, idle_s=2.0, busy_s=0.01, progress=reaper.progress)
        )
        self.runner.add(Task("census", self._census.step, idle_s=self._look_s, busy_s=0.005))
        self.runner.add(
            Task("antientropy", self.antientropy.step, idle_s=self._look_s, busy_s=0.01)
        )
        reap = self.tombstones
        self.runner.add(
            Task("tombstones", reap.step, idle_s=REAP_S, busy_s=0.01, progress=reap.progress)
        )
        pulls: tuple[tuple[str, Refill | Transfer, float], ...] = (
            ("refill", self.refill, self._look_s),
            ("transfer", self.transfer, LOOK_S),
        )
        for name, pull, idle_s in pulls:
            granted = pull.pulling.granted
            self.runner.add(Task(name, pull.step, idle_s=idle_s, busy_s=0.01, granted=granted))
        clearing = self.clearing
        self.runner.add(
            Task("clearing", clearing.step, idle_s=CLEAR_S, busy_s=0.01, progress=clearing.progress)
        )
        self.upkeep.start(self.runner)
        self._view.watch(self._member_changed)
        self._view.on_change = self.ring_changed

    def moving(self) -> Moved:
        """How far this node is with taking over what it will own."""
        transfer, now = self.transfer, self._seconds()
        progress = transfer.progress(now)
        why = transfer.why_waiting()
        told = f"{self._view.name}: {why}" if why else ""
        return Moved(tuple(transfer.transfers(now)), progress, told)

    def _member_changed(self, name: str, liveness: Liveness) -> None:
        self.runner.wake("handoff")
        if liveness == "alive":
            self.antientropy.appeared(name)
            self.runner.wake("antientropy")
            self.refill.appeared(name)
            self.runner.wake("refill")
            self.transfer.appeared(name)
            self.clearing.appeared()
        self.runner.wake("transfer")
        self.runner.wake("clearing")

    def ring_changed(self) -> None:
        """The layout is another, or a member goes by it now: whoever moves data looks at once."""
        for name in ("handoff", "transfer", "clearing", "tombstones"):
            self.runner.wake(name)


def _upkeep(
    config: Config,
    view: Membership,
    copies: Copies,
    table: BucketTable,
    local: LocalReplica,
    reactor: Any,
    metrics: Metrics,
) -> Upkeep:
    return Upkeep(
        view,
        copies,
        table,
        local,
        reactor,
        n=config.replication.n,
        w=config.replication.w,
        bytes_per_second=config.repair.scrub_bytes_per_second,
        interval=config.repair.scrub_interval,
        corrupt=metrics.corrupt,
        verified=metrics.verified,
    )
