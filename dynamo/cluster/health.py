"""Who may be relied on, and who is awaited, kept up to date member by member.

Each news of a member changes what follows from that member alone. In a cluster of many there are as
many news at once as there are members, so that a look at all at each would be quadratic.
"""

from __future__ import annotations

from dynamo.cluster.peers import Known, Peers
from dynamo.core.layout import NONE, Layout


class Health:
    """What follows from what `peers` knows; times are those of their clock, in seconds."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._layout = NONE
        self._states: dict[str, tuple[bool, bool]] = {}
        self._awaited: set[str] = set()
        self._told: tuple[str, ...] | None = ()

    def awaiting(self) -> tuple[str, ...]:
        """Members that keep hints for this node, or may, sorted."""
        if self._told is None:
            self._told = tuple(sorted(self._awaited))
        return self._told

    def look(self, known: Known, now: float) -> bool:
        """Takes note of one member; whether it is relied on otherwise than before."""
        name = known.member.name
        if self._peers.by_name.get(name) is not known:
            return False
        if self._peers.awaits(known, self._layout) != (name in self._awaited):
            self._awaited ^= {name}
            self._told = None
        well = known.well(now)
        state = (well, known.running and not well)
        if self._states.get(name) == state:
            return False
        self._states[name] = state
        return True

    def look_at_all(self, layout: Layout, now: float) -> bool:
        """Takes note of all members, by this layout; whether any is relied on otherwise."""
        self._layout = layout
        changed = [self.look(known, now) for known in self._peers.by_name.values()]
        return any(changed)

    def forget(self, name: str) -> bool:
        """The member is gone for good; whether it was known."""
        if name in self._awaited:
            self._awaited.remove(name)
            self._told = None
        return self._states.pop(name, None) is not None
