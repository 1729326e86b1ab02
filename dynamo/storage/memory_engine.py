"""The ordered store in memory, for tests and the simulator.

It keeps every rule of the port but durability beyond the process: commits are atomic, jobs are
isolated, a view stays one picture whatever is committed while it is held. `tables` is public, so
that a simulated node can be started again on what its predecessor had committed; `bytes_max`
may be changed at any time to fill the disk or make room.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Any

from dynamo.errors import StorageFault, StorageFull
from dynamo.storage.engine import TABLES, Job
from dynamo.storage.jobs import JournaledTransaction, commit_jobs, is_freeing


class Table:
    """Values by key, and the keys in order."""

    def __init__(self, values: dict[bytes, bytes] | None = None) -> None:
        self.values = dict(values or {})
        self.keys = sorted(self.values)
        self.bytes_used = sum(len(k) + len(v) for k, v in self.values.items())

    def copy(self) -> Table:
        """One that changes by itself."""
        other = Table()
        other.values = dict(self.values)
        other.keys = list(self.keys)
        other.bytes_used = self.bytes_used
        return other

    def set(self, key: bytes, value: bytes | None) -> None:
        """Stores `value`, or removes the key for None."""
        old = self.values.get(key)
        if old is not None:
            self.bytes_used -= len(key) + len(old)
        if value is not None:
            self.bytes_used += len(key) + len(value)
            self.values[key] = value
            if old is None:
                insort(self.keys, key)
        elif old is not None:
            del self.values[key]
            del self.keys[bisect_left(self.keys, key)]

    def key_from(self, key: bytes, *, after: bool) -> bytes | None:
        """The first key at `key` or later (strictly later with `after`), or None."""
        at = bisect_right(self.keys, key) if after else bisect_left(self.keys, key)
        return self.keys[at] if at < len(self.keys) else None


class MemoryView:
    """The tables as they were when the view was taken."""

    def __init__(self, tables: dict[str, Table]) -> None:
        self.tables = dict(tables)
        self.closed = False

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        self._check_open()
        return self.tables[table].values.get(key)

    def scan(
        self, table: str, start: bytes, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [start, stop) with their values, in byte order; `stop=None` is the end."""
        held = self.tables[table]
        at = bisect_left(held.keys, start)
        while at < len(held.keys) and (stop is None or held.keys[at] < stop):
            self._check_open()
            yield held.keys[at], held.values[held.keys[at]]
            at += 1

    def _check_open(self) -> None:
        if self.closed:
            raise StorageFault("The store is closed.")


class MemoryTransaction(JournaledTransaction):
    """Changes laid over the tables until the commit publishes them."""

    def __init__(self, tables: dict[str, Table]) -> None:
        super().__init__()
        self._tables = tables
        self.changes: dict[str, dict[bytes, bytes | None]] = {table: {} for table in TABLES}

    def get(self, table: str, key: bytes) -> bytes | None:
        changes = self.changes[table]
        return changes[key] if key in changes else self._tables[table].values.get(key)

    def scan(
        self, table: str, start: bytes, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """As `View.scan`; it goes on behind the last key given, whatever was written meanwhile."""
        key = self._key_from(table, start, after=False)
        while key is not None and (stop is None or key < stop):
            value = self.get(table, key)
            if value is not None:
                yield key, value
            key = self._key_from(table, key, after=True)

    def growth(self) -> int:
        """Bytes the tables will have gained."""
        total = 0
        for table, changes in self.changes.items():
            values = self._tables[table].values
            for key, value in changes.items():
                old = values.get(key)
                total += 0 if value is None else len(key) + len(value)
                total -= 0 if old is None else len(key) + len(old)
        return total

    def _key_from(self, table: str, key: bytes, *, after: bool) -> bytes | None:
        changed = [k for k in self.changes[table] if k > key or (k == key and not after)]
        stored = self._tables[table].key_from(key, after=after)
        return min(changed if stored is None else [*changed, stored], default=None)

    def _replace(self, table: str, key: bytes, value: bytes | None) -> bytes | None:
        old = self.get(table, key)
        self.changes[table][key] = value
        return old


class MemoryEngine:
    """The `Engine` in memory. `bytes_max` is the size of its disk; None is one without end."""

    def __init__(
        self, tables: dict[str, Table] | None = None, *, bytes_max: int | None = None
    ) -> None:
        self.tables = {table: Table() for table in TABLES} if tables is None else tables
        self.bytes_max = bytes_max
        self._number = 0
        self._views: list[weakref.ref[MemoryView]] = []
        self._publishing = threading.Lock()
        self._closed = False

    def view(self) -> MemoryView:
        """The state as of the last commit; valid until control returns to the reactor."""
        self._check_open()
        with self._publishing:
            while self._views and self._views[-1]() is None:
                self._views.pop()
            newest = self._views[-1]() if self._views else None
            if newest is None or newest.tables != self.tables:
                newest = MemoryView(self.tables)
                self._views.append(weakref.ref(newest))
            return newest

    def commit(self, jobs: Sequence[Job]) -> list[Any]:
        """Runs the jobs in order in one transaction; it is visible when this returns."""
        self._check_open()
        return commit_jobs(jobs, self._attempt)

    def number(self) -> int:
        """Counted from the making of this object."""
        return self._number

    def bytes_used(self) -> int:
        """Bytes of keys and values held."""
        return sum(table.bytes_used for table in self.tables.values())

    def close(self) -> None:
        """Closes the store and takes open views away; `tables` stays."""
        for view in self._held():
            view.closed = True
        self._closed = True

    def _attempt(self, jobs: Sequence[Job]) -> list[Any]:
        transaction = MemoryTransaction(self.tables)
        outcomes = [transaction.run(job) for job in jobs]
        growing = not all(map(is_freeing, jobs)) and transaction.puts
        if growing and self.bytes_max is not None:
            growth = transaction.growth()
            if growth > 0 and self.bytes_used() + growth > self.bytes_max:
                raise StorageFull
        with self._publishing:
            if any(transaction.changes.values()):
                self._number += 1
            self._publish(transaction)
        return outcomes

    def _publish(self, transaction: MemoryTransaction) -> None:
        held = self._held()
        for name, changes in transaction.changes.items():
            if not changes:
                continue
            if any(view.tables[name] is self.tables[name] for view in held):
                # Somebody looks at the old table: leave it to them.
                self.tables[name] = self.tables[name].copy()
            for key, value in changes.items():
                self.tables[name].set(key, value)

    def _held(self) -> list[MemoryView]:
        """The views somebody still has."""
        self._views = [watched for watched in self._views if watched() is not None]
        return [view for watched in self._views if (view := watched()) is not None]

    def _check_open(self) -> None:
        if self._closed:
            raise StorageFault("The store is closed.")
