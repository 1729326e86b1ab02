"""One timer for a thing that always waits for something, though not always for the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

NEVER = float("inf")


class Deadline:
    """Calls `late` once the last deadline set has passed.

    Moving the deadline away costs nothing: the timer is left where it is and looks again when
    it goes off. A connection moves its deadline with each request and needs a new timer once
    in the time it may be idle.
    """

    __slots__ = ("_armed_for", "_at", "_late", "_reactor", "_timer")

    def __init__(self, reactor: Any, late: Callable[[], None]) -> None:
        self._reactor = reactor
        self._late = late
        self._at = NEVER
        self._armed_for = NEVER
        self._timer: IDelayedCall | None = None

    def within(self, seconds: float) -> None:
        """Something has to happen within `seconds` from now."""
        self._at = at = self._reactor.seconds() + seconds
        if at < self._armed_for:
            if self._timer is not None:
                self._timer.cancel()
            self._armed_for = at
            self._timer = self._reactor.callLater(seconds, self._tick)

    def never(self) -> None:
        """Nothing has to happen."""
        self._at = NEVER

    def stop(self) -> None:
        """The thing is gone."""
        self._at = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer, self._armed_for = None, NEVER
        if self._at == NEVER:
            return
        left = self._at - self._reactor.seconds()
        if left > 0:
            self.within(left)
        else:
            self._late()
