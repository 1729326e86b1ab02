"""A failing plan becomes a small one that fails the same way."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo.sim.plan import Fault, Operation, Plan
from dynamo.sim.shrink import Shrinker, from_json, in_words, subsets, to_json


def fault(at: float, kind: str = "kill", seconds: float = 16.0) -> Fault:
    return Fault(at=at, kind=kind, targets=("n1",), seconds=seconds)


def operation(number: int) -> Operation:
    return Operation(
        number=number, at=number / 2, client=0, kind="put", entry="n2", bucket="b", key=f"k{number}"
    )


PLAN = Plan(
    seed=4,
    size=5,
    clients=2,
    seconds=100.0,
    operations=tuple(operation(number) for number in range(100)),
    faults=tuple(fault(float(at), kind) for at, kind in enumerate(("kill", "loss", "pause") * 4)),
)


@given(st.sets(st.integers(0, 60), min_size=1, max_size=5), st.integers(61, 120))
def test_just_the_guilty_are_left(guilty: set[int], count: int) -> None:
    found = list(range(count))
    for found in subsets(range(count), lambda some: guilty <= set(some)):  # noqa: B007
        pass
    assert set(found) == guilty


def test_nothing_is_left_if_it_always_fails_and_all_if_it_takes_all() -> None:
    assert list(subsets(range(9), lambda some: True))[-1] == []
    assert list(subsets(range(9), lambda some: len(some) == 9)) == []


def test_a_plan_loses_faults_operations_and_length() -> None:
    def fails(plan: Plan) -> bool:
        pauses = [f for f in plan.faults if f.kind == "pause" and f.at > 3 and f.seconds >= 2]
        return bool(pauses) and {17, 63} <= {operation.number for operation in plan.operations}

    shrinker = Shrinker(fails, runs_max=500)
    small = shrinker.shrink(PLAN)
    assert fails(small)
    assert [(f.kind, f.seconds) for f in small.faults] == [("pause", 2.0)]
    assert [operation.number for operation in small.operations] == [17, 63]
    assert small.seconds == pytest.approx(63 / 2 + 2.0)
    assert small == shrinker.best
    assert shrinker.runs < 150


def test_it_stops_at_its_bounds_with_the_best_so_far() -> None:
    def fails(plan: Plan) -> bool:
        return 17 in {operation.number for operation in plan.operations}

    for shrinker in (
        Shrinker(fails, runs_max=5),
        Shrinker(fails, runs_max=500, expired=iter([False] * 5 + [True] * 500).__next__),
    ):
        small = shrinker.shrink(PLAN)
        assert shrinker.runs == 5
        assert fails(small)
        assert small != PLAN


def test_a_plan_survives_its_file() -> None:
    plan = attrs.evolve(PLAN, operations=(attrs.evolve(operation(1), options={"r": "2"}),))
    assert from_json(to_json(plan)) == plan
    with pytest.raises(ValueError, match="seed"):
        from_json(b"{}")


def test_a_plan_is_told_in_order_of_time() -> None:
    lines = in_words(PLAN)
    assert lines[0] == "seed 4: 5 nodes, 2 clients, 100 s"
    times = [float(line.split()[0]) for line in lines[1:]]
    assert times == sorted(times)
    assert "pause n1 0 for 16 s" in lines[5] + lines[6] + lines[7] + lines[8]
