"""The questions by which tombstones are reaped (`dynamo.replica.graves` answers them)."""

from __future__ import annotations

from dynamo.core.sightings import Origin
from dynamo.wire.bases import Op, Reply

Grave = tuple[bytes, bytes, int]
"""Incarnation and key of a tombstone, and its fingerprint (`dynamo.core.merkle`)."""


class GravesLook(Op, frozen=True, array_like=True, tag=30):
    """Of each: is this very tombstone, or nothing, all that you hold of the key? And from here on
    take note of what happens to the key, for round `number` of `sender`."""

    sender: str
    ring: str
    number: int
    graves: tuple[Grave, ...]


class GravesSettle(Op, frozen=True, array_like=True, tag=31):
    """Has everything ended that began before your moment `mark`? 0: before now."""

    ring: str
    mark: int


class GravesSeal(Op, frozen=True, array_like=True, tag=32):
    """Do no requests below these fences any more. Of each key: has nothing happened to it since
    that round's `GravesLook`?"""

    sender: str
    ring: str
    number: int
    keys: tuple[tuple[bytes, bytes], ...]
    fences: tuple[Origin, ...]


class GravesBury(Op, frozen=True, array_like=True, tag=33):
    """Every member holds these very tombstones or nothing, and so they may go."""

    sender: str
    number: int
    graves: tuple[Grave, ...]


class GravesReply(Reply, frozen=True, array_like=True, tag=30):
    """An answer for each key, in order."""

    yes: tuple[bool, ...]


class GravesSettled(Reply, frozen=True, array_like=True, tag=31):
    """Whether all that began before the moment asked about has `ended`. `mark` is a moment now, and
    what is sent from now on is not below `fence`."""

    ended: bool
    mark: int
    fence: Origin
