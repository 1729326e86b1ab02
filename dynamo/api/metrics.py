"""What `GET /metrics` says, in Prometheus' text format.

Counts are kept by prometheus-client in a registry of this node's own, but for those in which every
request counts: these are plain numbers, and become metrics when somebody looks. Readings are taken
only then, so that they cost nothing otherwise.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from math import inf
from typing import Any

import attrs
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
KINDS = ("chunk", "record", "hint")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@attrs.frozen
class Reading:
    """A number read when somebody looks; `values` is by the values of `labels`, in order."""

    name: str
    values: Mapping[Any, float]
    labels: tuple[str, ...] = ()
    counter: bool = False


Readings = Callable[[], Iterable[Reading]]


class Metrics:
    """One node's metrics. The methods are what parts are given to call."""

    def __init__(self, readings: Readings) -> None:
        self._registry = CollectorRegistry()
        self._repairs = Counter(
            "dynamo_read_repairs", "Stale replicas mended by a read", registry=self._registry
        )
        self._verified = Counter(
            "dynamo_scrub_verified",
            "Rows and chunks the scrub found whole",
            registry=self._registry,
        )
        self._corrupt = Counter(
            "dynamo_corrupt", "Damaged copies found", ("kind",), registry=self._registry
        )
        for kind in KINDS:
            self._corrupt.labels(kind)
        self._commits = Counter("dynamo_commits", "Group commits", registry=self._registry)
        self._batch = Histogram(
            "dynamo_commit_batch_size",
            "Writes in one group commit",
            buckets=BATCHES,
            registry=self._registry,
        )
        self._requests: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[tuple[str, str], _Spread] = {}
        self._outcomes: dict[tuple[str, str], int] = {}
        self._registry.register(_Read(self._counted))
        self._registry.register(_Read(lambda: map(_family, readings())))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        case = (route, method, status)
        self._requests[case] = self._requests.get(case, 0) + 1
        spread = self._seconds.get((route, method))
        if spread is None:
            spread = self._seconds[route, method] = _Spread()
        spread.counts[bisect_left(SECONDS, seconds)] += 1
        spread.sum += seconds

    def operation(self, operation: str, outcome: str) -> None:
        """Another replica did an operation, failed it or was late."""
        case = (operation, outcome)
        self._outcomes[case] = self._outcomes.get(case, 0) + 1
        if (operation, outcome) == ("repair", "ok"):
            self._repairs.inc()

    def corrupt(self, kind: str) -> None:
        """A copy on this disk turned out damaged: one of `KINDS`."""
        self._corrupt.labels(kind).inc()

    def verified(self, count: int) -> None:
        """The scrub found so many rows and chunks whole."""
        self._verified.inc(count)

    def commit(self, jobs: int) -> None:
        """A group commit of so many writes is on disk."""
        self._commits.inc()
        self._batch.observe(jobs)

    def text(self) -> bytes:
        """All of it, for a scraper."""
        return generate_latest(self._registry)

    def _counted(self) -> Iterable[Metric]:
        """What every request counts in: too often for a lock each time."""
        answered = CounterMetricFamily(
            "dynamo_requests", "Requests answered", labels=("route", "method", "status")
        )
        for (route, method, status), count in sorted(self._requests.items()):
            answered.add_metric((route, method, str(status)), count)
        yield answered
        seconds = HistogramMetricFamily(
            "dynamo_request_seconds",
            "Seconds from the last header to the last byte of the answer",
            labels=("route", "method"),
        )
        bounds = [floatToGoString(bound) for bound in (*SECONDS, inf)]
        for case, spread in sorted(self._seconds.items()):
            upto = list(zip(bounds, accumulate(spread.counts), strict=True))
            seconds.add_metric(case, upto, spread.sum)
        yield seconds
        operations = CounterMetricFamily(
            "dynamo_replica_operations",
            "Operations asked of other replicas",
            labels=("operation", "outcome"),
        )
        for pair, count in sorted(self._outcomes.items()):
            operations.add_metric(pair, count)
        yield operations


class _Spread:
    """Seconds of many requests: how many were in each bucket, and all together."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum = 0.0


class _Read(Collector):
    """Makes metrics when they are scraped."""

    def __init__(self, made: Callable[[], Iterable[Metric]]) -> None:
        self._made = made

    def collect(self) -> Iterable[Metric]:
        return self._made()


def _family(reading: Reading) -> Metric:
    kind = CounterMetricFamily if reading.counter else GaugeMetricFamily
    words = reading.name.replace("_", " ")
    family = kind(f"dynamo_{reading.name}", words, labels=list(reading.labels))
    for values, number in sorted(reading.values.items()):
        family.add_metric(list(values), number)
    return family
