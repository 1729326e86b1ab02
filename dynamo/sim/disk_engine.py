"""The ordered store of a simulated machine: its tables, views of them, and the engine.

What it keeps of LMDB: a commit becomes visible in the same moment as it becomes durable, because
LMDB lets readers see a transaction only when the synchronous write of its meta page has returned
(`mdb_env_write_meta`); before, it is all there or not at all. So what lies in `Store` is both
what a node sees and what a power cut leaves; a commit on its way is `SimEngine.owed`.

A commit costs its changes, not its tables, even while a view is held: each view is told what the
commit replaces.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dynamo.errors import StorageFault, StorageFull
from dynamo.storage.engine import TABLES, Job
from dynamo.storage.jobs import commit_jobs, is_freeing
from dynamo.storage.memory_engine import MemoryTransaction, Table

Changes = dict[str, dict[bytes, tuple[bytes | None, bytes | None]]]
"""What a commit did: by table and key, the value before and after (None: not there)."""

Rows = dict[bytes, bytes | None]


class Store:
    """The tables. `on_commit` is told of every commit in the moment it becomes visible."""

    def __init__(self, tables: dict[str, Table] | None = None) -> None:
        self.tables = tables or {table: Table() for table in TABLES}
        self.number = 0
        self.on_commit: Callable[[Changes], None] | None = None
        self._views: list[weakref.ref[StoreView]] = []

    def view(self, reader: Reader) -> StoreView:
        """What is there now, to be read until `reader` is closed."""
        while self._views and self._views[-1]() is None:
            self._views.pop()
        newest = self._views[-1]() if self._views else None
        if newest is None or not newest.shows(self.tables, reader):
            newest = StoreView(self.tables, reader)
            self._views.append(weakref.ref(newest))
        return newest

    def publish(self, changes: dict[str, Rows]) -> None:
        """Makes the changes of one commit visible, which is durable with that."""
        self._views = [watched for watched in self._views if watched() is not None]
        views = [view for watched in self._views if (view := watched()) is not None]
        self.number += 1
        told = None if self.on_commit is None else _told(self.tables, changes)
        for name, rows in changes.items():
            if rows:
                table = self.tables[name]
                for view in views:
                    view.keep(name, table, rows)
                for key, value in rows.items():
                    table.set(key, value)
        if told and self.on_commit is not None:
            self.on_commit(told)

    def bytes_used(self) -> int:
        """Bytes of keys and values."""
        return sum(table.bytes_used for table in self.tables.values())

    def copy(self) -> dict[str, Table]:
        """The tables as they are now, for a snapshot."""
        return {name: table.copy() for name, table in self.tables.items()}


class Reader:
    """Who reads; after `closed` its views are of no more use."""

    closed = False


class StoreView:
    """The tables as they were when the view was taken.

    `replaced` holds the rows that commits have changed since, as they were.
    """

    __slots__ = ("__weakref__", "_tables", "reader", "replaced")

    def __init__(self, tables: dict[str, Table], reader: Reader) -> None:
        self._tables = tables
        self.reader = reader
        self.replaced: dict[str, Rows] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        self._check_open()
        rows = self.replaced.get(table)
        if rows is not None and key in rows:
            return rows[key]
        return self._tables[table].values.get(key)

    def scan(
        self, table: str, start: bytes, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [start, stop) with their values, in byte order; `stop=None` is the end."""
        held, after = self._tables[table], False
        at = bisect_left(held.keys, start)
        while table not in self.replaced:
            self._check_open()
            if at >= len(held.keys) or (stop is not None and held.keys[at] >= stop):
                return
            start, after = held.keys[at], True
            yield start, held.values[start]
            at += 1
        # A commit has moved the rows: from here on each is sought behind the one before.
        key = self._key_from(table, start, after=after)
        while key is not None and (stop is None or key < stop):
            value = self.get(table, key)
            if value is not None:
                yield key, value
            key = self._key_from(table, key, after=True)

    def shows(self, tables: dict[str, Table], reader: Reader) -> bool:
        """Whether this is what a view taken now would be."""
        return not self.replaced and self.reader is reader and self._tables is tables

    def keep(self, name: str, table: Table, rows: Rows) -> None:
        """Takes note of what a commit is about to replace."""
        if self._tables.get(name) is table:
            kept = self.replaced.setdefault(name, {})
            for key in rows:
                kept.setdefault(key, table.values.get(key))

    def _key_from(self, table: str, key: bytes, *, after: bool) -> bytes | None:
        kept = [k for k in self.replaced[table] if k > key or (k == key and not after)]
        stored = self._tables[table].key_from(key, after=after)
        return min(kept if stored is None else [*kept, stored], default=None)

    def _check_open(self) -> None:
        if self.reader.closed:
            raise StorageFault("The store is closed.")


class SimEngine(Reader):
    """The `Engine` on a `Store`. `room` says how many bytes may be added, below zero if not even
    a commit that adds nothing is let in; None is a disk without end.

    Between `hold` and `settle` a commit is only prepared: it becomes visible, and durable, by
    `settle`. Otherwise it does so at once.
    """

    def __init__(self, store: Store, room: Callable[[], int | None]) -> None:
        self._store = store
        self._room = room
        self._holding = False
        self.owed: dict[str, Rows] | None = None

    def view(self) -> StoreView:
        """The state as of the last commit; valid until control returns to the reactor."""
        if self.closed:
            raise StorageFault("The store is closed.")
        return self._store.view(self)

    def commit(self, jobs: Sequence[Job]) -> list[Any]:
        """Runs the jobs in order in one transaction."""
        if self.closed:
            raise StorageFault("The store is closed.")
        return commit_jobs(jobs, self._attempt)

    def number(self) -> int:
        """The number of the last commit."""
        return self._store.number

    def bytes_used(self) -> int:
        """Bytes of keys and values held."""
        return self._store.bytes_used()

    def close(self) -> None:
        """Closes the store and takes open views away."""
        self.closed = True

    def hold(self) -> None:
        """From now on the last commit waits for `settle`."""
        self._holding = True

    def settle(self) -> None:
        """Publishes the commit that waits, if one does."""
        self._holding = False
        if self.owed is not None:
            owed, self.owed = self.owed, None
            self._store.publish(owed)

    def _attempt(self, jobs: Sequence[Job]) -> list[Any]:
        if self.owed is not None:
            # Two commits in one call: the first had returned, so it is on disk.
            self.settle()
            self.hold()
        growing = not all(map(is_freeing, jobs))
        room = self._room() if growing else None
        if room is not None and room < 0:
            raise StorageFull
        transaction = MemoryTransaction(self._store.tables)
        outcomes = [transaction.run(job) for job in jobs]
        if room is not None and transaction.growth() > room:
            raise StorageFull
        if transaction.changed:
            self.owed = transaction.changes
            if not self._holding:
                self.settle()
        return outcomes


def _told(tables: dict[str, Table], changes: dict[str, Rows]) -> Changes:
    """What of the changes is one, beside what it replaces."""
    told: Changes = {}
    for name, rows in changes.items():
        values = tables[name].values
        differing = {
            key: (old, value) for key, value in rows.items() if (old := values.get(key)) != value
        }
        if differing:
            told[name] = differing
    return told
