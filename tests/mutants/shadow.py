"""Parts of faults that are more than a changed line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, succeed

from dynamo.storage.engine import Engine, View
from dynamo.storage.hints import Effects


def turned(ranking: tuple[str, ...], viewer: str) -> tuple[str, ...]:
    """A ranking begun at a place of the viewer's own."""
    if not ranking:
        return ranking
    at = sum(viewer.encode()) % len(ranking)
    return ranking[at:] + ranking[:at]


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
