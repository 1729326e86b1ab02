"""Preference lists as of now, made once for each partition until something changes."""

from __future__ import annotations

import attrs

from dynamo.core.preference import Preference, prefer
from dynamo.ports import ClusterView


@attrs.define(eq=False)
class Preferences:
    """Looks up who is asked for a key. `view.epoch` says when what it knows is out of date."""

    view: ClusterView
    _epoch: int = -1
    _known: dict[tuple[int, int, bool], Preference] = attrs.field(factory=dict)

    def of(self, incarnation: bytes, key: bytes, n: int, strict: bool) -> Preference:
        """The preference list of a key for `n` copies."""
        ring = self.view.ring
        if self.view.epoch != self._epoch:
            self._epoch = self.view.epoch
            self._known.clear()
        case = (ring.partition(incarnation, key), n, strict)
        found = self._known.get(case)
        if found is None:
            found = prefer(
                ring.ranking(case[0]), n, self.view.is_healthy, strict, self.view.is_doubtful
            )
            self._known[case] = found
        return found
