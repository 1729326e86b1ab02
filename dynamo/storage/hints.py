"""Hints: what absent owners have to be told, kept apart from owned data (Dynamo §4.6).

Table `hints` has a row for each (target, key): target id, incarnation, digest of the key. What
the target is told is what this node knows of the key: its owned record, or, on a stand-in, the
copy in table `held` (laid out like `records`), which stays until no target needs it any more. A
hint is dropped on the target's acknowledgement, and only if it has not changed since it was
read; when a copy goes with it, the ledger is told in the same commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from dynamo.core.record import EMPTY, Record
from dynamo.storage import ledger, rows
from dynamo.storage.engine import Transaction, View
from dynamo.wire.codec import HINT, RECORD, Hint

HINTS = "hints"
HELD = "held"
TARGET_PREFIX = b"target:"


@attrs.define
class Effects:
    """What a job did besides writing rows; taken note of in the reactor after the commit.

    `unused`: chunks nothing refers to any more. `hinted`: changes of the hint counts. `moved`:
    changes of owned keys, as `dynamo.storage.places.Change`.
    """

    unused: list[bytes] = attrs.field(factory=list)
    hinted: list[tuple[str, int]] = attrs.field(factory=list)
    moved: list[Any] = attrs.field(factory=list)


class HintBook:
    """The hints this node holds. `counts`: how many, by target; only targets that have any."""

    def __init__(self, view: View) -> None:
        self.counts: dict[str, int] = {}
        for key, name in view.scan("meta", TARGET_PREFIX, rows.after_prefix(TARGET_PREFIX)):
            target = key[len(TARGET_PREFIX) :]
            there = sum(1 for _ in view.scan(HINTS, target, rows.after_prefix(target)))
            if there:
                self.counts[name.decode()] = there

    def any(self) -> bool:
        """Whether any hint is held: the one check on the path of every read."""
        return bool(self.counts)

    def apply(self, effects: Effects) -> None:
        """Takes note of what a committed job did to the counts."""
        for target, change in effects.hinted:
            left = self.counts.get(target, 0) + change
            if left > 0:
                self.counts[target] = left
            else:
                self.counts.pop(target, None)

    def batch(self, view: View, target: str, after: bytes, limit: int) -> list[tuple[bytes, Hint]]:
        """Up to `limit` hints for `target` behind the row `after`, each with its row."""
        base = target_id(target)
        found = []
        for place, data in view.scan(HINTS, max(base, after + b"\x00"), rows.after_prefix(base)):
            found.append((place, HINT.decode(data)))
            if len(found) >= limit:
                break
        return found

    def targets_of(self, view: View, incarnation: bytes, key: bytes) -> tuple[str, ...]:
        """The targets that have yet to be told about a key."""
        return tuple(t for t in sorted(self.counts) if view.get(HINTS, place(t, incarnation, key)))


def note(txn: Transaction, effects: Effects, target: str, incarnation: bytes, key: bytes) -> None:
    """Writes down, inside a job, that `target` has to be told about a key."""
    there = txn.get(HINTS, place(target, incarnation, key))
    if there:
        sequence = HINT.decode(there).sequence + 1
    else:
        sequence = 0
        effects.hinted.append((target, 1))
        named = TARGET_PREFIX + target_id(target)
        if txn.get("meta", named) is None:
            txn.put("meta", named, target.encode())
    txn.put(HINTS, place(target, incarnation, key), HINT.encode(Hint(sequence, incarnation, key)))


def load(view: View, table: str, incarnation: bytes, key: bytes) -> Record:
    """The record in a table laid out like `records`; `EMPTY` if there is none."""
    data = view.get(table, rows.row(incarnation, key))
    return EMPTY if data is None else RECORD.decode(data)


def keep(
    txn: Transaction,
    effects: Effects,
    table: str,
    incarnation: bytes,
    key: bytes,
    old: Record,
    new: Record,
) -> None:
    """Replaces a record in such a table, inside a job, with its chunks accounted for."""
    rows.mark(txn, table, incarnation, key)
    txn.put(table, rows.row(incarnation, key), RECORD.encode(new))
    effects.unused += ledger.refer(txn, old, new)


def held(view: View, incarnation: bytes, key: bytes) -> Record:
    """The copy kept for others; `EMPTY` if there is none."""
    return load(view, HELD, incarnation, key)


def hold(
    txn: Transaction, effects: Effects, incarnation: bytes, key: bytes, old: Record, new: Record
) -> None:
    """Replaces the copy kept for others, inside a job."""
    keep(txn, effects, HELD, incarnation, key, old, new)


def walk_held(view: View, incarnation: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys >= `start` of the copies kept for others, with their encoded records, in order."""
    return rows.walk(view, HELD, incarnation, start)


def drop(
    txn: Transaction, effects: Effects, target: str, actor: str, delivered: Iterable[Hint]
) -> None:
    """Removes, inside a job, the delivered hints that have not changed meanwhile.

    The copy goes too when it is not needed for another target.
    """
    others = [
        key[len(TARGET_PREFIX) :]
        for key, name in txn.scan("meta", TARGET_PREFIX, rows.after_prefix(TARGET_PREFIX))
        if name != target.encode()
    ]
    for hint in delivered:
        there = txn.get(HINTS, place(target, hint.incarnation, hint.key))
        if not there or HINT.decode(there).sequence != hint.sequence:
            continue
        txn.delete(HINTS, place(target, hint.incarnation, hint.key))
        effects.hinted.append((target, -1))
        tail = _tail(hint.incarnation, hint.key)
        if any(txn.get(HINTS, other + tail) for other in others):
            continue
        copy = held(txn, hint.incarnation, hint.key)
        if copy.known():
            ledger.leaves(txn, actor, copy)
            effects.unused += ledger.refer(txn, copy, EMPTY)
            txn.delete(HELD, rows.row(hint.incarnation, hint.key))


def place(target: str, incarnation: bytes, key: bytes) -> bytes:
    """The row of a hint."""
    return target_id(target) + _tail(incarnation, key)


def target_id(target: str) -> bytes:
    """The 8 bytes that stand for a target in row keys."""
    return hashlib.blake2b(target.encode(), digest_size=8).digest()


def _tail(incarnation: bytes, key: bytes) -> bytes:
    return incarnation + hashlib.blake2b(key, digest_size=16).digest()
