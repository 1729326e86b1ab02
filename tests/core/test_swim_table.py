"""The probe order and random choice of members."""

from __future__ import annotations

from dynamo.core.members import Liveness
from dynamo.core.table import Table
from tests.support.swim_machine import Bed, record


def test_round_robin_visits_all_between_two_visits() -> None:
    """SWIM 4.3: never longer than 2n - 1 rounds between two probes of one member."""
    bed = Bed()
    table = Table(bed.swim._local.rng)
    for i in range(10):
        table.put(record(f"m{i}"), 0.0)
    last = dict.fromkeys((f"m{i}" for i in range(10)), 0)
    for round_ in range(1, 500):
        entry = table.next_target()
        assert entry is not None
        assert round_ - last[entry.member.name] <= 19
        last[entry.member.name] = round_


def test_newcomers_are_inserted_at_random() -> None:
    """Not at the end, where all would probe them at the same time."""
    bed = Bed()
    places = set()
    for _ in range(60):
        table = Table(bed.swim._local.rng)
        for i in range(5):
            table.put(record(f"m{i}"), 0.0)
        places.add(table._order.index("m4"))
    assert places == {0, 1, 2, 3, 4}


def test_the_dead_are_not_probed_in_turn() -> None:
    """Nor those that left; and an empty table has no target."""
    bed = Bed()
    table = Table(bed.swim._local.rng)
    assert table.next_target() is None
    table.put(record("d", 1, Liveness.DEAD), 0.0)
    table.put(record("l", 1, Liveness.LEFT), 0.0)
    assert table.next_target() is None
    table.put(record("a"), 0.0)
    assert {table.next_target().member.name for _ in range(9)} == {"a"}  # type: ignore[union-attr]


def test_random_members_are_different_and_wanted() -> None:
    """As many as asked for, or as there are."""
    bed = Bed()
    table = Table(bed.swim._local.rng)
    for i in range(40):
        table.put(record(f"m{i}", 1, Liveness(i % 2)), 0.0)
    for count in (0, 3, 20, 30):
        chosen = table.sample(count, lambda e: e.member.liveness is Liveness.ALIVE)
        names = {e.member.name for e in chosen}
        assert len(names) == len(chosen) == min(count, 20)
        assert all(e.member.liveness is Liveness.ALIVE for e in chosen)
    table.remove("m0")
    assert table.get("m0") is None
    assert table.running == 40


def test_comings_and_goings_neither_skip_nor_repeat_anyone_in_a_round() -> None:
    """The place in the list follows its members."""
    for seed in range(30):
        rng = Bed(seed=seed).swim._local.rng
        table = Table(rng)
        for i in range(20):
            table.put(record(f"m{i}"), 0.0)
        while table._next < len(table._order):
            table.next_target()
        visited = [_name(table) for _ in range(10)]
        for i in range(10):
            table.put(record(f"new{i}"), 0.0)
        for name in visited[:5]:
            table.remove(name)
        rest = [_name(table) for _ in range(len(table._order) - table._next)]
        assert not set(rest) & set(visited)
        assert {f"m{i}" for i in range(20)} <= set(rest) | set(visited)


def test_the_order_is_shuffled_at_each_wrap() -> None:
    """Two probers that met once do not go on in step."""
    table = Table(Bed().swim._local.rng)
    for i in range(12):
        table.put(record(f"m{i}"), 0.0)
    while table._next < len(table._order):
        table.next_target()
    rounds = [tuple(_name(table) for _ in range(12)) for _ in range(5)]
    assert len(set(rounds)) == 5


def _name(table: Table) -> str:
    entry = table.next_target()
    assert entry is not None
    return entry.member.name
