"""Kinds of run that bring about what chance rarely does."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from dynamo.sim import situations
from dynamo.sim.fault_rings import RING_KINDS
from dynamo.sim.faults import KINDS
from dynamo.sim.run import changes, hints_alone, plan
from dynamo.sim.situations import SITUATIONS, Scenes, situation

NAMES = [f"n{number}" for number in range(1, 8)]


def drawn(what: str, seed: int, *, links: bool = False) -> Scenes:
    founders = 0 if what == "returning" else 5
    scenes = situations.draw(
        Random(seed),
        what,
        names=NAMES if founders else NAMES[:5],
        founders=founders,
        clients=3,
        seconds=100.0,
        links=links,
    )
    assert scenes is not None
    return scenes


def test_each_comes_in_a_share_of_the_seeds_it_is_for() -> None:
    found = Counter((situation(seed, changes(seed)), changes(seed)) for seed in range(1, 400))
    assert {what for what, _ in found} == {"", *SITUATIONS}
    assert found["returning", True] == 0
    for what in ("absent", "follower", "rivals"):
        assert found[what, False] == 0
        assert found[what, True] >= 10


@pytest.mark.parametrize("what", sorted(SITUATIONS))
def test_it_is_made_of_known_faults_that_come_in_time(what: str) -> None:
    for seed in range(20):
        scenes = drawn(what, seed)
        assert scenes == drawn(what, seed)
        assert scenes.faults
        assert all(fault.kind in KINDS and fault.targets for fault in scenes.faults)
        assert all(0.0 <= fault.at < 100.0 for fault in scenes.faults)
        assert [o.number for o in scenes.operations] == list(range(len(scenes.operations)))


def test_where_hints_are_alone_no_process_ends() -> None:
    ending = {"kill", "power_cut", "stop", "crash_many", "remove", "replace", "reweigh"}
    for what in sorted(SITUATIONS):
        for seed in range(20):
            kinds = {fault.kind for fault in drawn(what, seed, links=True).faults}
            assert not kinds & ending


def test_who_is_away_is_so_before_and_after_the_change() -> None:
    for seed in range(20):
        faults = drawn("absent", seed).faults
        for change in [f for f in faults if f.kind in RING_KINDS]:
            away = [f for f in faults if f.kind not in RING_KINDS and f.at < change.at]
            assert any(f.at + f.seconds > change.at + 8.0 for f in away)
            assert not any(set(f.targets) & set(change.targets) for f in away[-1:])


def test_a_plan_has_the_situation_of_its_seed_and_numbers_each_operation_once() -> None:
    seeds = {situation(s, changes(s)): s for s in range(60, 0, -1) if not hints_alone(s)}
    for what, seed in seeds.items():
        made = plan(seed)
        numbers = [operation.number for operation in made.operations]
        assert len(set(numbers)) == len(numbers)
        scene = [o for o in made.operations if "scene" in o.key or o.key.startswith("c/away")]
        assert bool(scene) == bool(what)
