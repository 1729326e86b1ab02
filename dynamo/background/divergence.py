"""One partition that differs between this node and another owner: found out where, and mended.

First the nodes that differ are followed down to leaves and the keys of those are listed on both
sides. A moment later, so that writes under way have arrived everywhere, each key that differed is
looked at again (`Inspect`); what still differs is pulled, merged and pushed, chunks first where
they are lacking. A key that cannot be mended is left to the next round and holds up no other.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore

from dynamo.core.grace import Grace
from dynamo.core.record import Record
from dynamo.errors import DynamoError, PeerBroke, PeerFault
from dynamo.log import make_logger
from dynamo.ports import ClusterView, Replica
from dynamo.replica.transfer import deliver
from dynamo.replica.trees import TreeKeeper
from dynamo.storage import places
from dynamo.wire import messages

LEAVES_AT_ONCE = 16
KEYS_AT_ONCE = 64
MENDING_MAX = 8
"""Keys under way at a time; each may have a chunk of a MiB in memory."""

SETTLE_S = 1.0
"""Seconds until keys that differed are looked at again."""

log = make_logger()

Key = tuple[bytes, bytes]


@attrs.define(eq=False)
class Tally:
    """What anti-entropy has done since the node started.

    `compared`: pairs of roots. `listed`: keys whose fingerprints were compared. `read`: keys whose
    records were. `repaired`: keys that were mended, on either side.
    """

    compared: int = 0
    listed: int = 0
    read: int = 0
    repaired: int = 0


@attrs.define(eq=False)
class Surroundings:
    """What mending needs of the node."""

    view: ClusterView
    keeper: TreeKeeper
    grace: Grace = attrs.field(factory=Grace)
    tally: Tally = attrs.field(factory=Tally)
    slots: DeferredSemaphore = attrs.field(factory=lambda: DeferredSemaphore(MENDING_MAX))

    def classes(self) -> tuple[int, ...]:
        """The numbers of copies that buckets ask for, and the cluster's default."""
        return tuple(sorted(self.keeper.buckets.classes(self.view.ring.copies)))


@attrs.define(eq=False)
class Divergence:
    """The partition `partition` differs from that of `peer`, for keys of so many `copies`.

    `ready_at`: not to be stepped before that time. `confirmed`: keys that still differed when
    looked at again; `failed`: those of them that could not be mended.
    """

    around: Surroundings
    peer: str
    copies: int
    partition: int
    ready_at: float = 0.0
    leaves_at_once: int = LEAVES_AT_ONCE
    confirmed: int = 0
    failed: int = 0
    _leaves: list[int] | None = None
    _after: bytes = b""
    _keys: deque[Key] = attrs.field(factory=deque)

    async def step(self, now: float) -> bool:
        """Does a stretch of it; whether all of it is done. Raises what the peer's call does."""
        if self._leaves is None:
            self._leaves = await self._descend()
        elif self._keys:
            some = [self._keys.popleft() for _ in range(min(KEYS_AT_ONCE, len(self._keys)))]
            await self._mend_all(some)
        if self._keys:
            return False
        if not self._leaves:
            return True
        self._keys.extend(await self._list())
        if self._keys:
            self.ready_at = now + SETTLE_S
        return not self._keys and not self._leaves

    @property
    def _replica(self) -> Replica:
        return self.around.view.replica(self.peer)

    async def _descend(self) -> list[int]:
        """The leaves that differ."""
        trees = self.around.keeper.trees
        shape, nodes = trees.shape, [0]
        for level in range(shape.depth):
            op = messages.TreeLevel(self.copies, self.partition, level, tuple(nodes))
            reply = await self._replica.call(op)
            if not isinstance(reply, messages.TreeLevelReply):
                raise PeerBroke(self.peer, "did not answer with a level of a tree")
            children = shape.children(level, nodes)
            leaves = trees.leaves(self.copies, self.partition)
            try:
                nodes = shape.differing(leaves, level + 1, children, reply.hashes)
            except ValueError as error:
                raise PeerBroke(self.peer, str(error)) from error
        return nodes

    async def _list(self) -> list[Key]:
        """The next keys that differ, of up to `leaves_at_once` leaves."""
        assert self._leaves is not None
        leaves = self._leaves[: self.leaves_at_once]
        op = messages.TreeKeys(self.copies, self.partition, tuple(leaves), self._after)
        reply = await self._replica.call(op)
        if not isinstance(reply, messages.TreeKeysReply):
            raise PeerBroke(self.peer, "did not answer with keys")
        keeper = self.around.keeper
        mine, my_last = keeper.listing(self.copies, self.partition, leaves, self._after)
        theirs = {places.place(inc, key): (inc, key, mark) for inc, key, mark in reply.keys}
        self.around.tally.listed += len(mine) + len(theirs)
        ends = [last for last in (my_last, reply.last) if last]
        horizon = min(ends) if ends else b""
        if horizon and horizon <= self._after:
            raise PeerBroke(self.peer, "goes round in circles with its keys")
        if not horizon:
            del self._leaves[: self.leaves_at_once]
        self._after = horizon
        differing = []
        for place in sorted({*mine, *theirs}):
            if horizon and place > horizon:
                break
            ours, other = mine.get(place), theirs.get(place)
            if ours is None and other is not None:
                if other[0] in keeper.buckets.by_incarnation:
                    differing.append((other[0], other[1]))
            elif ours is not None and (other is None or other[2] != ours.fingerprint):
                differing.append((ours.incarnation, ours.key))
        return differing

    async def _mend_all(self, keys: list[Key]) -> None:
        slots = self.around.slots
        calls = [slots.run(self._mending, key) for key in keys]
        outcomes: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
        lost: PeerFault | None = None
        for (ok, result), (_, key) in zip(outcomes, keys, strict=True):
            if ok:
                continue
            self.failed += 1
            error = result.value
            if isinstance(error, PeerFault):
                lost = error
            elif isinstance(error, DynamoError):
                log.error("{key} could not be mended: {why}", key=repr(key[:80]), why=error)
            else:
                log.failure("{key} could not be mended", failure=result, key=repr(key[:80]))
        if lost is not None:
            raise lost

    async def _mend_held(self, key: Key) -> None:
        since = self.around.grace.enter()
        try:
            await self._mend(*key)
        finally:
            self.around.grace.leave(since)

    def _mending(self, key: Key) -> Deferred[None]:
        return Deferred.fromCoroutine(self._mend_held(key))

    async def _mend(self, incarnation: bytes, key: bytes) -> None:
        """Makes both sides' copies of one key the merge of both, if they still differ."""
        copies, view, peer = self.around.keeper.copies, self.around.view, self._replica
        bucket = self.around.keeper.buckets.by_incarnation.get(incarnation)
        if bucket is None:
            return
        latest = bucket.properties.conflicts == "latest"
        self.around.tally.read += 1
        reply = await peer.call(messages.Inspect(incarnation, key))
        if not isinstance(reply, messages.InspectReply):
            raise PeerBroke(self.peer, "did not answer with a record")
        mine, theirs = copies.apart(incarnation, key)[0], reply.owned
        if mine.same_versions(theirs):
            return
        self.confirmed += 1
        if not mine.strip().merge(theirs, latest=latest).same_versions(mine):
            full = await peer.call(messages.Read(incarnation, key, True))
            if not isinstance(full, messages.ReadReply) or _is_short(full.record):
                raise PeerBroke(self.peer, "did not answer with a whole record")
            pulled = messages.Merge(incarnation, key, full.record, latest)
            await deliver(view, view.replica(view.name), pulled)
            mine = copies.apart(incarnation, key)[0]
        if not mine.same_versions(theirs):
            await deliver(view, peer, messages.Merge(incarnation, key, mine, latest))
        self.around.tally.repaired += 1


def _is_short(record: Record) -> bool:
    """Whether bytes of a version were left out."""
    return any(version.stripped for version in record.versions)
