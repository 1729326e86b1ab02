"""What a run was found to keep: how often each invariant was put to the test, and what broke it."""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.frozen
class Violation:
    """An invariant that did not hold, when (virtual seconds since the start) and how."""

    invariant: str
    at: float
    text: str


@attrs.define
class Tally:
    """Counts by invariant ("I1" ... "I18")."""

    exercised: Counter[str] = attrs.field(factory=Counter)
    violations: list[Violation] = attrs.field(factory=list)

    def held(self, invariant: str, times: int = 1) -> None:
        """It was put to the test and held."""
        self.exercised[invariant] += times

    def broken(self, invariant: str, at: float, text: str) -> None:
        """It did not hold."""
        self.exercised[invariant] += 1
        self.violations.append(Violation(invariant, at, text))
