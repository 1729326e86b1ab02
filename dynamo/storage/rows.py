"""Where a key's row lies in an ordered table whose keys are short.

The store takes keys of 511 bytes, a file's key may have 1024. A key of up to `SEGMENT` bytes
lies at `base + key`. Of a longer one, the first segment is replaced by a short digest that is the
base of a range of its own, and a marker row at `base + segment + NUL` says that such a range
exists. NUL is not allowed in keys, so the marker sorts right behind the key that equals the
segment and before every other: a walk that descends at markers visits keys in byte order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from dynamo.storage.engine import Transaction, View

BASE_BYTES = 8
SEGMENT = 470
MARK = b"\x00"


def row(base: bytes, key: bytes) -> bytes:
    """The row of `key` under `base` (8 bytes, or 16 with a hint target in front)."""
    while len(key) > SEGMENT:
        base, key = _range_of(base, key[:SEGMENT]), key[SEGMENT:]
    return base + key


def mark(txn: Transaction, table: str, base: bytes, key: bytes) -> None:
    """Writes the marker rows that a long `key` needs to be found by `walk`."""
    while len(key) > SEGMENT:
        marker = base + key[:SEGMENT] + MARK
        if txn.get(table, marker) is None:
            txn.put(table, marker, b"")
        base, key = _range_of(base, key[:SEGMENT]), key[SEGMENT:]


def walk(view: View, table: str, base: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Keys >= `start` under `base` in byte order, each with its row's value."""
    if len(start) > SEGMENT:
        head = start[:SEGMENT]
        for rest, value in walk(view, table, _range_of(base, head), start[SEGMENT:]):
            yield head + rest, value
        first = base + head + MARK + MARK
    else:
        first = base + start
    for found, value in view.scan(table, first, after_prefix(base)):
        key = found[len(base) :]
        if key.endswith(MARK):
            head = key[:-1]
            for rest, inner in walk(view, table, _range_of(base, head)):
                yield head + rest, inner
        else:
            yield key, value


def in_step(
    walks: list[Iterator[tuple[bytes, bytes]]],
) -> Iterator[tuple[bytes, list[tuple[int, bytes]]]]:
    """Joins walks: each key once, with the number and the value of every walk that has it."""
    heads = [next(walk, None) for walk in walks]
    while any(head is not None for head in heads):
        key = min(head[0] for head in heads if head is not None)
        values = []
        for i, head in enumerate(heads):
            if head is not None and head[0] == key:
                values.append((i, head[1]))
                heads[i] = next(walks[i], None)
        yield key, values


def after_prefix(prefix: bytes) -> bytes | None:
    """The least byte string above every one that begins with `prefix`; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def _range_of(base: bytes, head: bytes) -> bytes:
    return hashlib.blake2b(base + head, digest_size=len(base)).digest()
