"""Records on this disk that others own: found by partition, and dropped.

A ring that has changed, or a bucket that wants fewer copies, leaves them behind. They are in the
trees and in table `places` like all others.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from dynamo.core.merkle import fingerprint
from dynamo.storage import broken, ledger, places
from dynamo.storage.copies import Copies
from dynamo.storage.effects import Effects
from dynamo.storage.engine import Transaction
from dynamo.storage.owned import RECORDS, disown

Shown = tuple[bytes, bytes, int]
"""Incarnation and key of a record that was shown to be elsewhere, and its fingerprint."""


def drop(copies: Copies, actor: str, shown: Sequence[Shown]) -> Deferred[int]:
    """Drops those of the records that are still the very ones; fires with how many were.

    What this node knew of its own dots in them goes too, so it signs with its next hand from that
    commit on (`dynamo.storage.ledger`).
    """

    def job(txn: Transaction, effects: Effects) -> int:
        dropped = 0
        for incarnation, key, mark in shown:
            kept = broken.look(txn, RECORDS, incarnation, key)
            old = kept.record
            if kept.was is not None or not old.known():
                continue
            if fingerprint(places.place(incarnation, key), old) != mark:
                continue
            ledger.leaves(txn, actor, old)
            disown(txn, effects, incarnation, key, old)
            dropped += 1
        return dropped

    return copies.submit(job, frees_space=True)
