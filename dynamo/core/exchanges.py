"""What a node knows of the comparisons between owners: when each pair was last equal.

Times are wall-clock seconds since the epoch, handed in. Nothing is kept over a restart: after one,
a pair counts as never compared until it is.
"""

from __future__ import annotations

import attrs

Pair = tuple[int, str, int]
"""A partition, the other owner, and the number of copies whose keys were compared."""


@attrs.define
class Exchange:
    """The last comparison of one pair.

    `at`: when it was; `equal_at`: when they were last equal, None if never seen so; `differing`:
    keys known to differ still, after they were looked at twice; `misses`: comparisons since they
    were last equal.
    """

    at: float
    equal_at: float | None = None
    differing: int = 0
    misses: int = 0


class Exchanges:
    """The comparisons of this node's partitions with their other owners, by pair."""

    def __init__(self) -> None:
        self._pairs: dict[Pair, Exchange] = {}
        self._last: dict[int, float] = {}

    def note(self, pair: Pair, at: float, equal: bool) -> None:
        """Takes note of a comparison of roots. Once unequal may be a write under way; a second
        time in a row means that a key differs."""
        known = self._pairs.get(pair)
        if known is None:
            known = self._pairs[pair] = Exchange(at)
        known.at = self._last[pair[0]] = at
        if equal:
            known.equal_at, known.differing, known.misses = at, 0, 0
        else:
            known.misses += 1
            if known.misses > 1:
                known.differing = max(known.differing, 1)

    def known_to_differ(self, pair: Pair, keys: int) -> None:
        """Takes note of how many keys of a compared pair could not be made equal."""
        self._pairs[pair].differing = keys

    def last(self, partition: int) -> float | None:
        """When a partition was last compared with any other owner."""
        return self._last.get(partition)

    def equal_at(self, pairs: list[Pair]) -> float | None:
        """Since when all of these pairs have been seen equal once: the oldest of their times."""
        times = [known.equal_at if (known := self._pairs.get(p)) else None for p in pairs]
        return min([t for t in times if t is not None]) if times and None not in times else None

    def differing(self, pairs: list[Pair]) -> int:
        """Keys known to differ in these pairs, each pair for itself; at least, not exactly."""
        return sum(known.differing for p in pairs if (known := self._pairs.get(p)))
