"""Running the jobs of one commit, alike for every engine.

A `JournaledTransaction` notes what each write of the running job replaced, so that a job that
fails is undone alone, inside the transaction, and its neighbours are not run again. The rules:

- a `DynamoError` raised before the job's first write is that job's outcome, and so is any other
  exception, after its writes were taken back;
- when the disk has no room, nothing of the batch is kept; then the jobs marked `frees_space` are
  run again without the others, because deleting is how room comes back;
- a store that failed underneath a job ends the attempt, whatever the job made of the exception.

The contract is the one in `dynamo.storage.engine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from dynamo.errors import StorageFault, StorageFull
from dynamo.storage.engine import KEY_BYTES_MAX, Job

J = TypeVar("J", bound=Callable[..., Any])


def frees_space(job: J) -> J:
    """Marks a job that leaves less on disk than it found: it is tried even on a full disk."""
    job.frees_space = True  # type: ignore[attr-defined]
    return job


def is_freeing(job: Job) -> bool:
    """Whether `frees_space` marked this job."""
    return getattr(job, "frees_space", False) is True


class JournaledTransaction(ABC):
    """The writing half of a transaction; an engine adds how one key is read and replaced.

    `puts` and `put_bytes` count what the attempt wrote, for the engine's estimate of growth.
    """

    def __init__(self) -> None:
        self.changed = False
        self.puts = 0
        self.put_bytes = 0
        self.broken: Exception | None = None
        self._replaced: list[tuple[str, bytes, bytes | None]] = []

    @abstractmethod
    def get(self, table: str, key: bytes) -> bytes | None: ...

    @abstractmethod
    def scan(
        self, table: str, start: bytes, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]: ...

    @abstractmethod
    def _replace(self, table: str, key: bytes, value: bytes | None) -> bytes | None:
        """Stores the value, or removes the key for None; returns what was there."""

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Stores `value` under `key`; the key has 1 to 511 bytes."""
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise ValueError(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
        self._replaced.append((table, key, self._replace(table, key, value)))
        self.changed = True
        self.puts += 1
        self.put_bytes += len(key) + len(value)

    def delete(self, table: str, key: bytes) -> None:
        """Removes `key`; nothing happens if it is not there."""
        if not 0 < len(key) <= KEY_BYTES_MAX:
            return
        old = self._replace(table, key, None)
        if old is not None:
            self._replaced.append((table, key, old))
            self.changed = True

    def run(self, job: Job) -> Any:
        """The job's outcome: what it returned, or what it raised after its writes were undone.

        Raises `broken` if the store itself failed underneath.
        """
        self._replaced.clear()
        outcome: Any
        try:
            outcome = job(self)
        except Exception as error:
            outcome = error
            if self.broken is None:
                self._undo()
        if self.broken is not None:
            raise self.broken
        return outcome

    def _undo(self) -> None:
        for table, key, old in reversed(self._replaced):
            self._replace(table, key, old)


def commit_jobs(jobs: Sequence[Job], attempt: Callable[[Sequence[Job]], list[Any]]) -> list[Any]:
    """The outcomes of `attempt`, which runs jobs in one transaction and makes it durable.

    `attempt` raises `StorageFull` if there was no room and another `StorageFault` if the disk
    failed; either way it has left nothing behind.
    """
    try:
        return attempt(jobs)
    except StorageFull as full:
        freeing = [job for job in jobs if is_freeing(job)]
        if not freeing or len(freeing) == len(jobs):
            return [StorageFull(str(full)) for _ in jobs]
        freed = iter(commit_jobs(freeing, attempt))
        return [next(freed) if is_freeing(job) else StorageFull(str(full)) for job in jobs]
    except StorageFault as fault:
        return [type(fault)(str(fault)) for _ in jobs]
