"""The versions of one key, and which of them are concurrent.

A `Record` is a dotted version vector set (Almeida, Baquero, Gonçalves, Preguiça and Fonte:
"Scalable and accurate causality tracking for eventually consistent stores", 2014): one causal
context, a map from actor to the highest counter seen, and the live versions, each with the dot
(actor, counter) of the write that made it. The rules it keeps:

- a dot is given out once: whoever coordinates knows all earlier dots of the actor it signs as;
- a version is dropped only when a context covers its dot, never by age;
- `merge` is associative, commutative and idempotent, so replicas may exchange records in any
  order and any number of times and agree (Dynamo §4.4, with clocks that do not grow with clients).

With `latest=True` a record is instead a register: the version with the highest stamp wins, and a
delete is a version of its own, so that it competes by stamp like any other write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

Context = Mapping[str, int]
"""Actor to counter: every write by that actor up to that counter is known."""


class Draft(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a client wants stored, before a coordinator has given it a dot.

    `write` is the id of the client's request: two versions that carry the same one come from
    one write that was retried through a second coordinator. `size` is in bytes. The bytes are
    either `body`, or, if `chunk_size` > 0, chunks of that many bytes (the last may be shorter)
    under the digests in `chunks`.
    """

    write: bytes
    size: int
    etag: str
    content_type: str = ""
    meta: dict[str, str] = {}
    body: bytes = b""
    chunk_size: int = 0
    chunks: tuple[bytes, ...] = ()


class Version(msgspec.Struct, frozen=True, array_like=True):
    """One write of a key. `stamp` is a hybrid logical clock reading (`dynamo.core.clock`)."""

    actor: str
    counter: int
    stamp: int
    write: bytes
    size: int
    etag: str
    content_type: str = ""
    meta: dict[str, str] = {}
    body: bytes = b""
    chunk_size: int = 0
    chunks: tuple[bytes, ...] = ()
    deleted: bool = False
    stripped: bool = False

    @property
    def id(self) -> str:
        """The name a client may fetch this version by."""
        return f"{self.actor}.{self.counter}"

    @property
    def order(self) -> tuple[int, str, int]:
        """Total order of last-write-wins: newest last."""
        return (self.stamp, self.actor, self.counter)

    def strip(self) -> Version:
        """The version without its bytes: enough to compare, list and describe it."""
        if self.stripped or not (self.body or self.chunks):
            return self
        return msgspec.structs.replace(self, body=b"", chunks=(), stripped=True)


class Record(msgspec.Struct, frozen=True, array_like=True):
    """All that is known of one key. `context` and `versions` are kept sorted, so that equal
    records are equal bytes."""

    context: dict[str, int] = {}
    versions: tuple[Version, ...] = ()

    def live(self) -> tuple[Version, ...]:
        """The concurrent versions a client should see, newest first.

        Versions of one retried write show once.
        """
        shown: dict[bytes, Version] = {}
        for version in self.versions:
            if version.deleted:
                continue
            other = shown.get(version.write)
            if other is None or other.order < version.order:
                shown[version.write] = version
        return tuple(sorted(shown.values(), key=lambda v: v.order, reverse=True))

    def is_tombstone(self) -> bool:
        """Whether this says of a key only that it was written and is no more."""
        for version in self.versions:
            if not version.deleted:
                return False
        return bool(self.context)

    def version_of(self, write: bytes) -> Version | None:
        """The version that a write became, without its bytes; None if it is not among these."""
        return next((v.strip() for v in self.versions if v.write == write), None)

    def known(self) -> bool:
        """Whether anything was ever written here (a tombstone is known and has no live version)."""
        return bool(self.context)

    def strip(self) -> Record:
        """The record without the bytes of its versions."""
        return Record(self.context, tuple(v.strip() for v in self.versions))

    def same_versions(self, other: Record) -> bool:
        """Whether both hold the same dots under the same context."""
        if self.context != other.context or len(self.versions) != len(other.versions):
            return False
        for mine, its in zip(self.versions, other.versions, strict=True):
            if mine.counter != its.counter or mine.actor != its.actor:
                return False
        return True

    def put(
        self,
        draft: Draft | None,
        *,
        actor: str,
        stamp: int,
        context: Context | None = None,
        latest: bool = False,
        floor: int = 0,
    ) -> Record:
        """The record after `actor` coordinated one write.

        `context` is what the client had seen; `None` means "what is held here", `{}` means
        "nothing" (a create). `draft=None` deletes. The new dot follows the last one of `actor`
        known here, and `floor`: an actor whose earlier dots may be missing here would make the
        context claim them, so those up to `floor` must be dots of other keys, or dots that are
        gone everywhere. If this very write is already held, the record is returned unchanged: a
        retry gets no second dot.
        """
        if draft is not None and any(v.write == draft.write for v in self.versions):
            return self
        seen = self.context if context is None else context
        kept = [v for v in self.versions if v.counter > seen.get(v.actor, 0)]
        union = _join(self.context, seen)
        if draft is None and not latest:
            return _record(union, kept)
        counter = max(union.get(actor, 0), floor) + 1
        union[actor] = counter
        if draft is None:
            made = Version(actor, counter, stamp, b"", 0, "", deleted=True)
        else:
            made = Version(
                actor,
                counter,
                stamp,
                draft.write,
                draft.size,
                draft.etag,
                draft.content_type,
                draft.meta,
                draft.body,
                draft.chunk_size,
                draft.chunks,
            )
        if latest:
            # The caller's clock was moved past every stamp held here, so the new one wins.
            return _record(union, [max([*self.versions, made], key=lambda v: v.order)])
        return _record(union, [*kept, made])

    def merge(self, other: Record, *, latest: bool = False) -> Record:
        """The least record that knows what either knows."""
        if self.same_versions(other) and not any(v.stripped for v in self.versions):
            return self
        if not self.context and not self.versions and len(other.versions) < 2 > len(other.context):
            return other  # the first that is heard of a key: one write
        union = _join(self.context, other.context)
        mine = {(v.actor, v.counter): v for v in self.versions}
        theirs = {(v.actor, v.counter): v for v in other.versions}
        if latest:
            both = {**theirs, **mine}
            best = max(both, key=lambda dot: both[dot].order, default=None)
            return _record(union, [] if best is None else [_fuller(mine, theirs, best)])
        kept = [
            _fuller(mine, theirs, dot)
            for dot in {**mine, **theirs}
            if (dot in mine or dot[1] > self.context.get(dot[0], 0))
            and (dot in theirs or dot[1] > other.context.get(dot[0], 0))
        ]
        return _record(union, kept)

    def newest(self) -> Record:
        """The record as the rule `latest` has it: with the version of the highest stamp alone."""
        if len(self.versions) < 2:
            return self
        return Record(self.context, (max(self.versions, key=lambda v: v.order),))

    def chunk_digests(self) -> set[bytes]:
        """Every chunk any version of this record refers to."""
        return {digest for version in self.versions for digest in version.chunks}


EMPTY = Record()
"""Nothing was ever written."""


def _join(a: Context, b: Context) -> dict[str, int]:
    """Entry-wise maximum."""
    union = dict(a)
    for actor, counter in b.items():
        if counter > union.get(actor, 0):
            union[actor] = counter
    return union


def _fuller(
    mine: dict[tuple[str, int], Version],
    theirs: dict[tuple[str, int], Version],
    dot: tuple[str, int],
) -> Version:
    """The copy of a version that has its bytes, if either has them."""
    version = mine.get(dot)
    if version is None or (version.stripped and dot in theirs):
        return theirs[dot]
    return version


def _record(context: dict[str, int], versions: list[Version]) -> Record:
    versions.sort(key=_dot)
    if len(context) > 1:
        context = dict(sorted(context.items()))
    return Record(context, tuple(versions))


def _dot(version: Version) -> Any:
    return (version.actor, version.counter)
