"""Merkle trees over the keys of a partition: where two owners differ, found level by level.

A partition's key space is cut into leaves by the bits of a key's position that follow those that
choose the partition. A leaf is the sum, modulo 2^64, of the fingerprints of its keys: an additive
multiset hash (Bellare and Micciancio, "A new paradigm for collision-free hashing", 1997), so that a
write subtracts what was and adds what is, in any order, and no leaf is ever read again to keep it
right. The nodes above are hashes over the leaves below them, made when somebody asks. Two owners
compare roots, then only children of nodes that differ, then only keys of leaves that differ
(Dynamo §4.7).

A fingerprint covers a key's place, its context and the dots of its versions, and no bytes: a dot
stands for one write for ever. 64 bits guard against chance, not against somebody who makes keys to
collide: what such a person could hide is a difference that is there for another reason.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from hashlib import blake2b

import attrs
import msgspec

from dynamo.core.record import Record

FAN_OUT = 16
LEAVES_MAX = 256
LEAVES_MIN = 16
LEAVES_IN_ALL = 2**18
"""About how many leaves all partitions together have: 2 MiB."""

HASH_BYTES = 8
POSITION_BITS = 64
MASK = 2**64 - 1

_encode = msgspec.msgpack.Encoder().encode


@attrs.frozen
class Shape:
    """How trees are cut, the same wherever the number of partitions is.

    `leaves` of each partition, a power of two; they are level `depth`, the root is level 0.
    `shift`: how many low bits of a position the leaf leaves open.
    """

    partitions: int
    leaves: int
    depth: int
    shift: int

    @classmethod
    def of(cls, partitions: int) -> Shape:
        """The shape for so many partitions, a power of two."""
        leaves = min(LEAVES_MAX, max(LEAVES_MIN, LEAVES_IN_ALL // partitions))
        depth = 1
        while FAN_OUT**depth < leaves:
            depth += 1
        shift = POSITION_BITS - (partitions * leaves).bit_length() + 1
        return cls(partitions, leaves, depth, shift)

    def find(self, position: bytes) -> tuple[int, int]:
        """The partition and the leaf in it of a position (`dynamo.core.ring.position`)."""
        return divmod(int.from_bytes(position, "big") >> self.shift, self.leaves)

    def bounds(self, partition: int, leaf: int) -> tuple[bytes, bytes | None]:
        """The first position of a leaf and the first behind it; None: there is none behind."""
        first = (partition * self.leaves + leaf) << self.shift
        behind = first + (1 << self.shift)
        stop = None if behind > MASK else behind.to_bytes(8, "big")
        return first.to_bytes(8, "big"), stop

    def empty(self) -> array[int]:
        """The leaves of a partition without keys."""
        return array("Q", bytes(8 * self.leaves))

    def span(self, level: int) -> int:
        """How many leaves lie below one node of a level."""
        return min(self.leaves, int(FAN_OUT ** (self.depth - level)))

    def children(self, level: int, nodes: Sequence[int]) -> list[int]:
        """The nodes of the next level that lie below these; ignores nodes there are not."""
        each = self.span(level) // self.span(level + 1)
        width = self.leaves // self.span(level)
        return [n * each + i for n in nodes if 0 <= n < width for i in range(each)]

    def hash(self, leaves: array[int], level: int, node: int) -> bytes:
        """The hash of one node, 8 bytes."""
        span = self.span(level)
        part = leaves[node * span : (node + 1) * span]
        packed = struct.pack(f">{span}Q", *part)
        return packed if span == 1 else blake2b(packed, digest_size=HASH_BYTES).digest()

    def root(self, leaves: array[int]) -> bytes:
        """The hash of the whole partition."""
        return self.hash(leaves, 0, 0)

    def hashes(self, leaves: array[int], level: int, nodes: Sequence[int]) -> bytes:
        """The hashes of these nodes of a level, one behind the other."""
        return b"".join([self.hash(leaves, level, node) for node in nodes])

    def differing(
        self, leaves: array[int], level: int, nodes: Sequence[int], theirs: bytes
    ) -> list[int]:
        """Those of the nodes whose hash is not the one in `theirs`, as `hashes` gives them.

        Raises `ValueError` if these are not the hashes of so many nodes.
        """
        if len(theirs) != HASH_BYTES * len(nodes):
            raise ValueError(f"{len(theirs)} bytes are not the hashes of {len(nodes)} nodes")
        return [
            node
            for i, node in enumerate(nodes)
            if self.hash(leaves, level, node) != theirs[HASH_BYTES * i : HASH_BYTES * (i + 1)]
        ]


def change(leaves: array[int], leaf: int, delta: int) -> None:
    """Adds to a leaf what a key's fingerprint changed by."""
    leaves[leaf] = (leaves[leaf] + delta) & MASK


def fingerprint(place: bytes, record: Record) -> int:
    """What is known of the key at a place, as a number of 64 bits.

    A version without its bytes (`stripped`) counts as another than the same with them.
    """
    context = record.context
    if len(context) > 1:
        context = dict(sorted(context.items()))
    dots = [(v.actor, -v.counter if v.stripped else v.counter) for v in record.versions]
    digest = blake2b(place + _encode((context, dots)), digest_size=HASH_BYTES).digest()
    return int.from_bytes(digest, "big")
