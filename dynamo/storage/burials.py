"""What a node does to its copies when a tombstone is about to go: it looks, and it buries.

Both are jobs of the group commit, so they see everything that was handed to the disk before.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from dynamo.core.clock import wall_ms_of
from dynamo.core.merkle import fingerprint
from dynamo.storage import broken, hints, ledger, places, rows
from dynamo.storage.copies import Copies
from dynamo.storage.effects import Effects
from dynamo.storage.engine import Transaction
from dynamo.storage.owned import RECORDS, disown
from dynamo.wire.reaping import Grave


def look(copies: Copies, asked: Sequence[Grave], wall_ms: int) -> Deferred[list[bool]]:
    """Of each, whether this node holds that very tombstone or nothing at all of the key, for
    itself and for others. One whose stamp lies ahead of this node's clock is not to go yet: it
    would lift the stamps of all that is written here."""

    def job(txn: Transaction, effects: Effects) -> list[bool]:
        targets = hints.targets(txn)
        return [_is_clean(txn, targets, grave, wall_ms) for grave in asked]

    return copies.submit(job, frees_space=True)


def bury(copies: Copies, actor: str, asked: Sequence[Grave]) -> Deferred[int]:
    """Removes the records that are still these very tombstones; fires with how many were."""

    def job(txn: Transaction, effects: Effects) -> int:
        targets = hints.targets(txn)
        buried = 0
        for grave in asked:
            incarnation, key, _ = grave
            old = broken.look(txn, RECORDS, incarnation, key).record
            if not old.is_tombstone() or not _is_clean(txn, targets, grave, None):
                continue
            ledger.buries(txn, actor, old)
            disown(txn, effects, incarnation, key, old)
            buried += 1
        return buried

    return copies.submit(job, frees_space=True)


def _is_clean(
    txn: Transaction, targets: Sequence[bytes], grave: Grave, wall_ms: int | None
) -> bool:
    incarnation, key, mark = grave
    kept = broken.look(txn, RECORDS, incarnation, key)
    record = kept.record
    if kept.was is not None:
        return False
    if record.known() or record.versions:
        if not record.is_tombstone():
            return False
        if fingerprint(places.place(incarnation, key), record) != mark:
            return False
        if wall_ms is not None and any(wall_ms_of(v.stamp) > wall_ms for v in record.versions):
            return False
    if txn.get(hints.HELD, rows.row(incarnation, key)) is not None:
        return False
    return not hints.is_noted(txn, targets, incarnation, key)
