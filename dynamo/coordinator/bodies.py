"""Bodies on their way in and out.

In: up to `INLINE_MAX` bytes travel inside the record. Larger bodies are cut into chunks of
`CHUNK_BYTES`, each named by its BLAKE3 digest and sent to all targets, more of them at a time the
longer the body turns out to be; a target that falls more than `LAG_MAX` chunks behind is left to
hinted handoff, and when fewer than W keep up, the client is made to wait. Out: chunk after chunk,
verified, from whoever has it, one fetched ahead.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Any

import attrs
from blake3 import blake3
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from dynamo.coordinator.requests import Upload
from dynamo.core.quorum import Quorums
from dynamo.core.record import Draft, Version
from dynamo.errors import BadRequest, DynamoError, QuorumNotMet, StorageFull, TooLarge
from dynamo.ports import ClusterView, Replica
from dynamo.replica.transfer import fetch
from dynamo.wire import messages

INLINE_MAX = 64 * 1024
CHUNK_BYTES = 1024 * 1024
WINDOW = 3
WARM_CHUNKS = 4
"""Chunks after which one more may be on its way to everybody: a short body gains nothing by taking
the whole window at once, and whoever waits behind it loses."""

LAG_MAX = 6
STREAMS_MAX = 32
STAGED_S = 60.0


@attrs.frozen
class Staged:
    """A body that is already here, as the draft it became; stands in for a `ByteSource`.

    `expiry` frees it unless it is stored in time.
    """

    draft: Draft
    expiry: IDelayedCall

    @property
    def length(self) -> int | None:
        return self.draft.size

    async def read(self, size: int) -> bytes:
        raise AssertionError("a staged body is not read again")


@attrs.define(eq=False)
class Bodies:
    """Takes bodies in and gives them out for this node's clients.

    `rng` makes the ids of writes. `max_bytes` is the largest object.
    """

    view: ClusterView
    clock: IReactorTime
    rng: Random
    max_bytes: int
    timeout: float
    _streams: DeferredSemaphore = attrs.field(factory=lambda: DeferredSemaphore(STREAMS_MAX))

    async def take(self, upload: Upload, targets: Sequence[str], needed: Quorums) -> Draft:
        """Reads a body to its end, its chunks on `needed` of `targets`.

        Raises `TooLarge`, `BadRequest("digest_mismatch")`, `QuorumNotMet`, `StorageFull`.
        """
        if upload.body.length is not None and upload.body.length > self.max_bytes:
            raise TooLarge("body", self.max_bytes)
        first = await upload.body.read(INLINE_MAX + 1)
        if len(first) <= INLINE_MAX:
            _Digests(upload).check(first)
            return self._draft(upload, len(first), blake3(first).hexdigest(), body=first)
        await self._streams.acquire()
        try:
            return await self._take_chunks(upload, first, targets, needed)
        finally:
            self._streams.release()

    async def _take_chunks(
        self, upload: Upload, first: bytes, targets: Sequence[str], needed: Quorums
    ) -> Draft:
        spread = ChunkSpread([self.view.replica(t) for t in targets], needed, self.clock)
        digests = _Digests(upload)
        whole = blake3()
        chunks: list[bytes] = []
        size = 0
        try:
            piece = first + await upload.body.read(CHUNK_BYTES - len(first))
            while piece:
                size += len(piece)
                if size > self.max_bytes:
                    raise TooLarge("body", self.max_bytes)
                digest = blake3(piece).digest()
                digests.update(piece)
                if chunks or len(piece) == CHUNK_BYTES:
                    whole.update(piece)
                chunks.append(digest)
                spread.send(digest, piece)
                await spread.room(self.timeout)
                piece = await upload.body.read(CHUNK_BYTES)
            digests.finish()
            await spread.finish(self.timeout)
        except BaseException:
            spread.discard(chunks)
            raise
        etag = whole.hexdigest() if size >= CHUNK_BYTES else chunks[0].hex()
        return self._draft(upload, size, etag, chunk_size=CHUNK_BYTES, chunks=tuple(chunks))

    async def stage(self, upload: Upload) -> Staged:
        """Takes a body in on this node alone, for a while."""
        here = [self.view.name]
        draft = await self.take(upload, here, Quorums.of(here, 1))
        expiry = self.clock.callLater(STAGED_S, self.discard, here, draft)
        return Staged(draft, expiry)

    async def hand_out(self, draft: Draft, targets: Sequence[str], needed: Quorums) -> None:
        """Sends a staged body's chunks on, as `take` does with those that arrive."""
        here = self.view.replica(self.view.name)
        others = [self.view.replica(t) for t in targets if t != self.view.name]
        left = needed.besides(self.view.name) if len(others) < len(targets) else needed
        spread = ChunkSpread(others, left, self.clock)
        try:
            for digest in draft.chunks:
                spread.send(digest, await here.read_chunk(digest))
                await spread.room(self.timeout)
            await spread.finish(self.timeout)
        except BaseException:
            spread.discard(draft.chunks)
            raise

    def discard(self, targets: Sequence[str], draft: Draft) -> None:
        """Nothing came of a body: what no record names of it is freed on these nodes."""
        for name in targets:
            if draft.chunks:
                _free(self.view.replica(name), draft.chunks)

    def _draft(self, upload: Upload, size: int, etag: str, **stored: Any) -> Draft:
        return Draft(
            write=self.rng.randbytes(12),
            size=size,
            etag=etag,
            content_type=upload.content_type,
            meta=dict(upload.meta),
            **stored,
        )

    async def out(
        self, version: Version, start: int, stop: int, holders: Sequence[Replica]
    ) -> AsyncIterator[bytes]:
        """The bytes [start, stop) of a version, verified, piece by piece."""
        if not version.chunk_size:
            yield version.body[start:stop]
            return
        step = version.chunk_size
        ahead: Deferred[bytes] | None = None
        try:
            last = (stop - 1) // step if stop > start else start // step - 1
            for i in range(start // step, last + 1):
                if ahead is None:
                    ahead = self._chunk(version.chunks[i], holders)
                now, ahead = ahead, None
                if i < last:
                    ahead = self._chunk(version.chunks[i + 1], holders)
                data = await now
                low, high = max(start - i * step, 0), min(stop - i * step, step)
                yield data if high - low == len(data) else data[low:high]
        finally:
            if ahead is not None:
                ahead.addErrback(lambda _: None)
                ahead.cancel()

    def _chunk(self, digest: bytes, holders: Sequence[Replica]) -> Deferred[bytes]:
        return Deferred.fromCoroutine(fetch(digest, holders))


class ChunkSpread:
    """Chunks on their way to several replicas, each at its own pace within bounds."""

    def __init__(self, targets: Sequence[Replica], needed: Quorums, clock: IReactorTime) -> None:
        self._open: dict[str, int] = {t.name: 0 for t in targets}
        self._chunks = 0
        self._under_way = dict(self._open)
        self._unwanted: tuple[bytes, ...] = ()
        self._replicas = {t.name: t for t in targets}
        self._needed = needed
        self._clock = clock
        self._faults: dict[str, str] = {}
        self._full = False
        self._waiter: Deferred[None] | None = None

    def send(self, digest: bytes, data: bytes) -> None:
        """Sends one chunk to everyone that has kept up so far."""
        self._chunks += 1
        for name in list(self._open):
            if self._open[name] >= LAG_MAX:
                self._drop(name, "too slow")
                continue
            self._open[name] += 1
            self._under_way[name] += 1
            sent = self._replicas[name].write_chunk(digest, data)
            sent.addCallbacks(self._sent, self._failed, callbackArgs=(name,), errbackArgs=(name,))
        self._require()

    async def room(self, timeout: float) -> None:
        """Waits until enough targets are few enough chunks behind: `WINDOW` of a long body, none at
        its beginning."""
        behind = min(WINDOW, self._chunks // WARM_CHUNKS)
        await self._until(behind, self._needed.met, timeout)

    async def finish(self, timeout: float) -> None:
        """Waits until enough targets have all of it, and a little for the others."""
        await self._until(0, self._needed.met, timeout)
        if any(self._open.values()):
            try:
                await self._until(0, lambda done: False, min(timeout, 1.0))
            except QuorumNotMet:
                self._require()

    async def _until(self, behind: int, enough: Callable[[set[str]], bool], timeout: float) -> None:
        """Until those that are so far behind at most are enough, or all there are."""
        deadline = self._clock.seconds() + timeout
        while True:
            self._require()
            done = {name for name, left in self._open.items() if left <= behind}
            if len(done) == len(self._open) or enough(done):
                return
            self._waiter = Deferred()
            left = deadline - self._clock.seconds()
            self._waiter.addTimeout(max(left, 0.001), self._clock, self._timed_out)
            await self._waiter

    def _timed_out(self, result: Any, seconds: float) -> Any:
        if isinstance(result, Failure) and result.check(CancelledError):
            done = {name for name, left in self._open.items() if not left}
            raise QuorumNotMet("write", *self._needed.short(done), "chunks are not taken in time")
        return result

    def discard(self, digests: Sequence[bytes]) -> None:
        """The upload failed: frees what came of it, on each target when all has arrived there."""
        self._unwanted = tuple(digests)
        for name, under_way in self._under_way.items():
            if not under_way:
                _free(self._replicas[name], self._unwanted)

    def _arrived(self, name: str) -> None:
        self._under_way[name] -= 1
        if self._unwanted and not self._under_way[name]:
            _free(self._replicas[name], self._unwanted)

    def _sent(self, _: None, name: str) -> None:
        self._arrived(name)
        if name in self._open:
            self._open[name] -= 1
        self._wake()

    def _failed(self, failure: Failure, name: str) -> None:
        self._arrived(name)
        self._full = self._full or failure.check(StorageFull) is not None
        self._drop(name, failure.getErrorMessage())
        self._wake()

    def _drop(self, name: str, why: str) -> None:
        if self._open.pop(name, None) is not None:
            self._faults[name] = why

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.called:
            waiter.callback(None)

    def _require(self) -> None:
        if not self._needed.met(self._open.keys()):
            why = "; ".join(f"{name}: {fault}" for name, fault in sorted(self._faults.items()))
            error: DynamoError = QuorumNotMet("write", *self._needed.short(self._open.keys()), why)
            raise StorageFull(f"Too few nodes have room ({why}).") if self._full else error


def _free(replica: Replica, digests: Sequence[bytes]) -> None:
    freed = replica.call(messages.ChunksDiscard(tuple(digests)))
    freed.addErrback(lambda _: None)  # a node that is away sweeps when it comes back


class _Digests:
    """What the client said its body's digests are, and what they turn out to be."""

    def __init__(self, upload: Upload) -> None:
        self._claims = []
        for name, claim in (("md5", upload.md5), ("sha256", upload.sha256)):
            if claim is not None:
                running = hashlib.new(name, usedforsecurity=False)
                self._claims.append((name, running, claim))

    def update(self, data: bytes) -> None:
        for _, running, _ in self._claims:
            running.update(data)

    def finish(self) -> None:
        """Raises `BadRequest("digest_mismatch")` unless every claim holds."""
        for name, running, claim in self._claims:
            if running.digest() != claim:
                raise BadRequest(
                    "digest_mismatch",
                    f"The body's {name.upper()} is {running.hexdigest()}, "
                    f"not {claim.hex()} as the request says; nothing was stored.",
                )

    def check(self, data: bytes) -> None:
        """All of it for a body that is here whole."""
        if self._claims:
            self.update(data)
            self.finish()
