"""From layout to layout: each step, and that no read misses a write on the way.

The oracle knows nothing of how the rings change: it takes any W of each ring that a layout writes
to and any R of the one it reads by, both most of a partition's owners, and looks whether they meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dynamo.core.layout import (
    NONE,
    Layout,
    compatible,
    keeps_majorities,
    with_member,
    without,
)
from dynamo.core.ring import Member, Ring

properties = settings(deadline=None, max_examples=50)
PARTITIONS = 2
COPIES = 3
NAMES = "abcde"
RINGS: dict[tuple[tuple[Member, ...], int], Ring] = {}

seeds = st.integers(0, 2**32)


def plain(names: Iterable[str]) -> tuple[Member, ...]:
    return tuple(Member(name) for name in names)


def steady(names: Iterable[str]) -> Layout:
    return NONE.found(plain(names), 5)


def coming(names: Iterable[str], then: Iterable[str]) -> Layout:
    changed = steady(names).change(plain(then))
    assert changed is not None
    return changed


# Steps.


def test_a_cluster_is_founded_once() -> None:
    first = NONE.found(plain("ba"), 5)
    assert first == Layout(1, 5, plain("ab"))
    assert (first.stage, first.order) == ("steady", (1, 5))
    with pytest.raises(AssertionError):
        first.found(plain("a"), 6)


def test_a_change_takes_three_layouts() -> None:
    """Each with a version of its own, of one birth."""
    first = steady("abc")
    begun = first.change(plain("abcd"))
    assert begun == Layout(2, 5, plain("abc"), plain("abcd"), coming=True)
    assert begun.stage == "coming"
    switched = begun.switch()
    assert switched == Layout(3, 5, plain("abcd"), plain("abc"))
    assert switched.stage == "going"
    assert switched.end() == Layout(4, 5, plain("abcd"))
    assert {layout.next_members for layout in (begun, switched, switched.end())} == {plain("abcd")}


def test_no_step_is_taken_out_of_turn() -> None:
    begun = coming("ab", "abc")
    for wrong in (
        steady("ab").switch,
        steady("ab").end,
        begun.end,
        begun.switch().switch,
        begun.switch().end().end,
        lambda: begun.switch().change(plain("ab")),
    ):
        with pytest.raises(AssertionError):
            wrong()


def test_a_join_while_another_is_coming_joins_it() -> None:
    begun = coming("ab", "abc")
    both = begun.change(with_member(begun.next_members, Member("d")))
    assert both == Layout(3, 5, plain("ab"), plain("abcd"), coming=True)


def test_back_to_where_it_began_cancels() -> None:
    """By a layout of its own, which is steady, and from which anything may begin."""
    begun = coming("ab", "abc")
    cancelled = begun.change(without(begun.next_members, "c"))
    assert cancelled == Layout(3, 5, plain("ab"))
    leaving = coming("abc", "ab")
    assert leaving.change(with_member(leaving.next_members, Member("c"))) == Layout(
        3, 5, plain("abc")
    )


def test_what_changes_nothing_is_no_layout() -> None:
    """In whatever order the members come; a weight or a zone is a change."""
    first = steady("abc")
    assert first.change(plain("cba")) is None
    assert coming("ab", "abc").change(plain("cab")) is None
    heavier = first.change(with_member(first.members, Member("b", "", 2.0)))
    assert heavier is not None
    assert [m.weight for m in heavier.next_members] == [1.0, 2.0, 1.0]
    moved = first.change(with_member(first.members, Member("b", "z2")))
    assert moved is not None
    assert moved.names() == ("a", "b", "c")


def test_roles() -> None:
    """Of a joiner, one that stays, one that leaves and a stranger, at each stage."""
    begun = coming("ab", "bc")
    later = (begun, begun.switch(), begun.switch().end())
    said = [[layout.role(name) for name in "abcx"] for layout in later]
    assert said == [
        ["leaving", "active", "joining", "joining"],
        ["leaving", "active", "active", "joining"],
        ["joining", "active", "active", "joining"],
    ]
    assert [[layout.knows(name) for name in "abcx"] for layout in later] == [
        [True, True, True, False],
        [True, True, True, False],
        [False, True, True, False],
    ]
    assert [layout.in_ring("c") for layout in later] == [False, True, True]


def test_who_may_talk() -> None:
    """Neighbours, and whoever goes by none."""
    assert all(compatible(a, b) for a, b in ((3, 3), (3, 4), (4, 3), (0, 9), (9, 0), (0, 0)))
    assert not any(compatible(a, b) for a, b in ((3, 5), (5, 3), (1, 9)))


def test_how_far_a_ring_may_shrink_at_once() -> None:
    """By one always; three copies not to one, for the one that is left may be the one that lacks
    what the two others acknowledged."""
    for before in range(2, 9):
        assert keeps_majorities(before, before - 1)
        assert keeps_majorities(before, before)
        assert keeps_majorities(before - 1, before)
    assert not keeps_majorities(3, 1)
    assert not keeps_majorities(5, 3)
    assert keeps_majorities(2, 1)
    for before in range(1, 7):
        for after in range(1, before + 1):
            lacking = before - (before // 2 + 1)
            most = after // 2 + 1
            met = not any(
                set(read) <= set(range(lacking)) for read in combinations(range(after), most)
            )
            assert keeps_majorities(before, after) is met


# No read misses a write.


def ring(members: tuple[Member, ...], copies: int = COPIES) -> Ring:
    return RINGS.setdefault((members, copies), Ring(members, PARTITIONS, copies))


def owners(members: tuple[Member, ...], partition: int, copies: int = COPIES) -> tuple[str, ...]:
    return ring(members, copies).owners(partition, min(copies, len(members)))


def majorities(names: tuple[str, ...]) -> Iterator[frozenset[str]]:
    """The least sets of names that are most of them."""
    return map(frozenset, combinations(names, len(names) // 2 + 1))


def written(layout: Layout, partition: int) -> Iterator[frozenset[str]]:
    """Whoever may have acknowledged a write that was answered."""
    beside = owners(layout.beside, partition) if layout.beside else ()
    for half in majorities(owners(layout.members, partition)):
        for other in majorities(beside) if beside else [frozenset[str]()]:
            yield half | other


def meet(writes: Layout, reads: Layout) -> bool:
    """Whether a read by one layout sees every write by the other that was answered before."""
    return all(
        write & read
        for partition in range(PARTITIONS)
        for write in written(writes, partition)
        for read in majorities(owners(reads.members, partition))
    )


def some_members(rng: Random, least: int = 1) -> tuple[Member, ...]:
    names = rng.sample(NAMES, rng.randint(least, len(NAMES)))
    return tuple(Member(name) for name in sorted(names))


def after(layout: Layout, rng: Random, least: int = 1) -> Layout:
    """Any next layout."""
    if layout.stage == "going":
        return layout.end()
    if layout.stage == "coming" and rng.random() < 0.5:
        return layout.switch()
    while True:
        wanted = rng.choice([some_members(rng, least), layout.members])
        if keeps_majorities(min(COPIES, len(layout.members)), min(COPIES, len(wanted))):
            changed = layout.change(wanted)
            if changed is not None:
                return changed


def history(rng: Random, length: int) -> list[Layout]:
    layouts = [NONE.found(some_members(rng), 5)]
    while len(layouts) < length:
        layouts.append(after(layouts[-1], rng))
    return layouts


@properties
@given(seeds)
def test_neighbours_read_what_each_other_wrote(seed: int) -> None:
    """Either way round, in every partition, whoever acknowledged and whoever is asked."""
    layouts = history(Random(seed), 7)
    assert [layout.version for layout in layouts] == list(range(1, 8))
    for one, other in pairwise(layouts):
        assert meet(one, other)
        assert meet(other, one)


def test_layouts_two_apart_may_miss_each_other() -> None:
    """A steady ring and the one that reads have gone over to; the last ring and the next."""
    first = steady("abc")
    begun = first.change(plain("de"))
    assert begun is not None
    switched = begun.switch()
    assert not meet(first, switched)
    assert not meet(switched.end(), begun)
    found = sum(
        not meet(one, other)
        for seed in range(20)
        for layouts in [history(Random(seed), 7)]
        for one, other in zip(layouts, layouts[2:], strict=False)
    )
    assert found > 10


class Store:
    """Who holds which writes, while a ring changes; the last two layouts are both in use."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.layouts = [NONE.found(some_members(rng, COPIES), 5)]
        self.held: dict[tuple[int, str], set[int]] = {}
        self.acknowledged: list[tuple[int, int]] = []

    def in_use(self) -> list[Layout]:
        return self.layouts[-2:]

    def write(self, layout: Layout) -> None:
        """Answered when most owners by each ring have it; the others never hear of it."""
        partition, write = self.rng.randrange(PARTITIONS), len(self.acknowledged)
        for name in self.rng.choice(list(written(layout, partition))):
            self.held.setdefault((partition, name), set()).add(write)
        self.acknowledged.append((partition, write))

    def transfer(self) -> None:
        """All go by the last layout now; each new owner takes from most of the old ones, and where
        there are to be fewer, those that stay do so as well."""
        self.layouts = self.layouts[-1:]
        layout = self.layouts[-1]
        for partition in range(PARTITIONS):
            old = owners(layout.members, partition)
            new = {*owners(layout.beside, partition)}
            for name in sorted(new if len(new) < len(old) else new - {*old}):
                for giver in self.rng.choice(list(majorities(old))):
                    mine = self.held.setdefault((partition, name), set())
                    mine |= self.held.get((partition, giver), set())

    def go_on(self) -> None:
        following = after(self.layouts[-1], self.rng, COPIES)
        if following.stage == "going":
            self.transfer()
            for _ in range(3):
                self.write(self.layouts[-1])
        self.layouts = [self.layouts[-1], following]

    def missed(self) -> bool:
        """Whether any read by a layout in use misses what was acknowledged at any time."""
        for layout in self.in_use():
            for partition in range(PARTITIONS):
                wanted = {write for p, write in self.acknowledged if p == partition}
                for asked in majorities(owners(layout.members, partition)):
                    seen = set[int]().union(*(self.held.get((partition, n), ()) for n in asked))
                    if not wanted <= seen:
                        return True
        return False


@properties
@given(seeds)
def test_no_read_misses_what_was_ever_acknowledged(seed: int) -> None:
    """Through any changes, if new owners take what most of the old ones hold before reads go
    over."""
    store = Store(Random(seed))
    for _ in range(10):
        for layout in (*store.in_use(), *store.in_use()):
            store.write(layout)
        assert not store.missed()
        store.go_on()
        assert not store.missed()


def test_a_ring_that_shrinks_below_its_copies_step_by_step_misses_nothing() -> None:
    """Two of three acknowledged a write; first one of the two leaves, then the other."""
    store = Store(Random(0))
    store.layouts = [steady("abc")]
    store.held = {(0, "b"): {0}, (0, "c"): {0}}
    store.acknowledged = [(0, 0)]
    for then in ("ab", "a"):
        begun = store.layouts[-1].change(plain(then))
        assert begun is not None
        store.layouts = [begun]
        store.transfer()
        store.layouts = [begun.switch().end()]
        assert then == "a" or not store.missed()
    assert not store.missed()


def test_reads_would_miss_without_the_transfer() -> None:
    """So the property can fail."""
    found = 0
    for seed in range(20):
        store = Store(Random(seed))
        store.transfer = lambda: None  # type: ignore[method-assign]
        for _ in range(10):
            store.write(store.layouts[-1])
            store.go_on()
        found += store.missed()
    assert found > 10


@given(st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_members_are_put_in_and_taken_out_by_name(name: str, other: str) -> None:
    members = plain("abc")
    assert without(with_member(members, Member(name, "z")), name) == without(members, name)
    assert [m for m in with_member(members, Member(name, "z")) if m.name == name] == [
        Member(name, "z")
    ]
    assume(other != name)
    kept = [m for m in members if m.name == other]
    assert [m for m in with_member(members, Member(name)) if m.name == other] == kept
