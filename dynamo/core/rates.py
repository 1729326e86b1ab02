"""How fast a count has been growing lately, from looks at irregular times."""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0
EVERY_S = 1.0


class Rate:
    """A count's growth per second over the last `WINDOW_S`, or since the first look if that was
    later. Keeps at most two looks per `EVERY_S`, and always the last. Times are in seconds."""

    def __init__(self, now: float, count: int) -> None:
        self._looks = deque([(now, count)])

    def look(self, now: float, count: int) -> None:
        """The count is this now."""
        looks = self._looks
        if len(looks) > 1 and now - looks[-2][0] < EVERY_S:
            looks.pop()
        looks.append((now, count))
        while len(looks) > 1 and looks[1][0] <= now - WINDOW_S:
            looks.popleft()

    def per_second(self, now: float) -> float:
        """By what has been seen until now; nothing is seen between two looks."""
        looks = self._looks
        while len(looks) > 1 and looks[1][0] <= now - WINDOW_S:
            looks.popleft()
        first, before = looks[0]
        return (looks[-1][1] - before) / min(max(now - first, EVERY_S), WINDOW_S)
