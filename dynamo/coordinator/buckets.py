"""Making, changing, finding and deleting buckets.

A change of one name is serialized at one node, the first healthy of the name's preference list:
it asks a quorum what they know, decides, and answers when every live member has the new state on
disk. That is dear and rare; finding a bucket is neither: every node keeps all states in memory
and asks others only before it would say that a bucket does not exist.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from dynamo.coordinator.terms import Defaults
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.clock import HybridClock
from dynamo.core.quorum import majority
from dynamo.errors import (
    BucketExists,
    NoSuchBucket,
    PeerFault,
    PeerUnreachable,
    QuorumNotMet,
)
from dynamo.log import make_logger
from dynamo.ports import ClusterView
from dynamo.storage.facts import BucketTable
from dynamo.wire import messages
from dynamo.wire.messages import BucketMade, BucketMake

NAMESPACE = b"buckets!"
RETRY_S = 0.1
LOCKS_MAX = 10_000
PATIENCE_S = 2.0
"""How long one member may take to answer; one that is silent will be found dead meanwhile."""

log = make_logger()


@attrs.define(eq=False)
class Buckets:
    """The bucket operations of this node."""

    view: ClusterView
    table: BucketTable
    clock: IReactorTime
    hybrid: HybridClock
    wall_ms: Callable[[], int]
    defaults: Defaults
    _locks: dict[str, DeferredLock] = attrs.field(factory=dict)

    async def find(self, name: str) -> Bucket:
        """The bucket; `NoSuchBucket` only after a quorum said so."""
        bucket = self.table.get(name)
        if bucket.exists:
            return bucket
        bucket = await self._consult(name)
        if not bucket.exists:
            raise NoSuchBucket(name)
        return bucket

    async def change(self, op: BucketMake) -> BucketMade:
        """Gets a change done by the node that serializes this name's changes.

        Raises `BucketExists`, `NoSuchBucket`, `QuorumNotMet`.
        """
        ring = self.view.ring
        ranking = ring.ranking(ring.partition(NAMESPACE, op.name.encode()))
        doubtful = False
        why = "no member answers"
        for node in [name for name in ranking if self.view.is_healthy(name)]:
            if doubtful and op.change == "create":
                # The first try may have made it: then it is there and that is what was asked.
                op = _content_with(op)
            try:
                if node == self.view.name:
                    return await self.make(op)
                reply = await self.view.replica(node).call(op)
            except PeerFault as error:
                refused = isinstance(error, PeerUnreachable) and not error.sent
                doubtful, why = doubtful or not refused, str(error)
                continue
            except NoSuchBucket:
                if doubtful and op.change == "delete":
                    # The first try did it, or somebody else meanwhile: it is gone either way.
                    return BucketMade(node, await self._consult(op.name), False)
                raise
            assert isinstance(reply, BucketMade)
            return reply
        raise QuorumNotMet("change of a bucket", 0, 1, why)

    async def make(self, op: BucketMake) -> BucketMade:
        """Does a change as the node that serializes; also the handler of a forwarded one."""
        if len(self._locks) > LOCKS_MAX:
            self._locks = {n: lock for n, lock in self._locks.items() if lock.locked}
        lock = self._locks.setdefault(op.name, DeferredLock())
        await lock.acquire()
        try:
            bucket = await self._consult(op.name)
            new = self._decide(op, bucket)
            # Also where it is done already: the change that did it may have reached only some.
            await self._tell_all(new)
            return BucketMade(self.view.name, new, new.exists and not bucket.exists)
        finally:
            lock.release()

    def _decide(self, op: BucketMake, bucket: Bucket) -> Bucket:
        stamp = self.hybrid.tick(self.wall_ms(), after=bucket.stamp)
        wanted = Properties(n=op.n, r=op.r, w=op.w, conflicts=op.conflicts, quorum=op.quorum)
        if op.change == "delete":
            if not bucket.exists:
                raise NoSuchBucket(op.name)
            return bucket.delete(stamp)
        if not bucket.exists:
            return bucket.create(stamp, self.wall_ms(), wanted)
        if op.change == "create":
            raise BucketExists(op.name)
        return bucket if bucket.properties == wanted else bucket.change(stamp, wanted)

    async def _consult(self, name: str) -> Bucket:
        """What a quorum of the name's owners and this node know of it."""
        ring = self.view.ring
        ranking = ring.ranking(ring.partition(NAMESPACE, name.encode()))
        needed = majority(min(self.defaults.n, len(ranking)))
        others = [n for n in ranking if n != self.view.name and self.view.is_healthy(n)]
        asked = others[: self.defaults.n]
        bucket, answers, faults = self.table.get(name), 1, []
        calls = []
        for node in asked:
            call = self.view.replica(node).call(messages.BucketRead(name))
            calls.append(call.addTimeout(min(PATIENCE_S, self.defaults.timeout), self.clock))
        for node, (ok, reply) in zip(
            asked, await DeferredList(calls, consumeErrors=True), strict=True
        ):
            if ok and isinstance(reply, messages.BucketsReply):
                answers += 1
                for state in reply.buckets:
                    bucket = bucket.merge(state)
            else:
                faults.append(node)
        if answers < needed:
            why = f"no answer from {', '.join(faults) or 'any other member'}"
            raise QuorumNotMet("look-up of the bucket", answers, needed, why)
        if bucket != self.table.get(name):
            await self.table.merge([bucket])
        return bucket

    async def _tell_all(self, bucket: Bucket) -> None:
        """Returns when every live member has the state on disk, and a quorum of the owners."""
        await self.table.merge([bucket])
        known = {self.view.name}
        deadline = self.clock.seconds() + self.defaults.timeout
        needed = majority(min(self.defaults.n, len(self.view.ring.members)))
        while True:
            live = [m.name for m in self.view.members() if m.liveness in ("alive", "suspect")]
            lacking = [name for name in live if name not in known]
            if not lacking and len(known) >= needed:
                return
            left = deadline - self.clock.seconds()
            if left <= 0:
                why = f"{', '.join(lacking) or 'too few members'} did not take it"
                raise QuorumNotMet("change of a bucket", len(known), max(needed, len(live)), why)
            calls = [self._tell(name, bucket, left) for name in lacking]
            for name, (ok, took) in zip(lacking, await DeferredList(calls), strict=True):
                if ok and took:
                    known.add(name)
            if len(known) < needed or any(name not in known for name in lacking):
                await deferLater(self.clock, min(RETRY_S, max(left, 0)))

    def _tell(self, name: str, bucket: Bucket, seconds: float) -> Deferred[bool]:
        told = self.view.replica(name).call(messages.BucketMerge((bucket,)))
        told.addTimeout(min(PATIENCE_S, seconds), self.clock)

        def refused(failure: object) -> bool:
            return False

        return told.addCallbacks(lambda _: True, refused)


def _content_with(op: BucketMake) -> BucketMake:
    """The same change, content with finding it done."""
    return BucketMake(op.name, "put", op.n, op.r, op.w, op.conflicts, op.quorum)
