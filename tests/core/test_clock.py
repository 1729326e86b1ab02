"""Hybrid logical time: it only rises, stays near the wall clock, and is not dragged away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.clock import DRIFT_MS_MAX, LOGICAL_BITS, HybridClock, wall_ms_of

WALLS = st.integers(0, 2**42)


@given(st.lists(st.tuples(st.booleans(), WALLS, st.integers(0, 2**60)), max_size=30))
def test_stamps_only_rise(steps: list[tuple[bool, int, int]]) -> None:
    """Also when the wall clock goes back and other nodes' stamps come in between."""
    clock = HybridClock()
    given_out = [0]
    for observe, wall_ms, stamp in steps:
        if observe:
            clock.observe(wall_ms, stamp)
        else:
            given_out.append(clock.tick(wall_ms))
    assert given_out == sorted(set(given_out))


@given(WALLS, st.integers(0, 2**60))
def test_a_stamp_lies_above_what_it_follows(wall_ms: int, after: int) -> None:
    """A write is newer than the version it replaces, whoever's clock made that one."""
    assert HybridClock().tick(wall_ms, after) > after


@given(WALLS, st.integers(0, DRIFT_MS_MAX))
def test_a_stamp_within_the_drift_is_adopted(wall_ms: int, ahead_ms: int) -> None:
    """What happens after hearing of a write is stamped after it."""
    clock = HybridClock()
    heard = (wall_ms + ahead_ms) << LOGICAL_BITS
    clock.observe(wall_ms, heard)
    assert clock.tick(wall_ms) > heard


@given(WALLS, st.integers(DRIFT_MS_MAX + 1, 2**42))
def test_a_clock_far_ahead_does_not_drag_others_along(wall_ms: int, ahead_ms: int) -> None:
    """One node with a wrong year must not make all nodes stamp with it."""
    clock = HybridClock()
    clock.observe(wall_ms, (wall_ms + ahead_ms) << LOGICAL_BITS)
    assert wall_ms_of(clock.tick(wall_ms)) == wall_ms


def test_many_stamps_in_one_millisecond_stay_apart() -> None:
    """The logical part counts what the wall clock cannot tell apart."""
    clock = HybridClock()
    stamps = [clock.tick(1000) for _ in range(1000)]
    assert len(set(stamps)) == 1000
    assert {wall_ms_of(stamp) for stamp in stamps} == {1000}
