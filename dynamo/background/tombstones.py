"""Reaps tombstones, and no timer says when (Dynamo has no deletes; riak_kv issue 679 says why not).

The first owner of a key asks all members of the ring whether its tombstone may go, many keys in one
batch (`dynamo.replica.graves` has the questions). One that is away, or that holds anything else of
a key, or was sent anything of it meanwhile, stops it, and it is tried again later. A crash between
two burials leaves the tombstone with some owners: anti-entropy gives it back to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from dynamo.core.merkle import fingerprint
from dynamo.core.sightings import Origin
from dynamo.errors import Corrupt, DynamoError, NotReady, PeerBroke
from dynamo.log import make_logger
from dynamo.ports import ClusterView
from dynamo.replica.graves import ring_of
from dynamo.storage import graves
from dynamo.storage.copies import Copies
from dynamo.storage.engine import View
from dynamo.storage.facts import BucketTable
from dynamo.storage.owned import owned
from dynamo.wire import reaping
from dynamo.wire.bases import Op
from dynamo.wire.reaping import Grave

BATCH = 128
"""Tombstones asked about at once: every member looks them all up between two of its commits."""

ROWS = 1024
"""Tombstones looked through for one batch."""

POLL_S = 0.1
POLLS_MAX = 200
"""Questions whether all has ended that was under way, until the batch is left to later."""

ROUNDS = 2**62

log = make_logger()


@attrs.define(eq=False)
class TombstoneReaper:
    """See the module. `copies_of(incarnation)`: how many owners a key of the bucket has.

    `waits_for`: why nothing is reaped although there are tombstones, "" if nothing is in the way;
    `reaped`: how many this node had reaped.
    """

    view: ClusterView
    copies: Copies
    buckets: BucketTable
    copies_of: Callable[[bytes], int]
    clock: IReactorTime
    rng: Random
    waits_for: str = ""
    reaped: int = 0
    _after: bytes = b""

    async def step(self) -> bool:
        """Tries one batch; True if anything was reaped, and so there may be more."""
        if not self.pending():
            self._note("")
            return False
        if self.view.layout.stage != "steady":
            self._note("the ring is changing")
            return False
        names = self._names()
        away = [name for name in names if not self.view.is_healthy(name)]
        if away:
            self._note(f"{', '.join(away)} must be there to agree")
            return False
        batch = self._gather()
        if not batch:
            return False
        try:
            return await self._reap(names, batch) > 0
        except DynamoError as error:
            self._note(str(error))
            return False

    def progress(self) -> tuple[int, int]:
        """Tombstones this process had reaped, and those this node still has."""
        return self.reaped, self.pending()

    def pending(self) -> int:
        """Tombstones this node holds as an owner."""
        return graves.count(self.copies.engine.view())

    def _names(self) -> list[str]:
        """Whom to ask: the ring, and who is about to have a place in it."""
        names = {member.name for member in self.view.ring.members}
        joining = [m for m in self.view.members() if m.role == "joining"]
        names.update(m.name for m in joining if m.liveness in ("alive", "suspect"))
        return sorted(names)

    def _gather(self) -> list[Grave]:
        """The next tombstones that this node is the first owner of."""
        ring, view, found = self.view.ring, self.copies.engine.view(), []
        after, self._after = self._after, b""
        for seen, (where, incarnation, key) in enumerate(graves.walk(view, after), start=1):
            if incarnation in self.buckets.by_incarnation:
                partition = ring.partition(incarnation, key)
                owners = ring.owners(partition, self.copies_of(incarnation))
                if owners[:1] == (self.view.name,):
                    found += _grave(view, where, incarnation, key)
            if len(found) >= BATCH or seen >= ROWS:
                self._after = where
                break
        return found

    async def _reap(self, names: Sequence[str], batch: list[Grave]) -> int:
        """Asks the questions; how many of the batch went from this disk."""
        me, ring, number = self.view.name, ring_of(self.view), self.rng.randrange(ROUNDS)
        look = reaping.GravesLook(me, ring, number, tuple(batch))
        batch = _agreed(batch, await self._ask_all(names, look))
        if not batch:
            self._note("the owners differ, or hints for them are on their way")
            return 0
        fences = await self._settle(names, ring)
        keys = tuple([(incarnation, key) for incarnation, key, _ in batch])
        seal = reaping.GravesSeal(me, ring, number, keys, tuple(fences))
        batch = _agreed(batch, await self._ask_all(names, seal))
        if not batch:
            return 0
        gone = await self._bury(names, reaping.GravesBury(me, number, tuple(batch)))
        self._note("")
        self.reaped += gone
        log.debug("{n} tombstones were reaped", n=gone)
        return gone

    async def _settle(self, names: Sequence[str], ring: str) -> list[Origin]:
        """Waits until all has ended that is under way anywhere, and what that sent; the fences."""
        calls = [Deferred.fromCoroutine(self._settle_one(name, ring)) for name in names]
        return await _all(calls)

    async def _settle_one(self, name: str, ring: str) -> Origin:
        reply = await self._settled(name, ring, 0)
        for _ in range(2):
            fence = reply.fence
            mark, polls = reply.mark, 0
            reply = await self._settled(name, ring, mark)
            while not reply.ended:
                polls += 1
                if polls > POLLS_MAX:
                    raise NotReady(f"{name} does not come to the end of what is under way there.")
                await deferLater(self.clock, POLL_S)  # type: ignore[arg-type]
                reply = await self._settled(name, ring, mark)
        return fence

    async def _settled(self, name: str, ring: str, mark: int) -> reaping.GravesSettled:
        reply = await self.view.replica(name).call(reaping.GravesSettle(ring, mark))
        if not isinstance(reply, reaping.GravesSettled):
            raise PeerBroke(name, "did not say whether it has settled")
        return reply

    async def _ask_all(self, names: Sequence[str], op: Op) -> list[tuple[bool, ...]]:
        """Everybody's answers; raises what the first that failed raised."""
        replies = await _all([self.view.replica(name).call(op) for name in names])
        answers = []
        for name, reply in zip(names, replies, strict=True):
            if not isinstance(reply, reaping.GravesReply):
                raise PeerBroke(name, "did not answer about tombstones")
            answers.append(reply.yes)
        return answers

    async def _bury(self, names: Sequence[str], bury: reaping.GravesBury) -> int:
        """Has everybody bury; this node last, so that it tries again what others did not do."""
        others = [self.view.replica(name).call(bury) for name in names if name != self.view.name]
        await _all(others)
        reply = await self.view.replica(self.view.name).call(bury)
        return len(reply.yes) if isinstance(reply, reaping.GravesReply) else 0

    def _note(self, why: str) -> None:
        if why != self.waits_for:
            self.waits_for = why
            if why:
                log.info("Deletes keep their tombstones: {why}", why=why)


def _grave(view: View, where: bytes, incarnation: bytes, key: bytes) -> list[Grave]:
    """What is asked about a tombstone; nothing if it is none any more."""
    try:
        record = owned(view, incarnation, key)
    except Corrupt as error:
        log.error("A tombstone is damaged: {why}", why=error)
        return []
    return [(incarnation, key, fingerprint(where, record))] if record.is_tombstone() else []


def _agreed(batch: list[Grave], answers: list[tuple[bool, ...]]) -> list[Grave]:
    """Those of the batch to which everybody said yes."""
    if any(len(yes) != len(batch) for yes in answers):
        return []
    return [grave for i, grave in enumerate(batch) if all(yes[i] for yes in answers)]


async def _all(calls: Sequence[Deferred[Any]]) -> list[Any]:
    """What all of them fire with; raises what the first that failed raised, when all are done."""
    outcomes: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
    for ok, result in outcomes:
        if not ok:
            result.raiseException()
    return [result for _, result in outcomes]
