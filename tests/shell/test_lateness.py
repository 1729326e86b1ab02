"""One timer for many: each is late on time, in order, and only if nobody cancelled it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from dynamo.replica.lateness import Lateness, Watch
from tests.support.disk import now

STEPS = st.lists(st.tuples(st.sampled_from(["watch", "cancel", "pass"]), st.integers(0, 9)))


@given(STEPS)
def test_each_is_late_after_so_long_unless_it_is_cancelled(steps: list[tuple[str, int]]) -> None:
    """As if each had a timer of its own."""
    clock = Clock()
    lateness = Lateness(clock, 8.0)  # steps of a fourth are exact in binary
    late: list[tuple[int, float]] = []
    watches: list[Watch] = []
    due: dict[int, float] = {}
    for kind, number in [*steps, ("pass", 9), ("pass", 9), ("pass", 9), ("pass", 9)]:
        if kind == "watch":
            index = len(watches)
            due[index] = clock.seconds() + 8.0
            watches.append(lateness.watch(lambda i=index: late.append((i, clock.seconds()))))
        elif kind == "cancel" and number < len(watches):
            watches[number].cancel()
            if (number, due.get(number)) not in late:
                due.pop(number, None)
        elif kind == "pass":
            for _ in range(number):
                clock.advance(0.25)
    clock.pump([0.25] * 40)
    assert late == sorted(due.items())
    assert not any(watch.active() for watch in watches)
    assert clock.getDelayedCalls() == []


def test_one_that_fails_does_not_keep_the_others_from_being_late() -> None:
    clock = Clock()
    lateness = Lateness(clock, 1.0)
    late: list[str] = []

    def fail() -> None:
        raise RuntimeError("no")

    lateness.watch(fail)
    lateness.watch(lambda: late.append("second"))
    with pytest.raises(RuntimeError):
        clock.advance(1.0)
    clock.advance(0)
    assert late == ["second"]


def test_those_that_ended_are_not_kept() -> None:
    lateness = Lateness(Clock(), 60.0)
    for _ in range(1000):
        lateness.watch(list).cancel()
    assert len(lateness._watched) == 1


def test_a_limit_cancels_what_takes_longer() -> None:
    clock = Clock()
    lateness = Lateness(clock, 1.0)

    def too_late() -> str:
        raise TimeoutError("too late")

    slow: Deferred[str] = Deferred()
    quick: Deferred[str] = Deferred()
    given_up: Deferred[str] = Deferred()
    for asked in (slow, quick, given_up):
        lateness.limit(asked, too_late)
    quick.callback("here")
    given_up.cancel()
    clock.advance(1.0)
    assert now(quick) == "here"
    with pytest.raises(CancelledError):
        now(given_up)
    with pytest.raises(TimeoutError):
        now(slow)
