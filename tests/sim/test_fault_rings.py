"""Changes of the ring as faults: what they do to a cluster, and when they are not to be."""

from __future__ import annotations

from random import Random

import attrs

from dynamo.sim import run as running
from dynamo.sim.fault_rings import RING_KINDS
from dynamo.sim.faults import draw_changes
from dynamo.sim.plan import Fault, Plan
from dynamo.sim.run import Outcome, plan, run
from dynamo.sim.shrink import from_json, to_json

NAMES = ["n1", "n2", "n3", "n4", "n5", "n6"]
SEED = next(s for s in range(1, 50) if running.changes(s) and not running.hints_alone(s))


def changed(
    *faults: Fault, founders: int = 4, size: int = plan(SEED).size, seconds: float = 40.0
) -> Outcome:
    """What comes of a run with few writes and these changes."""
    drawn = plan(SEED)
    some = tuple([o for o in drawn.operations if o.at < seconds and o.bucket == "strict"][:40])
    small = attrs.evolve(
        drawn, size=size, founders=founders, seconds=seconds, faults=faults, operations=some
    )
    return run(small)


def fault(kind: str, *targets: str, at: float = 1.0, amount: float = 0.9) -> Fault:
    return Fault(at=at, kind=kind, targets=targets, seconds=30.0, amount=amount)


def test_every_kind_does_what_it_says_and_breaks_nothing() -> None:
    done = changed(
        fault("join", "n5", "n6"),
        fault("leave", "n2", at=8.0),
        fault("reweigh", "n4", at=9.0, amount=2.0),
    )
    assert [v.text for v in done.tally.violations] == []
    assert done.faults == {"join": 1, "leave": 1, "reweigh": 1}
    assert done.tally.exercised["I16"] > 0


def test_one_that_was_removed_comes_back_and_is_turned_away() -> None:
    done = changed(fault("remove", "n4", amount=0.1), fault("rejoin", "n5", at=3.0, amount=0.4))
    assert [v.text for v in done.tally.violations] == []
    assert done.faults == {"remove": 1, "rejoin": 1}


def test_three_are_left_in_any_case() -> None:
    done = changed(
        fault("leave", "n1"), fault("leave", "n2"), fault("remove", "n3", at=1.5), seconds=20.0
    )
    assert [v.text for v in done.tally.violations] == []
    assert done.faults == {"leave": 1}


def test_where_the_ring_is_to_stay_none_is_tried() -> None:
    done = changed(fault("leave", "n1"), founders=0, size=plan(SEED).size, seconds=10.0)
    assert not done.faults


def test_every_kind_is_drawn_and_the_same_of_a_seed() -> None:
    def drawn(seed: int, links: bool = False) -> tuple[Fault, ...]:
        rng = Random(seed)
        return draw_changes(rng, names=NAMES, founders=4, seconds=90.0, links=links)

    assert drawn(3) == drawn(3)
    kinds = {f.kind for seed in range(60) for f in drawn(seed)}
    assert kinds >= set(RING_KINDS)
    assert {f.kind for s in range(60) for f in drawn(s, True)} == {"join", "leave", "latency"}


def test_a_plan_with_changes_is_a_file_like_any_other() -> None:
    made: Plan = plan(SEED)
    assert made.founders
    assert from_json(to_json(made)) == made
