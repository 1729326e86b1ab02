"""One node's copies on a store in memory, committed at once or when told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dynamo.core.record import Draft, Record
from dynamo.storage import ledger
from dynamo.storage.chunks import MemoryChunks, digest_of
from dynamo.storage.committer import Committer
from dynamo.storage.copies import Copies
from dynamo.storage.hints import HintBook
from dynamo.storage.memory_engine import MemoryEngine
from dynamo.storage.places import PlaceBook
from dynamo.storage.threads import run_here

T = TypeVar("T")
INCARNATION = b"bucket-1"


class Disk:
    """`seen` are the stamps that came from outside."""

    def __init__(self, before: Disk | None = None) -> None:
        self.engine = MemoryEngine(None if before is None else before.engine.tables)
        self.chunks = MemoryChunks(stored=None if before is None else before.chunks.stored)
        self.seen: list[int] = []
        self.copies = Copies(
            engine=self.engine,
            committer=Committer(self.engine, run_here),
            chunks=self.chunks,
            alone=run_here,
            observe=self.seen.append,
            hints=HintBook(self.engine.view()),
            places=PlaceBook(self.engine.view()),
        )

    def chunk(self, data: bytes) -> bytes:
        digest = digest_of(data)
        now(self.chunks.write(digest, data))
        return digest

    def put(self, key: bytes, draft: Draft | None, **more: Any) -> Record:
        asked = {"actor": "me", "stamp": 1, "context": None} | more
        return now(self.copies.coordinate(INCARNATION, key, draft, **asked))

    def merge(self, key: bytes, record: Record, **more: Any) -> Record:
        return now(self.copies.merge(INCARNATION, key, record, **more))

    def hold(self, target: str, key: bytes, record: Record, **more: Any) -> Record:
        return now(self.copies.hold_for(target, INCARNATION, key, record, **more))

    def drop(self, target: str) -> None:
        """Everything kept for a target was delivered."""
        found = self.copies.hints.batch(self.engine.view(), target, b"", 1000)
        now(self.copies.drop_hints(target, "me", [hint for _, hint in found]))

    def read(self, key: bytes) -> Record:
        return self.copies.read(INCARNATION, key)

    def keys(self, after: bytes = b"", prefix: bytes = b"") -> list[bytes]:
        return [key for key, _ in self.copies.scan(INCARNATION, after, prefix)]

    def references(self, *digests: bytes) -> list[int]:
        return [ledger.references(self.engine.view(), digest) for digest in digests]

    def rows(self, table: str) -> int:
        return sum(1 for _ in self.engine.view().scan(table, b""))


def now(done: Deferred[T]) -> T:
    """The result of something that has happened already."""
    outcome: list[Any] = []
    done.addBoth(outcome.append)
    assert outcome, "not done yet"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]  # type: ignore[no-any-return]


def failing(call: Callable[[], Deferred[Any]]) -> Exception:
    """The exception something failed with."""
    caught: list[Failure] = []
    call().addErrback(caught.append)
    error = caught[0].value
    assert isinstance(error, Exception)
    return error


def draft(name: str, body: bytes = b"", *chunks: bytes) -> Draft:
    return Draft(
        write=name.encode(),
        size=len(body) + len(chunks),
        etag=name,
        body=body,
        chunk_size=1 if chunks else 0,
        chunks=chunks,
    )


def record(name: str, actor: str = "other", stamp: int = 1, *chunks: bytes) -> Record:
    """One version made elsewhere."""
    return Record().put(draft(name, b"", *chunks), actor=actor, stamp=stamp, context={})
