"""The tombstones among the keys this node owns, so that they are found without looking at the rest.

Table `graves` has a row for each, written in the same commit as the record: the place of the key
(`dynamo.storage.places.place`), and as its value a format byte, incarnation and key. How many there
are is kept beside the totals.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from dynamo.core.record import Record
from dynamo.errors import Corrupt
from dynamo.storage import ledger, rows
from dynamo.storage.engine import Transaction, View
from dynamo.storage.places import place
from dynamo.wire.codec import FORMAT

GRAVES = "graves"
COUNT = b"graves"
_U64 = struct.Struct(">Q")


def note(txn: Transaction, incarnation: bytes, key: bytes, old: Record | None, new: Record) -> None:
    """Notes, inside a job, that the owned record of a key has changed; `EMPTY`: is not there, None:
    nobody knows."""
    now = new.is_tombstone()
    if old is not None and old.is_tombstone() == now:
        return
    where = place(incarnation, key)
    if old is None and (txn.get(GRAVES, where) is not None) == now:
        return
    if now:
        txn.put(GRAVES, where, FORMAT + incarnation + key)
    else:
        txn.delete(GRAVES, where)
    ledger.state(txn, COUNT, _U64.pack(max(0, count(txn) + (1 if now else -1))))


def count(view: View) -> int:
    """How many tombstones this node owns."""
    try:
        held = ledger.fact(view, COUNT)
    except Corrupt:
        return 0
    return 0 if held is None else int(_U64.unpack(held)[0])


def walk(view: View, after: bytes = b"") -> Iterator[tuple[bytes, bytes, bytes]]:
    """Tombstones behind a place, in order: place, incarnation, key."""
    for where, value in view.scan(GRAVES, after + b"\x00" if after else b""):
        if value[:1] == FORMAT:
            named = value[1:]
            yield where, named[: rows.BASE_BYTES], named[rows.BASE_BYTES :]
