"""The keys this node owns in the order of the hash space, each with the fingerprint of its record.

Table `places` has a row for each key of which `records` knows anything: the key's position
(`dynamo.core.ring.position`) followed by its row in `records`, so that a partition, or a leaf of
its tree, is one range. The value is a format byte, the fingerprint (8 bytes, `dynamo.core.merkle`),
and, for a key too long to be read from its row, incarnation and key.

A write does not touch that table: its rows lie anywhere, and each would dirty a page of its own.
Instead every commit ends with one row of table `changes`, which names the keys it changed; their
fingerprints stay in memory (`PlaceBook.pending`) until many are written to `places` together, in
order. A start finds them again from `changes` and the records. So both tables together say the
same as `records` at every commit, whatever crashes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs
import msgspec
from twisted.internet.defer import Deferred, succeed

from dynamo.core.merkle import Shape, fingerprint
from dynamo.core.record import Record
from dynamo.core.ring import position
from dynamo.errors import Corrupt
from dynamo.log import make_logger
from dynamo.storage import broken, rows
from dynamo.storage.committer import Committer
from dynamo.storage.effects import Effects
from dynamo.storage.engine import Transaction, View
from dynamo.storage.jobs import frees_space
from dynamo.wire.codec import FORMAT, Codec

PLACES = "places"
CHANGES = "changes"
FLUSH_ROWS = 512
"""Fingerprints written in one job: about a millisecond on the committer's thread."""

_HEAD = len(FORMAT)
_SHORT = _HEAD + 8
_POSITION = 8

log = make_logger()


class Placed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A key this node owns and the fingerprint of its record, as a number; None: it no longer
    does."""

    incarnation: bytes
    key: bytes
    fingerprint: int | None


_CHANGED: Codec[list[Placed]] = Codec(list[Placed])

Change = tuple[bytes, Placed, int]
"""A place, what is there now, and by how much the fingerprint there changed."""

Moved = tuple[bytes, Placed, int | None]
"""The same as a job knows it: None where the record that was there could not be read."""


def place(incarnation: bytes, key: bytes) -> bytes:
    """The row of a key."""
    return position(incarnation, key) + rows.row(incarnation, key)


def move(effects: Effects, incarnation: bytes, key: bytes, old: Record | None, new: Record) -> None:
    """Notes, inside a job, that the owned record of a key has changed; `EMPTY`: it is gone. `old`
    is None where the row was damaged, so that nobody can say by how much."""
    where = place(incarnation, key)
    now = fingerprint(where, new) if new.context else None
    if old is None:
        effects.moved.append((where, Placed(incarnation, key, now), None))
        return
    before = fingerprint(where, old) if old.context else None
    if now != before:
        delta = (now or 0) - (before or 0)
        effects.moved.append((where, Placed(incarnation, key, now), delta))


def put(txn: Transaction, where: bytes, placed: Placed) -> None:
    """Writes the row of a place, or removes it."""
    if placed.fingerprint is None:
        txn.delete(PLACES, where)
        return
    value = FORMAT + placed.fingerprint.to_bytes(8, "big")
    if len(placed.key) > rows.SEGMENT:
        value += placed.incarnation + placed.key
    txn.put(PLACES, where, value)


def read(where: bytes, value: bytes) -> Placed:
    """What a row says. Raises `Corrupt`."""
    if value[:_HEAD] != FORMAT or len(value) < _SHORT:
        raise Corrupt(f"A place has the unknown format {value[:_HEAD].hex() or 'none'}.")
    named = where[_POSITION:] if len(value) == _SHORT else value[_SHORT:]
    incarnation, key = named[: rows.BASE_BYTES], named[rows.BASE_BYTES :]
    return Placed(incarnation, key, int.from_bytes(value[_HEAD:_SHORT], "big"))


def walk(view: View, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, Placed]]:
    """Every row in [start, stop), in order; one that says nothing is left out."""
    for where, value in view.scan(PLACES, start, stop):
        try:
            yield where, read(where, value)
        except Corrupt as error:
            log.error("A key is left out of its tree: {why}", why=error)


class PlaceBook:
    """What table `places` is to say. `pending`: what it does not say yet, by place."""

    def __init__(self, view: View) -> None:
        self.pending: dict[bytes, Placed] = {}
        self._in_order: list[bytes] | None = None
        self._sequence = 0
        self._sweep: list[bytes] = []
        self._swept = 0
        for number, data in view.scan(CHANGES, b""):
            self._sequence = int.from_bytes(number, "big")
            for placed in _CHANGED.decode(data):
                where = place(placed.incarnation, placed.key)
                if where not in self.pending:
                    self.pending[where] = _held(view, where, placed.incarnation, placed.key)

    # On the committer's thread.

    def name_changes(self, txn: Transaction, changed: list[Placed]) -> None:
        """Names the keys that the running commit changes, at its end."""
        self._sequence += 1
        txn.put(CHANGES, self._sequence.to_bytes(8, "big"), _CHANGED.encode(changed))

    # In the reactor.

    def apply(self, moved: Iterable[Moved], view: Callable[[], View]) -> list[Change]:
        """Takes note of what a committed job did to owned keys; by how much each changed, also
        where the job did not know."""
        self._in_order = None
        changes = []
        for where, placed, delta in moved:
            if delta is None:
                delta = (placed.fingerprint or 0) - self._said(where, view())
            self.pending[where] = placed
            changes.append((where, placed, delta))
        return changes

    def _said(self, where: bytes, view: View) -> int:
        """The fingerprint that counts for a place now."""
        said = self.pending.get(where)
        if said is None:
            value = view.get(PLACES, where)
            said = None if value is None else read(where, value)
        return 0 if said is None else said.fingerprint or 0

    def of(
        self, view: View, shape: Shape, partition: int, leaves: Sequence[int], after: bytes = b""
    ) -> Iterator[tuple[bytes, Placed]]:
        """The keys of these leaves, in ascending order, of a partition, behind the place `after`,
        each with its place."""
        for leaf in leaves:
            start, stop = shape.bounds(partition, leaf)
            start = max(start, after + b"\x00") if after else start
            if stop is None or start < stop:
                found = dict(walk(view, start, stop))
                for where in self._pending_in(start, stop):
                    found[where] = self.pending[where]
                for where in sorted(found):
                    if found[where].fingerprint is not None:
                        yield where, found[where]

    def flush(self, committer: Committer) -> Deferred[bool]:
        """Writes a stretch of what is pending; fires with whether this sweep goes on.

        A sweep writes what was pending when it began, in order, then removes the rows of `changes`
        that named it. Not to be called again before it has fired.
        """
        if not self._sweep:
            return committer.submit(lambda txn: self._sequence, self._begin_sweep)
        some = [(where, self.pending[where]) for where in self._sweep[-FLUSH_ROWS:][::-1]]
        last = len(self._sweep) <= FLUSH_ROWS
        upto = self._swept

        @frees_space
        def job(txn: Transaction) -> None:
            for where, placed in some:
                put(txn, where, placed)
            if last:
                stop = (upto + 1).to_bytes(8, "big")
                for number in [number for number, _ in txn.scan(CHANGES, b"", stop)]:
                    txn.delete(CHANGES, number)

        def took(_: None) -> bool:
            del self._sweep[-FLUSH_ROWS:]
            for where, placed in some:
                if self.pending.get(where) is placed:
                    del self.pending[where]
            self._in_order = None
            return not last

        return committer.submit(job, took)

    def _begin_sweep(self, sequence: int) -> bool:
        """What the rows of `changes` up to here name is pending now, if it is not written."""
        self._swept = sequence
        self._sweep = sorted(self.pending, reverse=True)
        return bool(self._sweep)

    def _pending_in(self, start: bytes, stop: bytes | None) -> list[bytes]:
        if self._in_order is None:
            self._in_order = sorted(self.pending)
        order = self._in_order
        end = len(order) if stop is None else bisect_left(order, stop)
        return order[bisect_left(order, start) : end]


def _held(view: View, where: bytes, incarnation: bytes, key: bytes) -> Placed:
    """What a place is to say of the record that is there: nothing of a damaged one."""
    data = view.get("records", rows.row(incarnation, key))
    kept = None if data is None else broken.decode("records", rows.row(incarnation, key), data)
    if kept is None or kept.was is not None or not kept.record.known():
        return Placed(incarnation, key, None)
    return Placed(incarnation, key, fingerprint(where, kept.record))


@attrs.define(eq=False)
class Filling:
    """Gives the records of a store from before there was table `places` their rows there.

    `left`: the incarnations of all buckets.
    """

    committer: Committer
    left: list[bytes]
    _after: bytes = b""

    def step(self, view: View) -> Deferred[bool]:
        """Does a stretch; fires with whether every record has its row."""
        if view.get("meta", FILLED) is not None:
            return succeed(True)
        left, after = self.left, self._after

        def job(txn: Transaction) -> bytes | None:
            if left:
                return _fill(txn, left[0], after)
            txn.put("meta", FILLED, FORMAT)
            return None

        def took(last: bytes | None) -> bool:
            self._after = last or b""
            if last is not None:
                return False
            filled = not left
            del left[:1]
            return filled

        return self.committer.submit(job, took)


FILLED = b"places"
"""The row of `meta` that says that every row of `records` has its place."""


def _fill(txn: Transaction, incarnation: bytes, after: bytes) -> bytes | None:
    """Does up to `FLUSH_ROWS` keys behind `after`; the last one, None if there are no more."""
    keys = []
    for key, _ in rows.walk(txn, "records", incarnation, after + b"\x00" if after else b""):
        keys.append(key)
        if len(keys) >= FLUSH_ROWS:
            break
    for key in keys:
        where = place(incarnation, key)
        placed = _held(txn, where, incarnation, key)
        if placed.fingerprint is not None and txn.get(PLACES, where) is None:
            put(txn, where, placed)
    return keys[-1] if len(keys) >= FLUSH_ROWS else None
