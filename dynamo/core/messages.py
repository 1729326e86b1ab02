"""What members say to each other: the datagrams of SWIM §3-4 and the full state.

    Ping           to the member itself: are you `target`?
    PingRequest    to a helper: ping `target` for me, and say within `patience_ms` if you could not
    Ack            the answer, from the target or passed on by the helper
    Nack           the helper is well and has no answer yet (Lifeguard, LHA-Probe)
    Gossip         updates only
    State          all that the sender knows, for the exchange over peer HTTP

`number` pairs an answer with its question and means nothing to anyone else. A target that is
not the one asked for answers too: its `origin` says who it is.
"""

from __future__ import annotations

import msgspec

from dynamo.core.members import Member, Origin, Update

DATAGRAM_BYTES_MAX = 1400
"""Any datagram, with everything around the message; fits an Ethernet frame with room to spare."""

ENVELOPE_BYTES_MAX = 40
"""The part of a datagram that is not the message: version, checks, nonce, tag."""

MESSAGE_BYTES_MAX = DATAGRAM_BYTES_MAX - ENVELOPE_BYTES_MAX

Updates = tuple[Update, ...]


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Are you `target`, under `identity`?"""

    origin: Origin
    number: int
    target: str
    identity: int
    updates: Updates = ()


class PingRequest(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Ping `target` at `address` for me."""

    origin: Origin
    number: int
    target: str
    identity: int
    address: str
    patience_ms: int
    updates: Updates = ()


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """I am here; or, from a helper, the target is."""

    origin: Origin
    number: int
    updates: Updates = ()


class Nack(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """I am here, and the target has not answered me."""

    origin: Origin
    number: int
    updates: Updates = ()


class Gossip(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Only news."""

    origin: Origin
    updates: Updates = ()


Message = Ping | PingRequest | Ack | Nack | Gossip

KINDS: dict[type, str] = {
    Ping: "ping",
    PingRequest: "ping_request",
    Ack: "ack",
    Nack: "nack",
    Gossip: "gossip",
}
"""The word for each kind in counters."""


class State(msgspec.Struct, frozen=True, array_like=True):
    """One side of a full exchange; `members` includes the sender's own record."""

    cluster: str
    origin: Origin
    members: tuple[Member, ...]


_encode = msgspec.msgpack.Encoder().encode


def size(value: Message | Update) -> int:
    """Bytes that a message or an update takes."""
    return len(_encode(value))
