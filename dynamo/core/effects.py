"""What a membership machine asks of its caller.

The caller obeys the effects of a call in their order. `PersistIncarnation` must be durable
before anything after it is done, in this list or a later one; the others need no waiting.
"""

from __future__ import annotations

from typing import Literal

import attrs

from dynamo.core.members import Member
from dynamo.core.messages import Message

Event = Literal[
    "joined", "changed", "suspected", "cleared", "failed", "left", "returned", "replaced", "reaped"
]
"""How a member's record changed: never seen before; new description; alive to suspect; suspect to
alive; to dead; to left; dead or left to alive; another identity took the name; forgotten."""


@attrs.frozen
class SendDatagram:
    """Encode and send; losing it is no error."""

    address: str
    message: Message


@attrs.frozen
class ProbeByStream:
    """Ask over peer HTTP whether `member` (name and identity) answers at its address.

    The answer goes to `Swim.streamed(now, number, outcome)`; none within the probe is fine.
    """

    member: Member
    number: int


@attrs.frozen
class ExchangeState:
    """Send `Swim.state()` over peer HTTP to `address`; the answer goes to `Swim.exchange`.

    `name` is the member expected there, empty for a seed.
    """

    address: str
    name: str = ""


@attrs.frozen
class MemberChanged:
    """The view changed. `before` is None for a newcomer; `cause` is one phrase for the log."""

    event: Event
    member: Member
    before: Member | None
    cause: str


@attrs.frozen
class PersistIncarnation:
    """Make this number durable before sending anything more."""

    incarnation: int


@attrs.frozen
class PersistMembers:
    """Store what is known, for the next start. Losing the last few is harmless."""

    members: tuple[Member, ...]


@attrs.frozen
class Notice:
    """Something an operator should see in the log.

    `udp_blocked`: `name` answers by stream and not by datagram. `name_contended`: the name is
    held by a live member and we wait for it. `other_cluster`: a state of another cluster came.
    `refuted`: we were accused (`detail`) and answered. `stalled`: this process did not run for
    `detail` seconds, longer than a probe's time-out.
    """

    code: Literal["udp_blocked", "name_contended", "other_cluster", "refuted", "stalled"]
    name: str
    detail: str = ""


@attrs.frozen
class Stopped:
    """The machine is done and says nothing more: the leave is out (`left`), or the name
    belongs to `winner` (`name_taken`) and this node must not go on under it."""

    cause: Literal["left", "name_taken"]
    winner: Member | None = None


Effect = (
    SendDatagram
    | ProbeByStream
    | ExchangeState
    | MemberChanged
    | PersistIncarnation
    | PersistMembers
    | Notice
    | Stopped
)
