"""What a commit keeps in step with the records: reference counts, the hand, the totals.

Every function here runs inside a job (`dynamo.storage.engine.Job`), so it takes effect together
with the record it accounts for or not at all.

- A chunk is freed when no record or hint on this node refers to it.
- When a record leaves this disk, what this node knew of its own dots in it goes too. A later dot by
  the same actor would be a dot used twice or, if counted on, a context that claims to know the
  earlier ones and drops them from every replica (riak_kv issue 679). So from that commit on the
  node signs with a new actor, its next *hand*: `n1`, then `n1~1~2`, `n1~1~3`.
"""

from __future__ import annotations

import struct

from dynamo.core.record import Record
from dynamo.storage.engine import Transaction, View

HAND = b"hand"
TOTALS = b"totals"
_U64 = struct.Struct(">Q")
_PAIR = struct.Struct(">qq")


def signs_as(view: View, actor: str) -> str:
    """The actor of the next dot given out here; `actor` is the node's own."""
    hand = _hand(view)
    if hand == 1:
        return actor
    return f"{actor if '~' in actor else actor + '~1'}~{hand}"


def leaves(txn: Transaction, actor: str, record: Record) -> None:
    """Notes that a record leaves this disk, of which others may have older or newer states."""
    if signs_as(txn, actor) in record.context:
        txn.put("meta", HAND, _U64.pack(_hand(txn) + 1))


def begin_hand(txn: Transaction, hand: int) -> None:
    """Signs as another hand from here on; `hand` is one that was never used."""
    txn.put("meta", HAND, _U64.pack(hand))


def _hand(view: View) -> int:
    held = view.get("meta", HAND)
    return 1 if held is None else int(_U64.unpack(held)[0])


def totals(view: View) -> tuple[int, int]:
    """Objects (keys with a live version) and the bytes of all versions held as owner."""
    held = view.get("meta", TOTALS)
    return (0, 0) if held is None else _PAIR.unpack(held)


def count(txn: Transaction, old: Record, new: Record) -> None:
    """Moves the totals from `old` to `new` for one key."""
    objects = _objects(new) - _objects(old)
    size = _bytes(new) - _bytes(old)
    if objects or size:
        before = totals(txn)
        txn.put("meta", TOTALS, _PAIR.pack(before[0] + objects, before[1] + size))


def refer(txn: Transaction, old: Record, new: Record) -> list[bytes]:
    """Moves the chunk reference counts from `old` to `new`; returns the chunks now unused."""
    was, now = old.chunk_digests(), new.chunk_digests()
    unused = []
    for digest in sorted(now - was):
        txn.put("refs", digest, _U64.pack(references(txn, digest) + 1))
    for digest in sorted(was - now):
        left = references(txn, digest) - 1
        if left > 0:
            txn.put("refs", digest, _U64.pack(left))
        else:
            txn.delete("refs", digest)
            unused.append(digest)
    return unused


def references(view: View, digest: bytes) -> int:
    """How many records and hints on this node refer to a chunk."""
    held = view.get("refs", digest)
    return 0 if held is None else int(_U64.unpack(held)[0])


def _objects(record: Record) -> int:
    return 1 if any(not v.deleted for v in record.versions) else 0


def _bytes(record: Record) -> int:
    return sum(v.size for v in record.versions)
