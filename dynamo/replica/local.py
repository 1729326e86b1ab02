"""This node's own copies as a `Replica`, and what it answers to peers.

Each operation of `dynamo.wire.messages` has one handler here; those that need the coordinator
are added by the composition root, so that this layer knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure

from dynamo.core.record import Record
from dynamo.errors import DynamoError, NotReady, StorageFault
from dynamo.ports import ClusterView
from dynamo.storage.chunks import Chunks
from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable
from dynamo.wire import faults, messages
from dynamo.wire.messages import Op, Reply

Handler = Callable[[Any], Any]

BUCKETS_PER_REPLY = 1000
SCAN_LIMIT = 2000
SCAN_BYTES = 2 * 1024 * 1024


class LocalReplica:
    """What this node holds, behind the same port as every other node's.

    `unread(digest, error)` is told of a chunk that is damaged or not here, `written(digest)` of one
    that somebody is about to refer to.
    `exchanged(incarnation, key)`: when the key's partition was last compared with another owner.
    `awaits(incarnation, key, strict)`, `awaits_listed(incarnation, strict)`: as in
    `dynamo.replica.wholeness`.
    """

    def __init__(
        self, name: str, copies: Copies, chunks: Chunks, buckets: BucketTable, view: ClusterView
    ) -> None:
        self.name = name
        self._copies = copies
        self._chunks = chunks
        self._buckets = buckets
        self._view = view
        self.unread: Callable[[bytes, StorageFault], object] = lambda digest, error: None
        self.written: Callable[[bytes], object] = lambda digest: None
        self.exchanged: Callable[[bytes, bytes], float | None] = lambda incarnation, key: None
        self.awaits: Callable[[bytes, bytes, bool], tuple[str, ...]]
        self.awaits = lambda incarnation, key, strict: view.awaiting()
        self.awaits_listed: Callable[[bytes, bool], tuple[str, ...]]
        self.awaits_listed = lambda incarnation, strict: view.awaiting()
        self.handlers: dict[type[Op], Handler] = {
            messages.Read: self._read,
            messages.Merge: self._merge,
            messages.Scan: self._scan,
            messages.BucketRead: self._bucket_read,
            messages.BucketMerge: self._bucket_merge,
            messages.BucketList: self._bucket_list,
            messages.ChunksMissing: self._chunks_missing,
            messages.ChunksDiscard: self._chunks_discard,
            messages.Inspect: self._inspect,
        }

    @property
    def gathering(self) -> bool:
        return False

    def call(self, op: Op) -> Deferred[Reply]:
        handler = self.handlers.get(type(op))
        if handler is None:
            return fail(NotReady(f"This node does not do {type(op).__name__} yet."))
        return maybeDeferred(handler, op)

    def answer(self, ops: Sequence[Op]) -> Deferred[list[Reply]]:
        """The replies to a peer's batch, in order, a `Fault` for each that failed; fires when all
        are in. The merges of a batch are one job: most of what each one costs is then shared."""
        merges = [op for op in ops if type(op) is messages.Merge and not op.hint_for]
        if len(merges) < 2 or len(merges) < len(ops):
            return _all([self.call(op) for op in ops])
        merged = self._copies.merge_all(
            [(op.incarnation, op.key, op.record, op.latest) for op in merges]
        )
        return merged.addCallbacks(
            lambda outcomes: [_merged(outcome) for outcome in outcomes],
            lambda _: _all([self.call(op) for op in ops]),
        )

    def read_chunk(self, digest: bytes) -> Deferred[bytes]:
        return self._chunks.read(digest).addErrback(self._unread, digest)

    def write_chunk(self, digest: bytes, data: bytes) -> Deferred[None]:
        self.written(digest)
        return self._chunks.write(digest, data)

    def _unread(self, failure: Failure, digest: bytes) -> Failure:
        if isinstance(failure.value, StorageFault):
            self.unread(digest, failure.value)
        return failure

    def _read(self, op: messages.Read) -> Reply:
        record = self._copies.read(op.incarnation, op.key)
        awaits = self.awaits(op.incarnation, op.key, op.strict)
        return messages.ReadReply(record if op.full else record.strip(), awaits)

    def _merge(self, op: messages.Merge) -> Deferred[Reply]:
        if op.hint_for:
            stored = self._copies.hold_for(
                op.hint_for, op.incarnation, op.key, op.record, latest=op.latest
            )
        else:
            stored = self._copies.merge(op.incarnation, op.key, op.record, latest=op.latest)
        return stored.addCallback(lambda record: messages.MergeReply(record.context))

    def _scan(self, op: messages.Scan) -> Reply:
        entries: list[tuple[bytes, Record]] = []
        size = 0
        limit = min(op.limit, SCAN_LIMIT)
        awaits = self.awaits_listed(op.incarnation, op.strict)
        for key, record in self._copies.scan(op.incarnation, op.after, op.prefix):
            if len(entries) >= limit or size > SCAN_BYTES:
                return messages.ScanReply(tuple(entries), False, awaits)
            entries.append((key, record.strip()))
            size += len(key) + 100
        return messages.ScanReply(tuple(entries), True, awaits)

    def _bucket_read(self, op: messages.BucketRead) -> Reply:
        return messages.BucketsReply((self._buckets.get(op.name),))

    def _bucket_merge(self, op: messages.BucketMerge) -> Deferred[Reply]:
        merged = self._buckets.merge(op.buckets)
        return merged.addCallback(lambda held: messages.BucketsReply(tuple(held)))

    def _bucket_list(self, op: messages.BucketList) -> Reply:
        names = sorted(n for n in self._buckets.states if n > op.after)
        page = names[:BUCKETS_PER_REPLY]
        return messages.BucketsReply(
            tuple(self._buckets.states[n] for n in page), len(page) == len(names)
        )

    def _chunks_missing(self, op: messages.ChunksMissing) -> Reply:
        return messages.ChunksReply(tuple(d for d in op.digests if not self._chunks.has(d)))

    def _chunks_discard(self, op: messages.ChunksDiscard) -> Deferred[Reply]:
        freed = self._copies.discard(op.digests)
        return freed.addCallback(lambda _: messages.ChunksReply(()))

    def _inspect(self, op: messages.Inspect) -> Deferred[Reply]:
        owned, held, targets = self._copies.apart(op.incarnation, op.key)
        exchanged = self.exchanged(op.incarnation, op.key)
        return succeed(messages.InspectReply(owned.strip(), held.strip(), targets, exchanged))


def _all(calls: Sequence[Deferred[Reply]]) -> Deferred[list[Reply]]:
    """The replies of a batch, in order, a `Fault` for each that failed; fires when all are in."""
    replies: list[Reply | None] = [None] * len(calls)
    done: Deferred[list[Reply]] = Deferred()
    left = len(calls)

    def took(result: Reply | Failure, index: int) -> None:
        nonlocal left
        replies[index] = _fault(result) if isinstance(result, Failure) else result
        left -= 1
        if not left and not done.called:
            done.callback(replies)  # type: ignore[arg-type]

    for index, call in enumerate(calls):
        call.addBoth(took, index)
    if not calls:
        done.callback([])
    return done


def _fault(failure: Failure) -> Reply:
    error = failure.value
    if isinstance(error, DynamoError):
        return faults.fault(error)
    return faults.fault(NotReady(f"{type(error).__name__}: {error}"))


def _merged(outcome: Record | DynamoError) -> Reply:
    if isinstance(outcome, DynamoError):
        return faults.fault(outcome)
    return messages.MergeReply(outcome.context)
