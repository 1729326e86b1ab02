"""The share of time that background work may use, by how long foreground requests wait
(Dynamo §6.5).

The paper's controller grants background tasks slices of time by the 99th percentile of what
foreground operations took in the last minute; this one looks at the last ten seconds. At the end
of each second it judges by what it was told meanwhile:

- the percentile is above the limit and somebody waited longer than that in this very second, or
  a queue overflowed in it: half the share, down to a floor above nothing, since repair that stops
  altogether costs copies;
- nobody wants anything: all of it;
- the percentile is within the limit: a fiftieth more. Else the share stays, so that one slow
  request counts once and not for as long as it is remembered.

The limit is the target, or `SLOWDOWN` times what is usual where that is less: the percentile of the
last seconds in which there was hardly any such work, here or for others. Who is used to answers in
10 ms notices 30 of them, long before any target that suits slower disks as well.

Additive increase and multiplicative decrease, after Chiu and Jain, "Analysis of the Increase and
Decrease Algorithms for Congestion Avoidance in Computer Networks" (1989). Latencies are counted in
buckets of equal ratio, laid so that the target is a bound: whether the percentile is above that is
exact, how much, and whether it is above a lower limit, is known to a tenth.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable

import attrs

TARGET_S = 0.05
FLOOR = 0.05
INCREASE = 0.02
DECREASE = 0.5
SLOT_S = 1.0
SLOTS = 10
SLOWDOWN = 1.5
"""What background work may make of the percentile, in times of what is usual."""

LIMIT_MIN_S = 0.005
"""Faster than this nobody asks for."""

QUIET = 0.1
"""The part of a second that background work may take in one that counts as without."""

USUAL_SLOTS = 10
USUAL_MIN = 100
"""What is usual is known by so many requests in so many quiet seconds: of fewer requests a
hundredth is nobody."""

USUAL_KEPT = 60
"""So many quiet seconds are kept, of which the last count: a long step takes some of them back."""

RELEARN_S = 600.0
"""After so long without a quiet second those count in which others were served at the least share:
by day another load is usual than by night, and a large join takes longer than either."""

PAUSE_MAX_S = 5.0
"""A pause is no longer than this, however long the step was: what has changed by then counts."""

PER_DOUBLING = 8
DOUBLINGS_BELOW, DOUBLINGS_ABOVE = 6, 8


@attrs.define
class _Slot:
    """What was told in one second. `slowest` and `worked`, by background work, are in seconds."""

    counts: list[int]
    slowest: float = 0.0
    crowded: bool = False
    worked: float = 0.0


class Admission:
    """One node's controller. `target` is in seconds, and so is every `now`, by one clock.

    `limit`: what the percentile is held to, in seconds, at most `target`. A clock that is set back
    costs the second it happens in.
    """

    def __init__(self, target: float = TARGET_S) -> None:
        self.target = self.limit = target
        self._bounds = [
            target * 2 ** (i / PER_DOUBLING)
            for i in range(-DOUBLINGS_BELOW * PER_DOUBLING, DOUBLINGS_ABOVE * PER_DOUBLING + 1)
        ]
        self._slots = deque([self._empty()])
        self._quiet: deque[tuple[int, list[int]]] = deque(maxlen=USUAL_KEPT)
        self._last_quiet = 0
        self._last_served = -math.inf
        self._second: int | None = None
        self._from = self._until = 0.0
        self._share = 1.0

    # Facts.

    def waited(self, now: float, seconds: float) -> None:
        """A foreground request was answered after so many seconds."""
        if not self._from <= now < self._until:
            self._advance(now)
        slot = self._slots[-1]
        bounds = self._bounds
        slot.counts[bisect_left(bounds, seconds, 0, len(bounds) - 1)] += 1
        if seconds > slot.slowest:
            slot.slowest = seconds

    def crowded(self, now: float) -> None:
        """More waits in a queue than can leave it at once."""
        self._advance(now)
        self._slots[-1].crowded = True

    # Decisions.

    def share(self, now: float) -> float:
        """The part of the time background work as a whole may use, from `FLOOR` to 1."""
        self._advance(now)
        return self._share

    def served(self, now: float) -> float:
        """The share, for another node whose background work is answered here. This second and the
        next, in which it fetches chunks, are not quiet: there is no telling what clients wait."""
        self._advance(now)
        self._last_served = now // SLOT_S
        return self._share

    def pause(self, now: float, took: float, part: float = 1.0, granted: float = 1.0) -> float:
        """Seconds to wait after a step of `took` seconds, by one who has `part` (above 0, up to
        1) of the share. Nobody waits while the share is whole. `granted`: the share of another
        node for whose clients the step was work too; the smaller one counts."""
        share = max(FLOOR, min(self.share(now), granted))
        self._slots[-1].worked += max(0.0, took)
        if took > QUIET * SLOT_S:
            self._take_back(int((now - took) // SLOT_S))
        if share >= 1.0:
            return 0.0
        return min(max(0.0, took) * (1.0 / (share * part) - 1.0), PAUSE_MAX_S)

    def p99(self, now: float) -> float | None:
        """The 99th percentile of the last seconds' latencies, up to a tenth too high; None if
        there were none."""
        self._advance(now)
        return self._lately()

    def _percentile(self, seconds: Iterable[list[int]], least: int = 1) -> float | None:
        """None if they tell of fewer than `least` requests."""
        counts = [sum(column) for column in zip(*seconds, strict=True)]
        told = sum(counts)
        if told < least:
            return None
        rank = told - told // 100
        for bound, count in zip(self._bounds, counts, strict=True):
            rank -= count
            if count and rank <= 0:
                return bound
        return None

    def _lately(self) -> float | None:
        return self._percentile(slot.counts for slot in self._slots)

    def _advance(self, now: float) -> None:
        """Ends the seconds that are over. After so many without news all is as at the start, but
        for what is usual."""
        second = int(now // SLOT_S)
        if self._second is None:
            self._second = self._last_quiet = second
        last, self._second = self._second, second
        self._from, self._until = second * SLOT_S, (second + 1) * SLOT_S
        if second < last:
            self._last_quiet = min(self._last_quiet, second)
            self._take_back(second)
        for _ in range(min(second - last, SLOTS + 1)):
            self._learn(last)
            self._judge()
            self._begin_slot()

    def _learn(self, second: int) -> None:
        """What is usual, if the second that ends tells."""
        latest = self._slots[-1]
        if latest.worked > QUIET * SLOT_S or not any(latest.counts):
            return
        served = 0 <= second - self._last_served <= 1
        if not served:
            self._last_quiet = second
        elif self._share > QUIET or second - self._last_quiet <= RELEARN_S:
            return
        self._quiet.append((second, latest.counts))
        self._set_limit()

    def _take_back(self, first: int) -> None:
        """No second from `first` on was quiet, as turns out: a step was under way, or the clock was
        ahead."""
        if self._quiet and self._quiet[-1][0] >= first:
            while self._quiet and self._quiet[-1][0] >= first:
                self._quiet.pop()
            self._set_limit()

    def _set_limit(self) -> None:
        latest = itertools.islice(reversed(self._quiet), USUAL_SLOTS)
        usual = self._percentile((counts for _, counts in latest), USUAL_MIN)
        slowed = self.target if usual is None else max(LIMIT_MIN_S, SLOWDOWN * usual)
        self.limit = min(self.target, slowed)

    def _judge(self) -> None:
        latest, high = self._slots[-1], self._lately()
        late = high is not None and high > self.limit
        if latest.crowded or (late and latest.slowest > self.limit):
            self._share = max(FLOOR, self._share * DECREASE)
        elif high is None and not any(slot.crowded for slot in self._slots):
            self._share = 1.0
        elif not late:
            self._share = min(1.0, self._share + INCREASE)

    def _begin_slot(self) -> None:
        if len(self._slots) == SLOTS:
            self._slots.popleft()
        self._slots.append(self._empty())

    def _empty(self) -> _Slot:
        return _Slot([0] * len(self._bounds))
