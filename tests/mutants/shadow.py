"""Parts of faults that are more than a changed line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from dynamo.storage.engine import Engine, Job, View
from dynamo.storage.hints import Effects


def turned(ranking: tuple[str, ...], viewer: str) -> tuple[str, ...]:
    """A ranking begun at a place of the viewer's own."""
    if not ranking:
        return ranking
    at = sum(viewer.encode()) % len(ranking)
    return ranking[at:] + ranking[:at]


def answering_early(
    engine: Engine, jobs: Sequence[Job], answers: Sequence[Deferred[Any]]
) -> tuple[list[Deferred[Any]], Callable[[], list[Any]]]:
    """A commit that answers as soon as its jobs have run; what comes of it later is lost on the
    submitters, whose places are taken by others that nobody listens to."""

    def commit() -> list[Any]:
        outcomes = engine.commit(jobs)
        for answer, outcome in zip(answers, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                answer.errback(Failure(outcome))
            else:
                answer.callback(outcome)
        return [None] * len(outcomes)

    unheard: list[Deferred[Any]] = [Deferred() for _ in answers]
    for place in unheard:
        place.addErrback(lambda _: None)
    return unheard, commit


class _Foresight:
    """A transaction that changes nothing: what is written to it is seen by it alone."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._written: dict[tuple[str, bytes], bytes | None] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        if (table, key) in self._written:
            return self._written[table, key]
        return self._view.get(table, key)

    def scan(
        self, table: str, start: bytes, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._view.scan(table, start, stop)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._written[table, key] = value

    def delete(self, table: str, key: bytes) -> None:
        self._written[table, key] = None


def foresee(engine: Engine, job: Callable[[Any, Effects], Any], stored: Deferred[Any]) -> Any:
    """What a job will have made, at once; `stored` is not waited for."""
    stored.addErrback(lambda _: None)
    return succeed(job(_Foresight(engine.view()), Effects()))
