"""The port of the ordered store, and what its implementations share.

An engine holds a few tables of byte keys in byte order. Reading is synchronous and sees the
last commit; it may be done in the reactor's thread. All writing goes through `commit`, which
blocks until the batch is on disk and therefore runs in a thread of its own (see
`dynamo.storage.committer`). Whoever calls `commit` keeps the calls strictly one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

KEY_BYTES_MAX = 511
"""The longest key a table takes; LMDB's build-time default."""

TABLES = ("records", "places", "changes", "graves", "held", "hints", "buckets", "refs", "meta")
"""Every table there is: owned records, their keys by place in the hash space, the keys whose place
is to be written yet, the places of tombstones, copies held for others, what others have to be told,
bucket states, chunk reference counts, and the node's own facts (actor, hand, members)."""


class View(Protocol):
    """What was committed, as one consistent picture."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value under `key`, or None."""

    def scan(
        self, table: str, start: bytes, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [start, stop) with their values, in byte order; `stop=None` is the end."""


class Transaction(View, Protocol):
    """A view that can also change; it sees its own changes."""

    def put(self, table: str, key: bytes, value: bytes) -> None: ...

    def delete(self, table: str, key: bytes) -> None:
        """Removes `key`; nothing happens if it is not there."""


Job = Callable[[Transaction], Any]
"""One unit of a commit. It reads and writes through the transaction and returns a result. It may
raise a `DynamoError` only before its first write; that becomes its own outcome. Any other
exception, at any time, undoes the whole job and nothing but the job."""


class Engine(Protocol):
    def view(self) -> View:
        """The state as of the last commit; valid until control returns to the reactor."""

    def commit(self, jobs: Sequence[Job]) -> list[Any]:
        """Runs the jobs in order in one transaction and returns when it is durable.

        The result list holds, per job, what it returned or the exception it raised. When the
        disk is full, every job's outcome is `StorageFull` and nothing changed.
        """

    def number(self) -> int:
        """The number of the last commit that changed something; it never goes back, and what a
        view shows was made by no later one. It is on the disk with the data: a data directory that
        is put back to an earlier state is back at that state's number."""

    def bytes_used(self) -> int:
        """Bytes of disk the store occupies."""

    def close(self) -> None: ...
