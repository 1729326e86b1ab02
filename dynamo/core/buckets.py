"""What is known of one bucket name.

A bucket has a generation: creating an absent bucket makes the next one, deleting marks the
present one as gone. Two creates that race therefore make the same generation, with the same
incarnation id, and files written through either land in the same place: no client's success is
ever taken back by a merge. Properties are a register ordered by hybrid stamp. `merge` is the
join of a lattice: the higher (generation, deleted) wins, then the higher stamp.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Literal

import msgspec

INCARNATION_BYTES = 8


class Properties(msgspec.Struct, frozen=True, array_like=True):
    """How a bucket replicates. `None` means "as the cluster's default says"."""

    n: int | None = None
    r: int | Literal["quorum"] | None = None
    w: int | Literal["quorum"] | None = None
    conflicts: Literal["siblings", "latest"] = "siblings"
    quorum: Literal["sloppy", "strict"] | None = None


class Bucket(msgspec.Struct, frozen=True, array_like=True):
    """The state of a bucket name. `generation` 0: never made. `created_ms`: wall clock."""

    name: str
    generation: int = 0
    deleted: bool = True
    stamp: int = 0
    created_ms: int = 0
    properties: Properties = Properties()

    @property
    def exists(self) -> bool:
        return not self.deleted

    @property
    def generations_gone(self) -> int:
        """How many generations were deleted: all before the present one, and it too if it is."""
        return self.generation if self.deleted else self.generation - 1

    @property
    def incarnation(self) -> bytes:
        """The id that this generation's keys are stored under, 8 bytes."""
        return _incarnation(self.generation, self.name)

    def create(self, stamp: int, wall_ms: int, properties: Properties) -> Bucket:
        """The next generation; the caller has checked that the bucket does not exist."""
        return Bucket(self.name, self.generation + 1, False, stamp, wall_ms, properties)

    def change(self, stamp: int, properties: Properties) -> Bucket:
        """The same generation with other properties."""
        return msgspec.structs.replace(self, stamp=stamp, properties=properties)

    def delete(self, stamp: int) -> Bucket:
        """The same generation, gone for good."""
        return msgspec.structs.replace(self, stamp=stamp, deleted=True)

    def merge(self, other: Bucket) -> Bucket:
        """The later of two states of one name."""
        return max(self, other, key=_order)


@lru_cache(maxsize=10_000)
def _incarnation(generation: int, name: str) -> bytes:
    text = f"{generation}:{name}".encode()
    return hashlib.blake2b(text, digest_size=INCARNATION_BYTES).digest()


def _order(bucket: Bucket) -> tuple[int, bool, int, bytes]:
    return (bucket.generation, bucket.deleted, bucket.stamp, msgspec.msgpack.encode(bucket))
