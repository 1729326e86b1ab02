"""What went with disks that lost something durable, and what old disks brought back."""

from __future__ import annotations

import attrs

from dynamo.core.record import Context, Record, Version
from dynamo.sim.history import History
from dynamo.sim.oracle.mirrors import Mirror, knows


@attrs.define(eq=False)
class Losses:
    """Of all drives. `lost` holds, by row, contexts that went with a spoiled disk and were nowhere
    else; `unkeepable` the ids of writes that went so; `put_back` those that an old disk brought
    back after their tombstones were reaped."""

    history: History
    mirrors: dict[str, Mirror]
    lost: dict[bytes, list[Context]] = attrs.field(factory=dict)
    unkeepable: set[str] = attrs.field(factory=set)
    put_back: set[str] = attrs.field(factory=set)
    _revived: dict[tuple[str, bytes], set[tuple[str, int]]] = attrs.field(factory=dict)

    def was_lost(self, row: bytes, context: Context) -> bool:
        """Whether a part of a context was nowhere else than on a drive that lost it."""
        return any(
            counter > 0 and counter <= lost.get(actor, 0)
            for lost in self.lost.get(row, ())
            for actor, counter in context.items()
        )

    def note_put_back(self, name: str, row: bytes, old: Record, now: Record) -> None:
        """What a disk that was put back has again, and of which nobody remembers any more that it
        was deleted: the tombstone was reaped since. Or it is reaped now, by an agreement that the
        drive had a part in before (`was_revived`)."""
        shown = {(version.actor, version.counter) for version in old.versions}
        again = {(v.actor, v.counter) for v in now.versions} - shown
        self._revived[name, row] = self._revived.get((name, row), set()) | again
        for version in now.versions:
            if knows(old, version.actor, version.counter):
                continue
            write = self.history.by_etag.get(version.etag)
            others = [m.known(row) for m in self.mirrors.values() if m.known(row) != now]
            remembered = any(knows(other, version.actor, version.counter) for other in others)
            if write is not None and not remembered:
                self.put_back.add(write.id)

    def was_revived(self, name: str, row: bytes, version: Version) -> bool:
        """Whether a drive has a version, deleted since, only because it was put back."""
        if (version.actor, version.counter) not in self._revived.get((name, row), ()):
            return False
        write = self.history.by_etag.get(version.etag)
        if write is not None:
            self.put_back.add(write.id)
        return True

    def note_lost(self, row: bytes, old: Record, now: Record) -> None:
        """A drive knew `old` and now knows `now`: what no other drive knows of it is what no system
        could keep."""
        gone = {a: c for a, c in old.context.items() if c > now.context.get(a, 0)}
        if not gone:
            return
        for mirror in self.mirrors.values():
            theirs = mirror.known(row).context
            gone = {a: c for a, c in gone.items() if c > theirs.get(a, 0)}
        if gone:
            self.lost.setdefault(row, []).append(gone)
        for version in old.versions:
            held = [m for m in self.mirrors.values() if m.holds(row, version)]
            write = self.history.by_etag.get(version.etag)
            if write is not None and not held:
                self.unkeepable.add(write.id)
