"""What is known of one member, and which of two pieces of evidence about it counts.

A member's record is written by the member alone: whenever it changes anything about itself it
raises its incarnation. Others may only add a graver liveness to an incarnation that exists. So
records of one name are totally ordered by (incarnation, identity, liveness), the highest wins,
and the stored incarnation never falls, in whatever order the evidence arrives
(SWIM §4.2, with "left" as a fourth state and without SWIM's final `confirm`).

The identity is drawn once for a data directory. It tells a restart (same identity, higher
incarnation) from another process under the same name.
"""

from __future__ import annotations

import math
from enum import IntEnum

import msgspec

from dynamo.errors import BadRequest, TooLarge

MEMBER_BYTES_MAX = 512
"""An encoded record: several fit into a datagram, and one always does."""

NAME_BYTES_MAX = 128
ADDRESS_BYTES_MAX = 260

META_BYTES_MAX = 128
"""Opaque data of a member; anything larger belongs elsewhere, with its digest here."""

FIXED_BYTES = 80
"""More than the numbers and headers of a record take."""

INCARNATION_MAX = 2**53
VERSION_MAX = 2**53
IDENTITY_MAX = 2**32 - 1


class Liveness(IntEnum):
    """What is believed of the process, in order of precedence within one incarnation."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3

    @property
    def word(self) -> str:
        """The name shown to people."""
        return self.name.lower()


class Role(IntEnum):
    """The member's part in the ring, which its liveness does not change."""

    JOINING = 0
    ACTIVE = 1
    LEAVING = 2

    @property
    def word(self) -> str:
        """The name shown to people."""
        return self.name.lower()


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A member's record. `address` and `api` are "host:port" as others should dial them.

    `incarnation` 0 means that the name is not claimed yet: any claim outranks it. `layout`: the
    version by which all requests of this member go; `synced`: the last one for which it holds what
    it ought to (`dynamo.core.layout`).
    """

    name: str
    identity: int
    address: str
    incarnation: int = 0
    liveness: Liveness = Liveness.ALIVE
    role: Role = Role.JOINING
    api: str = ""
    zone: str = ""
    weight: float = 1.0
    meta: bytes = b""
    layout: int = 0
    synced: int = 0

    @property
    def order(self) -> tuple[int, int, int]:
        """Of two records of one name the one with the higher order counts."""
        return (self.incarnation, self.identity, int(self.liveness))

    @property
    def claim(self) -> tuple[int, int]:
        """The order of the claim to the name, whatever its liveness."""
        return (self.incarnation, self.identity)

    @property
    def running(self) -> bool:
        """Believed to be there: probed, gossiped to, counted."""
        return self.liveness <= Liveness.SUSPECT

    @property
    def gone(self) -> bool:
        """Left for good; one that was only stopped keeps its place."""
        return self.liveness is Liveness.LEFT and self.role is Role.LEAVING

    def become(self, liveness: Liveness) -> Member:
        """The same incarnation, seen otherwise."""
        return msgspec.structs.replace(self, liveness=liveness)

    def rise(self, incarnation: int, liveness: Liveness = Liveness.ALIVE) -> Member:
        """The member's own statement under a new incarnation."""
        return msgspec.structs.replace(self, incarnation=incarnation, liveness=liveness)

    def same_description(self, other: Member) -> bool:
        """Whether two records differ at most in incarnation and liveness."""
        return self == other.rise(self.incarnation, self.liveness)


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """Who sent a message."""

    name: str
    identity: int
    incarnation: int


class Update(msgspec.Struct, frozen=True, array_like=True):
    """A record on its way through the cluster. `source` is who accuses, for a suspicion."""

    member: Member
    source: str = ""


_encode = msgspec.msgpack.Encoder().encode


def is_name(text: str) -> bool:
    """Whether a name is short enough to be sent about."""
    return _fits(text, NAME_BYTES_MAX)


def is_address(text: str) -> bool:
    """Whether an address is short enough to be sent about."""
    return _fits(text, ADDRESS_BYTES_MAX)


def flaw(member: Member) -> str:
    """Why a record from outside cannot be accepted; empty if it can."""
    name, address = member.name, member.address
    if not name or not address:
        return "empty"
    if not (is_name(name) and is_address(address) and is_address(member.api)):
        return "name"
    if not 0 <= member.incarnation < INCARNATION_MAX or not 0 <= member.identity <= IDENTITY_MAX:
        return "range"
    if not (0 <= member.layout < VERSION_MAX and 0 <= member.synced < VERSION_MAX):
        return "range"
    if not 0 <= member.weight < math.inf:
        return "weight"
    if len(member.meta) > META_BYTES_MAX:
        return "size"
    letters = len(name) + len(address) + len(member.api) + len(member.zone) + len(member.meta)
    if 4 * letters + FIXED_BYTES > MEMBER_BYTES_MAX and len(_encode(member)) > MEMBER_BYTES_MAX:
        return "size"
    return ""


def _fits(text: str, limit: int) -> bool:
    return 4 * len(text) <= limit or len(text.encode()) <= limit


def check(member: Member) -> Member:
    """The record, if it is one that may be sent; raises `TooLarge` or `BadRequest`."""
    found = flaw(member)
    if len(member.meta) > META_BYTES_MAX:
        raise TooLarge("meta of a member", META_BYTES_MAX)
    if found == "size":
        raise TooLarge("record of a member", MEMBER_BYTES_MAX)
    if found:
        raise BadRequest("bad_member", f"The record of member {member.name!r} is wrong: {found}.")
    return member
