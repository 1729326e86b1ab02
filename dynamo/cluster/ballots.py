"""One ballot on the next layout: who is asked, and what came of it (`dynamo.core.agreement`)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dynamo.core.agreement import NO_BALLOT, Ballot, Proposal, electors, next_ballot
from dynamo.core.layout import Layout
from dynamo.errors import DynamoError
from dynamo.ports import Replica
from dynamo.wire import agreeing
from dynamo.wire.messages import Op, Reply

ANSWER_S = 1.5
"""How long electors may take over one question."""
BACKOFF_S = 0.2


class Ballots:
    """The ballots of the proposer `name`. `why`: what kept the last one from being decided."""

    def __init__(self, name: str, replica: Callable[[str], Replica], clock: IReactorTime) -> None:
        self._name = name
        self._replica = replica
        self._clock = clock
        self._seen: Ballot = NO_BALLOT
        self.why = ""

    async def hold(self, base: Layout, value: Layout) -> Layout | None:
        """The layout after `base` as it was decided, by this ballot or before it; None if it was
        not, or not as far as this node can tell."""
        names, needed = electors(base, value, self._name)
        ballot = next_ballot(self._name, [self._seen])
        mine = Proposal(base.version + 1, ballot, value, names, needed)
        asked = Round(self, mine, base)
        await asked.ask(
            agreeing.LayoutPrepare(mine.version, ballot),
            lambda name, reply: mine.promise(name, reply.promise, forgot=reply.forgot),
            lambda: mine.heard,
        )
        if asked.newer is None and mine.heard:
            await asked.ask(
                agreeing.LayoutAccept(ballot, mine.choice),
                lambda name, reply: mine.accept(name, forgot=reply.forgot),
                lambda: mine.decided,
            )
        self._seen = max(asked.seen, ballot)
        self.why = asked.why()
        if asked.newer is not None:
            return asked.newer
        return mine.choice if mine.decided else None

    def call(self, name: str, op: Op) -> Deferred[Reply]:
        """One question, which ends."""
        return self._replica(name).call(op).addTimeout(ANSWER_S, self._clock)


class Round:
    """The questions of one ballot. `newer`: a later layout than the one it began from."""

    def __init__(self, ballots: Ballots, proposal: Proposal, base: Layout) -> None:
        self._ballots = ballots
        self._proposal = proposal
        self._base = base
        self._faults: dict[str, str] = {}
        self.newer: Layout | None = None
        self.seen: Ballot = NO_BALLOT

    async def ask(
        self,
        op: Op,
        said_yes: Callable[[str, agreeing.LayoutReply], None],
        enough: Callable[[], bool],
    ) -> None:
        """Asks all electors; goes on when enough have agreed, or all have answered."""
        done: Deferred[None] = Deferred()
        names = sorted(self._proposal.electors)
        left = len(names)
        self._faults.clear()

        def ended(_: object) -> None:
            nonlocal left
            left -= 1
            if not done.called and (not left or enough() or self.newer is not None):
                done.callback(None)

        def answered(reply: Reply, name: str) -> None:
            if isinstance(reply, agreeing.LayoutReply):
                self._take(name, reply, said_yes)

        def failed(failure: Failure, name: str) -> None:
            failure.trap(DynamoError, Exception)
            why = "no answer" if failure.check(TimeoutError) else failure.getErrorMessage()
            self._faults[name] = why or "no answer"

        for name in names:
            asked = self._ballots.call(name, op)
            asked.addCallback(answered, name).addErrback(failed, name).addBoth(ended)
        await done

    def why(self) -> str:
        """What those that did not agree said."""
        return "; ".join(f"{name}: {why}" for name, why in sorted(self._faults.items()))

    def _take(
        self,
        name: str,
        reply: agreeing.LayoutReply,
        said_yes: Callable[[str, agreeing.LayoutReply], None],
    ) -> None:
        if reply.layout.order > (self.newer or self._base).order:
            if not reply.layout.members:
                self._faults[name] = "goes by the layout of a cluster founded apart"
                return
            self.newer = reply.layout
        if reply.yes:
            if reply.forgot:
                self._faults[name] = "may have forgotten a vote; its own counts if all members vote"
            said_yes(name, reply)
            return
        self.seen = max(self.seen, reply.promise.promised)
        if reply.layout.order < self._base.order:
            self._faults[name] = f"goes by layout {reply.layout.version}"
            told = self._ballots.call(name, agreeing.LayoutLearn(self._base))
            told.addErrback(lambda f: None)
        else:
            self._faults[name] = "takes no part now"
