"""Virtual time: what is to happen, in order.

Events at the same instant happen in the order they were asked for, so a run is a pure function of
what its events do. Time stands still while an event runs and jumps to the next one after it.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

START_S = 1000.0
"""The time at which every simulation begins; not 0, so that nothing mistakes it for unset."""

DEBRIS_MIN = 10_000


@implementer(IDelayedCall)
class Call:
    """One thing that will be done, unless it is cancelled."""

    __slots__ = ("_cancelled", "_schedule", "_time", "act", "arguments", "due", "keywords", "owner")

    def __init__(
        self,
        schedule: Schedule,
        time: float,
        owner: Any,
        act: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> None:
        self._schedule = schedule
        self._time = time
        self._cancelled = False
        self.due = True
        self.owner = owner
        self.act = act
        self.arguments = arguments
        self.keywords = keywords

    def getTime(self) -> float:
        return self._time

    def active(self) -> bool:
        return self.due

    def cancel(self) -> None:
        self._check()
        self.due = False
        self._cancelled = True
        self._schedule.forget(self)

    def reset(self, secondsFromNow: float) -> None:
        self._move(self._schedule.now + secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        self._move(self._time + secondsLater)

    def drop(self) -> None:
        """Will not happen: whoever asked is gone. No matter if it has."""
        if self.due:
            self.due = False
            self._cancelled = True
            self._schedule.forget(self)

    def _move(self, time: float) -> None:
        self._check()
        self._time = time
        self._schedule.put(self)

    def _check(self) -> None:
        if self._cancelled:
            raise AlreadyCancelled
        if not self.due:
            raise AlreadyCalled


class Schedule:
    """The queue of events. `now` is in seconds; `turn` counts the events done."""

    def __init__(self) -> None:
        self.now = START_S
        self.turn = 0
        self._heap: list[tuple[float, int, Call]] = []
        self._number = 0
        self._debris = 0

    def seconds(self) -> float:
        """Virtual time."""
        return self.now

    def callLater(self, delay: float, act: Callable[..., Any], *a: Any, **kw: Any) -> Call:
        """As the reactor's, for the simulator's own doings."""
        return self.call(delay, None, act, a, kw)

    def call(
        self,
        delay: float,
        owner: Any,
        act: Callable[..., Any],
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Call:
        """Does `act` in `delay` seconds. `owner.perform(call)` does it, if there is one."""
        made = Call(self, self.now + delay, owner, act, arguments, keywords or {})
        self.put(made)
        return made

    def put(self, call: Call) -> None:
        """Queues a call for its time; an earlier entry of it no longer counts."""
        self._number += 1
        heappush(self._heap, (call.getTime(), self._number, call))

    def forget(self, call: Call) -> None:
        """An entry is void; when they are many, they are cleared away."""
        call.act = call.arguments = call.keywords = None  # type: ignore[assignment]
        self._debris += 1
        if self._debris > DEBRIS_MIN and self._debris * 2 > len(self._heap):
            self._heap = [e for e in self._heap if e[2].due and e[2].getTime() == e[0]]
            heapify(self._heap)
            self._debris = 0

    def pending(self, owner: Any) -> list[str]:
        """What `owner` waits for, each by the name of what will be done."""
        return [
            getattr(call.act, "__qualname__", type(call.act).__name__)
            for time, _, call in self._heap
            if call.owner is owner and call.due and call.getTime() == time
        ]

    def run_until(self, end: float) -> None:
        """Does all that is due by `end`, and leaves time there."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            self._step()
            heap = self._heap
        self.now = max(self.now, end)

    def run_while(self, wanted: Callable[[], bool], end: float) -> bool:
        """Goes on until `wanted()` is false (True) or time is `end` (False)."""
        while wanted():
            if not self._heap or self._heap[0][0] > end:
                self.now = max(self.now, end)
                return False
            self._step()
        return True

    def _step(self) -> None:
        time, _, call = heappop(self._heap)
        if not call.due or call.getTime() != time:
            return
        self.now = max(self.now, time)
        self.turn += 1
        call.due = False
        if call.owner is None:
            call.act(*call.arguments, **call.keywords)
        else:
            call.owner.perform(call)
