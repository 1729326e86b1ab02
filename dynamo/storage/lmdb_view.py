"""Reading and writing inside one LMDB transaction, as the ports `View` and `Transaction`.

What it keeps: values come out as bytes of their own, never as windows into the map, so nothing
read outlives its transaction in a dangerous way; LMDB's exceptions become `StorageFault` when
reading; a write that LMDB refuses marks the whole transaction as broken.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import lmdb

from dynamo.errors import Corrupt, StorageFault
from dynamo.storage.jobs import JournaledTransaction

DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError)
"""What LMDB raises when the file is not what it wrote."""


class LmdbView:
    """What was committed when `LmdbEngine.view` was called; closed by dropping it."""

    __slots__ = ("__weakref__", "_dbs", "_txn", "born", "thread")

    def __init__(self, txn: Any, dbs: dict[str, Any], born: int) -> None:
        self._txn = txn
        self._dbs = dbs
        self.born = born
        self.thread = threading.get_ident()

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        return _get(self._txn, self._dbs[table], key)

    def scan(
        self, table: str, start: bytes, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [start, stop) with their values, in byte order; `stop=None` is the end."""
        try:
            cursor = self._txn.cursor(self._dbs[table])
            if not cursor.set_range(start):
                return
            for item in cursor.iternext():
                if stop is not None and item[0] >= stop:
                    return
                yield item
        except lmdb.Error as error:
            raise _read_fault(error) from error

    def close(self) -> None:
        """Takes the view away from its holder."""
        self._txn.abort()


class LmdbTransaction(JournaledTransaction):
    """The one write transaction of a commit."""

    def __init__(self, txn: Any, dbs: dict[str, Any]) -> None:
        super().__init__()
        self._txn = txn
        self._dbs = dbs

    def get(self, table: str, key: bytes) -> bytes | None:
        return _get(self._txn, self._dbs[table], key)

    def scan(
        self, table: str, start: bytes, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """As `View.scan`; it goes on behind the last key given, whatever was written meanwhile."""
        cursor = self._txn.cursor(self._dbs[table])
        found = cursor.set_range(start)
        while found:
            key, value = cursor.item()
            if stop is not None and key >= stop:
                return
            yield key, value
            # Sought anew: a write since may have moved or removed what the cursor stood on.
            found = cursor.set_range(key)
            if found and cursor.key() == key:
                found = cursor.next()

    def _replace(self, table: str, key: bytes, value: bytes | None) -> bytes | None:
        try:
            old: bytes | None
            if value is None:
                old = self._txn.pop(key, db=self._dbs[table])
            else:
                old = self._txn.replace(key, value, db=self._dbs[table])
            return old
        except lmdb.Error as error:
            self.broken = error
            raise


def _get(txn: Any, db: Any, key: bytes) -> bytes | None:
    try:
        value: bytes | None = txn.get(key, None, db)
        return value
    except lmdb.BadValsizeError:
        return None  # No such key can have been put.
    except lmdb.Error as error:
        raise _read_fault(error) from error


def _read_fault(error: lmdb.Error) -> StorageFault:
    if isinstance(error, DAMAGE):
        return Corrupt(f"The store is damaged: {error}")
    return StorageFault(f"The store cannot be read: {error}")
