"""Since when each owner of a key has a version on its disk, and what follows for reads.

A quorum is one reason why a read shows a write. Another is that there is nobody left who could
answer without it: every owner has it on disk, or knows that it may have missed something and whom
to ask for it. Then a read shows it however few are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

Dot = tuple[bytes, str, int]
"""Row, actor, counter."""


@attrs.define(eq=False)
class Arrivals:
    """When each version last came to each drive as an owner's copy, in virtual seconds."""

    _at: dict[Dot, dict[str, float]] = attrs.field(factory=dict)

    def note(self, dot: Dot, name: str, now: float) -> None:
        """The drive `name` has got it, after it had it not."""
        self._at.setdefault(dot, {})[name] = now

    def left(self, dot: Dot, name: str) -> None:
        """The drive `name` has it no more."""
        self._at.get(dot, {}).pop(name, None)

    def everywhere(
        self, dot: Dot, owners: Sequence[str], since: float, spoiled: Mapping[str, float]
    ) -> bool:
        """Whether every owner has had it since then, and at least one on a drive that was not
        spoiled since: the others know that they lost something, and that this one has it."""
        at = self._at.get(dot, {})
        if not owners or any(at.get(owner, since + 1.0) > since for owner in owners):
            return False
        return any(spoiled.get(owner, -1.0) < at[owner] for owner in owners)
