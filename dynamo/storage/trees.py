"""The Merkle trees of the keys this node owns, in memory, kept current by every commit.

They are counted once after a start: first what is pending (`begin`), then table `places` in bounded
steps, in ascending order. While that goes on, the table must not change: nobody flushes the
`PlaceBook`. Every change that is committed meanwhile is therefore not in the table, and is added
(`apply`) as it is ever after. So nothing is counted twice or missed, and in normal running nothing
is counted again.

There is a tree for each partition and each number of copies that buckets ask for: two nodes compare
only keys that both of them own.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping

from twisted.internet.defer import Deferred, succeed

from dynamo.core.merkle import HASH_BYTES, Shape, change
from dynamo.storage import places
from dynamo.storage.committer import Committer
from dynamo.storage.engine import Transaction, View
from dynamo.storage.jobs import frees_space
from dynamo.storage.places import PLACES, Change, Placed

COUNT_ROWS = 500
"""Rows one step counts: about two milliseconds on the committer's thread."""

WAITING_MAX = 512
"""Changes that wait to be added to their leaves, at most: a quarter of a millisecond's work."""

Counted = tuple[list[tuple[bytes, Placed]], bytes | None]
"""What one step has counted, and where the next one starts; None: that was all."""


class Trees:
    """See the module. `copies_of(incarnation)`: how many copies the bucket wants."""

    def __init__(self, partitions: int, copies_of: Callable[[bytes], int]) -> None:
        self.shape = Shape.of(partitions)
        self.copies_of = copies_of
        self._none = self.shape.empty()
        self._trees: dict[tuple[int, int], array[int]] = {}
        self._counted_as: dict[bytes, int] = {}
        self._waiting: list[Change] = []
        self._begun = False
        self._cursor: bytes | None = b""

    @property
    def begun(self) -> bool:
        """Whether counting has begun."""
        return self._begun

    @property
    def complete(self) -> bool:
        """Whether every partition is counted."""
        return self._cursor is None

    def built(self, partition: int) -> bool:
        """Whether a partition is counted: before that its tree says nothing."""
        if self._cursor is None:
            return True
        stop = self.shape.bounds(partition, self.shape.leaves - 1)[1]
        return stop is not None and self._cursor >= stop

    def leaves(self, copies: int, partition: int) -> array[int]:
        """The leaves of a tree; not to be changed."""
        self._catch_up()
        return self._trees.get((copies, partition), self._none)

    def known(self) -> list[tuple[int, int]]:
        """The trees that ever had a key in them, by number of copies and partition."""
        return sorted(self._trees)

    def root(self, copies: int, partition: int) -> bytes:
        """The root of a tree, b"" while the partition is not counted."""
        if not self.built(partition):
            return b""
        return self.shape.root(self.leaves(copies, partition))

    def apply(self, changes: Iterable[Change]) -> None:
        """Takes note of what a committed job did to owned keys. The leaves lie all over memory, so
        they are changed many at a time, or when somebody looks."""
        if self._begun:
            self._waiting.extend(changes)
            if len(self._waiting) >= WAITING_MAX:
                self._catch_up()

    def check_copies(self, incarnations: Iterable[bytes]) -> bool:
        """Whether buckets still want as many copies as their keys were counted for; else
        everything is counted anew. Rare: an operator changed a bucket's `n`."""
        for incarnation in incarnations:
            was = self._counted_as.get(incarnation)
            if was is not None and was != self.copies_of(incarnation):
                self._trees.clear()
                self._counted_as.clear()
                self._waiting.clear()
                self._begun, self._cursor = False, b""
                return False
        return True

    def begin(self, view: View, pending: Mapping[bytes, Placed]) -> None:
        """Begins to count, with what is pending and how that differs from table `places`."""
        self._begun = True
        for where, placed in pending.items():
            said = view.get(PLACES, where)
            was = 0 if said is None else places.read(where, said).fingerprint or 0
            self._add(where, placed.incarnation, (placed.fingerprint or 0) - was)

    def count(self, committer: Committer) -> Deferred[bool]:
        """Counts the next rows; fires with whether all are counted. Not to be called again
        before it has fired."""
        start = self._cursor
        if start is None:
            return succeed(True)

        @frees_space
        def job(txn: Transaction) -> Counted:
            found: list[tuple[bytes, Placed]] = []
            for where, placed in places.walk(txn, start):
                if len(found) >= COUNT_ROWS:
                    return found, where
                found.append((where, placed))
            return found, None

        def took(counted: Counted) -> bool:
            found, self._cursor = counted
            for where, placed in found:
                self._add(where, placed.incarnation, placed.fingerprint or 0)
            return self._cursor is None

        return committer.submit(job, took)

    def _catch_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        for where, placed, delta in waiting:
            self._add(where, placed.incarnation, delta)

    def _add(self, where: bytes, incarnation: bytes, delta: int) -> None:
        copies = self._counted_as.get(incarnation)
        if copies is None:
            copies = self._counted_as[incarnation] = self.copies_of(incarnation)
        shape = self.shape
        partition, leaf = shape.find(where[:HASH_BYTES])
        tree = self._trees.get((copies, partition))
        if tree is None:
            tree = self._trees[copies, partition] = shape.empty()
        change(tree, leaf, delta)
