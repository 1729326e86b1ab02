"""Where the parts meet: what a replica can do and what is known of the members.

`Replica` is a node's copies, here (`dynamo.replica.local`) or across peer HTTP
(`dynamo.replica.remote`). `ClusterView` is what the coordinator may know of the cluster; the
static member list implements it, and so does gossip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import attrs
from twisted.internet.defer import Deferred

from dynamo.core.layout import Layout
from dynamo.core.refilling import Progress
from dynamo.core.ring import Ring
from dynamo.core.transfers import Moving
from dynamo.wire.hello import Hello
from dynamo.wire.messages import Op, Reply

Liveness = Literal["alive", "suspect", "dead", "left"]


@attrs.frozen(kw_only=True)
class MemberStatus:
    """What is known of a member; see `GET /v1/cluster` for the meaning of each field.

    `last_heard`: seconds since it was last heard from, None for this node or if never. `refill`:
    how far it is with taking back what was on a lost disk, None if it is whole.
    """

    name: str
    api: str
    cluster: str
    zone: str
    weight: float
    liveness: Liveness
    role: Literal["joining", "active", "leaving"]
    incarnation: int
    objects: int
    bytes: int
    hints: int
    last_heard: float | None = None
    refill: Progress | None = None


@attrs.frozen(kw_only=True)
class Underway:
    """How far a change of the ring is, as far as this node knows, for `GET /v1/cluster`.

    `waits_for`: sentences on what holds it up, such as owners that are not there. `partitions_left`
    are those it has not got all of yet, `bytes` what it took over for this change so far.
    """

    waits_for: tuple[str, ...] = ()
    transfers: tuple[Moving, ...] = ()
    partitions_left: int = 0
    bytes: int = 0
    seconds_left: float | None = None


class Replica(Protocol):
    """One node's copies, wherever they are. `name` is the node's."""

    name: str

    @property
    def gathering(self) -> bool:
        """Whether reads wait here to be sent together: one more then costs next to nothing."""

    def call(self, op: Op) -> Deferred[Reply]:
        """Does one operation there. Never fires with a `Fault`: that is raised instead.

        Fails with `PeerUnreachable`, `PeerBroke`, or what the operation itself raises.
        """

    def read_chunk(self, digest: bytes) -> Deferred[bytes]:
        """A chunk's bytes, verified. Fails with `MissingChunks`, `Corrupt`, `PeerUnreachable`."""

    def write_chunk(self, digest: bytes, data: bytes) -> Deferred[None]:
        """Stores a chunk; fires when it is on disk there."""


class Peer(Replica, Protocol):
    """Another node at an address, whose `name` is learnt by asking."""

    async def hello(self, timeout: float, *, asker: str = "") -> Hello:
        """Asks who it is and how it fares, within `timeout` seconds. An `asker` is told what was
        seen of itself, and not of all members."""

    async def exchange_state(self, state: bytes, timeout: float) -> bytes:
        """Sends this node's whole view of the members; returns the peer's."""


class Changing(Protocol):
    """What a node does of its own accord for a change of the ring, and how far the others are."""

    def uses(self, name: str) -> int:
        """The version of the layout that a member says all its requests go by; 0 if unknown."""

    def waits_for(self) -> list[str]:
        """Why the next step of a change is not taken yet, in sentences."""

    def sync_done(self, version: int) -> None:
        """This node holds what it needs for the coming ring of this layout: everyone is told."""

    async def leave(self, *, force: bool = False) -> Layout:
        """Begins to take this node out of the ring; the layout that says so.

        Raises `Refused` for what cannot be, `Unavailable` if too few members agree in time.
        """

    async def stay(self) -> Layout:
        """Takes back a `leave` that is not done."""

    async def remove(self, name: str, *, force: bool = False) -> Layout:
        """Begins to take a dead member out of the ring. Raises as `leave`, or `NoSuchMember`."""


class ClusterView(Protocol):
    """Who the members are and which of them answer.

    `name` is this node's. `ring` changes only when members join, leave or are removed; liveness
    never moves ownership. While it does change, `beside` is the other ring whose owners every
    write reaches as well; reads go by `ring` alone (`dynamo.core.layout`).
    """

    name: str
    ring: Ring
    beside: Ring | None
    epoch: int
    """Changes whenever the ring or anybody's health does."""

    @property
    def layout(self) -> Layout:
        """The layout this node goes by, which both rings are made from."""

    @property
    def joined(self) -> bool:
        """Whether this node knows its cluster and may serve."""

    def why_not_joined(self) -> str:
        """One sentence on what it is waiting for."""

    def is_healthy(self, name: str) -> bool:
        """Whether a member should be asked first: alive as far as is known."""

    def is_doubtful(self, name: str) -> bool:
        """Whether a member may or may not be there: asked, but not relied on."""

    def replica(self, name: str) -> Replica:
        """A member's copies; this node's own for its own name."""

    def members(self) -> list[MemberStatus]:
        """Every known member by name, this node included."""

    async def refresh(self) -> None:
        """Asks every live member how it fares, for those who look; bounded in time."""

    def awaiting(self) -> tuple[str, ...]:
        """Members known to hold hints for this node that it has not been given yet."""

    def evidence(self, name: str, ok: bool) -> None:
        """A request to a member came back, or did not: news for failure detection."""

    def watch(self, changed: Callable[[str, Liveness], None]) -> None:
        """Calls back on every change of a member's liveness."""
