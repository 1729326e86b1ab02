"""Anti-entropy: every pair of owners compares its partitions in turn (Dynamo §4.7).

A round goes through the partitions this node shares with one peer, many roots in one request. Of
two owners one asks, the lower-named for even partitions and the other for odd ones; both learn what
came of it, because the question carries the asker's roots. Partitions that differ are mended a
stretch at a time (`dynamo.background.divergence`), then compared once more.

A round begins once in every `interval` for each peer, from half of it on if nothing was written
since the last look; at once when a peer appears or the ring changes. While hints are on their way
between the two it waits for them, for an interval at most: they would be sent twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList

from dynamo.background.divergence import Divergence, Surroundings, Tally
from dynamo.errors import DynamoError, PeerBroke
from dynamo.log import make_logger
from dynamo.wire import messages

BATCH = 256
"""Partitions whose roots are compared in one request."""

DIVERGENCES_MAX = 512
"""Partitions that wait to be mended; at that, nothing more is compared."""

AT_ONCE = 8
"""Partitions mended in one step."""

RETRY_S = 5.0
JITTER = 0.2

log = make_logger()

Batch = tuple[int, list[int]]
"""A number of copies, and partitions."""


@attrs.define(eq=False)
class Round:
    """Where the comparison with one peer stands. `due`: when the next round should begin;
    `held_until`: nothing is asked of the peer before; `again`: something was left out."""

    due: float
    held_until: float = 0.0
    again: bool = False
    left: deque[Batch] = attrs.field(factory=deque)


@attrs.define(eq=False)
class AntiEntropy:
    """See the module. `seconds()` is monotonic; `interval` in
    seconds."""

    around: Surroundings
    interval: float
    seconds: Callable[[], float]
    rng: Random
    _rounds: dict[str, Round] = attrs.field(factory=dict)
    _found: deque[Divergence] = attrs.field(factory=deque)
    _ring: tuple[str, object] = ("", None)
    _shared: dict[int, dict[str, list[int]]] = attrs.field(factory=dict)
    _written: int = -1

    @property
    def tally(self) -> Tally:
        """What was done so far."""
        return self.around.tally

    @property
    def mending(self) -> int:
        """Partitions found to differ and not mended yet."""
        return len(self._found)

    async def step(self) -> bool:
        """Mends a stretch of what differs, or compares one batch; True if there is more to do."""
        now = self.seconds()
        self._look_at_ring(now)
        if not self.around.keeper.trees.complete:
            return False
        ready = [d for d in self._found if d.ready_at <= now][:AT_ONCE]
        if ready:
            work = [Deferred.fromCoroutine(self._mend(d, now)) for d in ready]
            outcomes: list[tuple[bool, Any]] = await DeferredList(work, consumeErrors=True)
            for ok, result in outcomes:
                if not ok:
                    result.raiseException()
            return True
        peer = self._next(now)
        if peer is None:
            return False
        await self._compare(peer, now)
        return True

    def appeared(self, peer: str) -> None:
        """A member is there: a round with it begins at the next step."""
        known = self._rounds.get(peer)
        if known is not None:
            known.due, known.held_until = min(known.due, self.seconds()), 0.0

    # Whose turn it is.

    def _look_at_ring(self, now: float) -> None:
        """A new ring means other pairs: all of them are compared soon. With most members of a large
        ring a node shares no partition."""
        view, classes = self.around.view, self.around.classes()
        if (view.ring.version, classes) == self._ring:
            return
        if view.ring.version != self._ring[0]:
            self._shared.clear()
            self._rounds = {}
        self._ring = (view.ring.version, classes)
        peers = {peer for copies in classes for peer in self.shared(copies)}
        for name in sorted(peers - {*self._rounds}):
            self._rounds[name] = Round(now)
        self._found = deque(d for d in self._found if d.peer in self._rounds)

    def _next(self, now: float) -> str | None:
        """The peer to compare with now."""
        writes = self.around.keeper.copies.committer.commits
        quiet, self._written = writes == self._written, writes
        if len(self._found) >= DIVERGENCES_MAX:
            return None
        for peer, known in self._rounds.items():
            if known.held_until > now or not self.around.view.is_healthy(peer):
                continue
            if known.left:
                return peer
            early = self.interval / 2 if quiet else 0.0
            if now >= known.due - early and not self._awaits_hints(peer, known, now):
                self._begin(peer, known, now)
                if known.left:
                    return peer
        return None

    def _awaits_hints(self, peer: str, known: Round, now: float) -> bool:
        """Whether hints will mend what differs, if they are given the time."""
        hinted = self.around.keeper.copies.hints.counts.get(peer)
        if not hinted and peer not in self.around.view.awaiting():
            return False
        return now < known.due + self.interval

    def _begin(self, peer: str, known: Round, now: float) -> None:
        keeper = self.around.keeper
        known.again = False
        known.due = now + self.interval * (1 - JITTER * self.rng.random())
        if not keeper.trees.check_copies(sorted(keeper.buckets.by_incarnation)):
            known.due = now
            return
        waiting = {(d.copies, d.partition) for d in self._found if d.peer == peer}
        for copies in self.around.classes():
            shared = [
                p
                for p in self.shared(copies).get(peer, ())
                if self._asks(peer, p)
                and (copies, p) not in waiting
                and not keeper.lacking((p, peer, copies))
            ]
            batches = [shared[i : i + BATCH] for i in range(0, len(shared), BATCH)]
            known.left.extend((copies, batch) for batch in batches)

    def shared(self, copies: int) -> dict[str, list[int]]:
        """The partitions this node owns together with each peer, by peer."""
        found = self._shared.get(copies)
        if found is None:
            found = self._shared[copies] = {}
            ring, me = self.around.view.ring, self.around.view.name
            for partition in range(ring.partitions):
                owners = ring.owners(partition, copies)
                if me in owners:
                    for peer in owners:
                        if peer != me:
                            found.setdefault(peer, []).append(partition)
        return found

    def _asks(self, peer: str, partition: int) -> bool:
        """Whether this node, of the two, asks about a partition."""
        return (partition % 2 == 0) == (self.around.view.name < peer)

    # What is done.

    async def _compare(self, peer: str, now: float) -> None:
        """Compares one batch of roots."""
        known = self._rounds[peer]
        copies, partitions = known.left.popleft()
        try:
            equal = await self._roots(peer, copies, partitions)
        except DynamoError as error:
            log.debug("{peer} was not compared with: {why}", peer=peer, why=error)
            known.left.appendleft((copies, partitions))
            known.held_until = now + RETRY_S
            return
        for partition, same in equal.items():
            if same is None:
                known.again = True
            elif not same:
                self._found.append(Divergence(self.around, peer, copies, partition))
        if known.again and not known.left:
            known.due, known.held_until = now, now + RETRY_S

    async def _roots(self, peer: str, copies: int, partitions: list[int]) -> dict[int, bool | None]:
        """Which of the partitions are equal; None where the peer has not counted its keys yet."""
        view, keeper, trees = self.around.view, self.around.keeper, self.around.keeper.trees
        op = messages.TreeRoots(
            view.name,
            view.ring.partitions,
            copies,
            tuple(partitions),
            tuple([trees.root(copies, p) for p in partitions]),
        )
        reply = await view.replica(peer).call(op)
        if not isinstance(reply, messages.TreeRootsReply) or len(reply.roots) != len(partitions):
            raise PeerBroke(peer, "did not answer with so many roots")
        outcome: dict[int, bool | None] = {}
        at = keeper.wall_clock()
        for partition, theirs in zip(partitions, reply.roots, strict=True):
            mine = trees.root(copies, partition)
            if not theirs or not mine:
                outcome[partition] = None
                continue
            outcome[partition] = mine == theirs
            self.around.tally.compared += 1
            keeper.exchanges.note((partition, peer, copies), at, mine == theirs)
        return outcome

    async def _mend(self, found: Divergence, now: float) -> None:
        """Does a stretch of one divergence; compares once more when it is through."""
        try:
            if found.peer not in self._rounds or not self.around.view.is_healthy(found.peer):
                self._give_up(found, now)
            elif await found.step(now):
                self._forget(found)
                await self._check(found)
        except DynamoError as error:
            log.debug("{peer} was not mended with: {why}", peer=found.peer, why=error)
            self._give_up(found, now)
        except Exception:
            self._give_up(found, now)
            raise

    async def _check(self, found: Divergence) -> None:
        """Whether mending made the two equal; what it could not do is left to the next round."""
        equal = await self._roots(found.peer, found.copies, [found.partition])
        if equal[found.partition] is False and found.failed:
            pair = (found.partition, found.peer, found.copies)
            self.around.keeper.exchanges.known_to_differ(pair, found.failed)

    def _give_up(self, found: Divergence, now: float) -> None:
        """Leaves it to a round that begins when the peer is there and has had a rest."""
        self._forget(found)
        known = self._rounds.get(found.peer)
        if known is not None:
            known.due, known.held_until = min(known.due, now), now + RETRY_S

    def _forget(self, found: Divergence) -> None:
        if found in self._found:
            self._found.remove(found)

    # For whoever looks.

    def partitions(self) -> list[dict[str, Any]]:
        """The partitions this node owns, for `GET /v1/repair`: owners, when all pairs this node is
        part of were last equal (seconds since the epoch or None), keys that differ."""
        view, exchanges = self.around.view, self.around.keeper.exchanges
        ring, classes = view.ring, self.around.classes()
        told = []
        for partition in range(ring.partitions):
            owners = ring.owners(partition, ring.copies)
            if view.name not in owners:
                continue
            pairs = [
                (partition, peer, copies)
                for copies in classes
                if view.name in (group := ring.owners(partition, copies))
                for peer in group
                if peer != view.name
            ]
            told.append(
                {
                    "id": partition,
                    "owners": list(owners),
                    "last_equal": exchanges.equal_at(pairs),
                    "differing": exchanges.differing(pairs),
                }
            )
        return told
