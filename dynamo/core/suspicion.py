"""How long a suspicion lasts before it becomes a verdict (Lifeguard §IV-B, LHA-Suspicion).

A suspicion begins with a long time-out and falls, with the logarithm of the number of independent
confirmations, to a short one. A member that is itself slow or cut off hears no confirmations and
so gives the accused the most time to refute; when several members find the same, none of them is
likely to be the one at fault.
"""

from __future__ import annotations

import math

import attrs

from dynamo.core.profiles import Settings


def timeout(low: float, high: float, confirmed: int, needed: int) -> float:
    """Seconds from the start of a suspicion that `confirmed` others share."""
    if needed < 1:
        return low
    fraction = math.log(confirmed + 1) / math.log(needed + 1)
    return max(low, high - (high - low) * fraction)


def bounds(settings: Settings, members: int) -> tuple[float, float]:
    """The shortest and the longest time-out in a cluster of `members`, in seconds."""
    scale = max(1.0, math.log10(max(1, members)))
    low = settings.suspicion_multiplier * scale * settings.probe_interval
    return low, low * (settings.suspicion_max_multiplier if settings.lifeguard else 1.0)


def needed(settings: Settings, members: int) -> int:
    """Confirmations that bring the time-out to its shortest.

    None when there are fewer possible confirmers than that: waiting for them would be in vain.
    """
    if not settings.lifeguard or members - 2 < settings.confirmations:
        return 0
    return settings.confirmations


@attrs.define
class Suspicion:
    """One running suspicion: when it began, its bounds, and who shares it."""

    start: float
    low: float
    high: float
    needed: int
    accuser: str
    confirmers: set[str] = attrs.field(factory=set)
    refused: bool = False

    def confirm(self, source: str) -> bool:
        """Counts one more accuser; False if it adds nothing: the first one, one counted
        before, or one more than are needed."""
        full = len(self.confirmers) >= self.needed
        if full or source == self.accuser or source in self.confirmers:
            return False
        self.confirmers.add(source)
        return True

    def refuse(self, share: float) -> None:
        """This member found that nothing listens at the suspect's address. A process that is slow,
        stopped or cut off does not refuse, and one that restarts refutes by a higher incarnation
        anyway: less time is needed."""
        if not self.refused:
            self.refused = True
            self.low *= share

    @property
    def ends(self) -> float:
        """When it becomes a verdict, unless refuted."""
        return self.start + timeout(self.low, self.high, len(self.confirmers), self.needed)

    def shift(self, seconds: float) -> None:
        """Discounts time in which this process did not run."""
        self.start += seconds


def suspect(settings: Settings, now: float, members: int, accuser: str) -> Suspicion:
    """A suspicion that begins now in a cluster of `members`."""
    low, high = bounds(settings, members)
    return Suspicion(now, low, high, needed(settings, members), accuser)
