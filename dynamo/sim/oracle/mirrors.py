"""What lies on one drive, as its commits told, and records in words."""

from __future__ import annotations

import attrs

from dynamo.core.buckets import Bucket
from dynamo.core.record import EMPTY, Context, Record, Version
from dynamo.sim.history import Place


@attrs.define(eq=False)
class Mirror:
    """What was committed on one drive. `records` and `held` by row; `hints`: whether the target was
    held to be away when its hint was made, or made again; `unnamed`: when a commit left no record
    that names a chunk, by its digest; `pinned`: the digests of chunks that records named which the
    drive lost; `rotten`: what was in rows of owned keys that are damaged and not mended yet."""

    records: dict[bytes, Record] = attrs.field(factory=dict)
    held: dict[bytes, Record] = attrs.field(factory=dict)
    hints: dict[bytes, bool] = attrs.field(factory=dict)
    buckets: dict[str, Bucket] = attrs.field(factory=dict)
    unnamed: dict[bytes, float] = attrs.field(factory=dict)
    pinned: set[bytes] = attrs.field(factory=set)
    rotten: dict[bytes, Record] = attrs.field(factory=dict)

    def named(self) -> set[bytes]:
        """The digests of all chunks that records name."""
        kept = (*self.records.values(), *self.held.values())
        return {digest for record in kept for digest in record.chunk_digests()}

    def note_hint(self, row: bytes, there: bool, away: bool) -> None:
        """A commit made or dropped a hint; `away`: its target is held to be."""
        if there:
            self.hints[row] = away or self.hints.get(row, False)
        else:
            self.hints.pop(row, None)

    def seems(self, row: bytes) -> Record:
        """What this drive holds of a key as an owner, or will again when it is mended."""
        return self.rotten.get(row, self.records.get(row, EMPTY))

    def holds(self, row: bytes, version: Version) -> bool:
        """Whether this drive knows of a version."""
        kept = (self.records.get(row), self.held.get(row))
        return any(knows(record, version.actor, version.counter) for record in kept)

    def known(self, row: bytes) -> Record:
        """All this drive knows of a key; for its context: versions are not judged."""
        owned, held = self.records.get(row), self.held.get(row)
        if owned is None:
            return held or EMPTY
        return owned if held is None else owned.merge(held)


@attrs.frozen
class Located:
    """Which key a row is of."""

    place: Place
    bucket: Bucket


def covers(context: Context, other: Context) -> bool:
    """Whether `context` knows all that `other` knows."""
    return all(counter <= context.get(actor, 0) for actor, counter in other.items())


def describe(record: Record) -> str:
    """A record in words: its versions' dots, and its context."""
    dots = " ".join(version.id + ("x" if version.deleted else "") for version in record.versions)
    context = ",".join(f"{actor}:{counter}" for actor, counter in record.context.items())
    return f"[{dots}] of {{{context}}}"


def dots_of(record: Record) -> list[tuple[str, int]]:
    return [(version.actor, version.counter) for version in record.versions]


def knows(record: Record | None, actor: str, counter: int) -> bool:
    return record is not None and counter <= record.context.get(actor, 0)
