"""The path of a write: a dot, this disk, the others, W answers.

A node that is among the first N healthy of the preference list coordinates; any other hands the
write to one that is. The coordinator stores first, so that no dot leaves it that a crash could
make it give out again, and everything committed together leaves together. Then all other targets
are sent the record at once. An owner that fails or is late gets a stand-in beside it; where no
stand-in is left, the coordinator notes the hint itself. What happens after the answer is the same
as before it: every target ends up with the record or with a hint in somebody's keeping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from dynamo.coordinator.preferences import Preferences
from dynamo.core.clock import HybridClock
from dynamo.core.grace import Grace
from dynamo.core.preference import Preference, Target
from dynamo.core.quorum import WriteTally
from dynamo.core.record import Context, Record, Version
from dynamo.errors import (
    DynamoError,
    NotReady,
    Overloaded,
    PeerFault,
    QuorumNotMet,
    StorageFault,
    StorageFull,
)
from dynamo.log import make_logger
from dynamo.ports import ClusterView
from dynamo.storage.copies import Copies
from dynamo.wire import messages
from dynamo.wire.messages import Coordinate, CoordinateReply, Reply

LATE_S = 0.3
FORWARD_S = 2.0

log = make_logger()


@attrs.define(eq=False)
class Writer:
    """Coordinates writes on this node. `actor()` is the node's actor once it has joined.

    `wall_ms` reads the wall clock, in milliseconds since the epoch. `lacks(incarnation, key)`: the
    owners of a key that may hold what this node lost (`dynamo.replica.wholeness`).
    """

    view: ClusterView
    preferences: Preferences
    copies: Copies
    clock: IReactorTime
    hybrid: HybridClock
    wall_ms: Callable[[], int]
    actor: Callable[[], str]
    counted: Callable[[str, str], None]
    lacks: Callable[[bytes, bytes], tuple[str, ...]]
    grace: Grace = attrs.field(factory=Grace)

    async def write(self, op: Coordinate) -> CoordinateReply:
        """Gets a write done, here or through one of its targets.

        Raises `QuorumNotMet`, or `StorageFull` when that is what keeps it from W.
        """
        since = self.grace.enter()
        try:
            return await self._write(op)
        finally:
            self.grace.leave(since)

    async def _write(self, op: Coordinate) -> CoordinateReply:
        preference = self.preferences.of(op.incarnation, op.key, op.n, op.strict)
        refusal: DynamoError | None = None
        op = msgspec.structs.replace(op, stamp=self.hybrid.tick(self.wall_ms()))
        for name in self._coordinators(op, preference):
            if name == self.view.name:
                try:
                    return await self.coordinate(op)
                except (StorageFault, Overloaded) as error:
                    refusal = error
                continue
            asked = self.view.replica(name).call(op)
            asked.addTimeout(min(FORWARD_S, op.timeout), self.clock, _unanswered(name))
            try:
                reply = await asked
            except (PeerFault, StorageFault, Overloaded, NotReady) as error:
                # A write that was stored all the same is known again by its id: no second dot.
                refusal = error
            else:
                assert isinstance(reply, CoordinateReply)
                return reply
        if isinstance(refusal, StorageFull):
            raise refusal
        raise QuorumNotMet("write", 0, op.w, str(refusal or "no member can coordinate it"))

    def _coordinators(self, op: Coordinate, preference: Preference) -> list[str]:
        """Who may coordinate a write, in the order in which they are asked: this node first, if it
        is a target, because it costs nothing.

        A write without a context replaces what its coordinator holds, so a stand-in, which may
        hold nothing, is the last to coordinate that: it would delete nothing and say it had.
        """
        me = self.view.name
        names = [target.name for target in preference.targets]
        blind = [t.name for t in preference.targets if t.stand_in_for] if op.context is None else []
        names.sort(key=lambda name: (name in blind, name != me))
        return names

    async def coordinate(self, op: Coordinate) -> CoordinateReply:
        """Coordinates a write as one of its targets; also the handler of a forwarded one.

        Raises `NotReady` while this node has no actor to sign as.
        """
        if not self.view.joined:
            raise NotReady(self.view.why_not_joined())
        if op.stamp:
            self.hybrid.observe(self.wall_ms(), op.stamp)
        preference = self.preferences.of(op.incarnation, op.key, op.n, op.strict)
        me = preference.target(self.view.name)
        owner = self.view.name in preference.owners
        missed = list(preference.missed)
        if me is not None and me.stand_in_for:
            missed.append(me.stand_in_for)
        elif not owner:
            missed.append(preference.owners[0])
        since = self.grace.enter()
        try:
            context, stamp = await self._base(op)
            record = await self.copies.coordinate(
                op.incarnation,
                op.key,
                op.draft,
                actor=self.actor(),
                stamp=stamp,
                context=context,
                latest=op.latest,
                owner=owner,
                missed_by=missed,
            )
            spread = Spread(self, op, record, preference, since)
            spread.begin()
        finally:
            self.grace.leave(since)
        await spread.answered
        made = _made(op, record)
        return CoordinateReply(
            self.view.name,
            {name: dict(context) for name, context in spread.tally.acks.items()},
            tuple(spread.tally.acks),
            dict(record.context),
            made,
        )

    async def _base(self, op: Coordinate) -> tuple[Context | None, int]:
        """The context and the least stamp of a write. What this node lost, the others are asked
        for: a write without a context replaces what is held, and has to know it; a later stamp
        than that of what it replaces it needs in any case."""
        stamp = op.stamp or self.hybrid.tick(self.wall_ms())
        lacked = self.lacks(op.incarnation, op.key)
        if not lacked or not (op.context is None or op.latest):
            return op.context, stamp
        known = self.copies.read(op.incarnation, op.key)
        calls = []
        for name in lacked:
            asked = self.view.replica(name).call(messages.Read(op.incarnation, op.key, False))
            calls.append(asked.addTimeout(LATE_S, self.clock))
        outcomes: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
        for ok, reply in outcomes:
            if ok and isinstance(reply, messages.ReadReply):
                known = known.merge(reply.record, latest=op.latest)
        stamp = max([stamp, *(version.stamp + 1 for version in known.versions)])
        return known.context if op.context is None else op.context, stamp


class Spread:
    """One record on its way to the other targets. `answered` fires at W, or fails for good. It is
    part of what began at `since` until the last one it was sent to has answered or failed."""

    def __init__(
        self, writer: Writer, op: Coordinate, record: Record, preference: Preference, since: int
    ) -> None:
        self._since = since
        self._writer = writer
        self._op = op
        self._record = record
        self._preference = preference
        self._spares = list(preference.spares)
        self._kept: set[str] = set()
        self._timer: IDelayedCall | None = None
        self._full = False
        self.tally = WriteTally(op.w)
        self.answered: Deferred[None] = Deferred()

    def begin(self) -> None:
        """Sends to every target but this node, which has stored already."""
        self.tally.ack(self._writer.view.name, self._record.context)
        self.tally.spare = len(self._spares)
        targets = [t for t in self._preference.targets if t.name != self._writer.view.name]
        for target in targets:
            self.tally.ask(target.name)
        for target in targets:
            self._send(target)
        self._judge()
        if self.tally.open:
            self._timer = self._writer.clock.callLater(LATE_S, self._late)

    def _send(self, target: Target) -> None:
        op, writer = self._op, self._writer
        merge = messages.Merge(op.incarnation, op.key, self._record, op.latest, target.stand_in_for)
        writer.grace.enter(self._since)
        sent = writer.view.replica(target.name).call(merge)
        sent.addCallbacks(self._acked, self._failed, callbackArgs=(target,), errbackArgs=(target,))
        sent.addErrback(lambda f: log.failure("Spreading a write failed", failure=f))
        sent.addBoth(lambda _: writer.grace.leave(self._since))

    def _acked(self, reply: Reply, target: Target) -> None:
        assert isinstance(reply, messages.MergeReply)
        self._writer.counted("write", "ok")
        if target.stand_in_for:
            self._kept.add(target.stand_in_for)
        self.tally.ack(target.name, reply.context)
        self._judge()

    def _failed(self, failure: Failure, target: Target) -> None:
        failure.trap(DynamoError, CancelledError)
        self._writer.counted("write", "failed")
        self._full = self._full or failure.check(StorageFull) is not None
        self.tally.fail(target.name, failure.getErrorMessage())
        self._help(target.stand_in_for or target.name)
        self._judge()

    def _help(self, owner: str) -> None:
        """Finds somebody to keep the record for an owner that did not take it."""
        if owner in self._kept:
            return
        if self._spares and not self._op.strict:
            stand_in = self._spares.pop(0)
            self.tally.spare = len(self._spares)
            self.tally.ask(stand_in)
            self._send(Target(stand_in, owner))
            return
        self._kept.add(owner)
        noted = self._writer.copies.note_missed(owner, self._op.incarnation, self._op.key)
        noted.addErrback(lambda f: log.error("A hint could not be kept: {f}", f=f.value))

    def _late(self) -> None:
        """Owners that have not answered by now get a stand-in beside them."""
        for target in self._preference.targets:
            if target.name in self.tally.open and not target.stand_in_for:
                self._writer.counted("write", "late")
                self._help(target.name)
        if not self.answered.called:
            left = max(self._op.timeout - LATE_S, 0)
            self._timer = self._writer.clock.callLater(left, self._give_up)

    def _give_up(self) -> None:
        self._judge(final=True)

    def _judge(self, final: bool = False) -> None:
        verdict = self.tally.verdict
        if not self.answered.called:
            if verdict == "won":
                self.answered.callback(None)
            elif verdict == "lost" or final:
                self.answered.errback(self._lost())
        if not self.tally.open or (self.answered.called and final):
            timer, self._timer = self._timer, None
            if timer is not None and timer.active():
                timer.cancel()

    def _lost(self) -> DynamoError:
        if self._full:
            return StorageFull(f"Too few nodes have room for this ({self.tally.why()}).")
        return QuorumNotMet("write", len(self.tally.acks), self.tally.needed, self.tally.why())


def _made(op: Coordinate, record: Record) -> Version | None:
    """The version this write became, as it stands in the record."""
    if op.draft is None:
        return None
    for version in record.versions:
        if version.write == op.draft.write:
            return version.strip()
    return None


def _unanswered(name: str) -> Callable[[object, float], object]:
    def late(result: object, seconds: float) -> object:
        if isinstance(result, Failure) and result.check(CancelledError):
            raise PeerFault(name, f"did not coordinate within {seconds:g} s")
        return result

    return late
