"""What a change of the ring moves, against a naive oracle; what is refused, and in what words."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.core.layout import Layout, with_member, without
from dynamo.core.plans import (
    Change,
    Held,
    Plan,
    Rates,
    members_after,
    plan,
    why_not,
    why_refused,
)
from dynamo.core.ring import Member, Ring
from dynamo.errors import NoSuchMember, Refused

properties = settings(deadline=None, max_examples=60)

some_members = st.lists(
    st.builds(
        Member,
        name=st.sampled_from("abcdefgh"),
        zone=st.sampled_from(["", "east", "west"]),
        weight=st.sampled_from([0.5, 1.0, 1.0, 3.0]),
    ),
    max_size=8,
    unique_by=lambda member: member.name,
)
some_names = st.sets(st.sampled_from("abcdefgh"))
some_held = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.builds(Held, objects=st.integers(0, 10**6), bytes=st.integers(0, 10**12)),
)
RATES = Rates(objects=2000, bytes=32 * 2**20)
EVERYBODY = frozenset("abcdefgh")


def made(
    before: list[Member],
    after: list[Member],
    alive: set[str] | frozenset[str] = EVERYBODY,
    held: dict[str, Held] | None = None,
    *,
    copies: int = 3,
    limit: int = 10**6,
) -> tuple[Ring, Ring, Plan]:
    ring = Ring(before, 64, copies)
    found = plan(ring, after, alive=alive, held=held or {}, rates=RATES, limit=limit)
    return ring, Ring(after, 64, copies), found


def owned(ring: Ring) -> list[set[str]]:
    return [set(ring.owners(p, ring.copies)) for p in range(ring.partitions)]


def plain(names: str) -> list[Member]:
    return [Member(name) for name in names]


@properties
@given(some_members, some_members, some_names, st.integers(1, 4))
def test_the_moves_are_the_copies_that_were_not_there(
    before: list[Member], after: list[Member], alive: set[str], copies: int
) -> None:
    """Each new owner takes its copy once, from an old owner that is there, or from nobody; one that
    gives the copy up and is there comes first."""
    old, new, found = made(before, after, alive, copies=copies)

    was, becomes = owned(old), owned(new)
    wanted = {(p, name) for p in range(64) for name in becomes[p] - was[p]}
    assert {(m.partition, m.taker) for m in found.moves} == wanted
    assert len(found.moves) == found.moved == len(wanted)
    for p in range(64):
        givers = [m.giver for m in found.moves if m.partition == p]
        leaving = (was[p] - becomes[p]) & alive
        if not was[p] & alive:
            assert set(givers) <= {None}
            continue
        assert set(givers) <= was[p] & alive
        assert len(set(givers) & leaving) == min(len(givers), len(leaving))
    assert (found.now, found.then) == (old.version, new.version)


@properties
@given(some_members, some_members, some_names, st.integers(1, 4))
def test_the_lowest_copies_are_those_of_the_worst_step(
    before: list[Member], after: list[Member], alive: set[str], copies: int
) -> None:
    """The old ring is complete up to the switch and the new one from it on: of each partition the
    live owners of either, and the fewest of all partitions."""
    old, new, found = made(before, after, alive, copies=copies)

    assert found.lowest_copies == min(
        len(owners & alive) for ring in (old, new) for owners in owned(ring)
    )


@properties
@given(some_members, some_members, some_held)
def test_sizes_are_what_is_held_spread_over_the_copies(
    before: list[Member], after: list[Member], held: dict[str, Held]
) -> None:
    """By those that say so; the time is that of whoever takes most, at the slower of both rates."""
    old, _, found = made(before, after, held=held)

    counts = Counter(name for owners in owned(old) for name in owners)
    copies = sum(counts[name] for name in held)
    total = [sum(getattr(held[n], f) for n in counts if n in held) for f in ("objects", "bytes")]
    objects, size = [amount / copies if copies else 0.0 for amount in total]
    assert {m.bytes for m in found.moves} <= {round(size)}
    assert found.bytes == pytest.approx(found.moved * size, abs=0.51)
    most = max(Counter(m.taker for m in found.moves).values(), default=0)
    slower = max(most * objects / RATES.objects, most * size / RATES.bytes)
    assert found.seconds == pytest.approx(slower, abs=0.051)


@properties
@given(some_members, some_members, st.integers(0, 100))
def test_the_list_may_be_short_and_the_totals_never_are(
    before: list[Member], after: list[Member], limit: int
) -> None:
    """The first moves by partition; everything else is of all of them."""
    held = {"a": Held(1000, 10**6), "b": Held(1000, 10**6)}
    whole = made(before, after, held=held)[2]
    short = made(before, after, held=held, limit=limit)[2]

    assert short.moves == whole.moves[:limit]
    assert list(whole.moves) == sorted(whole.moves, key=lambda m: m.partition)
    for field in ("moved", "bytes", "seconds", "lowest_copies", "moved_share", "ideal_share"):
        assert getattr(short, field) == getattr(whole, field)


@properties
@given(some_members, some_members)
def test_the_shares_are_of_all_copies_there_will_be(
    before: list[Member], after: list[Member]
) -> None:
    """Ideally as much moves as the members' shares grow by."""
    old, new, found = made(before, after)

    total = sum(len(owners) for owners in owned(new))
    shares = {m.name: old.share(m.name) for m in before}
    grown = sum(max(0.0, new.share(m.name) - shares.get(m.name, 0.0)) for m in after)
    assert found.moved_share * total == pytest.approx(found.moved)
    assert found.ideal_share * total == pytest.approx(grown)
    if found.ratio is not None:
        assert found.ratio * grown == pytest.approx(found.moved)


def test_a_fourth_node_takes_a_quarter() -> None:
    """Its share of the copies, or as little less as balance allows; nobody else takes any, and all
    copies stay complete."""
    ring = Ring(plain("abc"), 1024, 3)
    held = {name: Held(100_000, 1024 * 10**6) for name in "abc"}
    found = plan(ring, plain("abcd"), alive=EVERYBODY, held=held, rates=RATES, limit=5)

    assert found.ideal_share == pytest.approx(0.25)
    assert 0.95 <= (found.ratio or 0) <= 1.05
    assert {m.taker for m in found.moves} == {"d"}
    assert {m.giver for m in found.moves} <= set("abc")
    assert (len(found.moves), found.moves[0].bytes) == (5, 10**6)
    assert found.bytes == found.moved * 10**6
    assert found.seconds == pytest.approx(found.moved * 100_000 / 1024 / 2000, abs=0.05)
    assert found.lowest_copies == 3


def test_a_dead_member_is_copied_from_those_that_are_there() -> None:
    """And not all from the same; a leaver is copied from itself."""
    ring = Ring(plain("abcd"), 256, 3)
    kwargs = {"held": {}, "rates": RATES, "limit": 10**6}
    dead = plan(ring, plain("abc"), alive={"a", "b", "c"}, **kwargs)  # type: ignore[arg-type]
    left = plan(ring, plain("abc"), alive=EVERYBODY, **kwargs)  # type: ignore[arg-type]

    givers = Counter(m.giver for m in dead.moves)
    assert set(givers) == set("abc")
    assert min(givers.values()) > dead.moved / 6
    assert {m.giver for m in left.moves} == {"d"}
    assert (dead.lowest_copies, left.lowest_copies) == (2, 3)


def test_from_three_to_two_nothing_moves() -> None:
    """The other two hold everything already; there is no ratio to nothing."""
    found = made(plain("abc"), plain("ab"))[2]
    assert (found.moved, found.ideal_share, found.ratio, found.lowest_copies) == (0, 0.0, None, 2)


# Who is in it afterwards.

STEADY = Layout(1, 1, tuple(plain("abcd")))
COMING = Layout(2, 1, tuple(plain("abcd")), tuple(plain("abce")), True)
GOING = Layout(3, 1, tuple(plain("abce")), tuple(plain("abcd")))


def test_members_after_each_kind_of_change() -> None:
    """A joiner brings its own zone and weight, unless others are asked about."""
    e = Member("e", "east", 2.0)
    abcd = STEADY.members
    assert members_after(Change("join", "e"), STEADY, e) == with_member(abcd, e)
    asked = Change("join", "e", zone="west", weight=0.5)
    assert members_after(asked, STEADY, e)[-1] == Member("e", "west", 0.5)
    for kind in ("leave", "remove"):
        assert members_after(Change(kind, "b"), STEADY, e) == without(abcd, "b")  # type: ignore[arg-type]
    heavier = members_after(Change("weight", "b", weight=2.0), STEADY, e)
    assert heavier == with_member(abcd, Member("b", "", 2.0))
    moved = members_after(Change("zone", "b", zone="west"), STEADY, e)
    assert moved == with_member(abcd, Member("b", "west", 1.0))


def test_a_change_is_planned_on_top_of_the_one_under_way() -> None:
    """As it would be begun; who is on its way out may be asked about all the same."""
    f = Member("f")
    for layout in (COMING, GOING):
        names = [m.name for m in members_after(Change("join", "f"), layout, f)]
        assert names == ["a", "b", "c", "e", "f"]
        assert members_after(Change("leave", "d"), layout, f) == layout.next_members


@pytest.mark.parametrize("kind", ["leave", "remove", "weight", "zone"])
def test_a_stranger_is_no_member(kind: str) -> None:
    """Whatever is asked of it but to join."""
    with pytest.raises(NoSuchMember):
        members_after(Change(kind, "x"), STEADY, Member("x"))  # type: ignore[arg-type]


def test_who_is_in_cannot_join() -> None:
    """Nor can one that is on its way in."""
    for name in ("a", "e"):
        with pytest.raises(Refused) as refused:
            members_after(Change("join", name), COMING, Member(name))
        assert refused.value.code == "already_member"


# What is refused.

ALIVE = dict.fromkeys("abcde", "alive")
DEAD_D = {**ALIVE, "d": "dead"}


def refusal(kind: str, name: str, layout: Layout, words: dict[str, str], **more: object) -> str:
    """The code, "" if it is let through."""
    given: dict[str, object] = {"copies_wanted": 3, "me": name if kind == "leave" else "a", **more}
    found = why_refused(kind, name, layout, words, **given)  # type: ignore[arg-type]
    return "" if found is None else found.code


THREE = Layout(1, 1, tuple(plain("abc")))
ONE = Layout(1, 1, tuple(plain("a")))


@pytest.mark.parametrize(
    ("kind", "name", "layout", "words", "code"),
    [
        ("leave", "d", STEADY, ALIVE, ""),
        ("leave", "x", STEADY, ALIVE, "no_such_member"),
        ("leave", "a", Layout(), ALIVE, "no_such_member"),
        ("leave", "c", THREE, ALIVE, "too_few_members"),
        ("leave", "a", ONE, ALIVE, "last_member"),
        ("leave", "d", STEADY, DEAD_D, "not_alive"),
        ("leave", "d", COMING, ALIVE, "change_under_way"),
        ("leave", "e", COMING, ALIVE, "change_under_way"),
        ("leave", "a", COMING, ALIVE, ""),
        ("leave", "a", GOING, ALIVE, "change_under_way"),
        ("leave", "d", GOING, ALIVE, "change_under_way"),
        ("remove", "d", STEADY, DEAD_D, ""),
        ("remove", "d", STEADY, {**ALIVE, "d": "left"}, ""),
        ("remove", "d", STEADY, {"a": "alive"}, ""),
        ("remove", "d", STEADY, ALIVE, "not_dead"),
        ("remove", "d", STEADY, {**ALIVE, "d": "suspect"}, "not_dead"),
        ("remove", "a", STEADY, ALIVE, "leave_instead"),
        ("remove", "x", STEADY, ALIVE, "no_such_member"),
        ("remove", "c", THREE, {**ALIVE, "c": "dead"}, "too_few_members"),
        ("remove", "d", COMING, DEAD_D, "change_under_way"),
        ("remove", "e", COMING, {**ALIVE, "e": "dead"}, ""),
        ("remove", "c", GOING, {**ALIVE, "c": "dead"}, "change_under_way"),
        ("remove", "d", GOING, DEAD_D, "change_under_way"),
    ],
)
def test_what_is_refused(
    kind: str, name: str, layout: Layout, words: dict[str, str], code: str
) -> None:
    """And what is not; a plan says so beforehand in the same words."""
    assert refusal(kind, name, layout, words) == code
    found = why_refused(kind, name, layout, words, 3, "a" if kind == "remove" else name)  # type: ignore[arg-type]
    told = why_not(Change(kind, name), layout, words, 3, "a" if kind == "remove" else name)  # type: ignore[arg-type]
    assert told == (str(found) if found is not None else None)
    if told is not None:
        assert told.endswith(".")


def test_force_allows_fewer_members_and_nothing_else() -> None:
    """Not to lose the last one, not to take out one that is alive."""
    dead = {**ALIVE, "c": "dead"}
    assert refusal("leave", "c", THREE, ALIVE, force=True) == ""
    assert refusal("remove", "c", THREE, dead, force=True) == ""
    assert refusal("leave", "a", ONE, ALIVE, force=True) == "last_member"
    assert refusal("remove", "d", STEADY, ALIVE, force=True) == "not_dead"
    assert refusal("leave", "c", THREE, ALIVE, copies_wanted=2) == ""


def test_the_sentences_say_what_to_do() -> None:
    """Before a node is lost for good."""
    dead = {**ALIVE, "c": "dead"}
    assert str(why_refused("remove", "c", THREE, dead, 3, "a")) == (
        "Without c there are 2 members for 3 copies: add a node first, or replace it by starting "
        'an empty node under the name c, or send {"force": true} to go on with fewer copies.'
    )
    assert str(why_refused("leave", "c", THREE, ALIVE, 3, "c")) == (
        "Without c there are 2 members for 3 copies: add a node first, or send "
        '{"force": true} to go on with fewer copies.'
    )
    assert "nearly through; try again" in str(why_refused("leave", "a", GOING, ALIVE, 3, "a"))
    assert "POST /v1/cluster/leave" in str(why_refused("remove", "d", STEADY, ALIVE, 3, "a"))


def test_other_changes_wait_only_for_the_last_to_end() -> None:
    """One that is coming is joined."""
    for change in (Change("join", "f"), Change("weight", "a", weight=2.0)):
        assert why_not(change, STEADY, ALIVE, 3, "a") is None
        assert why_not(change, COMING, ALIVE, 3, "a") is None
        assert "try again" in (why_not(change, GOING, ALIVE, 3, "a") or "")
