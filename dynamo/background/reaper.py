"""Frees what deleted buckets left behind, a few hundred keys at a time.

A bucket's files vanish with its incarnation at once; this removes their rows and chunks. Every
earlier generation of a name is gone for good, and the present one too if it is deleted.
"""

from __future__ import annotations

from collections import deque

import attrs

from dynamo.core.buckets import Bucket
from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable


@attrs.define(eq=False)
class Reaper:
    """Works through the incarnations that are gone; each is looked at once per process."""

    copies: Copies
    buckets: BucketTable
    freed: int = 0
    _seen: dict[str, int] = attrs.field(factory=dict)
    _waiting: deque[bytes] = attrs.field(factory=deque)

    def progress(self) -> tuple[int, int]:
        """Incarnations this process went through, and those known to be left."""
        return self.freed, len(self._waiting)

    async def step(self) -> bool:
        """Frees one stretch; True if there may be more."""
        if not self._waiting:
            self._look()
        if not self._waiting:
            return False
        if not await self.copies.forget(self._waiting[0]):
            self._waiting.popleft()
            self.freed += 1
        return True

    def _look(self) -> None:
        for name, bucket in self.buckets.states.items():
            gone = bucket.generations_gone
            for generation in range(self._seen.get(name, 0) + 1, gone + 1):
                self._waiting.append(Bucket(name, generation).incarnation)
            self._seen[name] = max(gone, self._seen.get(name, 0))
