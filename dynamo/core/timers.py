"""The times at which a machine wants to be woken, in one heap.

A key has at most one time; setting it again moves it. Nothing here knows a clock.
"""

from __future__ import annotations

import heapq

Key = tuple[str, str]
"""What is due, and for whom or which."""

NEVER = float("inf")


class Timers:
    """Keyed alarms on the caller's time line."""

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._at)

    def at(self, key: Key) -> float:
        """When the key is due, or `NEVER`."""
        return self._at.get(key, NEVER)

    def set(self, key: Key, at: float) -> None:
        """The key is due at `at`, whatever it was before."""
        self._at[key] = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))

    def hasten(self, key: Key, at: float) -> None:
        """The key is due at `at`, or earlier if it was so before."""
        if at < self.at(key):
            self.set(key, at)

    def cancel(self, key: Key) -> None:
        """The key is not due any more."""
        self._at.pop(key, None)

    def clear(self) -> None:
        """Nothing is due any more."""
        self._at.clear()
        self._heap.clear()

    @property
    def next_at(self) -> float:
        """The earliest time at which anything is due."""
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else NEVER

    def pop_due(self, now: float) -> Key | None:
        """One key that is due, which it then no longer is."""
        if self.next_at > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._at[key]
        return key

    def shift(self, seconds: float) -> None:
        """Puts everything off, keeping the order."""
        order = sorted((at, count, key) for at, count, key in self._heap if self._at.get(key) == at)
        self._at.clear()
        self._heap.clear()
        for at, _, key in order:
            self.set(key, at + seconds)
