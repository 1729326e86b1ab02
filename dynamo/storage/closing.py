"""What the jobs of one commit did together, written by its last job.

The keys that changed make one row of table `changes` (`dynamo.storage.places`), and the totals are
moved once, however many jobs have moved them. What was seen of members whose messages the jobs came
with is written as well (`dynamo.storage.sighted`).
"""

from __future__ import annotations

from dynamo.storage import ledger
from dynamo.storage.effects import Effects
from dynamo.storage.engine import Transaction
from dynamo.storage.jobs import frees_space
from dynamo.storage.places import PlaceBook, Placed
from dynamo.storage.sighted import SightingBook


class Closing:
    """Gathers and closes, on the committer's thread.

    A commit that found no room is tried again without some of its jobs: by its transaction is told
    which attempt a job belongs to, and what an earlier attempt would have done is forgotten.
    """

    def __init__(self, places: PlaceBook, seen: SightingBook) -> None:
        self._places = places
        self._seen = seen
        self._attempt: Transaction | None = None
        self._changed: list[Placed] = []
        self._objects = self._size = 0

    def add(self, txn: Transaction, effects: Effects) -> None:
        """A job of the running commit did this."""
        if txn is not self._attempt:
            self._attempt, self._changed = txn, []
            self._objects = self._size = 0
        for _, placed, _ in effects.moved:
            self._changed.append(placed)
        self._objects += effects.objects
        self._size += effects.size

    @frees_space
    def close(self, txn: Transaction) -> None:
        """The last job of every commit."""
        if txn is self._attempt:
            self._attempt = None
            self._seen.write(txn)
            ledger.add_up(txn, self._objects, self._size)
            if self._changed:
                self._places.name_changes(txn, self._changed)
