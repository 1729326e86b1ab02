"""Counts this node's keys into its trees after a start, and again when a bucket's `n` changes.

The keys of a store from before there was table `places` get their places first.
"""

from __future__ import annotations

import attrs

from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable
from dynamo.storage.places import Filling
from dynamo.storage.trees import Trees


@attrs.define(eq=False)
class Census:
    """See the module; one stretch at a time."""

    trees: Trees
    copies: Copies
    buckets: BucketTable
    _filling: Filling | None = None
    _filled: bool = False

    async def step(self) -> bool:
        """Does one stretch; True if there is more."""
        if not self._filled:
            if self._filling is None:
                self._filling = Filling(self.copies.committer, sorted(self.buckets.by_incarnation))
            self._filled = await self._filling.step(self.copies.engine.view())
            return True
        if self.trees.complete:
            return False
        return not await self.trees.count(self.copies.committer)
