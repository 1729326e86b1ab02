"""How fast a count grows: over the last minute, whenever it was looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.rates import EVERY_S, WINDOW_S, Rate

looks = st.lists(st.tuples(st.floats(0, 5) | st.floats(0, 100), st.integers(0, 1000)), max_size=80)


def test_a_steady_count() -> None:
    """Its rate, from the second second on and for ever."""
    rate = Rate(0.0, 0)
    for tenth in range(1, 2000):
        rate.look(tenth / 10, tenth)
        if tenth >= 10:
            assert rate.per_second(tenth / 10) == pytest.approx(10, rel=0.05)


def test_what_is_long_past_is_forgotten() -> None:
    """A minute after the last look the rate is nothing."""
    rate = Rate(0.0, 0)
    rate.look(5.0, 600)
    assert rate.per_second(5.0) == 120.0
    assert rate.per_second(40.0) == 15.0
    assert rate.per_second(64.0) == 10.0
    assert rate.per_second(65.0) == 0.0


@given(looks, st.floats(0, 200))
def test_against_all_looks(steps: list[tuple[float, int]], later: float) -> None:
    """Within what may be forgotten: looks less than `EVERY_S` apart count as one."""
    now, count = 0.0, 0
    rate, kept = Rate(0.0, 0), [(0.0, 0)]
    for step, more in steps:
        now, count = now + step, count + more
        rate.look(now, count)
        kept.append((now, count))
    now += later

    def before(edge: float) -> int:
        return max((c for at, c in kept if at <= edge), default=0)

    span = min(max(now, EVERY_S), WINDOW_S)
    least, most = count - before(now - WINDOW_S), count - before(now - WINDOW_S - EVERY_S)
    assert least / span - 1e-9 <= rate.per_second(now) <= most / span + 1e-9


@given(st.floats(0.01, 3))
def test_it_keeps_little(apart: float) -> None:
    """At most two looks for each second of the window."""
    rate = Rate(0.0, 0)
    for i in range(1000):
        rate.look(i * apart, i)
    assert len(rate._looks) <= 2 * WINDOW_S / EVERY_S + 3
