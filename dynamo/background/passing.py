"""Passing on, before the ring changes, what this node is to tell others, to the coming owners.

A hint says that an owner has missed a record. That owner may be away for long, or may have been
pulled from before it was told; and it may own the key no longer when it is. So the record goes to
every coming owner that is there, too. The hints stay: their owners are told as ever. A node that
leaves keeps none: it waits until one of the coming owners is there.

A pass goes over all hints in order. Who turns up later gets a pass of its own.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from dynamo.background.divergence import Surroundings
from dynamo.background.handoff import BATCH, BATCH_BYTES
from dynamo.core.ring import Ring
from dynamo.errors import Corrupt, DynamoError, MissingChunks, NotReady
from dynamo.log import make_logger
from dynamo.replica.transfer import deliver
from dynamo.wire import messages
from dynamo.wire.codec import Hint

RETRY_S = 5.0
"""When a pass that failed somewhere begins again."""

log = make_logger()


@attrs.define(eq=False)
class Passing:
    """See the module. `passed` counts the hints that were passed on."""

    around: Surroundings
    clock: IReactorTime
    passed: int = 0
    _told: set[str] = attrs.field(factory=set)
    _aim: frozenset[str] = frozenset()
    _target: str = ""
    _row: bytes = b""
    _failed: str = ""
    _not_before: float = 0.0

    def begin_anew(self) -> None:
        """Nobody counts as told any more."""
        self._told.clear()
        self._not_before = 0.0
        self._rewind()

    def appeared(self) -> None:
        """A member is there: a pass that failed need not wait."""
        self._not_before = 0.0

    async def step(self, coming: Ring) -> bool:
        """Passes on one batch; True if there is more to do now."""
        if self.clock.seconds() < self._not_before:
            return False
        if not self._aim:
            self._aim = frozenset(n for n in self._lacking(coming) if self._is_well(n))
            self._failed = ""
            if not self._aim:
                return False
        found = self._next()
        if found:
            await self._pass_on(coming, found)
            return True
        if self._failed:
            self._not_before = self.clock.seconds() + RETRY_S
        else:
            self._told |= self._aim
        self._rewind()
        return not self._failed and bool(self._lacking(coming))

    def why(self, coming: Ring) -> str:
        """What it waits for; "" if every coming member that is there has been told."""
        if self._failed:
            return f"What others missed could not be passed on: {self._failed}"
        lacking = self._lacking(coming)
        return f"What others missed is to be passed on to {', '.join(lacking)}." if lacking else ""

    def _rewind(self) -> None:
        self._aim, self._target, self._row = frozenset(), "", b""

    def _lacking(self, coming: Ring) -> list[str]:
        """Coming members that may be there and have not been told."""
        view = self.around.view
        names = [m.name for m in coming.members if m.name not in self._told]
        return [n for n in names if self._is_well(n) or view.is_doubtful(n)]

    def _is_well(self, name: str) -> bool:
        return name == self.around.view.name or self.around.view.is_healthy(name)

    def _next(self) -> list[tuple[bytes, Hint]]:
        """The next hints of the pass, with their rows; none at its end."""
        copies = self.around.keeper.copies
        view = copies.engine.view()
        for target in sorted(copies.hints.counts):
            if target > self._target:
                self._target, self._row = target, b""
            if target == self._target:
                found = copies.hints.batch(view, target, self._row, BATCH)
                if found:
                    return found
        return []

    async def _pass_on(self, coming: Ring, found: list[tuple[bytes, Hint]]) -> None:
        since = self.around.grace.enter()
        try:
            await self._pass_batch(coming, found)
        finally:
            self.around.grace.leave(since)

    async def _pass_batch(self, coming: Ring, found: list[tuple[bytes, Hint]]) -> None:
        calls, hints, size = [], [], 0
        for row, hint in found:
            self._row = row
            bucket = self.around.keeper.buckets.by_incarnation.get(hint.incarnation)
            if bucket is None:
                continue
            try:
                record = self.around.keeper.copies.read(hint.incarnation, hint.key)
            except Corrupt as error:
                # The mender gets it from the owners, if anybody has it.
                log.error("A hint is not passed on: {why}", why=error)
                continue
            latest = bucket.properties.conflicts == "latest"
            merge = messages.Merge(hint.incarnation, hint.key, record, latest)
            calls.append(Deferred.fromCoroutine(self._send(coming, merge)))
            hints.append(hint)
            size += sum(version.size for version in record.versions)
            if size > BATCH_BYTES:
                break
        outcomes: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
        for (ok, result), hint in zip(outcomes, hints, strict=True):
            if ok:
                self.passed += 1
            elif result.check(MissingChunks):
                key = repr(hint.key[:80])
                log.error("{key} is not passed on: {why}", key=key, why=result.value)
            else:
                self._failed = str(result.value)
                if not result.check(DynamoError):
                    log.failure("A hint was not passed on", failure=result)

    async def _send(self, coming: Ring, merge: messages.Merge) -> None:
        view, trees = self.around.view, self.around.keeper.trees
        partition = coming.partition(merge.incarnation, merge.key)
        owners = coming.owners(partition, trees.copies_of(merge.incarnation))
        for name in owners:
            if name in self._aim:
                await deliver(view, view.replica(name), merge)
        goes = all(member.name != view.name for member in coming.members)
        if goes and not any(self._is_well(name) for name in owners):
            raise NotReady(f"{', '.join(owners)} must be there to take over what this node keeps.")
