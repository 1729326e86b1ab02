"""What a commit keeps in step with the records: reference counts, the hand, the totals.

Every function here runs inside a job (`dynamo.storage.engine.Job`), so it takes effect together
with the record it accounts for or not at all.

- A chunk is freed when no record or hint on this node refers to it.
- When a record leaves this disk, what this node knew of its own dots in it goes too. A later dot by
  the same actor would be a dot used twice or, if counted on, a context that claims to know the
  earlier ones and drops them from every replica (riak_kv issue 679). So from that commit on the
  node signs with a new actor, its next *hand*: `n1`, then `n1~1~2`, `n1~1~3`.
- A tombstone that is reaped leaves every disk (`dynamo.replica.graves`), and no hand changes for
  it: a *floor* is kept instead, above which all later dots and stamps lie, of whatever key.
- What a record that was found damaged referred to cannot be known. Its chunks stay counted, so that
  none is freed that somebody needs, and the accounts are marked: the next start counts anew.
"""

from __future__ import annotations

import struct
from collections import Counter

from dynamo.core.record import Record
from dynamo.errors import Corrupt
from dynamo.storage.effects import Effects
from dynamo.storage.engine import Transaction, View
from dynamo.wire.codec import BROKEN_FORMAT, KEEPING, PLACE, Place, seal, unseal

HAND = b"hand"
TOTALS = b"totals"
FLOOR = b"floor"
_FLOOR = struct.Struct(">QQ")
DOUBTFUL = b"doubtful"
SCRUBBING = b"scrubbing"
PINNED = 1 << 40
"""The references of a chunk whose count was damaged: it is freed by no change of records."""
_U64 = struct.Struct(">Q")
_PAIR = struct.Struct(">qq")


def fact(view: View, key: bytes) -> bytes | None:
    """One of the node's own facts, a row of `meta`; None if it was never set. Raises `Corrupt`."""
    data = view.get("meta", key)
    return None if data is None else bytes(unseal("meta", key, data))


def state(txn: Transaction, key: bytes, said: bytes) -> None:
    """Writes one of the node's own facts, inside a job."""
    txn.put("meta", key, seal("meta", key, said))


def signs_as(view: View, actor: str) -> str:
    """The actor of the next dot given out here; `actor` is the node's own."""
    hand = _hand(view)
    if hand == 1:
        return actor
    return f"{actor if '~' in actor else actor + '~1'}~{hand}"


def leaves(txn: Transaction, actor: str, record: Record) -> None:
    """Notes that a record leaves this disk, of which others may have older or newer states."""
    if signs_as(txn, actor) in record.context:
        state(txn, HAND, _U64.pack(_hand(txn) + 1))


def forgets(txn: Transaction) -> None:
    """Notes that a record is lost to this disk and nobody knows what it was."""
    state(txn, HAND, _U64.pack(_hand(txn) + 1))
    state(txn, DOUBTFUL, b"")


NEW_HANDS = (1 << 16, 1 << 31)
"""Of these a node draws its hand when it does not know which it has used; counted up otherwise."""


def begin_hand(txn: Transaction, hand: int) -> None:
    """Signs as another hand from here on; `hand` is one that was never used."""
    state(txn, HAND, _U64.pack(hand))


def floor(view: View, actor: str) -> tuple[int, int]:
    """A counter and a stamp: later dots of this node have higher ones."""
    held = fact(view, FLOOR)
    if held is None:
        return 0, 0
    counter, stamp = _FLOOR.unpack_from(held)
    signed = held[_FLOOR.size :].decode()
    return (counter if signed == signs_as(view, actor) else 0), stamp


def buries(txn: Transaction, actor: str, record: Record) -> None:
    """Notes that a tombstone leaves this disk, of which nobody has an older state."""
    name = signs_as(txn, actor)
    counter, stamp = floor(txn, actor)
    counter = max(counter, record.context.get(name, 0))
    stamp = max([stamp, *(version.stamp for version in record.versions)])
    state(txn, FLOOR, _FLOOR.pack(counter, stamp) + name.encode())


def _hand(view: View) -> int:
    held = fact(view, HAND)
    return 1 if held is None else int(_U64.unpack(held)[0])


def totals(view: View) -> tuple[int, int]:
    """Objects (keys with a live version) and the bytes of all versions held as owner."""
    try:
        held = fact(view, TOTALS)
    except Corrupt:
        return (0, 0)
    return (0, 0) if held is None else _PAIR.unpack(held)


def count(effects: Effects, old: Record, new: Record) -> None:
    """Moves the totals from `old` to `new` for one key, once the commit ends (`add_up`)."""
    effects.objects += _objects(new) - _objects(old)
    effects.size += _bytes(new) - _bytes(old)


def add_up(txn: Transaction, objects: int, size: int) -> None:
    """Moves the totals by what all jobs of a commit have counted."""
    if objects or size:
        before = totals(txn)
        state(txn, TOTALS, _PAIR.pack(before[0] + objects, before[1] + size))


def refer(txn: Transaction, old: Record, new: Record) -> list[bytes]:
    """Moves the chunk reference counts from `old` to `new`; returns the chunks now unused."""
    was, now = old.chunk_digests(), new.chunk_digests()
    if was == now:
        return []
    unused = []
    for digest in sorted(now - was):
        _set(txn, digest, references(txn, digest) + 1)
    for digest in sorted(was - now):
        left = references(txn, digest) - 1
        if left > 0:
            _set(txn, digest, left)
        else:
            txn.delete("refs", digest)
            unused.append(digest)
    return unused


def refer_again(txn: Transaction, record: Record) -> None:
    """Counts those chunks of a record of whose references nothing is known any more."""
    for digest in sorted(record.chunk_digests()):
        if not references(txn, digest):
            _set(txn, digest, 1)


def references(view: View, digest: bytes) -> int:
    """How many records and hints on this node refer to a chunk."""
    held = view.get("refs", digest)
    if held is None:
        return 0
    try:
        return int(_U64.unpack(unseal("refs", digest, held))[0])
    except Corrupt:
        return PINNED


def recount(txn: Transaction) -> bool:
    """Counts references and totals from the records, inside a job; whether it could.

    It cannot while a record is damaged: its chunks would be taken for unused.
    """
    named: Counter[bytes] = Counter()
    objects = size = 0
    for table, codec in KEEPING.items():
        for row, data in txn.scan(table, b""):
            if not data:
                continue  # A marker.
            if data[:1] == BROKEN_FORMAT:
                return False
            try:
                record = codec.decode(row, data)
            except Corrupt:
                return False
            named.update(record.chunk_digests())
            if table == "records":
                objects += _objects(record)
                size += _bytes(record)
    for digest in [digest for digest, _ in txn.scan("refs", b"")]:
        if digest not in named:
            txn.delete("refs", digest)
    for digest in sorted(named):
        if references(txn, digest) != named[digest]:
            _set(txn, digest, named[digest])
    state(txn, TOTALS, _PAIR.pack(objects, size))
    txn.delete("meta", DOUBTFUL)
    return True


def doubtful(view: View) -> bool:
    """Whether the accounts have to be counted anew."""
    return view.get("meta", DOUBTFUL) is not None


def scrubbing(view: View) -> Place:
    """How far the scrub was when that was last written down."""
    try:
        held = fact(view, SCRUBBING)
        return Place() if held is None else PLACE.decode(held)
    except Corrupt:
        return Place()


def _set(txn: Transaction, digest: bytes, count: int) -> None:
    txn.put("refs", digest, seal("refs", digest, _U64.pack(count)))


def _objects(record: Record) -> int:
    for version in record.versions:
        if not version.deleted:
            return 1
    return 0


def _bytes(record: Record) -> int:
    return sum(v.size for v in record.versions)
