"""The layout this node goes by, and what it promised about the next, on its disk.

An acceptor answers from what is committed; so every vote is a job of the group commit that reads,
decides and writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from dynamo.core.agreement import Promise
from dynamo.core.layout import NONE, Layout
from dynamo.storage import ledger
from dynamo.storage.committer import Committer
from dynamo.storage.engine import Engine, Transaction, View
from dynamo.storage.facts import REFILL, Identity
from dynamo.wire.codec import LAYOUT, PROMISE, ROW_FORMAT

LAYOUT_ROW = b"layout"
PROMISE_ROW = b"promise"
FORGOT_ROW = b"forgot"
"""The row of `meta` with the version up to which this node may have voted and forgotten it."""
OUT_ROW = b"out"
"""The row of `meta` that says that this node was in the ring and is not any more."""


@attrs.define
class LayoutBook:
    """See the module. `out`: this data directory belonged to a member that left for good or was
    removed, and may hold what was deleted since. `forgot_until`: the version up to which this node
    may have voted and forgotten it, so that its vote counts with those of all only."""

    engine: Engine
    committer: Committer
    identity: Identity
    layout: Layout = NONE
    out: bool = False
    forgot_until: int = 0

    def load(self) -> None:
        """Reads what the data directory holds. Raises `Corrupt`."""
        view = self.engine.view()
        self.layout = _layout(view)
        self.out = view.get("meta", OUT_ROW) is not None
        self.forgot_until = _forgot(view)

    def adopt(
        self, layout: Layout, *, refill: bool = False, out: bool = False, forgot: bool = False
    ) -> Deferred[bool]:
        """Writes a decided layout; fires with whether it was news. `refill`: this node owns by it
        what it may not hold; `out`: it has no part in it any more; `forgot`: it had a part in it,
        and what it promised was lost with its disk."""

        def job(txn: Transaction) -> bool:
            if layout.order <= _layout(txn).order:
                return False
            ledger.state(txn, LAYOUT_ROW, LAYOUT.encode(layout))
            if refill:
                ledger.state(txn, REFILL, ROW_FORMAT)
            if out:
                ledger.state(txn, OUT_ROW, ROW_FORMAT)
            if forgot:
                _note_forgot(txn, layout.version + 1)
            return True

        def take(news: bool) -> bool:
            if news:
                self.layout = layout
                self.identity.refilling = self.identity.refilling or refill
                self.out = self.out or out
                if forgot:
                    self.forgot_until = max(self.forgot_until, layout.version + 1)
            return news

        def landed(outcome: Any) -> Any:
            self.identity.refills_coming -= refill
            return outcome

        self.identity.refills_coming += refill
        told: Deferred[bool] = Deferred()  # whoever waits for it may give up; the commit does not
        self.committer.submit(job, take).addBoth(landed).chainDeferred(told)
        return told

    def forget(self) -> Deferred[None]:
        """What was promised of the next layout is lost."""

        def job(txn: Transaction) -> int:
            _note_forgot(txn, _layout(txn).version + 1)
            return _forgot(txn)

        def take(version: int) -> None:
            self.forgot_until = version

        return self.committer.submit(job, take)

    def vote(
        self, version: int, change: Callable[[Promise], Promise | None]
    ) -> Deferred[tuple[Promise, bool, bool]]:
        """Changes what this node has said of a version; fires with that, with whether it did so,
        and with whether it may have said something else before and forgotten it. `change` gives
        None to refuse. A version that is decided, or not the next, is refused."""

        def job(txn: Transaction) -> tuple[Promise, bool, bool]:
            said = ledger.fact(txn, PROMISE_ROW)
            was = (PROMISE.decode(said) if said is not None else Promise()).about(version)
            new = change(was) if version == _layout(txn).version + 1 else None
            if new is not None:
                ledger.state(txn, PROMISE_ROW, PROMISE.encode(new))
            return new or was, new is not None, version <= _forgot(txn)

        return self.committer.submit(job)


def _note_forgot(txn: Transaction, version: int) -> None:
    ledger.state(txn, FORGOT_ROW, max(version, _forgot(txn)).to_bytes(8))


def _forgot(view: View) -> int:
    return int.from_bytes(ledger.fact(view, FORGOT_ROW) or b"")


def _layout(view: View) -> Layout:
    said = ledger.fact(view, LAYOUT_ROW)
    return LAYOUT.decode(said) if said is not None else NONE
