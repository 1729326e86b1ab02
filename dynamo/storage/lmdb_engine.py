"""The ordered store on disk: LMDB, one named database for each table.

What it keeps: a commit has returned only when `fdatasync` has, for the data and then for the page
that makes it current, so a kill or a power cut shows the state before or after a commit and never
between. A full disk is a `StorageFull` outcome and leaves the store as it was; reads go on, and
writes go on by themselves when there is room. One process at a time owns the directory.

The caller's duties: open it after the process has forked for the last time (LMDB does not survive
a fork), make commits strictly one after another, and drop a view before control returns to the
reactor: an open view pins every page freed since. LMDB's design is in Chu, "MDB: a memory-mapped
database and backend for OpenLDAP" (2011).
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import lmdb

from dynamo.errors import Corrupt, StorageFault, StorageFull
from dynamo.storage.engine import TABLES, Job
from dynamo.storage.files import bytes_free, is_full, lock_directory, sync_directory
from dynamo.storage.jobs import commit_jobs, is_freeing
from dynamo.storage.lmdb_view import DAMAGE, LmdbTransaction, LmdbView

PAGE_BYTES = 4096
VIEW_COMMITS_MAX = 4096
"""A view still open after this many commits was forgotten and is closed under its holder."""
AMPLE_BYTES = 1 << 30
"""More than any commit adds: a client's write is at most 64 KiB, a peer's batch 4 MiB."""
VIEWS_WATCHED_MAX = 1024
"""How many views are made between two looks for forgotten ones, at most."""


class LmdbEngine:
    """The `Engine` on LMDB.

    `map_bytes` is the largest the store can grow (address space, not disk). `reserve_bytes` stay
    free: growing commits stop there, so that freeing ones can still work.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        map_bytes: int = 1 << 40,
        reserve_bytes: int = 64 << 20,
    ) -> None:
        self._path = os.fspath(path)
        self._map_bytes = map_bytes
        self._reserve_bytes = reserve_bytes
        os.makedirs(self._path, exist_ok=True)
        self._lock = lock_directory(self._path)
        try:
            self._env = lmdb.open(
                self._path,
                map_size=map_bytes,
                max_dbs=len(TABLES),
                mode=0o600,
                # A dropped view's reader is reset and kept for the next view to renew.
                max_spare_txns=16,
                # Reads are at random: reading ahead would fetch, and evict, much for nothing.
                readahead=False,
            )
            self._dbs = {table: self._env.open_db(table.encode()) for table in TABLES}
            sync_directory(self._path)
            sync_directory(os.path.dirname(os.path.abspath(self._path)))
        except (lmdb.Error, OSError) as error:
            os.close(self._lock)
            raise _open_fault(self._path, error) from error
        self._commits = 0
        self._number: int = self._env.info()["last_txnid"]
        self._views: list[weakref.ref[LmdbView]] = []
        self._views_looked = 0
        self._closed = False

    def view(self) -> LmdbView:
        """The state as of the last commit; valid until control returns to the reactor."""
        try:
            view = LmdbView(self._env.begin(), self._dbs, self._commits)
        except lmdb.Error as error:
            raise StorageFault(f"The store cannot be read: {error}") from error
        self._views.append(weakref.ref(view))
        if len(self._views) > VIEWS_WATCHED_MAX:
            self._close_forgotten_views()
        return view

    def commit(self, jobs: Sequence[Job]) -> list[Any]:
        """Runs the jobs in order in one transaction and returns when it is durable."""
        if self._closed:
            raise StorageFault("The store is closed.")
        return commit_jobs(jobs, self._attempt)

    def number(self) -> int:
        """LMDB's own count of transactions."""
        return self._number

    def bytes_used(self) -> int:
        """Bytes of disk the store occupies."""
        return os.stat(os.path.join(self._path, "data.mdb")).st_blocks * 512

    def close(self) -> None:
        """Closes the store, takes open views away and lets go of the directory."""
        if not self._closed:
            self._closed = True
            self._env.close()
            os.close(self._lock)

    def _attempt(self, jobs: Sequence[Job]) -> list[Any]:
        growing = not all(map(is_freeing, jobs))
        txn: Any = None
        try:
            txn = self._env.begin(write=True)
            room = self._room(txn) if growing else 0
            if room < 0:
                raise StorageFull
            transaction = LmdbTransaction(txn, self._dbs)
            outcomes = [transaction.run(job) for job in jobs]
            if transaction.changed:
                if growing and room < _growth(transaction):
                    raise StorageFull
                # Before anybody can see the commit: too high a number does no harm.
                self._number = txn.id()
                ending, txn = txn, None  # A commit that fails has ended the transaction too.
                ending.commit()
                self._commits += 1
            return outcomes
        except (lmdb.Error, OSError) as error:
            raise self._write_fault(error) from error
        finally:
            if txn is not None:
                txn.abort()

    def _room(self, txn: Any) -> int:
        """How many bytes may be added and still leave the reserve to jobs that free space.

        The reserve may lie outside the file, or in pages that earlier commits freed inside it,
        which is where room comes back: the file never shrinks. What is spare inside is counted
        only where it may matter, as that asks for the statistics of every table.
        """
        free = self._free_bytes() - self._reserve_bytes
        if free >= AMPLE_BYTES:
            return free
        return max(free, self._spare_bytes(txn) - self._reserve_bytes)

    def _free_bytes(self) -> int:
        """Room left to the store: on the file system, and in the map."""
        return min(bytes_free(self._path), self._map_bytes - self._file_bytes())

    def _spare_bytes(self, txn: Any) -> int:
        """Bytes of the pages inside the file that no table holds."""
        stats = [txn.stat(db) for db in self._dbs.values()]
        held: int = sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats)
        return self._file_bytes() - held * PAGE_BYTES

    def _file_bytes(self) -> int:
        """The part of the map the store has reached so far."""
        reached: int = self._env.info()["last_pgno"] + 1
        return reached * PAGE_BYTES

    def _write_fault(self, error: Exception) -> StorageFault:
        """What a failed commit means. LMDB reports a write cut short by a full disk as EIO."""
        code = _code(error)
        if isinstance(error, lmdb.MapFullError) or is_full(code):
            return StorageFull()
        if isinstance(error, DAMAGE):
            return Corrupt(f"The store is damaged: {error}")
        cut_short = isinstance(error, lmdb.Error) and code == errno.EIO
        if cut_short and self._free_bytes() < max(self._reserve_bytes, 1 << 20):
            return StorageFull()
        return StorageFault(f"The store cannot be written: {error}")

    def _close_forgotten_views(self) -> None:
        """Closes this thread's views that many commits have passed, and forgets dropped ones."""
        kept = []
        for watched in self._views:
            view = watched()
            if view is None:
                continue
            if (
                self._commits - view.born > VIEW_COMMITS_MAX
                and view.thread == threading.get_ident()
            ):
                view.close()
            else:
                kept.append(watched)
        self._views = kept


def _growth(transaction: LmdbTransaction) -> int:
    """Bytes a commit may take, guessed high: what is put, and two pages more for each put."""
    return transaction.put_bytes + 2 * PAGE_BYTES * (transaction.puts + 8)


def _open_fault(path: str, error: Exception) -> StorageFault:
    if is_full(_code(error)):
        return StorageFull(f"There is no room to open the store in {path}.")
    if isinstance(error, DAMAGE):
        return Corrupt(f"The store in {path} is damaged: {error}")
    return StorageFault(f"The store in {path} cannot be opened: {error}")


def _code(error: Exception) -> int | None:
    """The `errno` behind an exception of LMDB or the system."""
    return error.errno if isinstance(error, OSError) else getattr(error, "code", None)
