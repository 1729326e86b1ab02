"""What a write needs by one ring: it has to reach two of them while the ring changes."""

from __future__ import annotations

import attrs

from dynamo.core.preference import Preference
from dynamo.core.quorum import WriteTally


@attrs.define(eq=False)
class Half:
    """One ring's part of a write: whom it asks and who acknowledged. `spares` may still be asked;
    `kept`: owners for whom somebody keeps the record."""

    preference: Preference
    tally: WriteTally
    spares: list[str]
    kept: set[str] = attrs.field(factory=set)

    @classmethod
    def of(cls, preference: Preference, w: int) -> Half:
        spares = list(preference.spares)
        tally = WriteTally(min(w, len(preference.owners)), spare=len(spares))
        return cls(preference, tally, spares)

    def take_spare(self) -> str:
        """The next healthy node further down."""
        stand_in = self.spares.pop(0)
        self.tally.spare = len(self.spares)
        return stand_in
