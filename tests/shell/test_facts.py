"""What a node knows besides files is taken note of when it is on disk, whoever still waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from dynamo.core.buckets import Bucket, Properties
from dynamo.core.layout import Layout
from dynamo.core.ring import Member
from dynamo.storage.agreed import LayoutBook
from dynamo.storage.committer import Committer
from dynamo.storage.facts import BucketTable, Identity
from dynamo.storage.memory_engine import MemoryEngine


class Slow:
    """A disk that commits when it is told to."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.committer = Committer(self.engine, self._run)
        self._waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def _run(self, call: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self._waiting.append((call, done))
        return done

    def commit(self) -> None:
        while self._waiting:
            call, done = self._waiting.pop(0)
            done.callback(call())


def give_up(waiting: Deferred[Any]) -> None:
    waiting.addErrback(lambda f: f.trap(CancelledError) and None)
    waiting.cancel()


def test_a_bucket_is_known_though_who_made_it_has_gone() -> None:
    disk = Slow()
    table = BucketTable(disk.engine, disk.committer)
    give_up(table.merge([Bucket("b").create(1, 1, Properties())]))
    disk.commit()
    assert table.get("b").exists
    assert table.get("b").incarnation in table.by_incarnation


def test_a_layout_is_known_though_who_brought_it_has_gone() -> None:
    """And what it says of this node's own disk."""
    disk = Slow()
    identity = Identity(disk.engine, disk.committer)
    book = LayoutBook(disk.engine, disk.committer, identity)
    give_up(book.adopt(Layout(3, 1, (Member("n1"),)), refill=True))
    assert identity.refills_coming == 1
    disk.commit()
    assert book.layout.version == 3
    assert identity.refilling
    assert identity.refills_coming == 0
