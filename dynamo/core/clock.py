"""Hybrid logical time (Kulkarni et al., "Logical Physical Clocks", 2014).

A stamp is one integer: wall milliseconds in the high bits, a logical counter in the low 16.
Stamps of one clock only rise; a stamp taken after seeing another is above it. They order
versions for "newest" and for `conflicts: latest`, never for causality.

A clock that is ahead would drag all others with it, so a reading more than `drift_ms` ahead of
the local wall clock is not adopted: the local stamp then stays near local time, and the far
stamp keeps winning comparisons for at most as long as it is ahead.
"""

from __future__ import annotations

LOGICAL_BITS = 16
DRIFT_MS_MAX = 60_000


class HybridClock:
    """Gives stamps; the wall clock reading is handed in at each call.

    `last`: the highest stamp given or adopted so far.
    """

    def __init__(self, last: int = 0, drift_ms: int = DRIFT_MS_MAX) -> None:
        self.last = last
        self._drift_ms = drift_ms

    def tick(self, wall_ms: int, after: int = 0) -> int:
        """A stamp above every earlier one, and above `after` (a stamp already held here)."""
        self.last = max(wall_ms << LOGICAL_BITS, self.last + 1, after + 1)
        return self.last

    def observe(self, wall_ms: int, stamp: int) -> None:
        """Takes note of another node's stamp, unless it lies too far ahead of our wall clock."""
        if stamp > self.last and (stamp >> LOGICAL_BITS) - wall_ms <= self._drift_ms:
            self.last = stamp


def wall_ms_of(stamp: int) -> int:
    """The wall milliseconds in a stamp, since the epoch."""
    return stamp >> LOGICAL_BITS
