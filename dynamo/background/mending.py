"""Mending: what was found damaged on this disk is fetched from the nodes that have it.

Readers and the scrub say what failed; a step takes up some of it. A chunk is named by its content,
so whoever has it will do. A record is whole again when enough of the key's other owners have said
what they know: with N copies and W needed for a write, N - W + 1 of them (all, where that is more
than there are). Of the W - 1 others that acknowledged a write together with this node, one at least
is then among them, so nothing that was acknowledged is missing from the merge. As in a read, an
answer counts only with those of the members its node awaits hints from. From owners whose own copy
is damaged nothing more can come: once all others have answered, those have to do. Until then the
record is an answer to nobody. Where nobody is left who could tell, as for a key without other
owners, it stays so until a client overwrites or deletes it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError
from twisted.internet.interfaces import IReactorTime

from dynamo.core.grace import Grace
from dynamo.core.quorum import ReadTally, majority
from dynamo.errors import Corrupt, DynamoError, MissingChunks, StorageFault
from dynamo.log import make_logger
from dynamo.ports import ClusterView
from dynamo.replica.transfer import fetch, others, supply
from dynamo.storage import ledger
from dynamo.storage.chunks import Chunks
from dynamo.storage.facts import BucketTable
from dynamo.storage.recovery import Recovery
from dynamo.wire import messages

BATCH = 16
WAITING_MAX = 10_000
"""What waits to be mended; more is left for the next pass of the scrub to find."""
PATIENCE_S = 2.0
"""How long one member may take to say what it knows of a key."""
GIVEN_UP_S = 60.0
"""How long nobody is asked again about a key that all its owners have lost."""

log = make_logger()


@attrs.define(eq=False)
class Mender:
    """Mends this node's copies. `n` and `w` are the cluster's defaults; `corrupt(kind)` is for
    metrics; `wake()` has `step` called soon."""

    view: ClusterView
    recovery: Recovery
    chunks: Chunks
    buckets: BucketTable
    clock: IReactorTime
    n: int
    w: int | Literal["quorum"] = "quorum"
    corrupt: Callable[[str], object] = lambda kind: None
    wake: Callable[[], object] = lambda: None
    grace: Grace = attrs.field(factory=Grace)
    mended: int = 0
    _bad_records: dict[tuple[bytes, bytes], None] = attrs.field(factory=dict)
    _given_up: dict[tuple[bytes, bytes], float] = attrs.field(factory=dict)
    _bad_chunks: dict[bytes, None] = attrs.field(factory=dict)

    def record(self, incarnation: bytes, key: bytes) -> None:
        """The record of a key could not be read."""
        item = (incarnation, key)
        if self._given_up.get(item, 0.0) > self.clock.seconds():
            return
        self._given_up.pop(item, None)
        if item not in self._bad_records and len(self._bad_records) < WAITING_MAX:
            self._bad_records[item] = None
            self.wake()

    def chunk(self, digest: bytes, error: StorageFault) -> None:
        """A chunk could not be read."""
        if isinstance(error, Corrupt):
            log.error("A chunk is damaged and was set aside: {why}", why=error)
            self.corrupt("chunk")
        elif not ledger.references(self.recovery.copies.engine.view(), digest):
            return  # None of ours.
        if digest not in self._bad_chunks and len(self._bad_chunks) < WAITING_MAX:
            self._bad_chunks[digest] = None
            self.wake()

    def progress(self) -> tuple[int, int]:
        """What was mended, and what waits for it."""
        return self.mended, len(self._bad_records) + len(self._bad_chunks)

    async def step(self) -> bool:
        """Tries to mend some of what waits; True if any was."""
        keys, digests = list(self._bad_records)[:BATCH], list(self._bad_chunks)[:BATCH]
        healed = await _all([self._mend_record(*key) for key in keys])
        settled = _settle(self._bad_records, keys, healed)
        fetched = await _all([self._mend_chunk(digest) for digest in digests])
        return _settle(self._bad_chunks, digests, fetched) or settled

    async def _mend_record(self, incarnation: bytes, key: bytes) -> bool:
        """Whether there is nothing left to do for a key."""
        since = self.grace.enter()
        try:
            return await self._mend_held(incarnation, key)
        finally:
            self.grace.leave(since)

    async def _mend_held(self, incarnation: bytes, key: bytes) -> bool:
        bucket = self.buckets.by_incarnation.get(incarnation)
        if bucket is None or not await self.recovery.set_aside(incarnation, key):
            return True
        ranking = self.view.ring.ranking(self.view.ring.partition(incarnation, key))
        owners = ranking[: bucket.properties.n or self.n]
        asked = [name for name in owners if name != self.view.name]
        w = bucket.properties.w or self.w
        needed = majority(len(owners)) if w == "quorum" else min(w, len(owners))
        tally = ReadTally(min(len(asked), len(owners) - needed + 1))
        lost = await self._ask(tally, asked, incarnation, key)
        if len(lost) == len(asked):
            await self._give_up(incarnation, key)
            return True
        heard = len(tally.counted())
        if heard < tally.needed and not (heard and heard + len(lost) == len(asked)):
            log.debug("{key} stays damaged: {why}", key=repr(key), why=tally.why())
            return False
        latest = bucket.properties.conflicts == "latest"
        try:
            await self._store(incarnation, key, tally, latest)
        except DynamoError as error:
            log.debug("{key} stays damaged: {why}", key=repr(key), why=error)
            return False
        self.mended += 1
        log.info("The record of {key} is mended", key=repr(key))
        return True

    async def _give_up(self, incarnation: bytes, key: bytes) -> None:
        await self.recovery.leave_to_clients(incarnation, key)
        if len(self._given_up) >= WAITING_MAX:
            self._given_up.pop(next(iter(self._given_up)))
        self._given_up[incarnation, key] = self.clock.seconds() + GIVEN_UP_S

    async def _ask(
        self, tally: ReadTally, names: Sequence[str], incarnation: bytes, key: bytes
    ) -> list[str]:
        """Hears these members, and those besides that any of them awaits hints from; returns those
        whose own copy is damaged."""
        lost = []
        read = messages.Read(incarnation, key, True)
        for _ in range(2):
            replies = await _all([self._read(name, read) for name in names])
            for name, reply in zip(names, replies, strict=True):
                if isinstance(reply, messages.ReadReply):
                    # What this node had for them is lost with the rest, and they have the rest.
                    awaited = [other for other in reply.awaiting if other != self.view.name]
                    tally.answer(name, reply.record, awaited)
                else:
                    tally.fail(name, str(reply))
                    if isinstance(reply, Corrupt) and name not in tally.aside:
                        lost.append(name)
            awaited = sorted({a for known in tally.awaiting.values() for a in known})
            names = [a for a in awaited if a not in tally.records and a not in tally.faults]
            tally.aside.update(names)
        return lost

    async def _read(self, name: str, read: messages.Read) -> messages.Reply | Exception:
        asked = self.view.replica(name).call(read).addTimeout(PATIENCE_S, self.clock)
        try:
            return await asked
        except (DynamoError, CancelledError, TimeoutError) as error:
            return error

    async def _store(self, incarnation: bytes, key: bytes, tally: ReadTally, latest: bool) -> None:
        record = tally.merged(latest)
        try:
            await self.recovery.mend(incarnation, key, record, latest=latest)
        except MissingChunks as error:
            holders = others(self.view, self.view.name)
            here = self.view.replica(self.view.name)
            await supply(here, error.digests, lambda digest: fetch(digest, holders))
            await self.recovery.mend(incarnation, key, record, latest=latest)

    async def _mend_chunk(self, digest: bytes) -> bool:
        """Whether there is nothing left to do for a chunk."""
        if not ledger.references(self.recovery.copies.engine.view(), digest):
            return True
        try:
            await self.chunks.read(digest)
            return True
        except StorageFault:
            pass
        try:
            data = await fetch(digest, others(self.view, self.view.name))
            await self.chunks.write(digest, data)
        except DynamoError as error:
            log.debug("Chunk {name} stays missing: {why}", name=digest.hex(), why=error)
            return False
        self.mended += 1
        log.info("The chunk {name} is mended", name=digest.hex())
        return True


async def _all(work: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Runs coroutines at the same time: their results, in order; raises if one did."""
    outcomes: list[tuple[bool, Any]] = await DeferredList(
        [Deferred.fromCoroutine(each) for each in work], consumeErrors=True
    )
    for ok, result in outcomes:
        if not ok:
            result.raiseException()
    return [result for _, result in outcomes]


def _settle(waiting: dict[Any, None], tried: Sequence[Any], settled: Sequence[bool]) -> bool:
    """Drops what is settled, puts the rest behind the others; whether any was settled."""
    for item, done in zip(tried, settled, strict=True):
        waiting.pop(item, None)
        if not done:
            waiting[item] = None
    return any(settled)
