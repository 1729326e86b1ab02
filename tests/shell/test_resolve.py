"""Where a datagram goes, for numbers, for names, and for what is neither."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock

from dynamo.cluster.resolve import AGAIN_S, KEPT_S, LOOK_UPS_MAX, NAMES_MAX, Resolver


class NamedClock(Clock):
    """A clock that looks up names as a reactor does; the test answers in `asked`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, Deferred[str]]] = []

    def resolve(self, name: str, timeout: Any = ()) -> Deferred[str]:
        self.asked.append((name, Deferred()))
        return self.asked[-1][1]


def test_numbers_are_used_as_they_are() -> None:
    """Neither family is looked up."""
    clock = NamedClock()
    resolver = Resolver(clock)
    assert resolver.now("192.0.2.1:7001") == ("192.0.2.1", 7001)
    assert resolver.now("[::1]:7001") == ("::1", 7001)
    assert clock.asked == []


def test_a_name_that_does_not_resolve_yet() -> None:
    """It is asked for again for ever, not more often than once a second."""
    clock = NamedClock()
    resolver = Resolver(clock)
    for turn in range(1, 20):
        assert resolver.now("n2.lan:7001") is None
        assert resolver.now("n2.lan:7001") is None
        assert len(clock.asked) == turn
        clock.asked[-1][1].errback(DNSLookupError())
        assert resolver.now("n2.lan:7001") is None
        assert len(clock.asked) == turn
        clock.advance(AGAIN_S)
    resolver.now("n2.lan:7001")
    clock.asked[-1][1].callback("192.0.2.2")
    assert resolver.now("n2.lan:7001") == ("192.0.2.2", 7001)


def test_a_name_that_moves() -> None:
    """The answer is kept for half a minute, used while it is looked up again, and replaced."""
    clock = NamedClock()
    resolver = Resolver(clock)
    resolver.now("n2.lan:7001")
    clock.asked[0][1].callback("192.0.2.2")
    clock.advance(KEPT_S - 1)
    assert resolver.now("n2.lan:7001") == ("192.0.2.2", 7001)
    assert len(clock.asked) == 1
    clock.advance(1)
    assert resolver.now("n2.lan:7001") == ("192.0.2.2", 7001)
    clock.asked[1][1].callback("192.0.2.9")
    assert resolver.now("n2.lan:7001") == ("192.0.2.9", 7001)
    clock.advance(KEPT_S)
    resolver.now("n2.lan:7001")
    clock.asked[2][1].errback(DNSLookupError())
    assert resolver.now("n2.lan:7001") == ("192.0.2.9", 7001)


@pytest.mark.parametrize(
    "address",
    ["", ":", "n2", "n2:", ":7001", "n2:x", "n2:0", "n2:65536", "n2:-1", "10.0.0.1:" + "9" * 5000],
)
def test_what_is_no_address_goes_nowhere(address: str) -> None:
    """No exception, no look-up: addresses come from outside."""
    clock = NamedClock()
    assert Resolver(clock).now(address) is None
    assert clock.asked == []


def test_a_look_up_that_raises() -> None:
    """Is a name that does not resolve."""

    class Broken(Clock):
        def resolve(self, name: str) -> Deferred[str]:
            raise UnicodeError(name)

    resolver = Resolver(Broken())
    assert resolver.now("a..b:1") is None
    assert resolver.now("a..b:1") is None


def test_a_flood_of_names_is_bounded() -> None:
    """What is remembered and what is looked up at once, whatever addresses come."""
    clock = NamedClock()
    resolver = Resolver(clock)
    for i in range(2 * LOOK_UPS_MAX):
        resolver.now(f"h{i}.lan:1")
    assert len(clock.asked) == LOOK_UPS_MAX
    for i in range(3 * NAMES_MAX):
        resolver.now(f"g{i}.lan:1")
        resolver.now(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:1")
        clock.asked[-1][1].called or clock.asked[-1][1].errback(DNSLookupError())
    assert len(resolver._known) + len(resolver._fresh_until) <= NAMES_MAX + 2
