"""Bucket states form a lattice, and no client's success is taken back by a merge."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.buckets import INCARNATION_BYTES, Bucket, Properties
from dynamo.wire.codec import BUCKET

STATES = st.builds(
    Bucket,
    st.just("b"),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 2),
    st.builds(Properties, n=st.one_of(st.none(), st.integers(1, 3))),
)


@given(STATES, STATES, STATES)
def test_merge_is_a_join(a: Bucket, b: Bucket, c: Bucket) -> None:
    """I7: associative, commutative, idempotent; equal states are equal bytes."""
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a
    assert BUCKET.encode(a.merge(b)) == BUCKET.encode(b.merge(a))


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["change", "merge"])), max_size=20))
def test_nodes_agree_after_exchanging_all_they_know(steps: list[Any]) -> None:
    """Changes at several nodes, exchanged in any order, end in one state everywhere."""
    nodes = [Bucket("b")] * 3
    for stamp, (node, kind) in enumerate(steps, 1):
        held = nodes[node]
        if kind == "merge":
            nodes[node] = held.merge(nodes[(node + 1) % 3])
        elif held.exists:
            nodes[node] = held.delete(stamp)
        else:
            nodes[node] = held.create(stamp, stamp, Properties(n=node + 1))
    ends = {a.merge(b).merge(c) for a, b, c in itertools.permutations(nodes)}
    assert len(ends) == 1


def test_two_racing_creates_make_the_same_place() -> None:
    """Files written through either land under one incarnation."""
    one = Bucket("b").create(5, 1, Properties(n=1))
    two = Bucket("b").create(6, 2, Properties(n=2))
    assert one.incarnation == two.incarnation == one.merge(two).incarnation
    assert one.merge(two).properties == Properties(n=2)


def test_delete_beats_a_change_of_the_same_generation() -> None:
    """A deleted generation does not come back by a later change of its properties."""
    made = Bucket("b").create(5, 1, Properties())
    deleted, changed = made.delete(6), made.change(9, Properties(n=1))
    assert not deleted.merge(changed).exists
    assert not changed.merge(deleted).exists


def test_a_name_made_again_starts_empty() -> None:
    """Each generation has an incarnation of its own, and names do not share any."""
    first = Bucket("b").create(1, 1, Properties())
    second = first.delete(2).create(3, 3, Properties())
    assert second.merge(first.delete(9)) == second
    others = {Bucket(name, g).incarnation for name in ("b", "c", "1:b") for g in range(5)}
    assert len(others) == 15
    assert all(len(i) == INCARNATION_BYTES for i in others)
