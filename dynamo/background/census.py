"""Keeps the order of this node's keys on disk, and counts them into its trees after a start.

In this order: the keys of a store from before there was table `places` get their rows there; all
are counted; and from then on what is pending is written whenever it has become much or nothing
else is written. Counting begins anew when a bucket's `n` changes. The table may only change while
nothing is counted, which holds because one task does both.
"""

from __future__ import annotations

import attrs

from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable
from dynamo.storage.places import Filling
from dynamo.storage.trees import Trees

PENDING = 8192
"""Places that are written even while there is other work; about 3 MB of memory."""


@attrs.define(eq=False)
class Census:
    """See the module; one stretch at a time."""

    trees: Trees
    copies: Copies
    buckets: BucketTable
    _filling: Filling | None = None
    _filled: bool = False
    _flushing: bool = False
    _commits: int = -1

    async def step(self) -> bool:
        """Does one stretch; True if there is more."""
        copies = self.copies
        view = copies.engine.view()
        if not self._filled:
            if self._filling is None:
                self._filling = Filling(copies.committer, sorted(self.buckets.by_incarnation))
            self._filled = await self._filling.step(view)
            return True
        if self._flushing:
            self._flushing = await copies.places.flush(copies.committer)
            self._commits = copies.committer.commits
            return self._flushing
        if not self.trees.begun:
            self.trees.begin(view, copies.places.pending)
        if not self.trees.complete:
            return not await self.trees.count(copies.committer)
        quiet, self._commits = copies.committer.commits == self._commits, copies.committer.commits
        pending = len(copies.places.pending)
        self._flushing = pending >= PENDING or (quiet and pending > 0)
        return self._flushing
