"""Pulling what other members hold of partitions, at a bounded rate, until pair by pair it is here.

In rounds. Of some partitions each is compared with the first of the members something is lacking
of, many roots in one request. What differs is pulled: the leaves that differ, the keys of those,
their records as they lie on the other's disk, many in one request and one job of the group commit,
chunks where they are lacking. After one pass through all that differed the pair is whole
(`dynamo.core.refilling`): what is written meanwhile comes as any write does, so that it is not
waited for. The next round compares what is left with the next member; little differs then.

A slice is followed by a pause, so that the rate has a bound and clients are served in between,
this node's and those of the members pulled from, who say how much they have to give. A member that
failed is left alone for a while. Nothing is pushed: what this node has and another has
not is for anti-entropy.
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
from dynamo.core.transfers import MOVING_MAX, Moving
from dynamo.errors import Corrupt, DynamoError, MissingChunks, PeerBroke
from dynamo.log import make_logger
from dynamo.replica.transfer import fetch, others
from dynamo.storage import rows
from dynamo.storage.copies import Merging
from dynamo.storage.owned import RECORDS
from dynamo.wire import messages
from dynamo.wire.codec import KEEPING

ROUND_MAX = 64
"""Partitions one round takes on; few, so that the first are whole soon."""

AT_ONCE = 2
"""Partitions pulled at a time."""

KEYS_AT_ONCE = 16
"""Keys in one request, and in one job of the group commit: a millisecond or so, for which writes of
clients may have to wait."""

CHUNKS_AT_ONCE = 4
"""Chunks under way at a time, of a MiB each."""

KEYS_PER_S = 2000
BYTES_PER_S = 32 * 1024 * 1024
"""The rate, at most."""

RETRY_S = 5.0
LOST_RETRY_S = 60.0
"""When a peer that failed is tried again, or a pair of which something could not be had."""

GRANT_S = 10.0
"""How long a member's word on its share counts."""

log = make_logger()


@attrs.define(eq=False)
class Pulling:
    """Pulls the pairs that `state` expects. `clock` is monotonic.

    `moves`: for a change of the ring, and not because anything was lost here. Then a member that
    lacks what it lost itself is no source. And a pair counts as whole without a record of which no
    member has all chunks, if that was so twice: the ring must not wait for what is lost. `told`:
    how many tenths of it were logged; below 0, not even that it has begun.
    """

    around: Surroundings
    state: Refilling
    clock: IReactorTime
    moves: bool = False
    told: int = -1
    _queue: deque[Pull] = attrs.field(factory=deque)
    _held_until: dict[str | Pair, float] = attrs.field(factory=dict)
    _chunks: DeferredSemaphore = attrs.field(factory=lambda: DeferredSemaphore(CHUNKS_AT_ONCE))
    _tried: set[Pair] = attrs.field(factory=set)
    _underway: list[Pull] = attrs.field(factory=list)
    _grants: dict[str, tuple[float, float]] = attrs.field(factory=dict)

    async def step(self) -> bool:
        """Does a slice; True if anything came of it. Once `state` is done there is nothing to do.

        Not to be called before this node has counted its keys.
        """
        if not self._queue and not await self._compare():
            return False
        began, keys, size = self.clock.seconds(), self.state.keys, self.state.bytes
        slices = [self._queue.popleft() for _ in range(min(AT_ONCE, len(self._queue)))]
        self._underway = slices
        await DeferredList([Deferred.fromCoroutine(self._pull(pull)) for pull in slices])
        self._underway = []
        now = self.clock.seconds()
        self.state.mark(now)
        owed = max(
            (self.state.keys - keys) / KEYS_PER_S, (self.state.bytes - size) / BYTES_PER_S
        ) - (now - began)
        if owed > 0:
            await deferLater(self.clock, owed)  # type: ignore[arg-type]
        return True

    def grant(self, peer: str, share: float) -> None:
        """A member that is pulled from says what part of its time there is for that."""
        self._grants[peer] = (self.clock.seconds(), share)

    def granted(self) -> float:
        """The least of what members have said lately."""
        since = self.clock.seconds() - GRANT_S
        self._grants = {peer: told for peer, told in self._grants.items() if told[0] > since}
        return min((share for _, share in self._grants.values()), default=1.0)

    def recount(self) -> bool:
        """Whether this node's keys are counted by what buckets want now; if they have to be counted
        anew, all is compared anew as well."""
        keeper = self.around.keeper
        if keeper.trees.check_copies(sorted(keeper.buckets.by_incarnation)):
            return True
        self.begin_anew()
        return False

    def begin_anew(self) -> None:
        """Nothing counts as whole any more."""
        self.state.begin_anew()
        self._queue.clear()

    def tell(self, beginning: str, done: str) -> None:
        """Logs that it begins, with `left` partitions in that sentence, and each further tenth of
        them that is `done`, in a word."""
        tenths = self.state.tenths()
        if tenths == self.told or self.state.done:
            return
        began, self.told = self.told < 0, tenths
        progress = self.state.progress(self.clock.seconds())
        if began:
            log.info(beginning, left=progress.partitions_left)
        else:
            log.info(
                "{n} partitions are {done}, {left} are left; took {size} bytes, "
                "{rate:.0f} a second",
                n=progress.partitions_done,
                done=done,
                left=progress.partitions_left,
                size=progress.bytes,
                rate=progress.bytes_per_second,
            )

    def appeared(self, peer: str) -> None:
        """A member is there: what it holds is asked for at the next step."""
        self._held_until.pop(peer, None)

    def moving(self, now: float) -> list[Moving]:
        """The partitions that are being pulled, at most so many as anybody wants to read."""
        pulls = [*self._underway, *(p for p in self._queue if p not in self._underway)]
        begun = [pull for pull in pulls if pull.began is not None]
        return [pull.moving(now) for pull in begun[:MOVING_MAX]]

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
        return compared

    async def _roots(self, peer: str, copies: int, partitions: list[int]) -> None:
        view, keeper = self.around.view, self.around.keeper
        mine = [keeper.trees.root(copies, p) for p in partitions]
        op = messages.TreeRoots(
            view.name,
            view.ring.partitions,
            copies,
            tuple(partitions),
            tuple(mine),
            not self.moves,
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
                self._queue.append(Pull(self.around, peer, copies, partition, pulling=self))

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
        elif self.moves and not pull.damaged and pair in self._tried:
            log.error(
                "{n} records of partition {partition} are left behind: nobody has their chunks",
                n=pull.failed,
                partition=pull.partition,
            )
            self.state.took(pair)
        else:
            self._tried.add(pair)
            self._held_until[pair] = self.clock.seconds() + LOST_RETRY_S

    def _hold(self, peer: str, why: object) -> None:
        """Asks a peer nothing more for a while."""
        log.debug("{peer} is asked again later: {why}", peer=peer, why=why)
        self._held_until[peer] = self.clock.seconds() + RETRY_S

    async def fetch(self, digest: bytes, peer: str) -> int:
        """Gets a chunk onto this disk: from `peer`, or who else has it. How many bytes it has."""
        return await self._chunks.run(lambda: Deferred.fromCoroutine(self._fetch(digest, peer)))

    async def _fetch(self, digest: bytes, peer: str) -> int:
        view = self.around.view
        data = await fetch(digest, [view.replica(peer), *others(view, peer)])
        await view.replica(view.name).write_chunk(digest, data)
        return len(data)


@attrs.define(eq=False)
class Pull(Divergence):
    """A partition of which this node takes what `peer` holds, in one pass.

    `began`: when its first slice did, None before. `size` bytes came of it so far, with `done` keys
    of the `listed` known to differ. `damaged`: records that failed because the peer's are.
    """

    pulling: Pulling = attrs.field(kw_only=True)
    leaves_at_once: int = 256
    began: float | None = None
    size: int = 0
    done: int = 0
    listed: int = 0
    damaged: int = 0

    async def step(self, now: float) -> bool:
        """Pulls one batch of keys; whether the pass is through."""
        if self.began is None:
            self.began = now
        if self._leaves is None:
            self._leaves = await self._descend()
        if not self._keys and self._leaves:
            self._keys.extend(await self._list())
            self.listed = self.done + len(self._keys)
        if self._keys:
            keys = [self._keys.popleft() for _ in range(min(KEYS_AT_ONCE, len(self._keys)))]
            taken = await self._take(keys)
            self._keys.extendleft(reversed(keys[taken:]))
        return not self._keys and not self._leaves

    def moving(self, now: float) -> Moving:
        """For whoever looks."""
        seconds = max(now - (self.began or 0.0), 0.001)
        left = None
        # Of leaves that are not listed yet nobody knows how many keys they have.
        if self.done and not self._leaves:
            left = round(seconds * (self.listed - self.done) / self.done, 1)
        rate = round(self.size / seconds, 1)
        me = self.around.view.name
        return Moving(self.peer, me, self.partition, self.size, rate, left)

    async def _take(self, keys: list[tuple[bytes, bytes]]) -> int:
        """Merges what the peer holds of the first of these keys; how many that were."""
        reply = await self._replica.call(messages.Pull(tuple(keys)))
        if not isinstance(reply, messages.PullReply) or not 0 < len(reply.records) <= len(keys):
            raise PeerBroke(self.peer, "did not answer with records")
        self.pulling.grant(self.peer, reply.share)
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
                self.damaged += 1
                name = repr(key[:80])
                log.error("{peer} has lost {key}: {why}", peer=self.peer, key=name, why=error)
                continue
            found.append((incarnation, key, record, bucket.properties.conflicts == "latest"))
        await self._merge_all(found)
        self.pulling.state.keys += len(found)
        self.done += len(reply.records)
        self._count(sum(len(data) for data in reply.records))
        return len(reply.records)

    def _count(self, size: int) -> None:
        self.size += size
        self.pulling.state.bytes += size

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
        replica = self.around.view.replica(self.around.view.name)
        digests = sorted(one[2].chunk_digests())
        try:
            for i in range(0, len(digests), 1000):
                asked = messages.ChunksMissing(tuple(digests[i : i + 1000]))
                reply = await replica.call(asked)
                assert isinstance(reply, messages.ChunksReply)
                calls = [
                    Deferred.fromCoroutine(self.pulling.fetch(digest, self.peer))
                    for digest in reply.digests
                ]
                outcomes: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
                for ok, result in outcomes:
                    if not ok:
                        result.raiseException()
                    self._count(result)
            incarnation, key, record, latest = one
            await self.around.keeper.copies.merge(incarnation, key, record, latest=latest)
        except MissingChunks as error:
            self.failed += 1
            log.error("{key} could not be had: {why}", key=repr(one[1][:80]), why=error)
