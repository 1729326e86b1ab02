"""Kinds of run that bring about what chance rarely does."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from dynamo.core.ring import Member, Ring
from dynamo.sim import situations
from dynamo.sim.fault_rings import RING_KINDS
from dynamo.sim.faults import KINDS
from dynamo.sim.run import changes, hints_alone, plan
from dynamo.sim.situations import PARTITIONS, SITUATIONS, STAGED_SHARES, Scenes, situation
from dynamo.sim.world import World

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
    for what in STAGED_SHARES:
        assert found[what, False] == 0
        assert 1 <= found[what, True] <= 15


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


def ring(names: list[str]) -> Ring:
    world = World(1, 7, founders=5)
    config = world.hosts["n1"].config
    return Ring(
        [Member(n, config.node.zone) for n in names], PARTITIONS["orphans"], config.replication.n
    )


def test_nobody_waits_for_who_keeps_what_one_missed_that_leaves() -> None:
    """It takes over no key with one copy, and gives none away."""
    for seed in range(20):
        faults = drawn("orphans", seed, links=True).faults
        (join,) = [f for f in faults if f.kind == "join"][:1]
        inside = [*NAMES[:5], *join.targets]
        cut, leave = faults[1], faults[2]
        assert (cut.kind, leave.kind) == ("partition", "leave")
        assert cut.at < leave.at < cut.at + cut.seconds - 10.0
        now, then = ring(inside), ring([n for n in inside if n not in leave.targets])
        for partition in range(16):
            firsts = {r.ranking(partition)[0] for r in (now, then)}
            assert len(firsts) == 1 or cut.targets[0] not in firsts


def test_while_a_disk_stands_still_others_ask_for_a_change() -> None:
    """By turns its own node does so, too."""
    for seed in range(20):
        scenes = drawn("stalled", seed)
        stalls = [f for f in scenes.faults if f.kind == "disk_stalled"]
        asked = [(f, s) for f in scenes.faults for s in stalls if f.kind == "leave"]
        near = [(f, s) for f, s in asked if s.at - 0.5 < f.at < s.at + 1.5]
        assert any(f.targets == s.targets for f, s in near)
        for stall in stalls:
            assert any(f.targets != s.targets for f, s in near if s == stall)
            during = [o for o in scenes.operations if stall.at < o.at < stall.at + stall.seconds]
            assert sum(o.entry == stall.targets[0] for o in during) >= 20


def test_a_plan_has_the_situation_of_its_seed_and_numbers_each_operation_once() -> None:
    seeds = {situation(s, changes(s)): s for s in range(60, 0, -1) if not hints_alone(s)}
    for what, seed in seeds.items():
        made = plan(seed)
        numbers = [operation.number for operation in made.operations]
        assert len(set(numbers)) == len(numbers)
        scene = [o for o in made.operations if "scene" in o.key or o.key.startswith("c/away")]
        assert bool(scene) == bool(what)
