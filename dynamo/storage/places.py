"""The keys this node owns in the order of the hash space, each with the fingerprint of its record.

Table `places` has a row for each row of `records`, written in the same commit. It lies at the key's
position (`dynamo.core.ring.position`) followed by its row in `records`, so that a partition, or a
leaf of its tree, is one range. The value is a format byte, the fingerprint (8 bytes,
`dynamo.core.merkle`), and, for a key too long to be read from its row, incarnation and key.

A store from before there was this table gets its rows from `Filling`, in bounded steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
from twisted.internet.defer import Deferred

from dynamo.core.merkle import HASH_BYTES, Shape, fingerprint
from dynamo.core.record import Record
from dynamo.core.ring import position
from dynamo.errors import Corrupt
from dynamo.log import make_logger
from dynamo.storage import rows
from dynamo.storage.committer import Committer
from dynamo.storage.engine import Transaction, View
from dynamo.storage.hints import Effects
from dynamo.wire.codec import FORMAT, RECORD

PLACES = "places"
FILLED = b"places"
"""The row of `meta` that says that every row of `records` has its place."""

FILL_ROWS = 200

Change = tuple[bytes, bytes, int]
"""A place, the key's incarnation, and by how much the fingerprint there changed."""

_HEAD = len(FORMAT)
_SHORT = _HEAD + HASH_BYTES
_POSITION = 8

log = make_logger()


@attrs.frozen
class Placed:
    """A key this node owns, and the fingerprint of its record."""

    incarnation: bytes
    key: bytes
    fingerprint: bytes


def place(incarnation: bytes, key: bytes) -> bytes:
    """The row of a key."""
    return position(incarnation, key) + rows.row(incarnation, key)


def keep(
    txn: Transaction, effects: Effects, incarnation: bytes, key: bytes, old: Record, new: Record
) -> None:
    """Notes, inside a job, that the owned record of a key has changed."""
    where = place(incarnation, key)
    mark = fingerprint(where, new)
    before = txn.get(PLACES, where) if old.known() else None
    value = FORMAT + mark
    txn.put(PLACES, where, value if len(key) <= rows.SEGMENT else value + incarnation + key)
    effects.moved.append((where, incarnation, number(value) - number(before)))


def remove(txn: Transaction, effects: Effects, incarnation: bytes, key: bytes) -> None:
    """Notes, inside a job, that this node no longer owns a record of the key."""
    where = place(incarnation, key)
    before = txn.get(PLACES, where)
    if before is not None:
        txn.delete(PLACES, where)
        effects.moved.append((where, incarnation, -number(before)))


def number(value: bytes | None) -> int:
    """The fingerprint in a row's value as a summand; 0 for no row."""
    return 0 if value is None else int.from_bytes(value[_HEAD:_SHORT], "big")


def read(where: bytes, value: bytes) -> Placed:
    """What a row says. Raises `Corrupt`."""
    if value[:_HEAD] != FORMAT or len(value) < _SHORT:
        raise Corrupt(f"A place has the unknown format {value[:_HEAD].hex() or 'none'}.")
    named = where[_POSITION:] if len(value) == _SHORT else value[_SHORT:]
    incarnation, key = named[: rows.BASE_BYTES], named[rows.BASE_BYTES :]
    return Placed(incarnation, key, value[_HEAD:_SHORT])


def of(
    view: View, shape: Shape, partition: int, leaves: Sequence[int], after: bytes = b""
) -> Iterator[tuple[bytes, Placed]]:
    """The keys of these leaves, in ascending order, of a partition, behind the row `after`, each
    with its row."""
    for leaf in leaves:
        start, stop = shape.bounds(partition, leaf)
        if after:
            start = max(start, after + b"\x00")
        if stop is not None and start >= stop:
            continue
        yield from walk(view, start, stop)


def walk(view: View, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, Placed]]:
    """Every key with its row in [start, stop), in order; a row that says nothing is left out."""
    for where, value in view.scan(PLACES, start, stop):
        try:
            yield where, read(where, value)
        except Corrupt as error:
            log.error("A key is left out of its tree: {why}", why=error)


@attrs.define(eq=False)
class Filling:
    """Gives the records of an older store their places. `left`: the incarnations of all buckets."""

    committer: Committer
    left: list[bytes]
    _after: bytes = b""

    def step(self, view: View) -> Deferred[bool]:
        """Does a stretch; fires with whether every record has its place."""
        if view.get("meta", FILLED) is not None:
            done: Deferred[bool] = Deferred()
            done.callback(True)
            return done
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


def _fill(txn: Transaction, incarnation: bytes, after: bytes) -> bytes | None:
    """Does up to `FILL_ROWS` keys behind `after`; the last one, None if there are no more."""
    found = []
    for key, data in rows.walk(txn, "records", incarnation, after + b"\x00" if after else b""):
        found.append((key, data))
        if len(found) >= FILL_ROWS:
            break
    for key, data in found:
        where = place(incarnation, key)
        if txn.get(PLACES, where) is None:
            try:
                record = RECORD.decode(data)
            except Corrupt as error:
                log.error("A damaged record has no place in any tree: {why}", why=error)
                continue
            keep(txn, Effects(), incarnation, key, record, record)
    return found[-1][0] if len(found) >= FILL_ROWS else None
