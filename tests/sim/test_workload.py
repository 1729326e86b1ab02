"""What clients are told to do: from one die, on the buckets there are, by all kinds."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from dynamo.core.names import check_bucket, check_key
from dynamo.sim.doings import DOINGS
from dynamo.sim.faults import draw_around_flips
from dynamo.sim.plan import LASTING_S, Fault, Operation
from dynamo.sim.run import plan
from dynamo.sim.workload import BUCKETS, CHURN, KINDS, around, draw, is_known

NAMES = ["n1", "n2", "n3", "n4", "n5"]


def drawn(seed: int = 1, seconds: float = 60.0, rate: float = 50.0) -> tuple[Operation, ...]:
    return draw(Random(seed), names=NAMES, clients=4, seconds=seconds, rate=rate)


def test_the_same_die_draws_the_same() -> None:
    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_operations_are_in_time_and_of_every_kind() -> None:
    """About as many as asked for; each with a number of its own."""
    operations = drawn()
    assert [o.at for o in operations] == sorted(o.at for o in operations)
    assert operations[0].at >= 0
    assert operations[-1].at < 60
    assert 0.85 * 3000 < len(operations) < 1.15 * 3000
    assert len({o.number for o in operations}) == len(operations)
    assert {o.kind for o in operations} == set(KINDS) == set(DOINGS)
    assert {o.entry for o in operations} == set(NAMES)
    assert {o.client for o in operations} == set(range(4))
    assert {o.bucket for o in operations} == {*BUCKETS, *CHURN}


@pytest.mark.parametrize("seed", range(5))
def test_what_is_named_can_be(seed: int) -> None:
    """Odd names are still names."""
    for operation in drawn(seed):
        check_bucket(operation.bucket)
        if operation.key:
            check_key(operation.key)


def test_known_keys_are_never_written_blindly() -> None:
    """That is what makes the strict judgement of them right."""
    for operation in drawn():
        if is_known(operation.key) and operation.kind in ("put", "update", "delete", "erase"):
            assert operation.seen, operation


def test_some_keys_are_hot_and_some_bodies_large() -> None:
    """And most are small."""
    operations = drawn()
    keys = Counter((o.bucket, o.key) for o in operations if o.key)
    assert keys.most_common(1)[0][1] > 10 * min(keys.values())
    sizes = [o.size for o in operations if o.size]
    assert sum(size > 65_536 for size in sizes) < 0.05 * len(sizes)
    assert max(sizes) > 70_000


def test_no_request_asks_for_more_than_its_bucket_copies() -> None:
    """It would be refused, whatever the state of the cluster."""
    for operation in drawn():
        n = BUCKETS[operation.bucket].n or 3 if operation.bucket in BUCKETS else 3
        for count in ("r", "w"):
            assert int(operation.options.get(count, 1)) <= n


def test_a_flip_comes_while_those_who_could_mend_it_are_away() -> None:
    """Two are away before it, the two others after it; strict keys are written and read then."""
    flip = Fault(at=30.0, kind="record_flip", targets=("n3",))
    drawn = [draw_around_flips(Random(n), [flip], names=NAMES) for n in range(20)]
    assert 0 < sum(not faults for faults in drawn) < 10
    first, then, *flips = next(faults for faults in drawn if faults)
    assert {*first.targets, *then.targets, "n3"} == {*NAMES}
    assert first.at < then.at < first.at + first.seconds + 0.5 < 31 < then.at + then.seconds
    assert [f.kind for f in flips] == ["record_flip", "record_flip"]
    made = around(Random(1), [flip, first, then], names=NAMES, clients=2, first=1)
    strict = [o for o in made if o.key.startswith("c/apart")]
    assert {o.entry for o in strict if o.kind == "get"} == {*first.targets}
    assert {o.kind for o in strict} == {"create", "get"}
    assert all(o.options == {"r": "1"} for o in made if o.kind == "get" and o not in strict)


def test_what_a_wrong_clock_stamped_is_written_over_by_the_others() -> None:
    """While it is wrong through its node, and after that through those whose clocks are right."""
    jump = Fault(at=30.0, kind="clock_jump", targets=("n3",), seconds=4.0, amount=500.0)
    made = around(Random(1), [jump], names=NAMES, clients=2, first=1)
    assert {(o.bucket, o.key) for o in made} == {("latest", "f/h0")}
    assert {o.entry == "n3" for o in made if o.at < 34} == {True}
    assert {o.entry == "n3" for o in made if o.at > 34} == {False}


@pytest.mark.parametrize(("kind", "seconds"), [("wipe", 9.0), ("roll_back", 20.0)])
def test_a_client_that_saw_nothing_newer_writes_as_soon_as_a_lost_disk_is_back(
    kind: str, seconds: float
) -> None:
    """It read before others wrote what is lost then, all of it through the one node."""
    lost = Fault(at=30.0, kind=kind, targets=("n3",), seconds=seconds)
    made = around(Random(1), [lost], names=NAMES, clients=2, first=1)
    keys = sorted({o.key for o in made if o.key.startswith("f/old")})
    assert len(keys) > 1
    for key in keys:
        first, read, *others, last = (o for o in made if o.key == key)
        assert {o.entry for o in made if o.key == key} == {"n3"}
        assert first.at < read.at < min(o.at for o in others)
        assert max(o.at for o in others) < (30.0 if kind == "wipe" else 30.0 + seconds)
        assert 30.0 + seconds < last.at < 31.1 + seconds
        assert (read.kind, last.seen, last.client) == ("get", True, read.client)
        assert {o.client for o in others} == {1 - read.client}


def test_keys_are_replaced_while_some_are_cut_off_to_the_end() -> None:
    """They were made before, and only those that are left are told."""
    last = Fault(at=80.0, kind="partition", targets=("n1", "n2"), seconds=LASTING_S)
    made = around(Random(1), [last], names=NAMES, clients=2, first=1)
    assert all(o.entry not in last.targets for o in made if o.at > 80)
    later = [o for o in made if o.kind in ("update", "delete")]
    assert later
    for operation in later:
        assert operation.seen
        assert any(o.key == operation.key and o.kind == "create" and o.at < 80 for o in made)


def test_nothing_is_done_after_the_end_of_a_plan() -> None:
    """It would change what is judged at rest; the fault that ends last would draw some."""
    for seed in (84, 1, 2):
        drawn = plan(seed)
        assert max(o.at for o in drawn.operations) < drawn.seconds
