"""Hinted handoff: what absent owners missed flows to them when they are back (Dynamo §4.6).

For each member that is alive and has hints here, batches of hints are sent as merges, with the
chunks it lacks sent first, and dropped on its acknowledgement. A hint that changed meanwhile stays
for the next round. Nothing here remembers where it was: the hints left are the work left, so a
restart of either side resumes by itself.

A member that is in no ring any more will never ask for what it missed. What is kept for it goes to
the present owners of the key, and those that are away get hints of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList

from dynamo.core.grace import Grace
from dynamo.core.record import Record
from dynamo.errors import Corrupt, NotReady
from dynamo.log import make_logger
from dynamo.ports import ClusterView, Replica
from dynamo.replica.transfer import deliver
from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable
from dynamo.wire import messages
from dynamo.wire.codec import Hint

BATCH = 64
BATCH_BYTES = 8 * 1024 * 1024
"""So much is under way to a member, and one more body however large; then clients are served."""

log = make_logger()


@attrs.define(eq=False)
class Handoff:
    """Delivers this node's hints. `actor()` is the node's actor."""

    view: ClusterView
    copies: Copies
    buckets: BucketTable
    actor: Callable[[], str]
    grace: Grace = attrs.field(factory=Grace)
    delivered: int = 0
    _cursor: dict[str, bytes] = attrs.field(factory=dict)

    def progress(self) -> tuple[int, int]:
        """Hints delivered by this process, and hints still held, whoever they are for."""
        return self.delivered, sum(self.copies.hints.counts.values())

    async def step(self) -> bool:
        """Delivers one batch to each member that can take it; True if any took something. A node
        that is in no ring itself delivers nothing: what it keeps may have been buried since."""
        if self._is_gone(self.view.name):
            return False
        steps = [
            Deferred.fromCoroutine(self._deliver_held(target))
            for target in sorted(self.copies.hints.counts)
            if self._is_gone(target) or (self.view.is_healthy(target) and target != self.view.name)
        ]
        outcomes: list[tuple[bool, Any]] = await DeferredList(steps, consumeErrors=True)
        for ok, result in outcomes:
            if not ok:
                result.raiseException()
        return any(progress for _, progress in outcomes)

    async def _deliver_held(self, target: str) -> bool:
        since = self.grace.enter()
        try:
            return await self._deliver(target)
        finally:
            self.grace.leave(since)

    async def _deliver(self, target: str) -> bool:
        view = self.copies.engine.view()
        after = self._cursor.pop(target, b"")
        found = self.copies.hints.batch(view, target, after, BATCH)
        if not found and after:
            # Through once; what is left changed or failed meanwhile and is taken up anew. It is no
            # progress yet: with several targets some would be through in every step.
            found = self.copies.hints.batch(view, target, b"", BATCH)
        if not found:
            return False
        gone = self._is_gone(target)
        replica = self.view.replica(target)
        calls, hints, size = [], [], 0
        for row, hint in found:
            self._cursor[target] = row
            try:
                record = self.copies.read(hint.incarnation, hint.key)
            except Corrupt:
                continue  # It is told when the record is mended.
            merge = self._merge(hint, record)
            told = self._resettle(merge) if gone else self._tell(replica, merge)
            calls.append(Deferred.fromCoroutine(told))
            hints.append(hint)
            size += sum(version.size for version in record.versions)
            if size > BATCH_BYTES:
                break
        outcomes: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
        taken = [hint for hint, (ok, _) in zip(hints, outcomes, strict=True) if ok]
        if taken:
            await self.copies.drop_hints(target, self.actor(), taken)
            self.delivered += len(taken)
            left = self.copies.hints.counts.get(target, 0)
            if not left and gone:
                log.info("Nothing is kept for {target} any more, which is gone", target=target)
            elif not left:
                log.info("{target} has been told all it missed", target=target)
        return bool(taken)

    async def _tell(self, replica: Replica, merge: messages.Merge) -> None:
        """Gives a record to its target, and while the ring changes to those who will own the key:
        they may have pulled from the target before it had this. Raises `NotReady` if one of them
        is away, or the ring is another by now: the hint has to stay, for the target may be about
        to leave."""
        view, layout = self.view, self.view.layout
        coming = view.beside if layout.stage == "coming" else view.ring
        await deliver(view, replica, merge)
        if view.layout != layout:
            raise NotReady("The ring has changed.")
        if layout.stage == "steady" or coming is None:
            return
        copies = self.buckets.copies_of(merge.incarnation, coming.copies)
        away = []
        for owner in coming.owners(coming.partition(merge.incarnation, merge.key), copies):
            if owner == view.name or view.is_healthy(owner):
                await deliver(view, view.replica(owner), merge)
            else:
                away.append(owner)
        if away:
            raise NotReady(f"{', '.join(away)} must be there to be told what will be theirs.")

    def _is_gone(self, target: str) -> bool:
        """Whether nobody of this name has a part in the ring any more."""
        layout = self.view.layout
        return layout.version > 0 and not layout.knows(target)

    async def _resettle(self, merge: messages.Merge) -> None:
        """Gives a record to all owners of its key, this node included if it is one."""
        view, ring = self.view, self.view.ring
        copies = self.buckets.copies_of(merge.incarnation, ring.copies)
        partition = ring.partition(merge.incarnation, merge.key)
        owners = list(ring.owners(partition, copies))
        if view.beside is not None:
            owners += [o for o in view.beside.owners(partition, copies) if o not in owners]
        for owner in owners:
            if owner == view.name or view.is_healthy(owner):
                await deliver(view, view.replica(owner), merge)
            elif merge.record.known():
                await self.copies.note_missed(owner, merge.incarnation, merge.key)

    def _merge(self, hint: Hint, record: Record) -> messages.Merge:
        bucket = self.buckets.by_incarnation.get(hint.incarnation)
        latest = bucket is not None and bucket.properties.conflicts == "latest"
        return messages.Merge(hint.incarnation, hint.key, record, latest)
