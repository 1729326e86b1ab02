"""Records whose row is not what was stored: set aside in place until others have told what it was.

A row that fails its checksum, or does not decode, gives way to a `Broken` one. What that keeps:

- Nobody is told "not found": reading the key fails with `Corrupt` until `mend`, so that this node
  counts for no read of it. The bytes that were found stay in the row until then, and no longer.
- Merges go on: what arrives meanwhile is kept in the row and acknowledged, for it is on disk. Once
  it is known that nobody can tell what was there, the next one is all there is.
- With the record, the node's knowledge of its own dots in it is gone, as when a copy leaves the
  disk. So in the same commit it begins to sign with its next hand (`dynamo.storage.ledger`), and it
  coordinates no write of the key until it is mended, unless there is nobody who could mend it.
- The chunks the record named stay counted, for which they were cannot be known. The next start
  counts anew.
"""

from __future__ import annotations

import msgspec

from dynamo.core.record import EMPTY, Record
from dynamo.errors import Corrupt
from dynamo.storage import ledger, rows
from dynamo.storage.effects import Effects
from dynamo.storage.engine import Transaction, View
from dynamo.wire.codec import BREAKING, BROKEN_FORMAT, KEEPING, Broken

WAS_BYTES_MAX = 256 * 1024
"""How much of a damaged row is kept for whoever wants to look at it."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """What a row holds. `was`: the bytes of the row that was damaged, None if it is whole; `fresh`:
    and nobody has noted it yet; `alone`: and nobody can tell what it was."""

    record: Record
    was: bytes | None = None
    fresh: bool = False
    alone: bool = False


NOTHING = Kept(EMPTY)
"""What there is where no row is."""


def look(view: View, table: str, incarnation: bytes, key: bytes) -> Kept:
    """What lies in a key's row, damaged or not."""
    row = rows.row(incarnation, key)
    data = view.get(table, row)
    return NOTHING if data is None else decode(table, row, data)


def decode(table: str, row: bytes, data: bytes) -> Kept:
    """What a row with these bytes holds."""
    try:
        if data[:1] == BROKEN_FORMAT:
            broken = BREAKING[table].decode(row, data)
            return Kept(broken.known, broken.was, alone=broken.alone)
        return Kept(KEEPING[table].decode(row, data))
    except Corrupt:
        return Kept(EMPTY, data, fresh=True)


def require(kept: Kept, key: bytes) -> Record:
    """The record of a row that is whole; raises `Corrupt`."""
    if kept.was is not None:
        raise Corrupt(f"The record of {key!r} is damaged on this node and awaits its repair.")
    return kept.record


def keep(
    txn: Transaction,
    effects: Effects,
    table: str,
    incarnation: bytes,
    key: bytes,
    kept: Kept,
    known: Record,
) -> None:
    """Leaves in a damaged row's place, inside a job, what is known of the key since."""
    assert kept.was is not None
    row = rows.row(incarnation, key)
    if kept.fresh:
        ledger.forgets(txn)
        effects.broken.append((table, incarnation, key))
    was = kept.was[:WAS_BYTES_MAX]
    txn.put(table, row, BREAKING[table].encode(row, Broken(known, was, kept.alone)))
    effects.unused += ledger.refer(txn, kept.record, known)
