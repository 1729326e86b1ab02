"""What is on every drive, kept up commit by commit, and what may be said of each commit.

A mirror per drive holds the decoded records. The checks made here are about one commit alone: a
dot never names two writes (I5), and what is on a disk only grows (I7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dynamo.core.buckets import Bucket
from dynamo.core.layout import NONE, Layout
from dynamo.core.record import EMPTY, Context, Record, Version
from dynamo.errors import Corrupt
from dynamo.sim.history import History, Place
from dynamo.sim.oracle.arrivals import Arrivals, Dot
from dynamo.sim.oracle.losses import Losses
from dynamo.sim.oracle.mirrors import Located, Mirror, covers, describe, dots_of, knows
from dynamo.sim.oracle.noted import Noted
from dynamo.sim.oracle.stored import Stored
from dynamo.sim.schedule import START_S
from dynamo.sim.tally import Tally
from dynamo.storage import broken, hints, rows
from dynamo.storage.agreed import LAYOUT_ROW
from dynamo.wire.codec import LAYOUT, STATE, unseal

Changes = Mapping[str, Mapping[bytes, tuple[bytes | None, bytes | None]]]


class Registry:
    """All drives. `versions` by dot, `dots` by the id of the write, `dirty` and `touched`: rows
    that changed since somebody cleared it."""

    def __init__(self, history: History, tally: Tally, now: Callable[[], float]) -> None:
        self._history = history
        self._tally = tally
        self.held = tally.held
        self.now = now
        self.mirrors: dict[str, Mirror] = {}
        self.versions: dict[Dot, Version] = {}
        self.dots: dict[str, set[Dot]] = {}
        self.buckets: dict[str, dict[int, Bucket]] = {}
        self.dirty: dict[bytes, None] = {}
        self.touched: dict[bytes, None] = {}
        self.losses = Losses(history, self.mirrors)
        self.arrivals = Arrivals()
        self.noted = Noted(self)
        self.stored = Stored(self.told, self.held, self.broken)
        self.owners: Callable[[bytes], tuple[str, ...]] = lambda row: ()
        """The owners of a row."""
        self.adopted: Callable[[str, Layout], None] = lambda name, layout: None
        """Told of every layout that comes to a drive."""
        self.cleared: Callable[[str, bytes, Record], bool] = lambda name, row, old: False
        """Whether a drive may drop a record as one that others own."""
        self.away: Callable[[str, str], bool] = lambda name, other: False
        """Whether a node holds another to be away."""
        self._hidden: set[Dot] = set()
        self._targets: dict[bytes, str] = {}
        self._located: dict[bytes, Located] = {}

    def watch(self, name: str) -> Callable[[Changes], None]:
        """A drive's `on_commit`."""
        mirror = self.mirrors[name] = Mirror()
        self._targets[hints.target_id(name)] = name

        def committed(changes: Changes) -> None:
            self.committed(name, mirror, changes)

        return committed

    # Finding things.

    def generations(self, bucket: str) -> list[Bucket]:
        """Every generation of a name that was ever on a disk, the last state of each."""
        return [made for _, made in sorted(self.buckets.get(bucket, {}).items())]

    def rows(self, place: Place) -> list[tuple[Bucket, bytes]]:
        """The rows of a key, one for each generation of its bucket."""
        key = place[1].encode()
        return [(b, rows.row(b.incarnation, key)) for b in self.generations(place[0])]

    def locate(self, row: bytes) -> Located | None:
        """Whose row this is; None for a key nobody wrote."""
        found = self._located.get(row)
        if found is None:
            for place in self._history.at:
                for bucket, theirs in self.rows(place):
                    self._located[theirs] = Located(place, bucket)
            found = self._located.get(row)
        return found

    def is_latest(self, row: bytes) -> bool:
        """Whether the row's bucket keeps the newest version only."""
        found = self.locate(row)
        return found is not None and found.bucket.properties.conflicts == "latest"

    def is_gone(self, row: bytes) -> bool:
        """Whether the row's bucket was deleted, as far as any disk knows."""
        found = self.locate(row)
        if found is None:
            return True
        states = self.buckets[found.place[0]]
        return states[found.bucket.generation].deleted or max(states) > found.bucket.generation

    def holders(self, dot: Dot) -> list[str]:
        """The drives that know a dot."""
        row, actor, counter = dot
        return [
            name
            for name, mirror in self.mirrors.items()
            if knows(mirror.records.get(row), actor, counter)
            or knows(mirror.held.get(row), actor, counter)
        ]

    def covering(self, row: bytes, context: Context) -> list[str]:
        """The drives that know everything in a context and show nothing of it: which have a delete
        of what was seen with it, or something later."""
        return [
            name
            for name, mirror in self.mirrors.items()
            if covers((known := mirror.known(row)).context, context)
            and not any(v.counter <= context.get(v.actor, 0) for v in known.versions)
        ]

    def hinted(self, row: bytes, target: str) -> list[str]:
        """The drives that have a hint of the key for `target`."""
        place = self._hint(row, target)
        return [name for name, mirror in self.mirrors.items() if place in mirror.hints]

    def missed(self, dot: Dot, target: str) -> bool:
        """Whether a drive that knows the dot has a hint of its key for `target`, made when that was
        away: it asks for it when it is back."""
        row, actor, counter = dot
        place = self._hint(row, target)
        return any(
            mirror.hints.get(place, False) and knows(mirror.known(row), actor, counter)
            for mirror in self.mirrors.values()
        )

    def _hint(self, row: bytes, target: str) -> bytes:
        found = self.locate(row)
        assert found is not None
        return hints.place(target, found.bucket.incarnation, found.place[1].encode())

    def target(self, hint: bytes) -> str:
        """Whom a hint's row is for; "" if that one was never watched."""
        return self._targets.get(hint[:8], "")

    # Commits.

    def committed(self, name: str, mirror: Mirror, changes: Changes) -> None:
        """A commit of `name` became visible."""
        if self.mirrors.get(name) is not mirror:
            return  # it has no part in the cluster any more
        data = changes.get("meta", {}).get(LAYOUT_ROW, (None, None))[1]
        if data is not None:
            self.adopted(name, _layout(data))
            if self.mirrors.get(name) is not mirror:
                return
        for row, (_, new) in changes.get("buckets", {}).items():
            self._bucket(mirror, row, new)
        for row, (_, new) in changes.get("hints", {}).items():
            target = self._targets.get(row[:8], "")
            mirror.note_hint(row, new is not None, self.away(name, target))
        for table, kept in (("records", mirror.records), ("held", mirror.held)):
            for row, (_, new) in changes.get(table, {}).items():
                if new == b"":
                    continue  # a marker of long keys
                self.dirty[row] = self.touched[row] = None
                old = kept.get(row, EMPTY)
                for digest in sorted(old.chunk_digests()):
                    mirror.unnamed[digest] = self.now()
                if new is None:
                    kept.pop(row, None)
                    if kept is mirror.records:
                        mirror.rotten.pop(row, None)
                    self._left(name, table, row, old, changes)
                    continue
                found = broken.decode(table, row, new)
                if found.was is None and kept is mirror.records:
                    mirror.rotten.pop(row, None)
                record = kept[row] = found.record
                self._register(name, row, old, record, table == "records")
                self.stored.committed(name, table, row, old, record)
                self._look_for_hidden(name, row, old, record)
                if found.was is None or covers(record.context, old.context):
                    self._grew(name, table, row, old, record)
                else:
                    # Its row was damaged; from here on it stands for what has come since.
                    self.losses.note_lost(row, old, record)
        self.noted.committed(name, changes)

    def _bucket(self, mirror: Mirror, row: bytes, data: bytes | None) -> None:
        if data is None:
            return
        name = row.decode()
        state = mirror.buckets[name] = STATE.decode(row, data)
        known = self.buckets.setdefault(name, {})
        before = known.get(state.generation)
        known[state.generation] = state if before is None else before.merge(state)
        self._located.clear()

    def _register(self, name: str, row: bytes, old: Record, new: Record, own: bool) -> None:
        had = {(v.actor, v.counter) for v in old.versions}
        for version in new.versions:
            if (version.actor, version.counter) in had:
                continue
            dot = (row, version.actor, version.counter)
            if own:
                self.arrivals.note(dot, name, self.now() + START_S)
            known = self.versions.get(dot)
            if known is None:
                self.versions[dot] = version.strip()
                write = self._history.by_etag.get(version.etag)
                if write is not None:
                    dots = self.dots.setdefault(write.id, set())
                    dots.add(dot)
                    write.twice = write.twice or len(dots) > 1
            elif (known.write, known.stamp, known.etag) != (
                version.write,
                version.stamp,
                version.etag,
            ):
                self.broken(
                    "I5",
                    f"{version.id} of {self.told(row)} names {self.write_of(known)} and, at "
                    f"{name}, {self.write_of(version)}",
                )
                continue
            self.held("I5")

    def _look_for_hidden(self, name: str, row: bytes, old: Record, new: Record) -> None:
        """Where the latest wins, a new write wins over what its coordinator held: a commit that
        knows a new dot and shows no new version has lost it. (It may hide a write that another one
        of the same commit replaced; then there is a new version.)"""
        if not self.is_latest(row):
            return
        dots = [(row, a, c) for a, c in new.context.items() if c > old.context.get(a, 0)]
        hidden = [d for d in dots if d not in self.versions and d not in self._hidden]
        if hidden and old.versions and dots_of(new) == dots_of(old):
            self.broken(
                "I1",
                f"a write of {self.told(row)} was lost to what {name} held when it coordinated it: "
                f"{describe(old)} became {describe(new)}",
            )
        self._hidden.update(hidden)

    def _grew(self, name: str, table: str, row: bytes, old: Record, new: Record) -> None:
        if not old.context:
            return
        if covers(new.context, old.context):
            merged = old.merge(new, latest=self.is_latest(row))
            if merged.same_versions(new):
                self.held("I7")
                return
        elif table == "records" and old.is_tombstone():
            # Reaped, and written anew within the same commit.
            self._buried(name, row, old)
            return
        elif table == "held" and self.noted.delivered(name, row, old):
            return
        self.broken(
            "I7",
            f"{table} of {self.told(row)} at {name} went from {describe(old)} to {describe(new)}",
        )

    def _left(self, name: str, table: str, row: bytes, old: Record, changes: Changes) -> None:
        """A row was removed: by the reaper; as a tombstone; or after handoff, and then its target
        has it."""
        if table == "records":
            for version in old.versions:
                self.arrivals.left((row, version.actor, version.counter), name)
        if self.is_gone(row):
            return
        if table == "records":
            if self.cleared(name, row, old):
                self.held("I16")
            else:
                self._buried(name, row, old)
            return
        found = self.locate(row)
        assert found is not None
        for place, (_, new) in changes.get("hints", {}).items():
            target = self.target(place)
            key = found.place[1].encode()
            if new is not None or not target:
                continue
            if hints.place(target, found.bucket.incarnation, key) != place:
                continue
            if target not in self.mirrors:
                self.noted.passed_on(name, row, old, target)
                continue
            theirs = self.mirrors[target].known(row)
            if covers(theirs.context, old.context):
                self.held("I7")
            elif not self.losses.was_lost(row, old.context):
                self.broken(
                    "I7",
                    f"{name} dropped the copy of {self.told(row)} it kept for {target}: "
                    f"{describe(old)}, while {target} has {describe(theirs)}",
                )

    def _buried(self, name: str, row: bytes, old: Record) -> None:
        """An owned record went: only a tombstone may, once nobody holds what it is there for."""
        told = f"{name} dropped its record of {self.told(row)}, {describe(old)}"
        if any(not version.deleted for version in old.versions):
            self.broken("I7", told)
            return
        for other, mirror in self.mirrors.items():
            left = [
                version.id
                for version in mirror.known(row).versions
                if not version.deleted
                and knows(old, version.actor, version.counter)
                and not self.losses.was_revived(other, row, version)
            ]
            if left:
                self.broken("I3", f"{told}, while {other} still holds {' '.join(left)}")
                return
        self.held("I7")

    def gone_with(self, row: bytes, old: Record) -> None:
        """A drive is gone for good, with this record."""
        self.dirty[row] = self.touched[row] = None
        self.losses.note_lost(row, old, EMPTY)

    # Disks that lost what was durable.

    def reread(self, name: str, view: Any) -> None:
        """A drive is not what its commits made of it: `view` shows what it holds now."""
        before = self.mirrors[name]
        now = Mirror()
        for table, kept in (("records", now.records), ("held", now.held)):
            for row, data in view.scan(table, b""):
                if data:
                    found = broken.decode(table, row, data)
                    kept[row] = found.record
                    if found.fresh and kept is now.records:
                        now.rotten[row] = before.seems(row)
        now.hints = {r: before.hints.get(r, False) for r, _ in view.scan("hints", b"")}
        for row, data in view.scan("buckets", b""):
            try:
                now.buckets[row.decode()] = STATE.decode(row, data)
            except Corrupt:
                continue
        self.adopted(name, _layout(view.get("meta", LAYOUT_ROW)))
        self.noted.forget(name)
        old = Mirror(before.records, before.held, before.hints, before.buckets)
        before.records, before.held = now.records, now.held
        before.hints, before.buckets, before.rotten = now.hints, now.buckets, now.rotten
        before.pinned |= old.named() - now.named()
        for row in dict.fromkeys((*now.records, *now.held)):
            self.losses.note_put_back(name, row, old.known(row), before.known(row))
        for row in dict.fromkeys((*old.records, *old.held)):
            self.dirty[row] = self.touched[row] = None
            self.losses.note_lost(row, old.known(row), before.known(row))

    # Words.

    def write_of(self, version: Version) -> str:
        """Which client's write a version is."""
        if version.deleted:
            return f"a delete stamped {version.stamp}"
        write = self._history.by_etag.get(version.etag)
        return write.id if write is not None else f"nobody's write ({version.etag[:12]})"

    def told(self, row: bytes) -> str:
        """A row in words."""
        found = self.locate(row)
        if found is None:
            return f"row {row.hex()}"
        return f"{found.place[0]}/{found.place[1][:40]}"

    def broken(self, invariant: str, text: str) -> None:
        """It is violated."""
        self._tally.broken(invariant, self.now(), text)


def _layout(data: bytes | None) -> Layout:
    if data is None:
        return NONE
    return LAYOUT.decode(bytes(unseal("meta", LAYOUT_ROW, data)))
