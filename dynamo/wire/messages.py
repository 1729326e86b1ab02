"""What nodes say to each other over peer HTTP: batches of operations and their replies.

A request body is one format byte and a msgpack array of operations; the answer is one format
byte and an array with one reply for each, in order. Between members, both come in an envelope
that says who speaks (`dynamo.core.sightings`). An operation that fails gets a `Fault` as
its reply and leaves the others alone. docs/PROTOCOL.md lists them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import msgspec

from dynamo.core.buckets import Bucket
from dynamo.core.record import Draft, Record, Version
from dynamo.core.sightings import Origin
from dynamo.errors import PeerBroke
from dynamo.wire.agreeing import (
    LayoutAccept,
    LayoutLearn,
    LayoutPrepare,
    LayoutRead,
    LayoutReply,
)
from dynamo.wire.bases import Op as Op
from dynamo.wire.bases import Reply as Reply
from dynamo.wire.reaping import (
    GravesBury,
    GravesLook,
    GravesReply,
    GravesSeal,
    GravesSettle,
    GravesSettled,
)

FORMAT = b"\x01"
ENVELOPE = b"\x02"

T = TypeVar("T")


class Read(Op, frozen=True, array_like=True, tag=1):
    """The record of a key, owned and hinted copies merged; without bytes unless `full`. `strict`:
    the answer awaits also owners that are away, if they may hold what was lost here."""

    incarnation: bytes
    key: bytes
    full: bool
    strict: bool = False


class Merge(Op, frozen=True, array_like=True, tag=2):
    """Merge `record` into the copy here; with `hint_for`, keep it apart for that owner."""

    incarnation: bytes
    key: bytes
    record: Record
    latest: bool = False
    hint_for: str = ""


class Coordinate(Op, frozen=True, array_like=True, tag=3):
    """Coordinate this write: give it a dot, store it, replicate it. `draft=None` deletes.

    `timeout` is in seconds. `stamp` is a reading of the hybrid clock of whoever took the request,
    so that a try that is done late is not taken for a newer write; 0: the coordinator's.
    """

    incarnation: bytes
    key: bytes
    draft: Draft | None
    context: dict[str, int] | None
    n: int
    w: int
    strict: bool
    latest: bool
    timeout: float
    stamp: int = 0


class Scan(Op, frozen=True, array_like=True, tag=4):
    """Keys of an incarnation in byte order: at most `limit` after `after`, with `prefix`; `strict`
    as for `Read`."""

    incarnation: bytes
    after: bytes
    prefix: bytes
    limit: int
    strict: bool = False


class BucketRead(Op, frozen=True, array_like=True, tag=5):
    """What is known of a bucket name."""

    name: str


class BucketMerge(Op, frozen=True, array_like=True, tag=6):
    """Merge these bucket states; reply with what is held of the same names afterwards."""

    buckets: tuple[Bucket, ...]


class BucketList(Op, frozen=True, array_like=True, tag=7):
    """Every bucket state held, deleted ones included, after the name `after`."""

    after: str = ""


class BucketMake(Op, frozen=True, array_like=True, tag=8):
    """Serialize this change of a bucket: one node does it for each name."""

    name: str
    change: Literal["create", "put", "delete"]
    n: int | None = None
    r: int | Literal["quorum"] | None = None
    w: int | Literal["quorum"] | None = None
    conflicts: Literal["siblings", "latest"] = "siblings"
    quorum: Literal["sloppy", "strict"] | None = None


class ChunksMissing(Op, frozen=True, array_like=True, tag=9):
    """Which of these chunks are not on your disk?"""

    digests: tuple[bytes, ...]


class ChunksDiscard(Op, frozen=True, array_like=True, tag=10):
    """An upload failed: free those of its chunks that no record refers to."""

    digests: tuple[bytes, ...]


class Inspect(Op, frozen=True, array_like=True, tag=11):
    """For the divergence view: owned and held copies apart; no bytes."""

    incarnation: bytes
    key: bytes


class TreeRoots(Op, frozen=True, array_like=True, tag=12):
    """Compare the trees of these partitions, for keys of which there are so many `copies`.

    `roots`: the sender's, one for each partition; `of`: how many partitions it knows of.
    """

    sender: str
    of: int
    copies: int
    partitions: tuple[int, ...]
    roots: tuple[bytes, ...]
    refills: bool = False
    """The sender takes back what it lost, and wants to know the roots of one that does so too."""


class TreeLevel(Op, frozen=True, array_like=True, tag=13):
    """The hashes of the children of these nodes, which are at `level` (the root is level 0)."""

    copies: int
    partition: int
    level: int
    nodes: tuple[int, ...]


class TreeKeys(Op, frozen=True, array_like=True, tag=14):
    """The keys of these leaves, ascending, that lie behind the place `after`."""

    copies: int
    partition: int
    leaves: tuple[int, ...]
    after: bytes = b""


class Pull(Op, frozen=True, array_like=True, tag=15):
    """The owned records of these keys (incarnation, key), bytes included."""

    keys: tuple[tuple[bytes, bytes], ...]


class ReadReply(Reply, frozen=True, array_like=True, tag=1):
    """`awaiting`: members known to hold hints for this node that it has not been given yet, or
    what it lost; the answer says nothing without theirs."""

    record: Record
    awaiting: tuple[str, ...] = ()


class MergeReply(Reply, frozen=True, array_like=True, tag=2):
    """The context held after the merge is on disk."""

    context: dict[str, int]


class CoordinateReply(Reply, frozen=True, array_like=True, tag=3):
    """As `dynamo.coordinator.requests.Written`."""

    coordinator: str
    clocks: dict[str, dict[str, int]]
    replicas: tuple[str, ...]
    context: dict[str, int]
    version: Version | None


class ScanReply(Reply, frozen=True, array_like=True, tag=4):
    """Keys with stripped records; `done`: there are no more. `awaiting` as in `ReadReply`."""

    entries: tuple[tuple[bytes, Record], ...]
    done: bool
    awaiting: tuple[str, ...] = ()


class BucketsReply(Reply, frozen=True, array_like=True, tag=5):
    buckets: tuple[Bucket, ...]
    done: bool = True


class BucketMade(Reply, frozen=True, array_like=True, tag=6):
    coordinator: str
    bucket: Bucket
    new: bool


class ChunksReply(Reply, frozen=True, array_like=True, tag=7):
    digests: tuple[bytes, ...]


class InspectReply(Reply, frozen=True, array_like=True, tag=8):
    """The owned record, the copy held for others, and who has yet to be told of the key.

    `exchanged`: when the key's partition was last compared with another owner, in seconds since
    the epoch; None if not since the node started.
    """

    owned: Record
    held: Record
    hint_for: tuple[str, ...]
    exchanged: float | None = None


class TreeRootsReply(Reply, frozen=True, array_like=True, tag=9):
    """One root for each partition asked about; b"" where the tree is not counted yet."""

    roots: tuple[bytes, ...]


class TreeLevelReply(Reply, frozen=True, array_like=True, tag=10):
    """Eight bytes for each child, in order."""

    hashes: bytes


class TreeKeysReply(Reply, frozen=True, array_like=True, tag=11):
    """(incarnation, key, fingerprint) in the order of their places. `last`: the place up to which
    this is all there is, b"" if it is all to the end."""

    keys: tuple[tuple[bytes, bytes, int], ...]
    last: bytes = b""


class PullReply(Reply, frozen=True, array_like=True, tag=12):
    """As they are on disk, in the order of the keys: one at least, as many as fit; b"" where there
    is nothing. `share`: the part of the time that background work may use at the member that
    answers, from 0 to 1: it serves clients, and whoever pulls is not to make them wait."""

    records: tuple[bytes, ...]
    share: float = 1.0


class Fault(Reply, frozen=True, array_like=True, tag=99):
    """An error, as its stable code, its sentence and the data needed to raise it again."""

    code: str
    detail: str
    numbers: tuple[int, ...] = ()
    digests: tuple[bytes, ...] = ()
    texts: tuple[str, ...] = ()


AnyOp = (
    Read
    | Merge
    | Coordinate
    | Scan
    | BucketRead
    | BucketMerge
    | BucketList
    | BucketMake
    | ChunksMissing
    | ChunksDiscard
    | Inspect
    | TreeRoots
    | TreeLevel
    | TreeKeys
    | Pull
    | GravesLook
    | GravesSettle
    | GravesSeal
    | GravesBury
    | LayoutRead
    | LayoutPrepare
    | LayoutAccept
    | LayoutLearn
)
AnyReply = (
    ReadReply
    | MergeReply
    | CoordinateReply
    | ScanReply
    | BucketsReply
    | BucketMade
    | ChunksReply
    | InspectReply
    | TreeRootsReply
    | TreeLevelReply
    | TreeKeysReply
    | PullReply
    | GravesReply
    | GravesSettled
    | LayoutReply
    | Fault
)


class _OpsEnvelope(msgspec.Struct, frozen=True, array_like=True):
    origin: Origin
    batch: list[AnyOp]


class _RepliesEnvelope(msgspec.Struct, frozen=True, array_like=True):
    origin: Origin
    batch: list[AnyReply]


_encode = msgspec.msgpack.Encoder().encode
_ops = msgspec.msgpack.Decoder(list[AnyOp])
_replies = msgspec.msgpack.Decoder(list[AnyReply])
_enveloped_ops = msgspec.msgpack.Decoder(_OpsEnvelope)
_enveloped_replies = msgspec.msgpack.Decoder(_RepliesEnvelope)


def encode(batch: Sequence[Op] | Sequence[Reply], origin: Origin | None = None) -> bytes:
    """A batch as bytes, in an envelope if it is said who speaks."""
    if origin is None:
        return FORMAT + _encode(batch)
    return ENVELOPE + _encode((origin, batch))


def open_ops(data: bytes) -> tuple[Origin | None, list[AnyOp]]:
    """Who speaks, and the operations of a request body; `PeerBroke` if it is not one."""
    if data[:1] == ENVELOPE:
        envelope = _decode(_enveloped_ops, data)
        return envelope.origin, envelope.batch
    return None, _decode(_ops, data)


def open_replies(data: bytes) -> tuple[Origin | None, list[AnyReply]]:
    """Who speaks, and the replies of an answer; `PeerBroke` if it is not one."""
    if data[:1] == ENVELOPE:
        envelope = _decode(_enveloped_replies, data)
        return envelope.origin, envelope.batch
    return None, _decode(_replies, data)


def decode_ops(data: bytes) -> list[AnyOp]:
    """The operations of a request body; `PeerBroke` if it is not one."""
    return open_ops(data)[1]


def decode_replies(data: bytes) -> list[AnyReply]:
    """The replies of an answer; `PeerBroke` if it is not one."""
    return open_replies(data)[1]


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    if data[:1] not in (FORMAT, ENVELOPE):
        raise PeerBroke("peer", "sent a batch of unknown format")
    try:
        return decoder.decode(memoryview(data)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerBroke("peer", f"sent a batch that does not decode: {error}") from error
