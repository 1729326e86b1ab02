"""The formulae: suspicion time-outs, health, retransmits, exchange intervals, settings, alarms.

Tables are memberlist's (suspicion_test.go, awareness_test.go, util_test.go).
"""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo.core import suspicion
from dynamo.core.awareness import Awareness
from dynamo.core.joining import exchange_scale
from dynamo.core.profiles import LAN, LOCAL, PROFILES, WAN, Settings
from dynamo.core.rumours import retransmit_limit
from dynamo.core.suspicion import Suspicion
from dynamo.core.timers import NEVER, Timers


@pytest.mark.parametrize(
    ("confirmed", "seconds"), [(0, 30.0), (1, 16.0), (2, 7.81), (3, 2.0), (4, 2.0)]
)
def test_remaining_time_table(confirmed: int, seconds: float) -> None:
    """k 3, from 2 to 30 s."""
    assert suspicion.timeout(2.0, 30.0, confirmed, 3) == pytest.approx(seconds, abs=0.005)


def test_no_confirmations_possible_means_the_shortest() -> None:
    """k = 0: nobody could confirm, so nobody is waited for."""
    assert suspicion.timeout(2.0, 30.0, 0, 0) == 2.0


@pytest.mark.parametrize(
    ("members", "confirmed", "seconds"),
    [
        (2, 0, 0.5),
        (3, 0, 0.5),
        (4, 0, 0.5),
        (5, 0, 1.0),
        (6, 0, 1.0),
        (6, 1, 0.75),
        (6, 2, 0.604),
        (6, 3, 0.5),
        (6, 4, 0.5),
    ],
)
def test_dogpile(members: int, confirmed: int, seconds: float) -> None:
    """memberlist's table for k 3 and a maximum of twice the minimum."""
    settings = attrs.evolve(
        LAN, confirmations=3, suspicion_max_multiplier=2.0, suspicion_multiplier=0.5
    )
    running = suspicion.suspect(settings, 0.0, members, "a")
    for i in range(confirmed):
        running.confirm(f"b{i}")
    assert running.ends == pytest.approx(seconds, abs=0.001)


def test_confirm_counts_each_peer_once_and_not_the_accuser() -> None:
    """Independent confirmations only; after the last needed one no more are news."""
    running = Suspicion(0.0, 2.0, 30.0, 2, "a")
    assert [running.confirm(x) for x in ("a", "b", "b", "c", "d")] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert running.ends == 2.0


def test_confirm_late_is_immediate() -> None:
    """A confirmation after the time it shortens to ends the suspicion in the past: at once."""
    running = Suspicion(0.0, 2.0, 30.0, 1, "a")
    running.confirm("b")
    timers = Timers()
    timers.set(("suspicion", "x"), running.ends)
    assert timers.pop_due(20.0) == ("suspicion", "x")


def test_suspicion_bounds_scale() -> None:
    """mult * max(1, log10 n) * interval; six times as long at most; plain SWIM has one bound."""
    settings = attrs.evolve(LAN, suspicion_multiplier=4.0)
    lows = [round(suspicion.bounds(settings, n)[0], 1) for n in (1, 5, 10, 15, 100, 1000)]
    assert lows == [4.0, 4.0, 4.0, 4.7, 8.0, 12.0]
    assert suspicion.bounds(settings, 10) == (4.0, 24.0)
    assert suspicion.bounds(attrs.evolve(settings, lifeguard=False), 10) == (4.0, 4.0)
    assert suspicion.needed(attrs.evolve(settings, lifeguard=False), 100) == 0


def test_stall_is_not_part_of_a_suspicion() -> None:
    """Time in which the process did not run does not count."""
    running = Suspicion(0.0, 2.0, 2.0, 0, "a")
    running.shift(5.0)
    assert running.ends == 7.0


def test_a_refused_port_shortens_the_shortest_time_only_and_once() -> None:
    """The longest stays: a refusal alone convicts nobody quickly."""
    running = Suspicion(0.0, 2.0, 12.0, 1, "a")
    running.refuse(0.5)
    running.refuse(0.5)
    assert running.ends == 12.0
    running.confirm("b")
    assert running.ends == 1.0


def test_awareness_clamps() -> None:
    """The score stays between 0 and 7 and multiplies by score + 1."""
    health = Awareness(8)
    seen = []
    for delta in (0, -1, -10, 1, 10, -1, 1, 1, -20):
        health.add(delta)
        seen.append((health.score, health.scale(1.0)))
    assert seen == [(s, s + 1.0) for s in (0, 0, 0, 1, 7, 6, 7, 7, 0)]


def test_awareness_off() -> None:
    """A limit of 1 leaves one score."""
    health = Awareness(1)
    health.add(5)
    assert health.scale(2.0) == 2.0


@pytest.mark.parametrize(("members", "limit"), [(1, 4), (9, 4), (10, 8), (99, 8), (100, 12)])
def test_retransmit_limit(members: int, limit: int) -> None:
    """lambda * ceil(log10(n + 1))."""
    assert retransmit_limit(4, members) == limit


@pytest.mark.parametrize(
    ("members", "factor"), [(1, 1), (2, 1), (32, 1), (33, 2), (64, 2), (65, 3), (128, 3), (129, 4)]
)
def test_exchange_scale(members: int, factor: int) -> None:
    """One up to 32 members, then one more for each doubling."""
    assert exchange_scale(members) == factor


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe_timeout": 0.7},
        {"probe_timeout": 0.0},
        {"probe_deadline": 1.5},
        {"nack_share": 1.0},
        {"indirect_probes": -1},
        {"suspicion_multiplier": 0.0},
        {"suspicion_max_multiplier": 0.5},
        {"confirmations": -1},
        {"awareness_max": 0},
        {"refused_share": 0.0},
        {"refused_share": 1.5},
        {"gossip_interval": 0.0},
        {"gossip_fanout": 0},
        {"retransmit_multiplier": 0},
        {"exchange_interval": 0.0},
        {"seed_interval": 0.0},
        {"tombstone_max": 0},
    ],
)
def test_row_25_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    """memberlist 149 and 175: a time-out as long as the interval would leave no fallback."""
    with pytest.raises(ValueError, match="gossip settings"):
        attrs.evolve(LAN, **wrong)  # type: ignore[arg-type]


def test_profiles() -> None:
    """The three profiles stand, in order of speed, and nacks come well before the deadline."""
    assert list(PROFILES.values()) == [LAN, WAN, LOCAL]
    assert LOCAL.probe_interval < LAN.probe_interval < WAN.probe_interval
    for profile in PROFILES.values():
        helping = profile.probe_deadline - profile.probe_timeout
        assert profile.nack_share * helping <= 0.8 * helping
        assert profile.probe_deadline <= profile.probe_interval


def test_every_setting_is_documented() -> None:
    """A reader finds meaning and consequence next to each default."""
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(Settings))
    body = tree.body[0].body  # type: ignore[attr-defined]
    for here, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(here, ast.AnnAssign):
            assert isinstance(after, ast.Expr), ast.unparse(here)


class TestTimers:
    """The heap of alarms."""

    def test_each_key_has_one_time(self) -> None:
        """Setting again moves it; hastening only forward; cancelling forgets it."""
        timers = Timers()
        timers.set(("a", ""), 5.0)
        timers.set(("a", ""), 3.0)
        timers.hasten(("a", ""), 4.0)
        assert (timers.next_at, len(timers)) == (3.0, 1)
        timers.hasten(("a", ""), 2.0)
        assert timers.pop_due(1.9) is None
        assert timers.pop_due(2.0) == ("a", "")
        timers.set(("b", ""), 1.0)
        timers.cancel(("b", ""))
        assert (timers.next_at, timers.at(("b", ""))) == (NEVER, NEVER)

    def test_shift_keeps_the_order(self) -> None:
        """All alarms move together, equal ones in the order in which they were set."""
        timers = Timers()
        for name in "cab":
            timers.set((name, ""), 1.0)
        timers.set(("first", ""), 0.5)
        timers.shift(10.0)
        popped = [timers.pop_due(20.0) for _ in range(4)]
        assert [key[0] for key in popped if key] == ["first", "c", "a", "b"]
        timers.set(("z", ""), 1.0)
        timers.clear()
        assert timers.next_at == NEVER

    @given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100))))
    def test_agrees_with_a_plain_dict(self, sets: list[tuple[int, float]]) -> None:
        """Against the dumb way: a dict and `min`."""
        timers, plain = Timers(), dict[tuple[str, str], float]()
        for number, at in sets:
            timers.set((str(number), ""), at)
            plain[(str(number), "")] = at
            assert timers.next_at == min(plain.values())
        last = 0.0
        while plain:
            key = timers.pop_due(1e9)
            assert key is not None
            assert plain[key] >= last
            last = plain.pop(key)
        assert timers.pop_due(1e9) is None
