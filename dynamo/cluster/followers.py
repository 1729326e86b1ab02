"""How far the other members are with the layout, by what they say by gossip.

While the ring changes, every news of a member is a reason to look whether all are ready. One that
is not is remembered and looked at first, so that in a cluster of many most looks end there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from dynamo.core.layout import Layout
from dynamo.core.members import Member
from dynamo.core.ring import Ring
from dynamo.core.steps import Lack, in_words, lacking
from dynamo.core.transfers import untaken
from dynamo.log import make_logger

PATIENCE_S = 5.0
"""A change that has waited for the same for so long, looked at now and then, is told in the log."""

log = make_logger()


class Standing(NamedTuple):
    """Where this node stands: the version of the layout it uses, the one it is synced for, and the
    two rings of the one it knows."""

    used: int
    synced: int
    ring: Ring
    beside: Ring | None


class Known(Protocol):
    """What is known of members and buckets."""

    def record(self, name: str) -> Member | None:
        """What gossip knows of another member."""

    def classes(self) -> frozenset[int]:
        """How many copies buckets ask for; of none where there can be no data."""


class Followers:
    """What the members other than `me` say; `mine()` is what it says itself."""

    def __init__(self, me: str, known: Known, mine: Callable[[], Standing]) -> None:
        self._me = me
        self._known = known
        self._mine = mine
        self._untaken_of: tuple[object, tuple[str, ...]] = (None, ())
        self._looked: tuple[int, float] = (0, 0.0)
        self._why = self._told = ""
        self._last = {"use": "", "ready": ""}

    def uses(self, name: str) -> int:
        """The version by which a member says it goes, 0 if it is not known."""
        if name == self._me:
            return self._mine().used
        record = self._known.record(name)
        return record.layout if record is not None else 0

    def has_synced(self, name: str) -> int:
        """The version for which a member says it holds what it ought to."""
        if name == self._me:
            return self._mine().synced
        record = self._known.record(name)
        return record.synced if record is not None else 0

    def is_there(self, name: str) -> bool:
        """Whether a member is believed to run."""
        record = self._known.record(name)
        return name == self._me or (record is not None and record.running)

    def all_use(self, layout: Layout) -> bool:
        """Whether all members that are there go by it."""
        return not self._any("use", layout, lambda n: self._is_behind(layout, n))

    def late(self, layout: Layout) -> list[str]:
        """Those that are there and go by an earlier one: by the next they would be refused. Of one
        that is being refilled it is not known by which it goes; it reads as the others do."""
        names = layout.names()
        return [name for name in names if self._is_behind(layout, name) and self.uses(name)]

    def all_ready(self, layout: Layout) -> bool:
        """Whether nothing keeps the next step of a change from being taken."""
        if self._any("ready", layout, lambda n: self._lack(layout, n) != ""):
            return False
        return not self._untaken(layout)

    def waits_for(self, layout: Layout) -> list[str]:
        """Why the next step of a change is not taken yet, in sentences."""
        if layout.stage == "steady":
            return []
        waits = in_words(layout, [(name, self._lack(layout, name)) for name in layout.names()])
        missed = self._untaken(layout)
        if missed:
            waits.append(f"{' or '.join(missed)} must be there to take over what it will own.")
        return waits

    def tell(self, layout: Layout, now: float) -> None:
        """To be called now and then, at a time in seconds: logs why a change does not go on."""
        if self._looked[0] != layout.version:
            self._looked, self._why, self._told = (layout.version, now), "", ""
        if now < self._looked[1] + PATIENCE_S:
            return
        self._looked = (layout.version, now)
        before, self._why = self._why, " ".join(self.waits_for(layout))
        if self._why and self._why == before != self._told:
            self._told = before
            log.info("The ring does not change yet: {why}", why=before)

    def _is_behind(self, layout: Layout, name: str) -> bool:
        return self.is_there(name) and self.uses(name) < layout.version

    def _lack(self, layout: Layout, name: str) -> Lack:
        there, uses, synced = self.is_there(name), self.uses(name), self.has_synced(name)
        return lacking(layout, name, there=there, uses=uses, synced=synced)

    def _untaken(self, layout: Layout) -> tuple[str, ...]:
        """The coming owners of what none of them has taken over: one of them must be there."""
        mine = self._mine()
        if layout.stage != "coming" or mine.beside is None:
            return ()
        names, classes = layout.names(), self._known.classes()
        synced = frozenset([n for n in names if self.has_synced(n) >= layout.version])
        there = frozenset([n for n in names if self.is_there(n)])
        case = (layout.version, classes, synced, there)
        if self._untaken_of[0] != case:
            missed = untaken(
                mine.ring,
                mine.beside,
                classes,
                there=there.__contains__,
                synced=synced.__contains__,
            )
            self._untaken_of = case, missed
        return self._untaken_of[1]

    def _any(self, what: str, layout: Layout, holds: Callable[[str], bool]) -> bool:
        last = self._last[what]
        if last and layout.knows(last) and holds(last):
            return True
        self._last[what] = next((name for name in layout.names() if holds(name)), "")
        return self._last[what] != ""
