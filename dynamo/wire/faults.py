"""Errors that travel: as a reply, and raised again where it arrives."""

from __future__ import annotations

from dynamo.errors import (
    BucketExists,
    Corrupt,
    DynamoError,
    MissingChunks,
    NoSuchBucket,
    NotReady,
    Overloaded,
    PeerBroke,
    QuorumNotMet,
    StorageFault,
    StorageFull,
)
from dynamo.wire.messages import Fault


def fault(error: DynamoError) -> Fault:
    """An error as a reply."""
    if isinstance(error, MissingChunks):
        return Fault(error.code, str(error), digests=error.digests)
    if isinstance(error, QuorumNotMet):
        return Fault(
            error.code,
            str(error),
            numbers=(error.answered, error.needed),
            texts=(error.operation, error.why),
        )
    if isinstance(error, Overloaded):
        return Fault(error.code, str(error), texts=(error.queue,))
    if isinstance(error, BucketExists | NoSuchBucket):
        return Fault(error.code, str(error), texts=(error.bucket,))
    return Fault(error.code, str(error))


def raised(peer: str, reply: Fault) -> DynamoError:
    """The error that a `Fault` from `peer` stands for."""
    if reply.code == MissingChunks.code:
        return MissingChunks(reply.digests)
    if reply.code == QuorumNotMet.code and len(reply.numbers) == 2 and len(reply.texts) == 2:
        return QuorumNotMet(reply.texts[0], *reply.numbers, reply.texts[1])
    if reply.code == Overloaded.code and reply.texts:
        return Overloaded(f"{peer}'s {reply.texts[0]}")
    for answer in (BucketExists, NoSuchBucket):
        if reply.code == answer.code and reply.texts:
            return answer(reply.texts[0])
    for kind in (StorageFull, Corrupt, NotReady, StorageFault):
        if reply.code == kind.code:
            return kind(f"{peer}: {reply.detail}")
    return PeerBroke(peer, reply.detail)
