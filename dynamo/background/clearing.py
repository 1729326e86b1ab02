"""After the ring has changed: what others own is handed over and dropped.

A partition this node does not own is listed by place, as many leaves at a time as make a batch of
keys, and the keys' fingerprints are compared with those of every owner. An owner that lacks a
record, or is behind with it, is sent it, and looked at again. Only what every owner was shown to
hold is dropped, if it is still the very record that was compared. Owners that are away are waited
for.

Nothing is cleared while the ring changes, and a change stops what is under way: the records may be
this node's again. What was being dropped as the layout came is gone by the time that the node says
it goes by that layout, for a step counts as under way until its drop is on disk. What this node, by
then an owner, pulls is compared after that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from dynamo.background.divergence import Surroundings
from dynamo.core.layout import Layout
from dynamo.core.merkle import LEAVES_MAX, fingerprint
from dynamo.core.record import Record
from dynamo.errors import Corrupt, DynamoError, NotReady, PeerBroke, PeerFault
from dynamo.log import make_logger
from dynamo.replica.transfer import deliver
from dynamo.storage import places, surplus
from dynamo.storage.places import Placed
from dynamo.storage.surplus import Shown
from dynamo.wire import messages

LEAVES_AT_ONCE = 16
"""Leaves listed at once, at first."""

KEYS_AT_ONCE = 64
"""Keys asked about at once and dropped in one commit: few, as writes of clients wait for it."""

KEYS_PER_S = 500
BYTES_PER_S = 32 * 1024 * 1024
"""The rate, at most; the bytes are those that owners lacked. Each record lies on a page of its own,
so that dropping it costs the disk more than itself; and nobody waits for the room."""

RETRY_S = 5.0
"""When what could not be cleared is tried again."""

log = make_logger()

Key = tuple[bytes, bytes]


class Stopped(NotReady):
    """The ring has changed: these records may be this node's to keep."""


@attrs.define(eq=False)
class Surplus:
    """A partition of keys of so many `copies` that others own, and how far it is cleared."""

    copies: int
    partition: int
    leaves: list[int]
    after: bytes = b""


@attrs.define(eq=False)
class Clearing:
    """See the module. `actor()` is the node's. `dropped` counts records, `waits_for` says what is
    in the way, "" if nothing is."""

    around: Surroundings
    actor: Callable[[], str]
    clock: IReactorTime
    dropped: int = 0
    waits_for: str = ""
    _layout: Layout | None = None
    _work: deque[Surplus] = attrs.field(factory=deque)
    _commits: int = -1
    _not_before: float = 0.0
    _sent: int = 0
    _left: int = 0
    _leaves: int = LEAVES_AT_ONCE

    async def step(self) -> bool:
        """Clears a stretch; True if there is more to do now."""
        keeper, began = self.around.keeper, self.clock.seconds()
        if not self._may() or began < self._not_before:
            return False
        if not keeper.trees.check_copies(sorted(keeper.buckets.by_incarnation)):
            return False
        if not self._work and not self._find():
            return False
        work, self._sent, before = self._work[0], 0, self.dropped
        since = self.around.grace.enter()
        try:
            more = await self._stretch(work)
        except (PeerFault, NotReady, Stopped) as error:
            self._hold(str(error))
            return False
        finally:
            self.around.grace.leave(since)
        if not more:
            self._work.popleft()
        if not self._work and self._left:
            self._hold(f"{self._left} records could not be handed over to all who own them.")
        owed = max((self.dropped - before) / KEYS_PER_S, self._sent / BYTES_PER_S)
        owed -= self.clock.seconds() - began
        if owed > 0:
            await deferLater(self.clock, owed)  # type: ignore[arg-type]
        return True

    def appeared(self) -> None:
        """A member is there: what waits for it is tried at the next step."""
        self._not_before = 0.0

    def progress(self) -> tuple[int, int | None]:
        """Records this process dropped; what is left is known only when nothing is."""
        return self.dropped, None if self._work or self.waits_for else 0

    # What there is to do.

    def _may(self) -> bool:
        """Whether anything may be cleared; forgets what was begun under another layout."""
        view, layout = self.around.view, self.around.view.layout
        if layout != self._layout:
            self._layout, self._commits, self._not_before = layout, -1, 0.0
            self._work.clear()
            self._note("")
        steady = layout.stage == "steady" and layout.in_ring(view.name)
        return steady and self.around.keeper.trees.complete

    def _find(self) -> bool:
        """Looks for partitions with records that others own, if anything was written since."""
        keeper, view = self.around.keeper, self.around.view
        commits = keeper.copies.committer.commits
        if commits == self._commits and not self.waits_for:
            return False
        self._commits = commits
        for copies, partition in keeper.trees.known():
            if view.name not in view.ring.owners(partition, copies):
                leaves = keeper.trees.leaves(copies, partition)
                filled = [leaf for leaf, total in enumerate(leaves) if total]
                if filled:
                    self._work.append(Surplus(copies, partition, filled))
        self._left = 0
        if not self._work:
            self._note("")
        return bool(self._work)

    # What is done.

    async def _stretch(self, work: Surplus) -> bool:
        """Clears the next keys of a partition; whether it has more."""
        keeper = self.around.keeper
        leaves = work.leaves[: self._leaves]
        mine, horizon = keeper.listing(work.copies, work.partition, leaves, work.after)
        owners = self.around.view.ring.owners(work.partition, work.copies)
        if mine:
            self._require(owners)
            self._learn(len(mine), len(leaves))
            if len(mine) > KEYS_AT_ONCE:
                mine = dict(list(mine.items())[:KEYS_AT_ONCE])
                horizon = next(reversed(mine))
            told, end = await self._ask(work, owners, leaves)
            if end and (not horizon or end < horizon):
                horizon = end
                mine = {place: placed for place, placed in mine.items() if place <= end}
            shown = await self._show(mine, owners, told)
            dropped = await self._drop(shown)
            self._left += len(mine) - dropped
        work.after = horizon
        if not horizon:
            del work.leaves[: len(leaves)]
        return bool(work.leaves)

    def _learn(self, keys: int, leaves: int) -> None:
        """How many leaves to list the next time, by how many keys these had."""
        if keys > KEYS_AT_ONCE:
            self._leaves = max(1, self._leaves // 2)
        elif 2 * keys <= KEYS_AT_ONCE and leaves == self._leaves:
            self._leaves = min(LEAVES_MAX, 2 * self._leaves)

    def _require(self, owners: Sequence[str]) -> None:
        """Raises `NotReady` unless every owner is there."""
        away = [owner for owner in owners if not self.around.view.is_healthy(owner)]
        if away:
            raise NotReady(f"{', '.join(away)} must be there to take over what this node held.")

    async def _ask(
        self, work: Surplus, owners: Sequence[str], leaves: Sequence[int]
    ) -> tuple[list[dict[bytes, int]], bytes]:
        """What each owner holds of these leaves, and up to which place that is all of it."""
        op = messages.TreeKeys(work.copies, work.partition, tuple(leaves), work.after)
        told, ends = [], []
        for owner, reply in zip(owners, await self._call(owners, op), strict=True):
            if not isinstance(reply, messages.TreeKeysReply):
                raise PeerBroke(owner, "did not answer with keys")
            if reply.last:
                if reply.last <= work.after:
                    raise PeerBroke(owner, "goes round in circles with its keys")
                ends.append(reply.last)
            told.append({places.place(inc, key): mark for inc, key, mark in reply.keys})
        return told, min(ends, default=b"")

    async def _call(self, owners: Sequence[str], op: messages.Op) -> list[Any]:
        calls = [self.around.view.replica(owner).call(op) for owner in owners]
        outcomes: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
        for ok, result in outcomes:
            if not ok:
                result.raiseException()
        return [result for _, result in outcomes]

    async def _show(
        self, mine: dict[bytes, Placed], owners: Sequence[str], told: Sequence[dict[bytes, int]]
    ) -> list[Shown]:
        """Those of the keys that every owner holds as this node does, or in a later state; owners
        that did not are sent them first."""
        shown: list[Shown] = []
        calls = []
        for place, placed in mine.items():
            mark = placed.fingerprint
            assert mark is not None
            behind = [o for o, held in zip(owners, told, strict=True) if held.get(place) != mark]
            if behind:
                calls.append(self.around.slots.run(self._showing, placed, behind))
            else:
                shown.append((placed.incarnation, placed.key, mark))
        outcomes: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
        for ok, result in outcomes:
            if ok:
                shown += [] if result is None else [result]
            elif not result.check(DynamoError):
                log.failure("A record could not be handed over", failure=result)
            else:
                log.debug("A record stays for now: {why}", why=result.value)
        return shown

    def _showing(self, placed: Placed, behind: Sequence[str]) -> Deferred[Shown | None]:
        return Deferred.fromCoroutine(self._hand_over(placed, behind))

    async def _hand_over(self, placed: Placed, behind: Sequence[str]) -> Shown | None:
        """Sends a record to those of the owners that are behind with it; None if one still is."""
        keeper, view = self.around.keeper, self.around.view
        incarnation, key = placed.incarnation, placed.key
        bucket = keeper.buckets.by_incarnation.get(incarnation)
        if bucket is None:
            return None
        latest = bucket.properties.conflicts == "latest"
        try:
            record = keeper.copies.apart(incarnation, key)[0]
        except Corrupt:
            return None
        for owner in behind:
            if await self._holds(owner, incarnation, key, record, latest):
                continue
            if view.layout != self._layout:
                raise Stopped("The ring is changing.")
            merge = messages.Merge(incarnation, key, record, latest)
            await deliver(view, view.replica(owner), merge)
            self._sent += sum(version.size for version in record.versions)
            if not await self._holds(owner, incarnation, key, record, latest):
                return None
        return incarnation, key, fingerprint(places.place(incarnation, key), record)

    async def _holds(
        self, owner: str, incarnation: bytes, key: bytes, record: Record, latest: bool
    ) -> bool:
        """Whether an owner's own record knows all that this one does."""
        reply = await self.around.view.replica(owner).call(messages.Inspect(incarnation, key))
        if not isinstance(reply, messages.InspectReply):
            raise PeerBroke(owner, "did not answer with a record")
        theirs = reply.owned
        return theirs.known() and theirs.merge(record.strip(), latest=latest).same_versions(theirs)

    async def _drop(self, shown: list[Shown]) -> int:
        if not shown:
            return 0
        if self.around.view.layout != self._layout:
            raise Stopped("The ring is changing.")
        dropped = await surplus.drop(self.around.keeper.copies, self.actor(), shown)
        self.dropped += dropped
        return dropped

    # What is said of it.

    def _hold(self, why: str) -> None:
        self._not_before = self.clock.seconds() + RETRY_S
        self._note(why)

    def _note(self, why: str) -> None:
        if why != self.waits_for:
            self.waits_for = why
            if why:
                log.info("What others own stays on this disk for now: {why}", why=why)
