"""What the clients sent and what they got: all an oracle may take for granted.

Every write has an id of its own, `wNUMBER`, which its body repeats from the first byte to the
last, so that any stretch of bytes a client is given tells which write it is from and whether it
is whole; but large ones have their first chunk in common, as copies of a file have. Times are
virtual seconds.
"""

from __future__ import annotations

from typing import Literal, Protocol

import attrs
from blake3 import blake3

from dynamo.coordinator.bodies import CHUNK_BYTES

RETRIED_S = 1.4
"""A node that asks another to coordinate waits at least about so long before it asks a third."""

DOUBTFUL_S = 10.0
"""For so long nodes may go on with what their client has given up."""

Outcome = Literal["open", "acked", "refused", "unknown"]
Place = tuple[str, str]
"""Bucket and key."""


@attrs.define(eq=False)
class Write:
    """A version or, with `deletes`, a delete, as its client submitted it.

    `seen`: the ids its client had been shown when it got the context that it sends; None if it
    sends none; empty for a create. `since`: when the read that gave the context began. `w`,
    `quorum`: as asked, None for what the bucket says. `outcome`: "acked"; "refused", and so never
    done; "unknown": it may have been done, or yet be. `version`: what the answer called it.
    `twice`: the nodes may have tried it through two coordinators, of which one may do it long after
    the other's answer. `replaced`: another write, which had seen it, may have been done.
    """

    id: str
    bucket: str
    key: str
    client: int
    entry: str
    begun: float
    deletes: bool = False
    seen: frozenset[str] | None = None
    context: str = ""
    since: float = 0.0
    w: int | None = None
    quorum: str | None = None
    body: bytes = b""
    etag: str = ""
    outcome: Outcome = "open"
    ended: float = 0.0
    status: int = 0
    version: str = ""
    twice: bool = False
    replaced: bool = False

    @property
    def place(self) -> Place:
        return (self.bucket, self.key)

    @property
    def possible(self) -> bool:
        """Whether it may have been done, or may yet be."""
        return self.outcome != "refused"

    def end_or_never(self) -> float:
        """When it was over; one of unknown outcome, or tried twice, may be done at any time."""
        over = self.outcome in ("acked", "refused") and not self.twice
        return self.ended if over else float("inf")


@attrs.frozen
class Read:
    """A read of one key that was answered. `shown`: the ids of all versions it showed, or, with
    `newest`, of the newest only. `r`, `quorum`: as asked, None for what the bucket says."""

    bucket: str
    key: str
    client: int
    entry: str
    begun: float
    ended: float
    shown: frozenset[str]
    newest: bool = False
    r: int | None = None
    quorum: str | None = None

    @property
    def place(self) -> Place:
        return (self.bucket, self.key)


@attrs.frozen
class Memory:
    """What a client last read of a key, and when it began to."""

    context: str
    seen: frozenset[str]
    since: float


@attrs.frozen
class Listing:
    """All pages of a bucket's listing: keys with their ETags."""

    bucket: str
    entry: str
    begun: float
    ended: float
    entries: tuple[tuple[str, str], ...]
    r: int | None = None
    quorum: str | None = None


@attrs.frozen
class BucketChange:
    """A bucket made or deleted, or tried to be. `alone`: no other change of its name was under way
    meanwhile."""

    bucket: str
    deletes: bool
    begun: float
    ended: float
    outcome: Outcome
    alone: bool = False

    @property
    def over(self) -> float:
        """When nodes are surely done with it."""
        return self.ended + (DOUBTFUL_S if self.outcome == "unknown" else 0.0)


@attrs.frozen
class Outcomes:
    """How one operation ended, whatever its kind; `word` is "" for an answer, `told` what a failure
    said."""

    kind: str
    entry: str
    target: str
    begun: float
    ended: float
    status: int
    word: str
    patience: float
    """Seconds the operation was given."""
    told: str = ""
    stale: bool = False
    """Whether it was lost with a connection kept from before."""


class Watcher(Protocol):
    """Who is told of each thing as it happens."""

    def wrote(self, write: Write) -> None:
        """A write is over for its client."""

    def read(self, read: Read) -> None:
        """A read was answered."""

    def listed(self, listing: Listing) -> None:
        """A listing was answered to its last page."""

    def changed(self, change: BucketChange) -> None:
        """A bucket's making or deletion is over for its client."""

    def ended(self, outcome: Outcomes) -> None:
        """A request is over."""

    def wrong(self, invariant: str, text: str) -> None:
        """A client was given what cannot be."""

    def held(self, invariant: str) -> None:
        """A client was given what it had to be."""


@attrs.define(eq=False)
class History:
    """`writes` by id; `at` by bucket and key, in the order they began; `by_etag` by the ETag that
    a version's bytes have. `changes` of buckets by name."""

    writes: dict[str, Write] = attrs.field(factory=dict)
    at: dict[Place, list[Write]] = attrs.field(factory=dict)
    by_etag: dict[str, Write] = attrs.field(factory=dict)
    changes: dict[str, list[BucketChange]] = attrs.field(factory=dict)
    under_way: dict[str, int] = attrs.field(factory=dict)
    """How many changes of a bucket have begun and not ended, by its name."""
    watcher: Watcher | None = None

    def begin(self, write: Write) -> None:
        """A write is about to be sent."""
        if not write.deletes and not write.etag:
            write.etag = etag_of(write.body)
        self.writes[write.id] = write
        self.at.setdefault(write.place, []).append(write)
        if write.etag:
            self.by_etag[write.etag] = write

    def end(self, write: Write, now: float, outcome: Outcome, status: int = 0) -> None:
        """Its client knows what it will ever know of it."""
        write.ended, write.outcome, write.status = now, outcome, status
        if write.deletes and now - write.begun >= RETRIED_S:
            # A delete makes no dot by which a second one could be told.
            write.twice = True
        for seen in write.seen or () if write.possible else ():
            self.writes[seen].replaced = True
        if self.watcher is not None:
            self.watcher.wrote(write)

    def add(self, read: Read) -> None:
        """A read was answered."""
        if self.watcher is not None:
            self.watcher.read(read)

    def begin_change(self, bucket: str) -> None:
        """A bucket is about to be made or deleted."""
        self.under_way[bucket] = self.under_way.get(bucket, 0) + 1

    def change(self, change: BucketChange) -> None:
        """A bucket was made or deleted, or may have been."""
        under_way = self.under_way[change.bucket] = self.under_way[change.bucket] - 1
        earlier = self.changes.get(change.bucket, ())
        if not under_way and not any(c.over > change.begun for c in earlier):
            change = attrs.evolve(change, alone=True)
        self.changes.setdefault(change.bucket, []).append(change)
        if self.watcher is not None:
            self.watcher.changed(change)


SHARED = b"the same in many bodies;" * (CHUNK_BYTES // 24 + 1)


def body_of(write: str, size: int) -> bytes:
    """The bytes of a write: its id again and again; at least once whole. One of more than a chunk
    begins with a chunk that all such have."""
    line = f"{write}:{size};".encode()
    if size > CHUNK_BYTES:
        return SHARED[:CHUNK_BYTES] + body_of(write, size - CHUNK_BYTES)
    return (line * (size // len(line) + 1))[: max(size, len(line))]


def etag_of(body: bytes) -> str:
    """The ETag the cluster gives these bytes."""
    return blake3(body).hexdigest()
