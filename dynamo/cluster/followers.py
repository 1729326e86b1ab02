"""How far the other members are with the layout, by what they say by gossip.

While the ring changes, every news of a member is a reason to look whether all are ready. One that
is not is remembered and looked at first, so that in a cluster of many most looks end there.
"""

from __future__ import annotations

from collections.abc import Callable

from dynamo.core.layout import Layout
from dynamo.core.members import Member
from dynamo.core.steps import Lack, in_words, lacking


class Followers:
    """What the members other than `me` say. `record(name)` is what gossip knows of another one,
    `mine()` the versions that this node uses and is synced for."""

    def __init__(
        self,
        me: str,
        record: Callable[[str], Member | None],
        mine: Callable[[], tuple[int, int]],
    ) -> None:
        self._me = me
        self._record = record
        self._mine = mine
        self._last = {"use": "", "ready": ""}

    def uses(self, name: str) -> int:
        """The version by which a member says it goes, 0 if it is not known."""
        if name == self._me:
            return self._mine()[0]
        record = self._record(name)
        return record.layout if record is not None else 0

    def has_synced(self, name: str) -> int:
        """The version for which a member says it holds what it ought to."""
        if name == self._me:
            return self._mine()[1]
        record = self._record(name)
        return record.synced if record is not None else 0

    def is_there(self, name: str) -> bool:
        """Whether a member is believed to run."""
        record = self._record(name)
        return name == self._me or (record is not None and record.running)

    def all_use(self, layout: Layout) -> bool:
        """Whether all members that are there go by it."""
        return not self._any("use", layout, lambda n: self._is_behind(layout, n))

    def all_ready(self, layout: Layout) -> bool:
        """Whether nothing keeps the next step of a change from being taken."""
        return not self._any("ready", layout, lambda n: self._lack(layout, n) != "")

    def waits_for(self, layout: Layout) -> list[str]:
        """Why the next step of a change is not taken yet, in sentences."""
        if layout.stage == "steady":
            return []
        return in_words(layout, [(name, self._lack(layout, name)) for name in layout.names()])

    def _is_behind(self, layout: Layout, name: str) -> bool:
        return self.is_there(name) and self.uses(name) < layout.version

    def _lack(self, layout: Layout, name: str) -> Lack:
        there, uses, synced = self.is_there(name), self.uses(name), self.has_synced(name)
        return lacking(layout, name, there=there, uses=uses, synced=synced)

    def _any(self, what: str, layout: Layout, holds: Callable[[str], bool]) -> bool:
        last = self._last[what]
        if last and layout.knows(last) and holds(last):
            return True
        self._last[what] = next((name for name in layout.names() if holds(name)), "")
        return self._last[what] != ""
