"""What each hint is there to tell, and whether its target knows it when the hint goes.

A hint may go when its target has said that it has taken over what its node knew of the key when the
hint was last noted. If that one is in no ring any more, others have to know it
(`Noted.passed_on`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from dynamo.core.record import Context, Record
from dynamo.errors import Corrupt
from dynamo.sim.oracle.mirrors import covers, describe
from dynamo.sim.schedule import START_S
from dynamo.storage import rows
from dynamo.wire.codec import HINT

if TYPE_CHECKING:
    from dynamo.sim.oracle.registry import Registry

Place = tuple[str, bytes]
"""Whose drive it is on, and the hint's row."""


@attrs.frozen
class Note:
    """`row`: that of the key. `context`: what was known of it at `at`, in virtual seconds."""

    row: bytes
    target: str
    context: Context
    at: float


@attrs.define(eq=False)
class Noted:
    """The hints there are, as they were last noted."""

    registry: Registry
    _notes: dict[Place, Note] = attrs.field(factory=dict)

    def committed(self, name: str, changes: Any) -> None:
        """A commit of `name` became visible, and the mirrors know it."""
        for hint, (_, new) in changes.get("hints", {}).items():
            if new is not None:
                self._note(name, hint, new)
            elif note := self._notes.pop((name, hint), None):
                self._dropped(name, note)

    def forget(self, drive: str) -> None:
        """Nothing follows any more from what was noted by this node, or for it."""
        kept = {p: n for p, n in self._notes.items() if drive not in (p[0], n.target)}
        self._notes = kept

    def left(self, drive: str) -> None:
        """This node has no part in the ring any more, and comes back with an empty disk if at all:
        what was noted on the one it had is not there then."""
        self._notes = {place: note for place, note in self._notes.items() if place[0] != drive}

    def before(self, at: float) -> list[tuple[str, Note]]:
        """All that were noted no later than that, with whose drive they are on."""
        return [(place[0], note) for place, note in self._notes.items() if note.at <= at]

    def _note(self, name: str, hint: bytes, data: bytes) -> None:
        target = self.registry.target(hint)
        try:
            said = HINT.decode(hint, data)
        except Corrupt:
            return
        row = rows.row(said.incarnation, said.key)
        context = dict(self.registry.mirrors[name].known(row).context)
        now = self.registry.now() + START_S
        self._notes[name, hint] = Note(row, target, context, now)

    def _dropped(self, name: str, note: Note) -> None:
        """I7: the target has what it was to be told, if it still has a part in it; if it is in no
        ring any more, those have it who own the key now."""
        registry = self.registry
        theirs = registry.mirrors.get(note.target)
        if theirs is None:
            lacking = self._lacking(note.row, note.context)
            if lacking:
                registry.broken(
                    "I7",
                    f"{name} dropped its hint for {note.target}, which is in no ring, of "
                    f"{registry.told(note.row)}: {lacking} does not know all of {note.context}, "
                    "and is not to be told",
                )
            else:
                registry.held("I7")
            return
        if note.target not in registry.owners(note.row):
            return
        if covers(theirs.known(note.row).context, note.context):
            registry.held("I7")
        elif not registry.losses.was_lost(note.row, note.context):
            registry.broken(
                "I7",
                f"{name} dropped its hint for {note.target} of {registry.told(note.row)}, which "
                f"does not know all of {note.context}, but {theirs.known(note.row).context}",
            )

    # Copies.

    def delivered(self, name: str, row: bytes, old: Record) -> bool:
        """Whether a copy that was kept for others could go: it was written anew in the commit in
        which it went, so that its hints tell nothing."""
        targets = [n.target for (at, _), n in self._notes.items() if (at, n.row) == (name, row)]
        theirs = [self.registry.mirrors.get(target) for target in targets]
        if not theirs or not all(t and covers(t.known(row).context, old.context) for t in theirs):
            return False
        self.registry.held("I7")
        return True

    def passed_on(self, name: str, row: bytes, old: Record, target: str) -> None:
        """I7: a copy for a member in no ring goes when each owner has it, or a hint waits for
        it."""
        registry = self.registry
        lacking = self._lacking(row, old.context)
        if not lacking:
            registry.held("I7")
            return
        registry.broken(
            "I7",
            f"{name} dropped the copy of {registry.told(row)} it kept for {target}, which is in no "
            f"ring: {describe(old)}, and {lacking} neither has it nor is to be told",
        )

    def _lacking(self, row: bytes, context: Context) -> str:
        """An owner that does not know all of this and for whom no hint waits; "" if none."""
        registry = self.registry
        if registry.losses.was_lost(row, context):
            return ""
        for owner in registry.owners(row):
            mirror = registry.mirrors.get(owner)
            known = mirror is not None and covers(mirror.known(row).context, context)
            if not known and not registry.hinted(row, owner):
                return owner
        return ""
