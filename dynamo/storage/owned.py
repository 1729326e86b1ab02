"""What a job does to a record in its row, with everything that is kept in step with it."""

from __future__ import annotations

from dynamo.core.record import EMPTY, Record
from dynamo.storage import broken, graves, hints, ledger, places, rows
from dynamo.storage.effects import Effects
from dynamo.storage.engine import Transaction, View

RECORDS = "records"
TABLES = (RECORDS, hints.HELD)
"""Where records lie."""


def owned(view: View, incarnation: bytes, key: bytes) -> Record:
    return hints.load(view, RECORDS, incarnation, key)


def own(
    txn: Transaction, effects: Effects, incarnation: bytes, key: bytes, old: Record, new: Record
) -> None:
    """Replaces the owned record and everything kept in step with it."""
    hints.keep(txn, effects, RECORDS, incarnation, key, old, new)
    places.move(effects, incarnation, key, old, new)
    graves.note(txn, incarnation, key, old, new)
    ledger.count(effects, old, new)


def disown(txn: Transaction, effects: Effects, incarnation: bytes, key: bytes, old: Record) -> None:
    """Takes an owned record, and all that is kept in step with it, off this disk."""
    effects.unused += ledger.refer(txn, old, EMPTY)
    txn.delete(RECORDS, rows.row(incarnation, key))
    places.move(effects, incarnation, key, old, EMPTY)
    graves.note(txn, incarnation, key, old, EMPTY)
    ledger.count(effects, old, EMPTY)


def both(
    txn: Transaction, effects: Effects, incarnation: bytes, key: bytes
) -> tuple[Record, Record]:
    """The owned record and the one held for others, for a job that goes on from them.

    Of damaged rows that nobody can mend, what has come since is from here on all there is.
    """
    found = []
    for table in TABLES:
        kept = broken.look(txn, table, incarnation, key)
        if kept.alone:
            heal(txn, effects, table, incarnation, key, kept, kept.record)
            kept = broken.Kept(kept.record)
        found.append(broken.require(kept, key))
    return found[0], found[1]


def heal(
    txn: Transaction,
    effects: Effects,
    table: str,
    incarnation: bytes,
    key: bytes,
    kept: broken.Kept,
    new: Record,
) -> None:
    """Puts a whole record in a damaged row's place."""
    if kept.fresh:
        ledger.forgets(txn)
        effects.broken.append((table, incarnation, key))
    if table != RECORDS:
        hints.hold(txn, effects, incarnation, key, kept.record, new)
        return
    # The totals have what was there before, which was most likely the same.
    hints.keep(txn, effects, RECORDS, incarnation, key, kept.record, new)
    places.move(effects, incarnation, key, None, new)
    graves.note(txn, incarnation, key, None, new)
