"""Read repair: who turned out stale in a read is sent the merge (Dynamo §5).

It happens after the answer and costs the client nothing. A bound on the repairs under way keeps a
burst of reads from becoming a burst of writes; one that finds no room is left to the next read.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dynamo.coordinator.preferences import Preferences
from dynamo.coordinator.reads import Answers
from dynamo.coordinator.terms import Terms
from dynamo.core.grace import Grace
from dynamo.errors import DynamoError
from dynamo.log import make_logger
from dynamo.ports import ClusterView
from dynamo.replica.transfer import deliver
from dynamo.wire import messages

UNDER_WAY_MAX = 64

log = make_logger()


@attrs.define(eq=False)
class Repairer:
    """Mends what reads find. `counted(operation, outcome)` is for metrics."""

    view: ClusterView
    preferences: Preferences
    clock: IReactorTime
    counted: Callable[[str, str], None]
    grace: Grace = attrs.field(factory=Grace)
    _under_way: int = 0

    def mend(
        self, incarnation: bytes, key: bytes, answers: Answers, terms: Terms, since: int
    ) -> None:
        """Sends the merge to every owner whose answer was short of it, soon; part of the read that
        began at `since`."""
        record = answers.record
        records = answers.records.values()
        if all(known is record or known.same_versions(record) for known in records):
            return
        if any(version.stripped for version in record.versions):
            return  # not all bytes are here; who asked for versions alone does not pay for them
        owners = self.preferences.of(incarnation, key, terms.n, terms.strict).owners
        merge = messages.Merge(incarnation, key, record, terms.latest)
        for name, known in answers.records.items():
            if name not in owners or known.same_versions(record):
                continue
            if self._under_way >= UNDER_WAY_MAX:
                self.counted("repair", "skipped")
                continue
            self._under_way += 1
            self.grace.enter(since)
            self.clock.callLater(0, self._send, name, merge, since)

    def _send(self, name: str, merge: messages.Merge, since: int) -> None:
        sent = Deferred.fromCoroutine(deliver(self.view, self.view.replica(name), merge))
        sent.addCallbacks(self._mended, self._failed)
        sent.addErrback(lambda f: log.failure("Repairing a replica failed", failure=f))
        sent.addBoth(lambda _: self.grace.leave(since))

    def _mended(self, _: None) -> None:
        self._under_way -= 1
        self.counted("repair", "ok")

    def _failed(self, failure: Failure) -> None:
        self._under_way -= 1
        failure.trap(DynamoError)
        self.counted("repair", "failed")
