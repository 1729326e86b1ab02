"""The Merkle trees of the keys this node owns, in memory, kept current by every commit.

They are counted once after a start, from table `places`, in bounded steps in ascending order; what
lies below `_cursor` is counted. A step is a job of the group commit, whose answers come in the
order of the commits, and so do the changes (`apply`): a change behind the cursor is dropped,
because the job that counts its place sees it; one below is added. So nothing is counted twice or
missed, and in normal running nothing is ever counted again.

There is a tree for each partition and each number of copies that buckets ask for: two nodes compare
only keys that both of them own.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred

from dynamo.core.merkle import Shape, change
from dynamo.storage import places
from dynamo.storage.committer import Committer
from dynamo.storage.engine import Transaction
from dynamo.storage.jobs import frees_space

COUNT_ROWS = 500
"""Rows one step counts: about two milliseconds on the committer's thread."""


class Trees:
    """See the module. `copies_of(incarnation)`: how many copies the bucket wants."""

    def __init__(self, partitions: int, copies_of: Callable[[bytes], int]) -> None:
        self.shape = Shape.of(partitions)
        self.copies_of = copies_of
        self._none = self.shape.empty()
        self._trees: dict[tuple[int, int], array[int]] = {}
        self._counted_as: dict[bytes, int] = {}
        self._cursor: bytes | None = b""
        self._era = 0

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
        return self._trees.get((copies, partition), self._none)

    def root(self, copies: int, partition: int) -> bytes:
        """The root of a tree, b"" while the partition is not counted."""
        if not self.built(partition):
            return b""
        return self.shape.root(self.leaves(copies, partition))

    def apply(self, changes: Iterable[places.Change]) -> None:
        """Takes note of what a committed job did to owned keys."""
        cursor = self._cursor
        for where, incarnation, delta in changes:
            if cursor is None or where < cursor:
                self._add(where, incarnation, delta)

    def check_copies(self, incarnations: Iterable[bytes]) -> bool:
        """Whether buckets still want as many copies as their keys were counted for; else
        everything is counted anew. Rare: an operator changed a bucket's `n`."""
        counted_as = self._counted_as
        for incarnation in incarnations:
            was = counted_as.get(incarnation)
            if was is not None and was != self.copies_of(incarnation):
                self.recount()
                return False
        return True

    def recount(self) -> None:
        """Forgets all and begins to count from the start."""
        self._trees.clear()
        self._counted_as.clear()
        self._cursor = b""
        self._era += 1

    def count(self, committer: Committer) -> Deferred[bool]:
        """Counts the next rows; fires with whether all are counted. Not to be called again
        before it has fired."""
        start, era = self._cursor, self._era
        if start is None:
            done: Deferred[bool] = Deferred()
            done.callback(True)
            return done

        @frees_space
        def job(txn: Transaction) -> tuple[list[places.Change], bytes | None]:
            found: list[places.Change] = []
            for where, placed in places.walk(txn, start):
                if len(found) >= COUNT_ROWS:
                    return found, where
                number = int.from_bytes(placed.fingerprint, "big")
                found.append((where, placed.incarnation, number))
            return found, None

        def took(counted: tuple[Sequence[places.Change], bytes | None]) -> bool:
            if era == self._era:
                found, self._cursor = counted
                for where, incarnation, number in found:
                    self._add(where, incarnation, number)
            return self._cursor is None

        return committer.submit(job, took)

    def _add(self, where: bytes, incarnation: bytes, delta: int) -> None:
        copies = self._counted_as.get(incarnation)
        if copies is None:
            copies = self._counted_as[incarnation] = self.copies_of(incarnation)
        partition, leaf = self.shape.find(where[:8])
        tree = self._trees.get((copies, partition))
        if tree is None:
            tree = self._trees[copies, partition] = self.shape.empty()
        change(tree, leaf, delta)
