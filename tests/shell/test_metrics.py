"""What a scraper reads of requests and operations."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from dynamo.api.metrics import SECONDS, Metrics, Reading


def scraped(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_route_and_spread_over_seconds() -> None:
    """A bucket has all that took as long as its bound or less; the last one has everything."""
    metrics = Metrics(lambda: [Reading("hints", {("n2",): 3}, ("target",))])
    for status, seconds in ((200, SECONDS[0]), (200, 0.3), (404, 99.0)):
        metrics.request("/a", "GET", status, seconds)
    metrics.request("/b", "PUT", 200, 0.0)
    found = scraped(metrics)
    route = (("method", "GET"), ("route", "/a"))
    assert found["dynamo_requests_total", (*route, ("status", "200"))] == 2
    assert found["dynamo_requests_total", (*route, ("status", "404"))] == 1
    upto = [found["dynamo_request_seconds_bucket", (("le", str(s)), *route)] for s in SECONDS]
    assert upto == [1.0] * 8 + [2.0] * 5
    assert found["dynamo_request_seconds_bucket", (("le", "+Inf"), *route)] == 3
    assert found["dynamo_request_seconds_count", route] == 3
    assert found["dynamo_request_seconds_sum", route] == SECONDS[0] + 0.3 + 99.0
    assert found["dynamo_hints", (("target", "n2"),)] == 3


def test_operations_are_counted_by_outcome() -> None:
    metrics = Metrics(list)
    for outcome in ("ok", "ok", "failed"):
        metrics.operation("read", outcome)
    metrics.operation("repair", "ok")
    found = scraped(metrics)
    name = "dynamo_replica_operations_total"
    assert found[name, (("operation", "read"), ("outcome", "ok"))] == 2
    assert found[name, (("operation", "read"), ("outcome", "failed"))] == 1
    assert found["dynamo_read_repairs_total", ()] == 1
