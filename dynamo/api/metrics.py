"""What `GET /metrics` says, in Prometheus' text format.

Counts are kept by prometheus-client in a registry of this node's own. Readings are taken when
somebody looks, so that they cost nothing otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

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
        self._requests = Counter(
            "dynamo_requests",
            "Requests answered",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "dynamo_request_seconds",
            "Seconds from the last header to the last byte of the answer",
            ("route", "method"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._operations = Counter(
            "dynamo_replica_operations",
            "Operations asked of other replicas",
            ("operation", "outcome"),
            registry=self._registry,
        )
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
        self._seen: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._outcomes: dict[tuple[str, str], Counter] = {}
        self._registry.register(_Read(readings))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        case = (route, method, status)
        children = self._seen.get(case)
        if children is None:
            children = self._seen[case] = (
                self._requests.labels(route, method, str(status)),
                self._seconds.labels(route, method),
            )
        children[0].inc()
        children[1].observe(seconds)

    def operation(self, operation: str, outcome: str) -> None:
        """Another replica did an operation, failed it or was late."""
        child = self._outcomes.get((operation, outcome))
        if child is None:
            child = self._operations.labels(operation, outcome)
            self._outcomes[operation, outcome] = child
        child.inc()
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


class _Read(Collector):
    """Turns the gauges into metrics when they are scraped."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        for reading in self._readings():
            kind = CounterMetricFamily if reading.counter else GaugeMetricFamily
            words = reading.name.replace("_", " ")
            family = kind(f"dynamo_{reading.name}", words, labels=list(reading.labels))
            for values, number in sorted(reading.values.items()):
                family.add_metric(list(values), number)
            yield family
