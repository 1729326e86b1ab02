"""Telling many that they are late, each the same time after it began.

Nearly every question is answered long before that. So there is one timer for all of them, which
looks who is left, and not one for each to be made, sorted in and cancelled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")


class Watch:
    """One that may come to be late."""

    __slots__ = ("_late", "at")

    def __init__(self, at: float, late: Callable[[], None]) -> None:
        self.at = at
        self._late: Callable[[], None] | None = late

    def active(self) -> bool:
        """Whether it may still come to be late."""
        return self._late is not None

    def cancel(self) -> None:
        """It cannot be late any more."""
        self._late = None

    def fire(self) -> None:
        """It is late, if nobody cancelled it."""
        late, self._late = self._late, None
        if late is not None:
            late()


class Lateness:
    """Calls back `seconds` after each `watch`, in their order. `clock` is the reactor."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._watched: deque[Watch] = deque()
        self._ticking = False

    def watch(self, late: Callable[[], None]) -> Watch:
        """Calls `late` when the time has passed; what is returned can cancel that."""
        watched = self._watched
        while watched and not watched[0].active():
            watched.popleft()  # mostly they end in the order in which they began
        watch = Watch(self._clock.seconds() + self._seconds, late)
        watched.append(watch)
        if not self._ticking:
            self._ticking = True
            self._clock.callLater(self._seconds, self._tick)
        return watch

    def limit(self, asked: Deferred[T], too_late: Callable[[], T]) -> Deferred[T]:
        """As `Deferred.addTimeout`: cancels what takes longer, and has it come to `too_late()`."""
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            asked.cancel()

        def ended(result: T) -> T:
            watch.cancel()
            return too_late() if late else result

        watch = self.watch(give_up)
        return asked.addBoth(ended)

    def _tick(self) -> None:
        watched, now = self._watched, self._clock.seconds()
        try:
            while watched and (watched[0].at <= now or not watched[0].active()):
                watched.popleft().fire()
        finally:
            self._ticking = bool(watched)
            if watched:
                self._clock.callLater(max(0.0, watched[0].at - now), self._tick)
