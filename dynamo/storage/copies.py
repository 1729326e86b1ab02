"""This node's copies of records: read, coordinate, merge, scan, hand on.

Reads are synchronous and merge what is held as owner with what is held for others, so that a
stand-in's copy is as readable as an owner's. Writes are jobs of the group commit and answer when
they are on disk. A record is stored only when every chunk it names is here. One whose row turns out
damaged is answered by nobody until it is mended (`dynamo.storage.broken`).

Records live in table `records` at `dynamo.storage.rows.row(incarnation, key)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dynamo.core.record import EMPTY, Context, Draft, Record
from dynamo.errors import Corrupt, DynamoError, MissingChunks, NoSuchBucket
from dynamo.log import make_logger
from dynamo.storage import broken, graves, hints, ledger, places, rows
from dynamo.storage.chunks import Chunks
from dynamo.storage.closing import Closing
from dynamo.storage.committer import Committer
from dynamo.storage.effects import Effects
from dynamo.storage.engine import Engine, Transaction
from dynamo.storage.hints import HintBook
from dynamo.storage.jobs import frees_space
from dynamo.storage.owned import RECORDS, TABLES, both, heal, own, owned
from dynamo.storage.places import Change, PlaceBook
from dynamo.storage.sighted import SightingBook
from dynamo.wire.codec import Hint

Merging = tuple[bytes, bytes, Record, bool]
"""One of several merges: incarnation, key, record, whether the bucket keeps the latest only."""

T = TypeVar("T")

log = make_logger()


@attrs.define
class Copies:
    """One node's share of the data.

    `alone` runs a blocking call on the committer's thread, between two commits. `observe` is told
    every stamp that comes in from outside (for the hybrid clock). `damaged` is told each time the
    record of a key could not be read, `corrupt` once for each row that was found damaged, `moved`
    how the fingerprints of owned keys changed, in the order of the commits (for the trees),
    `touched` of which key something is about to be stored or noted. `gone`: deleted buckets, names
    by incarnation. `seen` is written at the end of each commit (`dynamo.storage.closing`).
    """

    engine: Engine
    committer: Committer
    chunks: Chunks
    alone: Callable[[Callable[[], Any]], Deferred[Any]]
    observe: Callable[[int], None]
    hints: HintBook
    places: PlaceBook
    seen: SightingBook = attrs.field(factory=SightingBook)
    damaged: Callable[[bytes, bytes], object] = lambda incarnation, key: None
    corrupt: Callable[[str], object] = lambda kind: None
    moved: Callable[[Sequence[Change]], None] = lambda changes: None
    touched: Callable[[bytes, bytes], None] = lambda incarnation, key: None
    gone: Mapping[bytes, str] = attrs.field(factory=dict)
    _closing: Closing = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._closing = Closing(self.places, self.seen)
        self.committer.last_job = self._closing.close

    def read(self, incarnation: bytes, key: bytes) -> Record:
        """What this node knows of a key; `EMPTY` if nothing. Raises `Corrupt`."""
        view = self.engine.view()
        try:
            record = owned(view, incarnation, key)
            if self.hints.any():
                copy = hints.held(view, incarnation, key)
                if copy.known():
                    return record.merge(copy)
        except Corrupt:
            self.damaged(incarnation, key)
            raise
        return record

    def apart(self, incarnation: bytes, key: bytes) -> tuple[Record, Record, tuple[str, ...]]:
        """The owned record, the copy held for others, and who has yet to be told of the key."""
        view = self.engine.view()
        return (
            owned(view, incarnation, key),
            hints.held(view, incarnation, key),
            self.hints.targets_of(view, incarnation, key),
        )

    def totals(self) -> tuple[int, int]:
        """Objects with a live version, and bytes of all versions, held as owner."""
        return ledger.totals(self.engine.view())

    def coordinate(
        self,
        incarnation: bytes,
        key: bytes,
        draft: Draft | None,
        *,
        actor: str,
        stamp: int,
        context: Context | None,
        latest: bool = False,
        owner: bool = True,
        missed_by: Sequence[str] = (),
    ) -> Deferred[Record]:
        """Gives a write its dot and stores it; fires with the whole record once it is on disk.

        `missed_by`: owners this node answers for, noted as hints in the same commit. A node that
        is no `owner` of the key keeps the copy apart, for those. Either way the write goes on from
        all that is held here: a node can own a key for one write and stand in for the next.

        Fails with `Corrupt` while what is held here is damaged: the write would not replace what it
        is meant to. Where nobody can tell what that was, it goes on without.
        """
        self.touched(incarnation, key)

        def job(txn: Transaction, effects: Effects) -> Record:
            if incarnation in self.gone:
                raise NoSuchBucket(self.gone[incarnation])
            old, other = both(txn, effects, incarnation, key)
            if not owner:
                old, other = other, old
            known = old.merge(other, latest=latest) if other.known() else old
            new = _written(txn, known, draft, actor, stamp, context, latest)
            if not new.known():
                return new  # the delete of what nobody here ever heard of: there is nothing to keep
            if new is not old:
                self.require_chunks(old, new)
                if owner:
                    own(txn, effects, incarnation, key, old, new)
                else:
                    hints.hold(txn, effects, incarnation, key, old, new)
            for target in missed_by:
                hints.note(txn, effects, target, incarnation, key)
            return new

        stored = self.submit(job, frees_space=draft is None)
        return stored.addErrback(self._met_damage, incarnation, key)

    def merge(
        self, incarnation: bytes, key: bytes, record: Record, *, latest: bool = False
    ) -> Deferred[Record]:
        """Merges a record from elsewhere into the owned copy; fires once it is on disk."""
        self._take(incarnation, key, record)
        return self.submit(
            lambda txn, effects: self._merge(txn, effects, incarnation, key, record, latest),
            frees_space=not record.versions,
        )

    def merge_all(self, many: Sequence[Merging]) -> Deferred[list[Record | DynamoError]]:
        """Merges several records in one job; fires with what came of each.

        Fails as a whole where a single `merge` would fail for a reason that is not its own, such
        as a full disk.
        """
        for incarnation, key, record, _ in many:
            self._take(incarnation, key, record)

        def job(txn: Transaction, effects: Effects) -> list[Record | DynamoError]:
            outcomes: list[Record | DynamoError] = []
            for one in many:
                try:
                    outcomes.append(self._merge(txn, effects, *one))
                except DynamoError as error:
                    outcomes.append(error)
            return outcomes

        return self.submit(job, frees_space=False, writes=len(many))

    def hold_for(
        self, target: str, incarnation: bytes, key: bytes, record: Record, *, latest: bool = False
    ) -> Deferred[Record]:
        """Keeps a record for the absent owner `target`; fires once it is on disk."""
        self._take(incarnation, key, record)

        def job(txn: Transaction, effects: Effects) -> Record:
            if incarnation in self.gone:
                return EMPTY
            kept = broken.look(txn, hints.HELD, incarnation, key)
            old = kept.record
            new = old.merge(record, latest=latest)
            if new != old or kept.fresh:
                self.require_chunks(old, new)
                if kept.was is None:
                    hints.hold(txn, effects, incarnation, key, old, new)
                else:
                    broken.keep(txn, effects, hints.HELD, incarnation, key, kept, new)
            if new.known():
                hints.note(txn, effects, target, incarnation, key)
            return new

        return self.submit(job, frees_space=False)

    def note_missed(self, target: str, incarnation: bytes, key: bytes) -> Deferred[None]:
        """Notes that the owner `target` lacks what this node holds of a key."""
        self.touched(incarnation, key)
        return self.submit(
            lambda txn, effects: hints.note(txn, effects, target, incarnation, key),
            frees_space=False,
        )

    def drop_hints(self, target: str, actor: str, delivered: Sequence[Hint]) -> Deferred[None]:
        """Forgets hints that `target` has acknowledged, unless there is news since."""
        return self.submit(
            lambda txn, effects: hints.drop(txn, effects, target, actor, delivered),
            frees_space=True,
        )

    def scan(
        self, incarnation: bytes, after: bytes, prefix: bytes
    ) -> Iterator[tuple[bytes, Record]]:
        """Keys > `after` with `prefix`, in byte order, owned and held copies merged.

        The iterator is valid until control returns to the reactor.
        """
        view = self.engine.view()
        start = max(after + b"\x00" if after else b"", prefix)
        walks = [rows.walk(view, RECORDS, incarnation, start)]
        if self.hints.any():
            walks.append(hints.walk_held(view, incarnation, start))
        for key, found in rows.in_step(walks):
            if not key.startswith(prefix):
                return
            record = EMPTY
            for i, data in found:
                kept = broken.decode(TABLES[i], rows.row(incarnation, key), data)
                if kept.was is not None:
                    self.damaged(incarnation, key)
                known = broken.require(kept, key)
                record = known if record is EMPTY else record.merge(known)
            yield key, record

    def forget(self, incarnation: bytes, limit: int = 256) -> Deferred[int]:
        """Removes up to `limit` keys of a deleted bucket; fires with how many it found.

        Their dots need no care: an incarnation that was deleted never comes back, nor do its keys.
        """

        def job(txn: Transaction, effects: Effects) -> int:
            found = []
            for key, data in rows.walk(txn, RECORDS, incarnation):
                found.append((key, data))
                if len(found) >= limit:
                    break
            for key, data in found:
                row = rows.row(incarnation, key)
                kept = broken.decode(RECORDS, row, data)
                if kept.fresh:
                    ledger.forgets(txn)
                whole = kept.was is None
                if whole:
                    ledger.count(effects, kept.record, EMPTY)
                effects.unused += ledger.refer(txn, kept.record, EMPTY)
                txn.delete(RECORDS, row)
                before = kept.record if whole else None
                places.move(effects, incarnation, key, before, EMPTY)
                graves.note(txn, incarnation, key, before, EMPTY)
            return len(found)

        return self.submit(job, frees_space=True)

    def discard(self, digests: Sequence[bytes]) -> Deferred[None]:
        """Frees those of the chunks that no committed record on this node refers to."""

        def free(txn: Transaction) -> None:
            for digest in digests:
                if not ledger.references(txn, digest):
                    self.chunks.delete(digest)

        # In a batch of its own, so that it sees what is committed and not what may yet fail.
        return self.alone(lambda: _sole(self.engine.commit([frees_space(free)])))

    def sweep(self) -> int:
        """At start: removes half-written chunks and those no record names; returns how many.

        Where damaged records have left the accounts doubtful, it counts anew first.
        """
        if ledger.doubtful(self.engine.view()):
            self.engine.commit([ledger.recount])
        view = self.engine.view()
        return self.chunks.sweep(lambda digest: ledger.references(view, digest) > 0)

    def require_chunks(self, old: Record, new: Record) -> None:
        """Nothing is written yet, so `MissingChunks` becomes the outcome of this job alone."""
        if any(v.chunks for v in new.versions):
            wanted = new.chunk_digests() - old.chunk_digests()
            missing = tuple(sorted(d for d in wanted if not self.chunks.has(d)))
            if missing:
                raise MissingChunks(missing)

    def _merge(
        self,
        txn: Transaction,
        effects: Effects,
        incarnation: bytes,
        key: bytes,
        record: Record,
        latest: bool,
    ) -> Record:
        if incarnation in self.gone:
            return EMPTY
        kept = broken.look(txn, RECORDS, incarnation, key)
        old = kept.record
        new = old.merge(record, latest=latest)
        if kept.was is not None:
            self.require_chunks(old, new)
            replace = heal if kept.alone and new.known() else broken.keep
            replace(txn, effects, RECORDS, incarnation, key, kept, new)
        elif new is not old and new != old:
            self.require_chunks(old, new)
            own(txn, effects, incarnation, key, old, new)
        return new

    def _take(self, incarnation: bytes, key: bytes, record: Record) -> None:
        """A record has come in."""
        self.touched(incarnation, key)
        self.note_stamps(record)

    def _met_damage(self, failure: Failure, incarnation: bytes, key: bytes) -> Failure:
        if failure.check(Corrupt):
            self.damaged(incarnation, key)
        return failure

    def note_stamps(self, record: Record) -> None:
        """Tells the hybrid clock of a record that came in."""
        for version in record.versions:
            self.observe(version.stamp)

    def submit(
        self, work: Callable[[Transaction, Effects], T], *, frees_space: bool, writes: int = 1
    ) -> Deferred[T]:
        """Has a job committed; what it did besides is taken note of before the answer. `writes` as
        in `Committer.submit`."""

        def job(txn: Transaction) -> tuple[T, Effects]:
            effects = Effects()
            result = work(txn, effects)
            self._closing.add(txn, effects)
            return result, effects

        if frees_space:
            job.frees_space = True  # type: ignore[attr-defined]
        return self.committer.submit(job, self._committed, writes)

    def _committed(self, outcome: tuple[T, Effects]) -> T:
        result, effects = outcome
        if effects.moved:
            self.moved(self.places.apply(effects.moved, self.engine.view))
        if effects.hinted:
            self.hints.apply(effects)
        for table, incarnation, key in effects.broken:
            log.error(
                "The row of {key} in {table} is damaged; it is set aside until others have told "
                "what it was",
                key=repr(key),
                table=table,
            )
            self.corrupt("record")
            self.damaged(incarnation, key)
        if effects.unused:
            freed = self.discard(effects.unused)
            freed.addErrback(lambda f: log.error("Chunks were not freed: {f}", f=f.value))
        return result


def _written(
    txn: Transaction,
    known: Record,
    draft: Draft | None,
    actor: str,
    stamp: int,
    context: Context | None,
    latest: bool,
) -> Record:
    """The record after one write, with a dot and a stamp above all that this node gave out."""
    counter, last = ledger.floor(txn, actor)
    return known.put(
        draft,
        actor=ledger.signs_as(txn, actor),
        stamp=max([stamp, last + 1, *(v.stamp + 1 for v in known.versions)]),
        context=context,
        latest=latest,
        floor=counter,
    )


def _sole(outcomes: list[Any]) -> Any:
    """What came of the one job of a commit; raises what it raised."""
    if isinstance(outcomes[0], BaseException):
        raise outcomes[0]
    return outcomes[0]
