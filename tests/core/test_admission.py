"""The share of background work: bounded, down when clients wait, back when they do not."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.admission import (
    FLOOR,
    INCREASE,
    LIMIT_MIN_S,
    PAUSE_MAX_S,
    RELEARN_S,
    SLOTS,
    SLOWDOWN,
    USUAL_MIN,
    Admission,
)

TARGET = 0.05
FAST, SLOW = 0.01, 0.2

Told = tuple[float, float | None]
"""A step in time, and after it a latency, or None: a queue overflows."""

told = st.lists(
    st.tuples(
        st.floats(0, 15) | st.floats(0, 0.5),
        st.none() | st.floats(0, 20) | st.sampled_from([TARGET, FAST, SLOW]),
    ),
    max_size=60,
)


def feed(admission: Admission, steps: list[Told], start: float = 100.0) -> list[float]:
    """Tells it all; the shares seen after each."""
    now, shares = start, []
    for step, latency in steps:
        now += step
        admission.crowded(now) if latency is None else admission.waited(now, latency)
        shares.append(admission.share(now))
    return shares


def traffic(admission: Admission, begin: int, end: int, latency: float, each: int = 20) -> float:
    """So many requests a second, all of one latency; the share at the end."""
    for second in range(begin, end):
        for i in range(each):
            admission.waited(second + i / each, latency)
    return admission.share(end)


@given(told)
def test_the_share_has_bounds(steps: list[Told]) -> None:
    """Never below the floor, never above everything; and so the pause."""
    admission = Admission(TARGET)
    assert all(FLOOR <= share <= 1.0 for share in feed(admission, steps))
    assert 0.0 <= admission.pause(1e6, 3.0) <= PAUSE_MAX_S


@given(told)
def test_the_same_facts_make_the_same_decisions(steps: list[Told]) -> None:
    """No dice, no clock of its own."""
    first, second = Admission(TARGET), Admission(TARGET)
    assert feed(first, steps) == feed(second, steps)


@given(told)
def test_how_often_it_is_asked_changes_nothing(steps: list[Told]) -> None:
    """Looking is free: a node that is scraped decides as one that is not."""
    asked, quiet = Admission(TARGET), Admission(TARGET)
    now = 0.0
    for step, latency in steps:
        for part in range(4):
            asked.p99(now + step * part / 4)
        now += step
        for admission in (asked, quiet):
            admission.crowded(now) if latency is None else admission.waited(now, latency)
    assert asked.share(now) == quiet.share(now)


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0.001, 12)), min_size=1, max_size=300))
def test_the_percentile_is_that_of_the_last_seconds(steps: list[tuple[float, float]]) -> None:
    """Against all of them sorted: at most a tenth too high, on the same side of the target."""
    admission, now, kept = Admission(TARGET), 0.0, []
    for step, latency in steps:
        now += step
        kept.append((now, latency))
        admission.waited(now, latency)
    recent = sorted(s for at, s in kept if int(at) > int(now) - SLOTS)
    exact = recent[math.ceil(0.99 * len(recent) - 1e-9) - 1]
    told = admission.p99(now)
    assert told is not None
    assert exact <= told * (1 + 1e-9)
    assert told <= max(exact * 1.1, TARGET / 64) * (1 + 1e-9)
    assert (told > TARGET) is (exact > TARGET)


@given(st.integers(1, 200), st.floats(TARGET * 1.001, 20))
def test_it_goes_down_to_the_floor_while_clients_wait(each: int, latency: float) -> None:
    """By halves: five seconds above the target are enough; and it stays there."""
    admission = Admission(TARGET)
    shares = [traffic(admission, second, second + 1, latency, each) for second in range(8)]
    assert shares[:3] == [0.5, 0.25, 0.125]
    assert shares[4:] == [FLOOR] * 4


@given(st.integers(1, 200), st.floats(0, TARGET))
def test_it_comes_back_when_they_do_not(each: int, latency: float) -> None:
    """A fiftieth a second, from when the slow ones are forgotten, to all of it."""
    admission = Admission(TARGET)
    traffic(admission, 0, 10, SLOW)
    shares = [traffic(admission, second, second + 1, latency, each) for second in range(10, 75)]
    assert shares == sorted(shares)
    assert shares[0] == FLOOR
    rises = [b - a for a, b in itertools.pairwise(shares) if b < 1.0]
    assert max(rises) <= INCREASE + 1e-9
    assert shares[-1] == 1.0


@given(st.floats(0.15, 0.95), st.integers(1, 100))
def test_it_settles_below_what_clients_bear(bearable: float, each: int) -> None:
    """Where clients wait too long only while background work has more than some share, that is
    rarely passed, by little, and background work gets at least half of it."""
    admission, shares = Admission(TARGET), []
    for second in range(400):
        share = admission.share(second)
        shares.append(share)
        traffic(admission, second, second + 1, SLOW if share > bearable else FAST, each)
    settled = shares[50:]
    above = [share for share in settled if share > bearable]
    assert len(above) <= len(settled) / 10
    assert max(settled) <= bearable + INCREASE
    assert sum(settled) / len(settled) >= bearable / 2


def test_within_the_target_all_is_granted() -> None:
    """Also exactly at it: the bound is the target's own."""
    assert traffic(Admission(TARGET), 0, 60, TARGET) == 1.0


def test_one_in_a_hundred_may_be_slow() -> None:
    """Two of a hundred in one second are too many."""
    few, many = Admission(TARGET), Admission(TARGET)
    for admission, slow in ((few, 1), (many, 2)):
        for i in range(100):
            admission.waited(0.5, SLOW if i < slow else FAST)
    assert (few.share(1.0), many.share(1.0)) == (1.0, 0.5)


def test_one_slow_request_counts_once() -> None:
    """Where it is one of few it stays the percentile for ten seconds, and yet halves once."""
    admission = Admission(TARGET)
    admission.waited(0.5, SLOW)
    shares = [traffic(admission, second, second + 1, FAST, 1) for second in range(1, 12)]
    assert shares[: SLOTS - 1] == [0.5] * (SLOTS - 1)
    assert shares[SLOTS - 1] == 0.5 + INCREASE


def test_without_requests_all_is_granted() -> None:
    """From the start, and as soon as the last ones are forgotten, however long that was."""
    admission = Admission(TARGET)
    assert admission.share(0.0) == 1.0
    assert admission.p99(0.0) is None
    assert traffic(admission, 1, 11, SLOW) == FLOOR
    assert admission.share(11.0 + SLOTS - 1) == FLOOR
    assert admission.share(11.0 + SLOTS) == 1.0
    assert traffic(admission, 30, 40, SLOW) == FLOOR
    assert admission.share(1e9) == 1.0
    assert admission.p99(1e9) is None


def test_a_queue_that_overflows_counts_like_slow_requests() -> None:
    """Even if all who were answered were answered soon, or nobody was."""
    for latency in (FAST, None):
        admission = Admission(TARGET)
        for second in range(8):
            admission.crowded(second)
            if latency is not None:
                admission.waited(second, latency)
        assert admission.share(8.0) == FLOOR
        assert admission.share(9.0) == pytest.approx(FLOOR + INCREASE)


def test_a_clock_set_back_stops_nothing() -> None:
    """It goes on from there, rather than to wait until the old time comes again."""
    admission = Admission(TARGET)
    traffic(admission, 1000, 1003, SLOW)
    assert traffic(admission, 10, 20, SLOW) == FLOOR
    assert admission.share(60) == 1.0


@given(
    share_seconds=st.integers(1, 6),
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=5),
    took=st.floats(0.0001, 0.01),
)
def test_all_together_use_no_more_than_the_share(
    share_seconds: int, weights: list[float], took: float
) -> None:
    """Each by its weight; the heavier wait less."""
    admission = Admission(TARGET)
    share = traffic(admission, 0, share_seconds, SLOW)
    used = []
    for weight in weights:
        pause = admission.pause(share_seconds, took, weight / sum(weights))
        if pause < PAUSE_MAX_S:
            used.append(took / (took + pause))
    assert sum(used) <= share + 1e-9
    assert sum(used) == pytest.approx(share) or len(used) < len(weights)


def test_nobody_waits_while_all_is_granted() -> None:
    """However many share it; and a step that seems to have gone backwards is free."""
    admission = Admission(TARGET)
    assert admission.pause(0.0, 10.0, 0.1) == 0.0
    traffic(admission, 0, 10, SLOW)
    assert admission.pause(10.0, -3.0) == 0.0
    assert admission.pause(10.0, 0.1) == pytest.approx(0.1 * (1 / FLOOR - 1))
    assert admission.pause(10.0, 100.0) == PAUSE_MAX_S


def test_what_another_node_grants_counts_if_it_is_less() -> None:
    """Down to the floor, whatever it says, and never more than is granted here."""
    admission = Admission(TARGET)
    assert admission.pause(0.0, 0.1, granted=0.5) == pytest.approx(0.1)
    assert admission.pause(0.0, 0.1, 0.5, granted=0.5) == pytest.approx(0.3)
    for said in (0.0, -1.0, FLOOR):
        assert admission.pause(0.0, 0.01, granted=said) == pytest.approx(0.01 * (1 / FLOOR - 1))
    traffic(admission, 0, 10, SLOW)
    for said in (1.0, 7.0, float("nan")):
        assert admission.pause(10.0, 0.01, granted=said) == pytest.approx(0.01 * (1 / FLOOR - 1))


# What is usual.


def used_to(latency: float) -> Admission:
    """One whose clients have had such answers for half a minute, without background work."""
    admission = Admission(TARGET)
    assert traffic(admission, 0, 30, latency) == 1.0
    return admission


@given(told)
def test_the_limit_is_at_most_the_target(steps: list[Told]) -> None:
    """And no smaller than anybody asks for."""
    admission = Admission(TARGET)
    now = 0.0
    for step, latency in steps:
        now += step
        admission.crowded(now) if latency is None else admission.waited(now, latency)
        admission.pause(now, step / 3)
        assert LIMIT_MIN_S <= admission.limit <= TARGET


def test_clients_used_to_less_wait_no_longer_than_the_target_allows_others() -> None:
    """30 ms are within a target of 50, and thrice what these are used to."""
    stranger = Admission(TARGET)
    assert traffic(stranger, 0, 3, 0.03) == 1.0
    admission = used_to(FAST)
    assert FAST * SLOWDOWN <= admission.limit <= FAST * SLOWDOWN * 1.2
    for second in range(30, 60):
        admission.pause(second, 0.5)
        traffic(admission, second, second + 1, 0.03)
    assert admission.share(60) == FLOOR
    assert admission.limit <= FAST * SLOWDOWN * 1.2, "what work makes of it is not usual"


def test_more_than_usual_is_borne_up_to_the_limit() -> None:
    """A fifth more while there is work costs it nothing."""
    admission = used_to(FAST)
    for second in range(30, 60):
        admission.pause(second, 0.5)
        assert traffic(admission, second, second + 1, FAST * 1.2) == 1.0


def test_slower_answers_without_background_work_become_usual() -> None:
    """Clients made themselves a load: work is not held off for what it does not do."""
    admission = used_to(FAST)
    traffic(admission, 30, 60, 0.03)
    assert admission.limit > 0.04
    shares = [traffic(admission, second, second + 1, 0.03) for second in range(60, 120)]
    assert shares[-1] == 1.0


def test_a_second_in_which_others_were_served_is_not_quiet() -> None:
    """Who is pulled from does no background work of its own, and its clients wait for it."""
    admission = used_to(FAST)
    limit = admission.limit
    for second in range(30, 90):
        admission.served(second)
        traffic(admission, second, second + 1, 0.03)
    assert admission.limit == limit
    assert admission.served(90) == FLOOR


def test_a_long_step_makes_no_second_of_it_usual() -> None:
    """It is accounted for when it ends; what was learnt meanwhile is taken back."""
    admission = used_to(FAST)
    for second in range(30, 90, 5):
        traffic(admission, second, second + 5, 0.03)
        admission.pause(second + 5, 5.0)
        admission.share(second + 6)
        assert admission.limit <= FAST * SLOWDOWN * 1.2
        traffic(admission, second + 6, second + 7, 0.03)


def test_what_is_usual_is_learnt_anew_where_no_second_is_quiet() -> None:
    """At the least share, after ten minutes: a join may take a day, and the load change by then."""
    admission = used_to(FAST)
    for second in range(30, 30 + int(RELEARN_S)):
        admission.served(second)
        traffic(admission, second, second + 1, 0.03)
    assert admission.share(30 + RELEARN_S) == FLOOR
    for second in range(30 + int(RELEARN_S), 60 + int(RELEARN_S)):
        admission.served(second)
        traffic(admission, second, second + 1, 0.03)
    assert admission.limit > 0.04
    assert admission.share(60 + RELEARN_S) > FLOOR


def test_few_requests_say_nothing_of_a_hundredth() -> None:
    """So the target alone counts for them."""
    admission = Admission(TARGET)
    traffic(admission, 0, 30, FAST, each=USUAL_MIN // 10 - 1)
    assert admission.limit == TARGET


def test_a_clock_set_back_takes_what_is_usual_along() -> None:
    """What was learnt at a time that has not come yet counts no more."""
    admission = used_to(FAST)
    traffic(admission, 0, 2, FAST)
    assert admission.limit == TARGET, "two seconds do not tell"


def test_what_work_makes_of_it_within_the_limit_never_becomes_usual() -> None:
    """Or the limit would creep up by half each time."""
    admission = used_to(FAST)
    limit = admission.limit
    for second in range(30, 60 + int(RELEARN_S)):
        admission.served(second)
        assert traffic(admission, second, second + 1, FAST * 1.2) == 1.0
    assert admission.limit == limit
