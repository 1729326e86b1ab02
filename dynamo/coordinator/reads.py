"""The path of a read: R answers, merged.

Any node reads for any key. Its own copy costs nothing, so it is asked first; one other replica is
asked for its whole record if this node has none, all further ones for the versions without their
bytes. Who is late or fails is joined by the next on the preference list. Bytes that the merge
shows but nobody sent yet are fetched from a replica that has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from dynamo.coordinator.preferences import Preferences
from dynamo.coordinator.terms import Terms
from dynamo.core.quorum import NOBODY, ReadTally
from dynamo.core.record import Record, Version
from dynamo.errors import Corrupt, DynamoError, QuorumNotMet
from dynamo.log import make_logger
from dynamo.ports import ClusterView
from dynamo.replica.lateness import Lateness, Watch
from dynamo.wire import messages
from dynamo.wire.messages import Reply

LATE_S = 0.15
PATIENCE_S = 1.0
"""Silence after which an owner counts as one that cannot be reached."""

log = make_logger()


@attrs.frozen
class Answers:
    """What R replicas know: the merge, who counted, and what each one said."""

    record: Record
    replicas: tuple[str, ...]
    records: Mapping[str, Record]


@attrs.define(eq=False)
class Reader:
    """Reads keys on behalf of this node's clients.

    `local_read` is this node's own copy, at once, `awaits` whom an answer with it waits for
    (`dynamo.replica.wholeness`). `counted(operation, outcome)` is for metrics.
    """

    view: ClusterView
    preferences: Preferences
    local_read: Callable[[bytes, bytes], Record]
    awaits: Callable[[bytes, bytes, bool], tuple[str, ...]]
    clock: IReactorTime
    counted: Callable[[str, str], None]
    lateness: Lateness = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.lateness = Lateness(self.clock, LATE_S)

    async def read(self, incarnation: bytes, key: bytes, terms: Terms, full: bool) -> Answers:
        """Asks R replicas; raises `QuorumNotMet`. `full`: the shown versions' bytes are wanted."""
        poll = Poll(self, incarnation, key, terms)
        if not poll.begin():
            await poll.done
        counted, records = poll.tally.counted(), poll.tally.records
        record = poll.tally.merged(terms.latest)
        if full and any(v.stripped for v in record.versions):
            # Answers that come while bytes are fetched are none of this read's any more.
            records = dict(records)
            record = await self._fill(incarnation, key, record, poll, terms)
        return Answers(record, counted, records)

    async def _fill(
        self, incarnation: bytes, key: bytes, record: Record, poll: Poll, terms: Terms
    ) -> Record:
        """The record with the bytes of all its live versions."""
        why = "no replica has the bytes"
        for name in poll.holders():
            lacking = {v.id for v in record.live() if v.stripped}
            if not lacking:
                break
            known = poll.tally.records.get(name)
            if known is not None and not lacking & {v.id for v in known.versions}:
                continue
            asked = self.view.replica(name).call(messages.Read(incarnation, key, True))
            asked.addTimeout(terms.timeout, self.clock)
            try:
                reply = await asked
            except Exception as error:
                why = str(error)
                continue
            assert isinstance(reply, messages.ReadReply)
            record = _with_bytes(record, reply.record)
        if any(v.stripped for v in record.live()):
            raise QuorumNotMet("read", 0, 1, why)
        return record


class Poll:
    """One read's questions and answers. `done` fires when R have answered, or never will."""

    def __init__(self, reader: Reader, incarnation: bytes, key: bytes, terms: Terms) -> None:
        self._reader = reader
        self._incarnation = incarnation
        self._key = key
        self._terms = terms
        view = reader.view
        preference = reader.preferences.of(incarnation, key, terms.n, terms.strict)
        names = [t.name for t in preference.targets]
        own = 3 if reader.awaits(incarnation, key, terms.strict) else 0

        def cost(name: str) -> int:
            # This node's own copy costs nothing, unless it counts only with others' beside it, and
            # a question that can join others that wait to be sent costs little; among equals the
            # order is the ring's.
            return own if name == view.name else 2 - view.replica(name).gathering

        if preference.whole:
            stand_ins, well = NOBODY, len(names)
            names.sort(key=cost)
        else:
            stand_ins = frozenset(t.name for t in preference.targets if t.stand_in_for)
            well = sum(name not in stand_ins and view.is_healthy(name) for name in names)
            # Owners that are well come first.
            names.sort(key=lambda n: (n in stand_ins, not view.is_healthy(n), cost(n)))
        self._order = names
        # Owners that gossip believes gone are asked last: better a late answer than none.
        self._gone = [o for o in preference.owners if o not in names]
        self._all = (*names, *self._gone)
        self._at_once = terms.r if well >= terms.r else len(names)
        self._have_bytes = False
        self._timer: IDelayedCall | Watch | None = None
        self._deadline = 0.0
        self.tally = ReadTally(
            terms.r,
            spare=len(self._all),
            unasked=len(names),
            stand_ins=stand_ins,
            gone=frozenset(self._gone) if self._gone else NOBODY,
        )
        self.done: Deferred[None] = Deferred()

    def begin(self) -> bool:
        """Asks R owners, or all targets if there are fewer; True if that was enough already (R=1
        from this node's own copy)."""
        for _ in range(max(self._at_once, self._terms.r)):
            self._ask_next()
        won = self._judge()
        # An answer of this node's own that does not count alone is no reason to sit and wait.
        while not self.done.called and not self.tally.open and self._ask_next():
            won = self._judge()
        if won or self.done.called:
            return won
        clock = self._reader.clock
        self._deadline = clock.seconds() + self._terms.timeout
        if self._terms.timeout < LATE_S:
            self._timer = clock.callLater(self._terms.timeout, self._late)
        else:
            self._timer = self._reader.lateness.watch(self._late)
        return False

    def holders(self) -> list[str]:
        """Who may have bytes that this node lacks: first who answered, then the others."""
        known = list(self.tally.records)
        others = [name for name in self._all if name not in self.tally.records]
        return [name for name in known + others if name != self._reader.view.name]

    def _ask_aside(self, awaiting: tuple[str, ...]) -> None:
        """Asks those outside the preference list that a replica awaits hints from. Whether this
        node holds them to be there does not matter: the replica does, and may know better."""
        view = self._reader.view
        for name in awaiting:
            if name not in self._all and name not in self.tally.aside:
                self.tally.aside.add(name)
                if name == view.name:
                    self._ask_here(name)
                else:
                    self._ask(name)

    def _ask_next(self) -> bool:
        """Asks the next one, whoever somebody awaits first; False if nobody is left."""
        order = self._order or self._gone
        if not order:
            return False
        name, awaiting = order[0], self.tally.awaiting.values()
        if any(awaiting):
            awaited = {a for names in awaiting for a in names}
            name = next((n for n in order if n in awaited), name)
        order.remove(name)
        self.tally.unasked = len(self._order)
        self.tally.spare = len(self._order) + len(self._gone)
        view = self._reader.view
        if name == view.name:
            self._ask_here(name)
        else:
            self._ask(name)
        return True

    def _ask(self, name: str) -> None:
        self.tally.ask(name)
        full, self._have_bytes = not self._have_bytes, True
        read = messages.Read(self._incarnation, self._key, full, self._terms.strict)
        asked = self._reader.view.replica(name).call(read)
        asked.addCallbacks(self._answered, self._failed, callbackArgs=(name,), errbackArgs=(name,))
        asked.addErrback(_unexpected)

    def _ask_here(self, name: str) -> None:
        try:
            record = self._reader.local_read(self._incarnation, self._key)
        except Corrupt as error:
            self.tally.fail(name, str(error))
            if name not in self.tally.aside:
                self._ask_next()
            return
        if record.versions:
            self._have_bytes = True
        awaiting = self._reader.awaits(self._incarnation, self._key, self._terms.strict)
        self.tally.answer(name, record, awaiting)
        self._ask_aside(awaiting)

    def _answered(self, reply: Reply, name: str) -> None:
        assert isinstance(reply, messages.ReadReply)
        self._reader.counted("read", "ok")
        self.tally.answer(name, reply.record, reply.awaiting)
        if reply.awaiting and not self.done.called:
            self._ask_aside(reply.awaiting)
        if self._judge() or self.tally.open:
            return
        self._ask_next()
        self._judge()

    def _failed(self, failure: Failure, name: str) -> None:
        failure.trap(DynamoError, CancelledError)
        self._reader.counted("read", "failed")
        self.tally.fail(name, failure.getErrorMessage())
        if not self.done.called:
            self._ask_next()
            self._judge()

    def _late(self) -> None:
        left = self._deadline - self._reader.clock.seconds()
        if left <= 0:
            self._judge(final=True)
            return
        self._reader.counted("read", "late")
        self.tally.patient = left > self._terms.timeout - PATIENCE_S
        self._ask_next()
        if not self._judge():
            self._timer = self._reader.clock.callLater(min(LATE_S, left), self._late)

    def _judge(self, final: bool = False) -> bool:
        verdict = self.tally.verdict
        if self.done.called or (verdict == "pending" and not final):
            return self.done.called
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if verdict == "won":
            self.done.callback(None)
            return True
        counted = len(self.tally.counted())
        self.done.errback(QuorumNotMet("read", counted, self.tally.needed, self.tally.why()))
        return False


def _unexpected(failure: Failure) -> None:
    log.failure("Polling a replica failed", failure=failure)


def _with_bytes(record: Record, fuller: Record) -> Record:
    """`record` with the bytes of those versions that `fuller` has whole."""
    whole: dict[str, Version] = {v.id: v for v in fuller.versions if not v.stripped}
    return Record(
        record.context,
        tuple(whole.get(v.id, v) if v.stripped else v for v in record.versions),
    )
