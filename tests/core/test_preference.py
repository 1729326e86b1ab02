"""Preference lists: the first N healthy nodes, and for whom each stands in."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.preference import Preference, Target, prefer
from dynamo.core.quorum import Quorums

RANKING = tuple("abcdef")


@given(st.integers(1, 6), st.frozensets(st.sampled_from(RANKING)), st.booleans())
def test_every_owner_is_asked_replaced_or_missed(
    n: int, healthy: frozenset[str], strict: bool
) -> None:
    """Nobody is asked twice, nobody unhealthy at all, and no owner is forgotten."""
    found = prefer(RANKING, n, healthy.__contains__, strict)
    names = [t.name for t in found.targets]
    stands_for = [t.stand_in_for or t.name for t in found.targets]
    assert found.owners == RANKING[:n]
    assert set(names) <= healthy
    assert len(set(names)) == len(names)
    assert sorted([*stands_for, *found.missed]) == sorted(found.owners)
    assert not set(found.spares) & set(names)
    assert set(found.spares) <= healthy
    for target in found.targets:
        assert (target.name in found.owners) is (not target.stand_in_for)
        assert target.stand_in_for not in healthy


@given(st.integers(1, 6), st.frozensets(st.sampled_from(RANKING)))
def test_sloppy_takes_the_first_healthy_of_the_ranking(n: int, healthy: frozenset[str]) -> None:
    """Dynamo §4.6: the first N healthy nodes, an owner missed only where no node is left."""
    found = prefer(RANKING, n, healthy.__contains__, False)
    in_order = [name for name in RANKING if name in healthy]
    assert {t.name for t in found.targets} == set(in_order[:n])
    assert len(found.missed) == max(0, n - len(in_order))
    assert not (found.missed and found.spares)
    assert [t.name for t in found.targets] == in_order[:n], "owners first, then in order"


@given(st.integers(1, 6), st.frozensets(st.sampled_from(RANKING)))
def test_strict_keeps_to_the_owners(n: int, healthy: frozenset[str]) -> None:
    """No stand-ins and no spares, whoever is gone."""
    found = prefer(RANKING, n, healthy.__contains__, True)
    assert all(t.name in RANKING[:n] and not t.stand_in_for for t in found.targets)
    assert found.spares == ()


def test_a_target_is_found_by_name() -> None:
    """And nobody else is."""
    found = prefer("abcd", 2, lambda name: name != "a", False)
    assert found == Preference(("a", "b"), (Target("b"), Target("c", "a")), ("a",)[:0], ("d",))
    assert found.target("c") == Target("c", "a")
    assert found.target("a") is None


def test_names_and_quorums_are_the_same_however_often_they_are_asked_for() -> None:
    """Those of another W, or of a list beside which another one was put, are others."""
    found = prefer("abcd", 3, lambda name: True, False)
    for _ in range(2):
        assert found.names == ("a", "b", "c")
        for w in (1, 2, 4):
            assert found.quorums(w) == Quorums.of(["a", "b", "c"], min(w, 3))
    both = attrs.evolve(found, beside=prefer("bcde", 3, lambda name: True, False))
    assert both.names == ("a", "b", "c", "d")
    assert both.quorums(2) != found.quorums(2)
    assert hash(found) == hash(prefer("abcd", 3, lambda name: True, False))
