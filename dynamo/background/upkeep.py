"""What keeps a node's own disk whole: the scrub that finds damage and the mender, joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from twisted.internet.interfaces import IReactorTime

from dynamo.background.mending import Mender
from dynamo.background.runner import Runner, Task
from dynamo.background.scrub import Scrub
from dynamo.ports import ClusterView
from dynamo.replica.local import LocalReplica
from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable
from dynamo.storage.recovery import Recovery


class Upkeep:
    """Made with the parts it looks after, which from then on tell it what they could not read.

    `n` and `w` are the cluster's defaults; `corrupt` and `verified` are for metrics.
    """

    def __init__(
        self,
        view: ClusterView,
        copies: Copies,
        buckets: BucketTable,
        local: LocalReplica,
        clock: IReactorTime,
        *,
        n: int,
        w: int | Literal["quorum"],
        bytes_per_second: int,
        interval: float,
        corrupt: Callable[[str], object] = lambda kind: None,
        verified: Callable[[int], object] = lambda count: None,
    ) -> None:
        recovery = Recovery(copies)
        self.mender = Mender(
            view, recovery, copies.chunks, buckets, clock, n, w, corrupt, lambda: self._wake()
        )
        self.scrub = Scrub(
            recovery, self.mender, clock, bytes_per_second, interval, verified=verified
        )
        self.scrub.load()
        self._wake: Callable[[], object] = lambda: None
        copies.corrupt, copies.damaged = corrupt, self.mender.record
        local.unread, local.written = self.mender.chunk, self.scrub.written

    def start(self, runner: Runner) -> None:
        """Begins both tasks."""
        runner.add(Task("mending", self.mender.step, idle_s=5.0))
        runner.add(Task("scrub", self.scrub.step, idle_s=1.0, busy_s=0.02))
        self._wake = lambda: runner.wake("mending")
