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

from dynamo.core.record import EMPTY, Record
from dynamo.errors import Corrupt
from dynamo.storage import broken, ledger, rows
from dynamo.storage.effects import Effects
from dynamo.storage.engine import Transaction, View
from dynamo.wire.codec import HINT, KEEPING, Hint

HINTS = "hints"
HELD = "held"
TARGET_PREFIX = b"target:"
_ID, _KEY = 8, 16
"""Where a row's incarnation begins, and where its key's digest does."""
RENEWED = 1 << 32
"""Where a hint's sequence begins again after its row was damaged: above any that may be known."""


class HintBook:
    """The hints this node holds. `counts`: how many, by target; only targets that have any."""

    def __init__(self, view: View) -> None:
        self.counts: dict[str, int] = {}
        for key, name in view.scan("meta", TARGET_PREFIX, rows.after_prefix(TARGET_PREFIX)):
            target = key[len(TARGET_PREFIX) :]
            there = sum(1 for _ in view.scan(HINTS, target, rows.after_prefix(target)))
            if there and target_id_of(name) == target:
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
            hint = _hint(place, data)
            if hint is not None:
                found.append((place, hint))
            if len(found) >= limit:
                break
        return found

    def targets_of(self, view: View, incarnation: bytes, key: bytes) -> tuple[str, ...]:
        """The targets that have yet to be told about a key."""
        return tuple(t for t in sorted(self.counts) if view.get(HINTS, place(t, incarnation, key)))


def note(txn: Transaction, effects: Effects, target: str, incarnation: bytes, key: bytes) -> None:
    """Writes down, inside a job, that `target` has to be told about a key."""
    row = place(target, incarnation, key)
    there = txn.get(HINTS, row)
    if there:
        hint = _hint(row, there)
        sequence = RENEWED if hint is None else hint.sequence + 1
    else:
        sequence = 0
        effects.hinted.append((target, 1))
        named = TARGET_PREFIX + target_id(target)
        if txn.get("meta", named) != target.encode():
            txn.put("meta", named, target.encode())
    txn.put(HINTS, row, HINT.encode(row, Hint(sequence, incarnation, key)))


def load(view: View, table: str, incarnation: bytes, key: bytes) -> Record:
    """The record in a table laid out like `records`; `EMPTY` if there is none. Raises `Corrupt`."""
    row = rows.row(incarnation, key)
    data = view.get(table, row)
    if data is None:
        return EMPTY
    try:
        return KEEPING[table].decode(row, data)
    except Corrupt:
        return broken.require(broken.decode(table, row, data), key)


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
    row = rows.row(incarnation, key)
    txn.put(table, row, KEEPING[table].encode(row, new))
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
    others = targets(txn, but=target)
    for hint in delivered:
        row = place(target, hint.incarnation, hint.key)
        there = txn.get(HINTS, row)
        now = _hint(row, there) if there else None
        if now is None or now.sequence != hint.sequence:
            continue
        txn.delete(HINTS, row)
        effects.hinted.append((target, -1))
        if is_noted(txn, others, hint.incarnation, hint.key):
            continue
        copy = broken.look(txn, HELD, hint.incarnation, hint.key)
        if copy.fresh:
            ledger.forgets(txn)
            effects.broken.append((HELD, hint.incarnation, hint.key))
        if copy.record.known() or copy.was is not None:
            ledger.leaves(txn, actor, copy.record)
            effects.unused += ledger.refer(txn, copy.record, EMPTY)
            txn.delete(HELD, rows.row(hint.incarnation, hint.key))


def targets(view: View, but: str = "") -> list[bytes]:
    """The ids of all that hints were ever kept for here, without that of `but`."""
    named = view.scan("meta", TARGET_PREFIX, rows.after_prefix(TARGET_PREFIX))
    return [key[len(TARGET_PREFIX) :] for key, name in named if name != but.encode()]


def is_noted(view: View, targets: Iterable[bytes], incarnation: bytes, key: bytes) -> bool:
    """Whether one of these targets has yet to be told about a key."""
    shared = tail(incarnation, key)
    return any(view.get(HINTS, target + shared) for target in targets)


def damaged(view: View, after: bytes, limit: int) -> tuple[list[bytes], bytes]:
    """Looks at `limit` hints behind the row `after`: the rows that are not what was stored, and the
    last row looked at, empty at the end."""
    found: list[bytes] = []
    for looked, (row, data) in enumerate(view.scan(HINTS, after + b"\x00"), 1):
        if _hint(row, data) is None:
            found.append(row)
        if looked >= limit:
            return found, row
    return found, b""


def renew(txn: Transaction, row: bytes, key: bytes) -> None:
    """Writes a damaged hint anew, inside a job; `key` is the one its row stands for."""
    data = txn.get(HINTS, row)
    if data is not None and _hint(row, data) is None:
        txn.put(HINTS, row, HINT.encode(row, Hint(RENEWED, row[_ID:_KEY], key)))


def void(txn: Transaction, effects: Effects, row: bytes) -> None:
    """Removes a damaged hint, inside a job, of whose key nothing is held here."""
    data = txn.get(HINTS, row)
    if data is not None and _hint(row, data) is None:
        txn.delete(HINTS, row)
        name = txn.get("meta", TARGET_PREFIX + row[:_ID])
        if name is not None:
            effects.hinted.append((name.decode(), -1))


def place(target: str, incarnation: bytes, key: bytes) -> bytes:
    """The row of a hint."""
    return target_id(target) + tail(incarnation, key)


def target_id(target: str) -> bytes:
    """The 8 bytes that stand for a target in row keys."""
    return target_id_of(target.encode())


def target_id_of(name: bytes) -> bytes:
    """The same for a name as it is stored."""
    return hashlib.blake2b(name, digest_size=8).digest()


def _hint(row: bytes, data: bytes) -> Hint | None:
    """The hint in a row; None if the row is damaged, which the scrub looks after."""
    try:
        return HINT.decode(row, data)
    except Corrupt:
        return None


def tail_of(row: bytes) -> bytes:
    """What the hints of one key have in common, in a row."""
    return row[_ID:]


def tail(incarnation: bytes, key: bytes) -> bytes:
    """The part of a hint's row that stands for the key."""
    return incarnation + hashlib.blake2b(key, digest_size=16).digest()
