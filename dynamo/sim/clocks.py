"""Wall clocks that are wrong: each machine's has an offset, drifts, and may be set."""

from __future__ import annotations

from dynamo.sim.schedule import START_S, Schedule

EPOCH_S = 1_800_000_000.0
"""What a right clock says when the simulation begins, in seconds since 1970."""


class WallClock:
    """Called, it gives seconds since the epoch. `drift` is in seconds per second."""

    def __init__(self, schedule: Schedule, offset: float = 0.0, drift: float = 0.0) -> None:
        self._schedule = schedule
        self._set_at = START_S
        self._set_to = EPOCH_S + offset
        self._drift = drift
        self._offset = offset

    def __call__(self) -> float:
        return self._set_to + (self._schedule.now - self._set_at) * (1.0 + self._drift)

    def jump(self, seconds: float) -> None:
        """Somebody sets it, forwards or back."""
        self._set_to, self._set_at = self() + seconds, self._schedule.now

    def drift(self, rate: float) -> None:
        """It runs fast or slow from now on."""
        self.jump(0.0)
        self._drift = rate

    def set_right(self) -> None:
        """It shows what it would, had nobody touched it since the start, and runs right."""
        self._set_at = self._schedule.now
        self._set_to = EPOCH_S + self._offset + self._set_at - START_S
        self._drift = 0.0
