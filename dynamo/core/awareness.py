"""How well this member itself seems to be (Lifeguard §IV-A, LHA-Probe).

A score from 0 (well) to `limit - 1`. It rises when probes fail without the helpers' nacks, when
this member had to refute a suspicion, or when it did not run for a while; it falls with every
probe that succeeds. Probe interval and time-out are multiplied by score + 1, as in the paper, so
that a slow member accuses less.
"""

from __future__ import annotations


class Awareness:
    """The local health multiplier. `limit` 1 switches it off."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.score = 0

    def add(self, delta: int) -> None:
        """Worse by `delta`, better if it is negative."""
        self.score = min(self.limit - 1, max(0, self.score + delta))

    def scale(self, seconds: float) -> float:
        """A time of the probe, as it is for a member in this condition."""
        return seconds * (self.score + 1)
