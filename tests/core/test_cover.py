"""Which nodes a listing asks: each partition is heard R times, by nodes that serve it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.core.cover import cover
from dynamo.core.preference import prefer
from dynamo.core.ring import Member, Ring

NAMES = [f"n{i}" for i in range(7)]


def heard(rankings: Any, nodes: Any, n: int, healthy: Any, strict: bool) -> list[int]:
    """The oracle: how many of `nodes` serve each partition."""
    counts = []
    for ranking in rankings:
        serving = {t.name for t in prefer(ranking, n, healthy, strict).targets}
        counts.append(len(serving & set(nodes)))
    return counts


@settings(max_examples=150)
@given(
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(1, 4),
    st.frozensets(st.sampled_from(NAMES)),
    st.booleans(),
)
def test_every_partition_is_heard_r_times(
    size: int, n: int, r: int, healthy: frozenset[str], strict: bool
) -> None:
    """If the healthy nodes can do it at all; None says exactly that they cannot. By owners where
    there are R of them, else by every target there is."""
    names = NAMES[:size]
    ring = Ring([Member(name) for name in names], 16, 3)
    rankings = [ring.ranking(p) for p in range(16)]
    nodes = cover(rankings, n, r, healthy.__contains__, strict, "n0")
    most = heard(rankings, names, n, healthy.__contains__, strict)
    if min(most) < r:
        assert nodes is None
        return
    assert nodes is not None
    assert set(nodes) <= healthy
    assert len(set(nodes)) == len(nodes)
    for ranking in rankings:
        targets = prefer(ranking, n, healthy.__contains__, strict).targets
        owners = {t.name for t in targets if not t.stand_in_for}
        if len(owners) >= r:
            assert len(owners & set(nodes)) >= r
        else:
            assert {t.name for t in targets} <= set(nodes)


def test_this_node_is_asked_first() -> None:
    """Its answer is free."""
    ring = Ring([Member(name) for name in NAMES], 64, 3)
    rankings = [ring.ranking(p) for p in range(64)]
    for name in NAMES:
        nodes = cover(rankings, 3, 2, lambda _: True, False, name)
        assert nodes is not None
        assert nodes[0] == name


def test_three_nodes_of_three_copies_need_only_r() -> None:
    """Where everyone holds everything, R nodes are enough."""
    ring = Ring([Member(name) for name in "abc"], 64, 3)
    rankings = [ring.ranking(p) for p in range(64)]
    assert cover(rankings, 3, 2, lambda _: True, False, "b") in (("b", "c"), ("b", "a"))
    assert cover(rankings, 3, 1, lambda _: True, False, "b") == ("b",)
