"""The ring's promises, by property and against a naive oracle."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from itertools import combinations
from math import floor, log

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dynamo.core.placement import CAP
from dynamo.core.ring import PARTITIONS_MAX, Member, Ring
from dynamo.core.shares import fill, shares, zoning
from dynamo.core.walks import minus_ln

properties = settings(deadline=None, max_examples=40)

members_of_any_kind = st.lists(
    st.builds(
        Member,
        name=st.text("abcdefgh-", min_size=1, max_size=4),
        zone=st.sampled_from(["", "east", "west", "north", "south"]),
        weight=st.sampled_from([0.01, 0.5, 1.0, 1.0, 2.0, 3.7, 50.0]),
    ),
    max_size=12,
    unique_by=lambda member: member.name,
)
some_partitions = st.sampled_from([1, 2, 16, 64])
some_copies = st.integers(1, 5)


def plain(count: int, salt: str = "node", zones: int = 1) -> list[Member]:
    return [Member(f"{salt}{i}", f"zone{i % zones}") for i in range(count)]


def held(ring: Ring) -> set[tuple[int, str]]:
    """Every (partition, owner)."""
    pairs = range(ring.partitions)
    return {(p, name) for p in pairs for name in ring.owners(p, ring.copies)}


def zone_spread_is_even(ring: Ring, names: tuple[str, ...]) -> bool:
    """The oracle for zones: no choice of as many nodes has a more even spread."""
    zone_of = {member.name: member.zone for member in ring.members}

    def unevenness(chosen: tuple[str, ...]) -> list[int]:
        return sorted(Counter(zone_of[name] for name in chosen).values(), reverse=True)

    everybody = tuple(zone_of)
    return unevenness(names) == min(unevenness(c) for c in combinations(everybody, len(names)))


@properties
@given(members_of_any_kind, some_partitions, some_copies, st.randoms(use_true_random=False))
def test_order_of_members_is_irrelevant(
    members: list[Member], partitions: int, copies: int, rng: random.Random
) -> None:
    """Nodes that learnt of the members in different orders have the same ring."""
    shuffled = list(members)
    rng.shuffle(shuffled)

    one, other = Ring(members, partitions, copies), Ring(shuffled, partitions, copies)

    assert one.version == other.version
    assert one == other
    assert all(one.ranking(p) == other.ranking(p) for p in range(partitions))


def test_placement_never_changes_by_itself() -> None:
    """Two processes with other hash seeds agree, and so do this version and the next."""
    program = (
        "from dynamo.core.ring import Ring, Member\n"
        "from hashlib import blake2b\n"
        "ms = [Member(f'n{i}', f'z{i % 4}', 1 + i % 3) for i in range(60)]\n"
        "ring = Ring(ms, 256, 3)\n"
        "text = repr([ring.ranking(p) for p in range(256)]).encode()\n"
        "print(ring.version, blake2b(text, digest_size=8).hexdigest())\n"
    )

    said = {
        subprocess.check_output(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, text=True
        )
        for seed in ("1", "2")
    }

    assert said == {GOLDEN}


GOLDEN = "42ab257ad7b3af93 2b15e97358a6a67b\n"


@properties
@given(members_of_any_kind, some_partitions, some_copies)
def test_ranking_names_everybody_once_and_owners_are_its_head(
    members: list[Member], partitions: int, copies: int
) -> None:
    """A ranking is a permutation of the members; owners(p, n) is its first n for every n."""
    ring = Ring(members, partitions, copies)

    for p in range(partitions):
        ranking = ring.ranking(p)
        assert sorted(ranking) == [member.name for member in ring.members]
        assert ring.ranking(p) is ranking
        for n in range(len(members) + 2):
            assert ring.owners(p, n) == ranking[:n]


@properties
@given(members_of_any_kind, st.sampled_from([1, 16]), some_copies)
def test_zones_come_first(members: list[Member], partitions: int, copies: int) -> None:
    """However many of a ranking are taken up to `copies`, and with all stand-ins after them, no
    other choice would be spread over the zones more evenly."""
    assume(len(members) <= 9)
    ring = Ring(members, partitions, copies)

    for p in range(partitions):
        for n in range(len(members) + 1):
            assert zone_spread_is_even(ring, ring.owners(p, n))


@properties
@given(members_of_any_kind, some_partitions, some_copies)
def test_shares_and_holdings_add_up(members: list[Member], partitions: int, copies: int) -> None:
    """Shares and holdings both sum to all copies there are; nobody's share exceeds Q."""
    ring = Ring(members, partitions, copies)
    copies_there_are = partitions * min(copies, len(members))

    names = [member.name for member in ring.members]
    counts = Counter(name for _, name in held(ring))
    assert {name: ring.partitions_owned(name) for name in names} == {n: counts[n] for n in names}
    assert sum(counts.values()) == copies_there_are
    assert sum(map(ring.share, names)) == pytest.approx(copies_there_are)
    assert all(0 < ring.share(name) <= partitions * (1 + 1e-9) for name in names)


@pytest.mark.parametrize(
    ("size", "partitions", "zones"),
    [(3, 1024, 1), (4, 256, 1), (5, 256, 5), (10, 512, 1), (30, 1024, 1), (30, 1024, 3),
     (31, 2048, 4), (61, 2048, 1)],
)  # fmt: skip
@pytest.mark.parametrize("salt", ["a", "b", "c"])
def test_no_node_is_over_its_cap(size: int, partitions: int, zones: int, salt: str) -> None:
    """Where Q·N/S is at least 100, the fullest node holds at most 5 % more than its share."""
    assert partitions * 3 / size >= 100
    ring = Ring(plain(size, salt, zones), partitions, 3)

    for member in ring.members:
        assert ring.partitions_owned(member.name) <= CAP * ring.share(member.name) + 1e-9


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=4, max_size=20), st.integers(1, 3))
def test_weighted_nodes_keep_the_cap(weights: list[float], copies: int) -> None:
    """Weights change the shares, not the promise."""
    ring = Ring([Member(f"n{i}", weight=w) for i, w in enumerate(weights)], 1024, copies)
    assume(1024 * copies / len(weights) >= 100)

    for member in ring.members:
        assert ring.partitions_owned(member.name) <= CAP * ring.share(member.name) + 1e-9


@pytest.mark.parametrize(
    ("size", "partitions", "zones"),
    [(3, 1024, 1), (4, 512, 1), (5, 256, 1), (10, 512, 1), (30, 2048, 1), (30, 2048, 3),
     (12, 1024, 3)],
)  # fmt: skip
@pytest.mark.parametrize("salt", ["a", "b"])
def test_a_join_or_leave_moves_little_else(
    size: int, partitions: int, zones: int, salt: str
) -> None:
    """A node that joins S others moves at most 1.2 times what it comes to hold; one that leaves,
    1.2 times what it held."""
    everybody = plain(size + 1, salt, zones)
    before, after = Ring(everybody[:-1], partitions, 3), Ring(everybody, partitions, 3)
    ideal = partitions * 3 / (size + 1)

    joined = len(held(after) - held(before))
    left = len(held(before) - held(after))

    assert joined <= 1.2 * ideal
    assert left <= 1.2 * ideal


def test_twice_the_weight_holds_twice_as_much() -> None:
    """A share is in proportion to weight, and what is held keeps close to the share."""
    ring = Ring([Member(f"n{i}", weight=1 + i % 2) for i in range(12)], 4096, 3)

    light, heavy = ring.partitions_owned("n0"), ring.partitions_owned("n1")

    assert ring.share("n1") == pytest.approx(2 * ring.share("n0"))
    assert heavy / light == pytest.approx(2, rel=0.1)


def test_a_giant_holds_every_partition_once_and_the_rest_is_shared() -> None:
    """A weight beyond what a node can hold ends at one copy of each partition."""
    ring = Ring([Member("giant", weight=1000), *plain(4)], 1024, 3)

    assert ring.share("giant") == ring.partitions_owned("giant") == 1024
    assert ring.share("node0") == pytest.approx(512)
    assert max(ring.partitions_owned(f"node{i}") for i in range(4)) <= floor(CAP * 512)


def test_a_zone_of_one_node_holds_a_copy_of_everything() -> None:
    """With as many zones as copies each zone holds every partition, however small it is."""
    ring = Ring([Member("lone", "small", 0.1), *plain(4, "a"), *plain(4, "b", 2)], 256, 3)

    assert {m.zone for m in ring.members} == {"small", "zone0", "zone1"}
    assert ring.partitions_owned("lone") == ring.share("lone") == 256


def test_the_first_owner_is_spread_evenly() -> None:
    """Each node is first, and among the first two, for a fair part of what it holds."""
    ring = Ring(plain(10), 1024, 3)

    for n in (1, 2):
        counts = Counter(name for p in range(1024) for name in ring.owners(p, n))
        for member in ring.members:
            fair = ring.partitions_owned(member.name) * n / 3
            assert counts[member.name] == pytest.approx(fair, rel=0.12)


def test_a_lost_node_is_followed_by_its_stand_in() -> None:
    """Where a member is removed, most of its partitions go to their first stand-in, so hinted
    copies are already where the next ring wants them."""
    ring = Ring(plain(10), 1024, 3)
    smaller = Ring([m for m in ring.members if m.name != "node4"], 1024, 3)

    mine = [p for p in range(1024) if "node4" in ring.owners(p, 3)]
    kept = sum(ring.ranking(p)[3] in smaller.owners(p, 3) for p in mine)

    assert kept / len(mine) > 0.8


def test_the_far_end_of_a_large_ring_is_ranked_too() -> None:
    """A ring that ranks only its nearest nodes beforehand still ranks all when asked."""
    ring = Ring(plain(120, zones=2), 64, 2)

    assert all(len(set(ring.ranking(p))) == 120 for p in range(64))
    assert ring.ranking(3)[:2] == ring.owners(3, 2)


@pytest.mark.parametrize("partitions", [1, 2, 1024])
def test_a_key_has_one_partition_within_range(partitions: int) -> None:
    """The partition is the top bits of the hash, so a ring of twice as many splits each in two."""
    ring, finer = Ring([], partitions, 3), Ring([], partitions * 2, 3)

    for i in range(200):
        key = str(i).encode()
        p = ring.partition(b"bucket-1", key)
        assert 0 <= p < partitions
        assert finer.partition(b"bucket-1", key) // 2 == p
    if partitions == 1024:
        assert ring.partition(b"bucket-1", b"k") != ring.partition(b"bucket-2", b"k")


def test_keys_spread_over_partitions() -> None:
    """Counting keys evenly numbered, no partition is far from the mean (chi-squared)."""
    ring = Ring([], 64, 3)

    counts = Counter(ring.partition(b"bucket-1", str(i).encode()) for i in range(64_000))

    assert sum((counts[p] - 1000) ** 2 / 1000 for p in range(64)) < 120


def test_an_empty_ring_is_legal() -> None:
    """Before anybody is known every ranking is empty."""
    ring = Ring([], 16, 3)

    assert ring.ranking(0) == ring.owners(5, 3) == ()
    assert len(ring.version) == 16
    with pytest.raises(KeyError):
        ring.share("nobody")


def test_everything_ownership_depends_on_is_in_the_version() -> None:
    """Two rings with one version place alike; any difference in the input shows."""
    rings = [
        Ring(plain(3), 16, 3),
        Ring(plain(4), 16, 3),
        Ring(plain(3), 32, 3),
        Ring(plain(3), 16, 2),
        Ring(plain(3, zones=3), 16, 3),
        Ring([Member("node0", "zone0", 2.0), *plain(3)[1:]], 16, 3),
    ]

    assert len({ring.version for ring in rings}) == len(rings)
    assert all(int(ring.version, 16) >= 0 and len(ring.version) == 16 for ring in rings)
    whole = Ring([Member("a", "", 1), Member("b")], 16, 3)
    assert whole.version == Ring([Member("a"), Member("b")], 16, 3).version
    assert hash(whole) == hash(Ring([Member("a"), Member("b")], 16, 3))
    assert whole.version in repr(whole)


@pytest.mark.parametrize("partitions", [0, -2, 3, 1000, PARTITIONS_MAX * 2])
def test_partitions_must_be_a_power_of_two(partitions: int) -> None:
    """Any other number is refused."""
    with pytest.raises(ValueError, match="power of two"):
        Ring([], partitions, 3)


def test_bad_members_are_refused() -> None:
    """No empty name, no weight that is not a positive number, no name twice, no zero copies."""
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight"):
            Member("a", "", weight)
    with pytest.raises(ValueError, match="name"):
        Member("")
    with pytest.raises(ValueError, match="same name"):
        Ring([Member("a"), Member("a", "elsewhere")], 16, 3)
    with pytest.raises(ValueError, match="copies"):
        Ring([], 16, 0)


@properties
@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0, 5), st.floats(0, 5)), min_size=1),
       st.floats(0, 1))  # fmt: skip
def test_fill_splits_in_proportion_between_bounds(
    items: list[tuple[float, float, float]], part: float
) -> None:
    """What is filled adds up, keeps its bounds, and the unbound are in proportion to weight."""
    weights = [weight for weight, _, _ in items]
    lows = [min(a, b) for _, a, b in items]
    highs = [max(a, b) for _, a, b in items]
    amount = sum(lows) + part * (sum(highs) - sum(lows))

    parts = fill(amount, weights, lows, highs)

    assert sum(parts) == pytest.approx(amount, abs=1e-6)
    assert all(lo - 1e-6 <= x <= hi + 1e-6 for x, lo, hi in zip(parts, lows, highs, strict=True))
    level = [
        x / w
        for x, w, lo, hi in zip(parts, weights, lows, highs, strict=True)
        if lo + 1e-6 < x < hi - 1e-6
    ]
    assert not level or max(level) == pytest.approx(min(level), rel=1e-3)


def test_zone_shares_follow_rounds() -> None:
    """Three copies in zones of three and of one node: the lone node holds everything."""
    spread = zoning(["a", "a", "a", "b"], 3)

    assert (spread.low, spread.high) == ([2, 1], [3, 1])
    assert shares([1, 1, 1, 1], spread, 300, 3) == pytest.approx([200, 200, 200, 300])


@properties
@given(st.floats(1e-300, 1))
def test_minus_ln_is_the_logarithm(x: float) -> None:
    """Our own logarithm agrees with the library's to its last digits."""
    assert minus_ln(x) == pytest.approx(-log(x), rel=1e-12, abs=1e-15)
