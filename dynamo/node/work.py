"""What a node does that nobody waits for, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dynamo.api.metrics import Metrics
from dynamo.api.vitals import crowded
from dynamo.background.handoff import Handoff
from dynamo.background.reaper import Reaper
from dynamo.background.runner import Runner, Task
from dynamo.background.upkeep import Upkeep
from dynamo.cluster.membership import Membership
from dynamo.config import Config
from dynamo.core.admission import Admission
from dynamo.ports import Liveness
from dynamo.replica.local import LocalReplica
from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable


class Work:
    """The background tasks of a node, and the runner that steps them once it is started.

    `actor()` is the node's actor.
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
    ) -> None:
        self.admission = Admission(config.limits.background_latency)
        self.runner = Runner(reactor, self.admission, lambda: crowded(copies.committer, view))
        self.upkeep = Upkeep(
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
        self._view = view
        self._handoff = Handoff(view=view, copies=copies, buckets=table, actor=actor)
        self._reaper = Reaper(copies=copies, buckets=table)

    def start(self) -> None:
        """Begins to step all of it."""
        handoff, reaper = self._handoff, self._reaper
        self.runner.add(
            Task("handoff", handoff.step, idle_s=1.0, weight=4.0, progress=handoff.progress)
        )
        self.runner.add(
            Task("reaper", reaper.step, idle_s=2.0, busy_s=0.01, progress=reaper.progress)
        )
        self.upkeep.start(self.runner)
        self._view.watch(self._member_changed)

    def _member_changed(self, name: str, liveness: Liveness) -> None:
        self.runner.wake("handoff")
