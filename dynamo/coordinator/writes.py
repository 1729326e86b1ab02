"""The path of a write: a dot, this disk, the others, W answers.

A node that is among the first N healthy of the preference list coordinates; any other hands the
write to one that is. The coordinator stores first, so that no dot leaves it that a crash could
make it give out again, and everything committed together leaves together. Then all other targets
are sent the record at once. An owner that fails or is late gets a stand-in beside it; where no
stand-in is left, the coordinator notes the hint itself. What happens after the answer is the same
as before it: every target ends up with the record or with a hint in somebody's keeping. While the
ring changes all that is done by both rings, and W is needed by each (`dynamo.core.layout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from dynamo.core.record import Context, Record
from dynamo.errors import (
    DynamoError,
    MissingChunks,
    NotReady,
    Overloaded,
    PeerFault,
    QuorumNotMet,
    StorageFault,
    StorageFull,
)
from dynamo.log import make_logger
from dynamo.ports import ClusterView, Replica
from dynamo.replica.lateness import Lateness, Watch
from dynamo.replica.transfer import deliver
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
    lateness: Lateness = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.lateness = Lateness(self.clock, LATE_S)

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
        if op.context is None:
            blind = [target.name for target in preference.targets if target.stand_in_for]
            if blind:
                names.sort(key=lambda name: (name in blind, name != me))
                return names
        if me in names:
            names.remove(me)
            names.insert(0, me)
        return names

    async def coordinate(self, op: Coordinate) -> CoordinateReply:
        """Coordinates a write as one of its targets; also the handler of a forwarded one.

        Raises `NotReady` while this node has no actor to sign as.
        """
        if not self.view.joined:
            raise NotReady(self.view.why_not_joined())
        if op.stamp > self.hybrid.last:
            self.hybrid.observe(self.wall_ms(), op.stamp)
        preference = self.preferences.of(op.incarnation, op.key, op.n, op.strict)
        owner = preference.owned_by(self.view.name)
        missed = preference.missed_with(self.view.name)
        since = self.grace.enter()
        try:
            context: Context | None = op.context
            stamp = op.stamp or self.hybrid.tick(self.wall_ms())
            lacked = self.lacks(op.incarnation, op.key)
            if lacked and (context is None or op.latest):
                context, stamp = await self._base(op, lacked, stamp)
            stored = self.copies.coordinate(
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
            self.grace.enter(since)  # whoever waits may go; what gets to the disk is spread
            begun: Deferred[Spread] = Deferred()
            stored.addCallback(self._spread, op, preference, since, begun)
            stored.addBoth(self._leave, since).chainDeferred(begun)
            spread = await begun
        finally:
            self.grace.leave(since)
        await spread.answered
        record = spread.record
        made = None if op.draft is None else record.version_of(op.draft.write)
        return CoordinateReply(
            self.view.name,
            {name: dict(context) for name, context in spread.acks.items()},
            tuple(spread.acks),
            dict(record.context),
            made,
        )

    def _spread(
        self,
        record: Record,
        op: Coordinate,
        preference: Preference,
        since: int,
        waits: Deferred[Any],
    ) -> Spread:
        spread = Spread(self, op, record, preference, since)
        if waits.called:
            spread.answered.addErrback(lambda _: None)  # nobody waits any more
        spread.begin()
        return spread

    def _leave(self, outcome: Any, since: int) -> Any:
        self.grace.leave(since)
        return outcome

    async def _base(
        self, op: Coordinate, lacked: Sequence[str], stamp: int
    ) -> tuple[Context | None, int]:
        """The context and the least stamp of a write. What this node lost, the others are asked
        for: a write without a context replaces what is held, and has to know it; a later stamp
        than that of what it replaces it needs in any case."""
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


@attrs.define(eq=False)
class Half:
    """One ring's part of a write: whom it asks and who acknowledged. `spares` may still be asked;
    `kept`: owners for whom somebody keeps the record."""

    preference: Preference
    tally: WriteTally
    spares: list[str]
    kept: set[str] = attrs.field(factory=set)

    @classmethod
    def of(cls, preference: Preference, w: int) -> Half:
        spares = list(preference.spares)
        tally = WriteTally(min(w, len(preference.owners)), spare=len(spares))
        return cls(preference, tally, spares)

    def take_spare(self) -> str:
        """The next healthy node further down."""
        stand_in = self.spares.pop(0)
        self.tally.spare = len(self.spares)
        return stand_in


class Spread:
    """A record on its way to the other targets of each ring. `answered` fires at W by each, or
    fails for good. It is part of what began at `since` until all it was sent to have answered."""

    def __init__(
        self, writer: Writer, op: Coordinate, record: Record, preference: Preference, since: int
    ) -> None:
        self._since = since
        self._writer = writer
        self._op = op
        self.record = record
        self._halves = [Half.of(half, op.w) for half in preference.halves]
        self._timer: IDelayedCall | Watch | None = None
        self._full = False
        self.answered: Deferred[None] = Deferred()

    @property
    def acks(self) -> dict[str, Context]:
        """Who acknowledged, with the context held there, in the order of the answers."""
        return {name: held for half in self._halves for name, held in half.tally.acks.items()}

    def begin(self) -> None:
        """Sends to every target but this node, which has stored already."""
        me = self._writer.view.name
        for half in self._halves:
            if half is self._halves[0] or half.preference.target(me) is not None:
                half.tally.ack(me, self.record.context)
        targets = self._targets(me)
        for target, halves in targets:
            for half in halves:
                half.tally.ask(target.name)
        for target, halves in targets:
            self._send(target, halves)
        self._judge()
        if any(half.tally.open for half in self._halves):
            self._timer = self._writer.lateness.watch(self._late)

    def _targets(self, me: str) -> list[tuple[Target, list[Half]]]:
        """Whom to send to, once each. A node that owns the key by one ring and stands in by the
        other takes it as owner; for whom it stands in, this node keeps the hint."""
        found: dict[str, tuple[Target, list[Half]]] = {}
        for half in self._halves:
            for target in half.preference.targets:
                if target.name == me:
                    continue
                known = found.get(target.name)
                if known is None:
                    found[target.name] = (target, [half])
                    continue
                known[1].append(half)
                if known[0].stand_in_for == target.stand_in_for:
                    continue
                owns = Target(target.name) if not target.stand_in_for else known[0]
                for owner in (known[0].stand_in_for, target.stand_in_for):
                    if owner and owner != owns.stand_in_for:
                        self._note(owner)
                found[target.name] = (owns, known[1])
        return list(found.values())

    def _send(self, target: Target, halves: list[Half]) -> None:
        op, writer = self._op, self._writer
        merge = messages.Merge(op.incarnation, op.key, self.record, op.latest, target.stand_in_for)
        writer.grace.enter(self._since)
        replica = writer.view.replica(target.name)
        sent = replica.call(merge)
        if len(self._halves) > 1 and op.draft is not None and op.draft.chunks:
            # It may own the key by a ring that was not there when the chunks were sent.
            sent.addErrback(self._supply, replica, merge)
        sent.addBoth(self._ended, target, halves).addErrback(_unexpected)

    def _ended(self, result: Reply | Failure, target: Target, halves: list[Half]) -> None:
        try:
            if isinstance(result, Failure):
                self._failed(result, target, halves)
            else:
                self._acked(result, target, halves)
        finally:
            self._writer.grace.leave(self._since)

    def _supply(self, failure: Failure, replica: Replica, merge: messages.Merge) -> Any:
        failure.trap(MissingChunks)
        supplied = Deferred.fromCoroutine(deliver(self._writer.view, replica, merge))
        return supplied.addCallback(lambda _: messages.MergeReply(dict(self.record.context)))

    def _acked(self, reply: Reply, target: Target, halves: list[Half]) -> None:
        assert isinstance(reply, messages.MergeReply)
        self._writer.counted("write", "ok")
        for half in halves:
            if target.stand_in_for:
                half.kept.add(target.stand_in_for)
            half.tally.ack(target.name, reply.context)
        self._judge()

    def _failed(self, failure: Failure, target: Target, halves: list[Half]) -> None:
        failure.trap(DynamoError, CancelledError)
        self._writer.counted("write", "failed")
        self._full = self._full or failure.check(StorageFull) is not None
        for half in halves:
            half.tally.fail(target.name, failure.getErrorMessage())
            self._help(half, target.stand_in_for or target.name)
        self._judge()

    def _help(self, half: Half, owner: str) -> None:
        """Finds somebody to keep the record for an owner that did not take it."""
        if owner in half.kept:
            return
        if half.spares and not self._op.strict:
            stand_in = half.take_spare()
            half.tally.ask(stand_in)
            self._send(Target(stand_in, owner), [half])
            return
        half.kept.add(owner)
        self._note(owner)

    def _note(self, owner: str) -> None:
        noted = self._writer.copies.note_missed(owner, self._op.incarnation, self._op.key)
        noted.addErrback(lambda f: log.error("A hint could not be kept: {f}", f=f.value))

    def _late(self) -> None:
        """Owners that have not answered by now get a stand-in beside them."""
        for half in self._halves:
            for target in half.preference.targets:
                if target.name in half.tally.open and not target.stand_in_for:
                    self._writer.counted("write", "late")
                    self._help(half, target.name)
        if not self.answered.called:
            left = max(self._op.timeout - LATE_S, 0)
            self._timer = self._writer.clock.callLater(left, self._judge, True)

    def _judge(self, final: bool = False) -> None:
        verdicts = [half.tally.verdict for half in self._halves]
        if not self.answered.called:
            if all(verdict == "won" for verdict in verdicts):
                self.answered.callback(None)
            elif "lost" in verdicts or final:
                self.answered.errback(self._lost())
        if not any(half.tally.open for half in self._halves) or (self.answered.called and final):
            timer, self._timer = self._timer, None
            if timer is not None and timer.active():
                timer.cancel()

    def _lost(self) -> DynamoError:
        """For the ring by which it failed."""
        halves = [half for half in self._halves if half.tally.verdict != "won"]
        tally = (halves or self._halves)[0].tally
        if self._full:
            return StorageFull(f"Too few nodes have room for this ({tally.why()}).")
        return QuorumNotMet("write", len(tally.acks), tally.needed, tally.why())


def _unexpected(failure: Failure) -> None:
    log.failure("Spreading a write failed", failure=failure)


def _unanswered(name: str) -> Callable[[object, float], object]:
    def late(result: object, seconds: float) -> object:
        if isinstance(result, Failure) and result.check(CancelledError):
            raise PeerFault(name, f"did not coordinate within {seconds:g} s")
        return result

    return late
