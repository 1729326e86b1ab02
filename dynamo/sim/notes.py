"""What clients did and got, counted and told in the trace, on its way to the oracle."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dynamo.sim.history import BucketChange, Listing, Outcomes, Read, Watcher, Write
from dynamo.sim.tally import Tally

if TYPE_CHECKING:
    from dynamo.sim.world import World

KEY_SHOWN = 40


class Notes:
    """A watcher of the history that hands all on to `next`. `counts`: requests by kind and what
    became of them, as in "put 200" and "get timeout". New violations are told as they come."""

    def __init__(self, world: World, tally: Tally, next: Watcher | None) -> None:
        self.counts: Counter[str] = Counter()
        self._world = world
        self._tally = tally
        self._told = 0
        self._next = next

    def wrote(self, write: Write) -> None:
        what = "delete" if write.deletes else f"{len(write.body)} B"
        seen = "" if write.seen is None else f" having seen {_ids(write.seen)}"
        text = f"{write.id} ({what}) to {_place(write)} at {write.entry}{seen}: {write.outcome}"
        self._tell(f"c{write.client + 1}", f"{text} {write.status or ''}", write.begun)
        if self._next is not None:
            self._next.wrote(write)
        self.tell_violations()

    def read(self, read: Read) -> None:
        text = f"reads {_place(read)} at {read.entry}: {_ids(read.shown)}"
        self._tell(f"c{read.client + 1}", text + (" (newest)" if read.newest else ""), read.begun)
        if self._next is not None:
            self._next.read(read)
        self.tell_violations()

    def listed(self, listing: Listing) -> None:
        text = f"lists {listing.bucket} at {listing.entry}: {len(listing.entries)} keys"
        self._tell("client", text, listing.begun)
        if self._next is not None:
            self._next.listed(listing)
        self.tell_violations()

    def changed(self, change: BucketChange) -> None:
        what = "deletes" if change.deletes else "makes"
        self._tell("client", f"{what} bucket {change.bucket}: {change.outcome}", change.begun)
        if self._next is not None:
            self._next.changed(change)
        self.tell_violations()

    def ended(self, outcome: Outcomes) -> None:
        result = outcome.word or str(outcome.status)
        self.counts[f"{outcome.kind} {result}"] += 1
        if outcome.word or outcome.status >= 400:
            text = f"{outcome.kind} of {outcome.target[:KEY_SHOWN]} at {outcome.entry}: {result}"
            self._tell("client", text, outcome.begun)
        if self._next is not None:
            self._next.ended(outcome)
        self.tell_violations()

    def wrong(self, invariant: str, text: str) -> None:
        if self._next is not None:
            self._next.wrong(invariant, text)
        self.tell_violations()

    def held(self, invariant: str) -> None:
        if self._next is not None:
            self._next.held(invariant)

    def tell_violations(self) -> None:
        """Puts into the trace what was violated since it was last looked."""
        new = self._tally.violations[self._told :]
        self._told += len(new)
        for violation in new:
            self._world.trace.add("VIOLATED", f"{violation.invariant}: {violation.text}")

    def _tell(self, who: str, text: str, begun: float) -> None:
        trace = self._world.trace
        if trace.on:
            trace.add(who, f"{text}, after {self._world.schedule.now - begun:.3f} s")


def _place(what: Write | Read) -> str:
    return f"{what.bucket}/{what.key[:KEY_SHOWN]}"


def _ids(ids: frozenset[str]) -> str:
    return ", ".join(sorted(ids)) or "nothing"
