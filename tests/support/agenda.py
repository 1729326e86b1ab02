"""Virtual time: actions at their times, in order, and the earlier set first among equals."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]


class Agenda:
    """`now` is the time of the action under way."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Action]] = []
        self._count = 0

    def run(self, seconds: float) -> None:
        """Lets virtual time pass."""
        self.run_until(self.now + seconds)

    def run_until(self, end: float, done: Callable[[], bool] | None = None) -> bool:
        """Lets virtual time pass until `end`, or until `done` holds; whether it did."""
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            action()
            if done is not None and done():
                return True
        self.now = end
        return done is not None and done()

    def _at(self, when: float, action: Action) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, action))
