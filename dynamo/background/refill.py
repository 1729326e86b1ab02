"""Taking back what was on a lost disk, from the other owners of each partition.

In rounds. Of some partitions each is compared with the first of the owners it lacks something of,
many roots in one request. What
differs is pulled: the leaves that differ, the keys of those, their records as they lie on the
other's disk, many in one request and one job of the group commit, chunks where they are lacking.
After one pass through all that differed the pair is whole (`dynamo.core.refilling`): what is
written meanwhile comes as any write does, so that it is not waited for. The next round compares
what is left with the next owner; little differs then.

A slice is followed by a pause, so that the rate has a bound and clients are served in between.
Nothing is pushed: what this node has and another has not is for anti-entropy.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from dynamo.background.divergence import Divergence, Surroundings
from dynamo.core.exchanges import Pair
from dynamo.core.refilling import Refilling
from dynamo.errors import Corrupt, DynamoError, MissingChunks, PeerBroke
from dynamo.log import make_logger
from dynamo.replica.transfer import fetch
from dynamo.storage import rows
from dynamo.storage.copies import Merging
from dynamo.storage.facts import Identity
from dynamo.storage.owned import RECORDS
from dynamo.wire import messages
from dynamo.wire.codec import KEEPING

ROUND_MAX = 64
"""Partitions one round takes on; few, so that the first are whole soon."""

AT_ONCE = 2
"""Partitions pulled at a time."""

KEYS_AT_ONCE = 32
"""Keys in one request, and in one job of the group commit: two or three milliseconds."""

CHUNKS_AT_ONCE = 4
"""Chunks under way at a time, of a MiB each."""

KEYS_PER_S = 2000
BYTES_PER_S = 32 * 1024 * 1024
"""The rate, at most."""

RETRY_S = 5.0
LOST_RETRY_S = 60.0
"""When a peer that failed is tried again, or a pair of which something could not be had."""

log = make_logger()


@attrs.define(eq=False)
class Refill:
    """See the module. `identity` says whether there is anything to do, `clock` is monotonic."""

    around: Surroundings
    identity: Identity
    state: Refilling
    clock: IReactorTime
    _queue: deque[Pull] = attrs.field(factory=deque)
    _held_until: dict[str | Pair, float] = attrs.field(factory=dict)
    _chunks: DeferredSemaphore = attrs.field(factory=lambda: DeferredSemaphore(CHUNKS_AT_ONCE))
    _expected: object = None
    _tenths: int = -1

    async def step(self) -> bool:
        """Does a slice; True if there is more to do now."""
        if self.identity.whole or not self.around.keeper.trees.complete:
            return False
        if not self.identity.actor or not self._look():
            return False
        if self.state.done:
            await self._end()
            return False
        if not self._queue and not await self._compare():
            return self.state.done
        began, keys, size = self.clock.seconds(), self.state.keys, self.state.bytes
        slices = [self._queue.popleft() for _ in range(min(AT_ONCE, len(self._queue)))]
        pulled = DeferredList([Deferred.fromCoroutine(self._pull(pull)) for pull in slices])
        await pulled
        now = self.clock.seconds()
        self.state.mark(now)
        self._tell()
        owed = max(
            (self.state.keys - keys) / KEYS_PER_S, (self.state.bytes - size) / BYTES_PER_S
        ) - (now - began)
        if owed > 0:
            await deferLater(self.clock, owed)  # type: ignore[arg-type]
        return True

    def appeared(self, peer: str) -> None:
        """A member is there: what it holds is asked for at the next step."""
        self._held_until.pop(peer, None)

    # What there is to do.

    def _look(self) -> bool:
        """Takes note of what pairs there are; False if the keys have to be counted anew first."""
        keeper, ring = self.around.keeper, self.around.view.ring
        if not keeper.trees.check_copies(sorted(keeper.buckets.by_incarnation)):
            self.state.begin_anew()
            self._queue.clear()
            self._expected = None
            return False
        asked = {keeper.trees.copies_of(i) for i in keeper.buckets.by_incarnation}
        classes = tuple(sorted({*asked, ring.copies}))
        if self._expected != (ring.version, classes):
            self._expected = (ring.version, classes)
            self.state.expect(self._pairs(classes))
            self.state.mark(self.clock.seconds())
            self._tell()
        return True

    def _pairs(self, classes: tuple[int, ...]) -> list[Pair]:
        ring, me = self.around.view.ring, self.around.view.name
        return [
            (partition, peer, copies)
            for partition in range(ring.partitions)
            for copies in classes
            if me in (owners := ring.owners(partition, copies))
            for peer in owners
            if peer != me
        ]

    def _assign(self) -> dict[tuple[str, int], list[int]]:
        """The partitions to compare in one round, by the peer and the number of copies."""
        now, view, held = self.clock.seconds(), self.around.view, self._held_until
        peers = [m.name for m in view.ring.members if view.is_healthy(m.name)]
        asked = {p for p in peers if held.get(p, 0.0) <= now}
        found: dict[tuple[str, int], list[int]] = {}
        left = ROUND_MAX
        for pairs in self.state.lacking():
            able = [pair for pair in pairs if pair[1] in asked and held.get(pair, 0.0) <= now]
            if able:
                partition, peer, copies = able[0]
                found.setdefault((peer, copies), []).append(partition)
                left -= 1
                if not left:
                    break
        return found

    # What is done.

    async def _compare(self) -> bool:
        """Begins a round; whether anything came of it."""
        compared = False
        for (peer, copies), partitions in sorted(self._assign().items()):
            try:
                await self._roots(peer, copies, partitions)
            except DynamoError as error:
                self._hold(peer, error)
            else:
                compared = True
        self._tell()
        return compared

    async def _roots(self, peer: str, copies: int, partitions: list[int]) -> None:
        view, keeper = self.around.view, self.around.keeper
        mine = [keeper.trees.root(copies, p) for p in partitions]
        op = messages.TreeRoots(
            view.name, view.ring.partitions, copies, tuple(partitions), tuple(mine), True
        )
        reply = await view.replica(peer).call(op)
        if not isinstance(reply, messages.TreeRootsReply) or len(reply.roots) != len(partitions):
            raise PeerBroke(peer, "did not answer with so many roots")
        if b"" in reply.roots:
            self._hold(peer, "it has not counted its keys yet")
        for partition, theirs in zip(partitions, reply.roots, strict=True):
            here = keeper.trees.root(copies, partition)
            if theirs and here == theirs:
                self.state.took((partition, peer, copies))
                keeper.exchanges.note((partition, peer, copies), keeper.wall_clock(), True)
            elif theirs and here:
                self._queue.append(Pull(self.around, peer, copies, partition, refill=self))

    async def _pull(self, pull: Pull) -> None:
        """Does a slice of one partition, and puts it back if there is more of it."""
        if not self.around.view.is_healthy(pull.peer):
            return
        since = self.around.grace.enter()
        try:
            done = await pull.step(self.clock.seconds())
        except DynamoError as error:
            self._hold(pull.peer, error)
            return
        except Exception:
            self._hold(pull.peer, "pulling failed")
            log.failure("Pulling from {peer} failed", peer=pull.peer)
            return
        finally:
            self.around.grace.leave(since)
        pair = (pull.partition, pull.peer, pull.copies)
        if not done:
            self._queue.append(pull)
        elif not pull.failed:
            self.state.took(pair)
        else:
            self._held_until[pair] = self.clock.seconds() + LOST_RETRY_S

    def _hold(self, peer: str, why: object) -> None:
        """Asks a peer nothing more for a while."""
        log.debug("{peer} is asked again later: {why}", peer=peer, why=why)
        self._held_until[peer] = self.clock.seconds() + RETRY_S

    async def fetch(self, digest: bytes, peer: str) -> None:
        """Gets a chunk onto this disk: from `peer`, or who else has it."""
        await self._chunks.run(lambda: Deferred.fromCoroutine(self._fetch(digest, peer)))

    async def _fetch(self, digest: bytes, peer: str) -> None:
        view = self.around.view
        names = [m.name for m in view.ring.members if m.name != view.name]
        names.sort(key=lambda name: (name != peer, not view.is_healthy(name)))
        data = await fetch(digest, [view.replica(name) for name in names])
        await view.replica(view.name).write_chunk(digest, data)
        self.state.bytes += len(data)

    # What is said of it.

    def _tell(self) -> None:
        tenths = self.state.tenths()
        if tenths == self._tenths or self.state.done:
            return
        began, self._tenths = self._tenths < 0, tenths
        progress = self.state.progress(self.clock.seconds())
        if began:
            log.info(
                "This node takes back what was on its disk: {left} partitions are to be compared",
                left=progress.partitions_left,
            )
        else:
            log.info(
                "{done} partitions are whole, {left} are left; took {size} bytes, "
                "{rate:.0f} a second",
                done=progress.partitions_done,
                left=progress.partitions_left,
                size=progress.bytes,
                rate=progress.bytes_per_second,
            )

    async def _end(self) -> None:
        progress = self.state.progress(self.clock.seconds())
        await self.identity.end_refill()
        log.info(
            "This node is whole: {done} partitions, for which it took {keys} keys and {size} bytes",
            done=progress.partitions_done,
            keys=self.state.keys,
            size=progress.bytes,
        )


@attrs.define(eq=False)
class Pull(Divergence):
    """A partition of which this node takes what `peer` holds, in one pass."""

    refill: Refill = attrs.field(kw_only=True)
    leaves_at_once: int = 256

    async def step(self, now: float) -> bool:
        """Pulls one batch of keys; whether the pass is through."""
        if self._leaves is None:
            self._leaves = await self._descend()
        if not self._keys and self._leaves:
            self._keys.extend(await self._list())
        if self._keys:
            keys = [self._keys.popleft() for _ in range(min(KEYS_AT_ONCE, len(self._keys)))]
            taken = await self._take(keys)
            self._keys.extendleft(reversed(keys[taken:]))
        return not self._keys and not self._leaves

    async def _take(self, keys: list[tuple[bytes, bytes]]) -> int:
        """Merges what the peer holds of the first of these keys; how many that were."""
        reply = await self._replica.call(messages.Pull(tuple(keys)))
        if not isinstance(reply, messages.PullReply) or not 0 < len(reply.records) <= len(keys):
            raise PeerBroke(self.peer, "did not answer with records")
        found: list[Merging] = []
        for (incarnation, key), data in zip(keys, reply.records, strict=False):
            bucket = self.around.keeper.buckets.by_incarnation.get(incarnation)
            if bucket is None or not data:
                continue
            try:
                record = KEEPING[RECORDS].decode(rows.row(incarnation, key), data)
            except Corrupt as error:
                # Damaged there, or still being mended: the pair is not whole without it.
                self.failed += 1
                log.error("{peer} has lost a record: {why}", peer=self.peer, why=error)
                continue
            found.append((incarnation, key, record, bucket.properties.conflicts == "latest"))
        await self._merge_all(found)
        state = self.refill.state
        state.keys += len(found)
        state.bytes += sum(len(data) for data in reply.records)
        return len(reply.records)

    async def _merge_all(self, found: list[Merging]) -> None:
        if not found:
            return
        copies = self.around.keeper.copies
        outcomes = await copies.merge_all(found)
        short: list[Merging] = []
        for one, outcome in zip(found, outcomes, strict=True):
            if isinstance(outcome, MissingChunks):
                short.append(one)
            elif isinstance(outcome, DynamoError):
                raise outcome
        for one in short:
            await self._merge_with_chunks(one)

    async def _merge_with_chunks(self, one: Merging) -> None:
        """Merges a record whose chunks are not all here; it has failed if nobody has them."""
        replica = self.refill.around.view.replica(self.refill.around.view.name)
        digests = sorted(one[2].chunk_digests())
        try:
            for i in range(0, len(digests), 1000):
                asked = messages.ChunksMissing(tuple(digests[i : i + 1000]))
                reply = await replica.call(asked)
                assert isinstance(reply, messages.ChunksReply)
                calls = [
                    Deferred.fromCoroutine(self.refill.fetch(digest, self.peer))
                    for digest in reply.digests
                ]
                outcomes: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
                for ok, result in outcomes:
                    if not ok:
                        result.raiseException()
            incarnation, key, record, latest = one
            await self.around.keeper.copies.merge(incarnation, key, record, latest=latest)
        except MissingChunks as error:
            self.failed += 1
            log.error("{key} could not be had: {why}", key=repr(one[1][:80]), why=error)
