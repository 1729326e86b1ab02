"""Preference lists as of now, made once for each partition until something changes."""

from __future__ import annotations

import attrs

from dynamo.core.preference import Preference, prefer
from dynamo.core.ring import Ring
from dynamo.ports import ClusterView


@attrs.define(eq=False)
class Preferences:
    """Looks up who is asked for a key. `view.epoch` says when what it knows is out of date."""

    view: ClusterView
    _epoch: int = -1
    _known: dict[tuple[int, int, bool], Preference] = attrs.field(factory=dict)

    def of(self, incarnation: bytes, key: bytes, n: int, strict: bool) -> Preference:
        """The preference list of a key for `n` copies, or as many as a ring has members."""
        ring = self.view.ring
        if self.view.epoch != self._epoch:
            self._epoch = self.view.epoch
            self._known.clear()
        case = (ring.partition(incarnation, key), n, strict)
        found = self._known.get(case)
        if found is None:
            found = self._prefer(ring, *case)
            if self.view.beside is not None:
                found = attrs.evolve(found, beside=self._prefer(self.view.beside, *case))
            self._known[case] = found
        return found

    def _prefer(self, ring: Ring, partition: int, n: int, strict: bool) -> Preference:
        view = self.view
        return prefer(ring.ranking(partition), n, view.is_healthy, strict, view.is_doubtful)
