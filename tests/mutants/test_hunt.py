"""Hunts in processes: in the order they end, each told apart from one that came to no end."""

from __future__ import annotations

import os
import signal

import pytest

from dynamo.sim.schedule import Schedule
from dynamo.sim.tally import Tally
from tests.mutants.hunt import Found, Hunt, Kill, hunt_all, slices, stopping_at_the_first


def do(what: Hunt) -> Kill:
    if what.name == "raises":
        raise ValueError("something")
    if what.name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    while what.name == "loops":
        pass
    return Kill(what.name, "caught", 1, what.seeds[0], "I1", "text", os.getpid())


def test_every_hunt_has_an_outcome_and_a_process_of_its_own() -> None:
    """Whatever becomes of it: caught, raised, killed, without end."""
    names = ["a", "raises", "dies", "b", "loops", "c"]
    hunts = [Hunt(name, (7,)) for name in names]
    kills = {kill.name: kill for kill in hunt_all(hunts, jobs=2, cpu_per_seed=1, do=do)}
    assert sorted(kills) == sorted(names)
    assert [kills[name].word for name in names] == [
        "caught",
        "failed",
        "failed",
        "caught",
        "failed",
        "caught",
    ]
    assert "something" in kills["raises"].text
    assert kills["a"].seed == 7
    assert len({kills[name].cpu for name in "abc"} | {float(os.getpid())}) == 4


def test_seeds_are_shared_out_in_order() -> None:
    """None is left out and none comes twice."""
    assert [hunt.seeds for hunt in slices("", (1, 2, 3, 4, 5), 2)] == [(1, 2), (3, 4), (5,)]


def test_a_run_is_left_at_its_first_violation_and_no_other() -> None:
    """What it costs to go on is saved; without the hunt a run goes on as before."""
    schedule, tally = Schedule(), Tally()
    for number in (1, 2, 3):
        schedule.callLater(number, lambda number=number: tally.broken(f"I{number}", 0.0, "text"))
    with pytest.raises(Found), stopping_at_the_first() as violations:
        schedule.run_until(schedule.now + 10)
    assert violations == [("I1", "text")]
    schedule.run_until(schedule.now + 10)
    assert [violation.invariant for violation in tally.violations] == ["I1", "I2", "I3"]
