"""Trees of fingerprints, held to plain sets of what they stand for."""

from __future__ import annotations

from array import array
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.merkle import LEAVES_IN_ALL, MASK, Shape, change, fingerprint
from dynamo.core.record import Draft, Record
from dynamo.core.ring import Member, Ring, position

SHAPES = st.sampled_from([1, 8, 1024, 4096, 2**15, 2**20]).map(Shape.of)
KEYS = st.binary(min_size=1, max_size=6)
STATES = st.dictionaries(KEYS, st.integers(1, 5), max_size=30)


def summand(key: bytes, state: int) -> int:
    """Stands for a fingerprint: equal only for an equal key in an equal state."""
    return fingerprint(key, Record({"n1": state}))


def leaf_of(shape: Shape, key: bytes) -> int:
    return shape.find(position(b"bucket-1", key))[1]


def tree(shape: Shape, keys: dict[bytes, int]) -> array[int]:
    """As if all keys were in one partition."""
    leaves = shape.empty()
    for key, state in keys.items():
        change(leaves, leaf_of(shape, key), summand(key, state))
    return leaves


def descend(shape: Shape, mine: array[int], theirs: array[int]) -> tuple[list[int], int]:
    """The leaves that differ, and how many hashes were asked for."""
    nodes, asked = [0], 1
    if shape.root(mine) == shape.root(theirs):
        return [], asked
    for level in range(shape.depth):
        children = shape.children(level, nodes)
        told = shape.hashes(theirs, level + 1, children)
        asked += len(children)
        nodes = shape.differing(mine, level + 1, children, told)
    return nodes, asked


@given(SHAPES, STATES, STATES)
def test_roots_are_equal_where_the_keys_and_their_states_are(
    shape: Shape, one: dict[bytes, int], other: dict[bytes, int]
) -> None:
    """And nowhere else; a tree without keys equals one that has lost all it had."""
    assert (shape.root(tree(shape, one)) == shape.root(tree(shape, other))) == (one == other)
    emptied = tree(shape, one)
    for key, state in one.items():
        change(emptied, leaf_of(shape, key), -summand(key, state))
    assert emptied == shape.empty()


@given(SHAPES, STATES, STATES)
def test_the_descent_ends_at_exactly_the_leaves_that_differ(
    shape: Shape, one: dict[bytes, int], other: dict[bytes, int]
) -> None:
    """It asks for no more than the children of nodes that differ."""
    unlike = {key for key in {*one, *other} if one.get(key) != other.get(key)}
    expected = sorted({leaf_of(shape, key) for key in unlike})
    found, asked = descend(shape, tree(shape, one), tree(shape, other))
    assert found == expected
    assert asked <= 1 + 16 * shape.depth * len(expected)


@given(SHAPES, STATES, st.lists(st.tuples(KEYS, st.integers(0, 5)), max_size=30))
def test_changes_in_any_order_give_the_tree_of_what_is_there_in_the_end(
    shape: Shape, before: dict[bytes, int], changes: list[tuple[bytes, int]]
) -> None:
    """A change is the new fingerprint less the old one; state 0 is none."""
    now, deltas = dict(before), []
    for key, state in changes:
        old = summand(key, now[key]) if key in now else 0
        new = summand(key, state) if state else 0
        deltas.append((leaf_of(shape, key), new - old))
        if state:
            now[key] = state
        else:
            now.pop(key, None)
    for order in (deltas, deltas[::-1]):
        leaves = tree(shape, before)
        for leaf, delta in order:
            change(leaves, leaf, delta)
        assert leaves == tree(shape, now)


@pytest.mark.parametrize("partitions", [1, 2, 64, 1024, 2**16, 2**20])
def test_leaves_cut_the_hash_space_without_gap_or_overlap(partitions: int) -> None:
    """Each begins where the last one ends, inside its partition as the ring has it."""
    shape = Shape.of(partitions)
    ends = [0, partitions // 2, partitions - 1]
    cuts = [(p, leaf) for p in sorted(set(ends)) for leaf in range(shape.leaves)]
    for (p, leaf), (q, following) in pairwise(cuts):
        start, stop = shape.bounds(p, leaf)
        assert stop is not None
        assert shape.find(start) == (p, leaf)
        assert shape.find((int.from_bytes(stop, "big") - 1).to_bytes(8, "big")) == (p, leaf)
        if p == q:
            assert shape.bounds(q, following)[0] == stop
    assert shape.bounds(partitions - 1, shape.leaves - 1)[1] is None
    assert shape.bounds(0, 0)[0] == bytes(8)
    assert shape.leaves in (16, 32, 64, 128, 256)
    assert shape.leaves == 16 or shape.leaves * partitions <= LEAVES_IN_ALL


@given(st.sampled_from([1, 64, 1024, 2**16]), st.binary(min_size=8, max_size=8), KEYS)
def test_a_key_lies_in_the_partition_the_ring_gives_it(
    partitions: int, incarnation: bytes, key: bytes
) -> None:
    """The tree and the ring cut the same hash."""
    found, leaf = Shape.of(partitions).find(position(incarnation, key))
    assert found == Ring([Member("n1")], partitions, 1).partition(incarnation, key)
    assert 0 <= leaf < Shape.of(partitions).leaves


@given(SHAPES, st.lists(st.integers(-5, 300), max_size=5))
def test_nodes_there_are_not_have_no_children(shape: Shape, nodes: list[int]) -> None:
    """What a peer asks for is taken as far as it makes sense."""
    for level in range(shape.depth):
        width = shape.leaves // shape.span(level)
        children = shape.children(level, nodes)
        assert all(0 <= child < shape.leaves // shape.span(level + 1) for child in children)
        assert (not children) == (not any(0 <= node < width for node in nodes))


def test_an_answer_of_the_wrong_length_is_no_answer() -> None:
    """A peer that leaves hashes out is not taken to agree on them."""
    shape = Shape.of(1024)
    with pytest.raises(ValueError, match="16 nodes"):
        shape.differing(shape.empty(), 1, list(range(16)), bytes(8 * 15))


ACTORS = st.sampled_from(["n1", "n2", "n3~2"])
WRITES = st.lists(st.tuples(ACTORS, st.booleans(), st.booleans()), min_size=1, max_size=6)


def record_of(writes: list[tuple[str, bool, bool]]) -> Record:
    record = Record()
    for number, (actor, deleted, aware) in enumerate(writes):
        draft = Draft(write=b"%d" % number, size=1, etag="e", body=b"x")
        record = record.put(
            None if deleted else draft, actor=actor, stamp=number, context=None if aware else {}
        )
    return record


@given(WRITES, WRITES)
def test_fingerprints_are_equal_where_context_and_dots_are(
    one: list[tuple[str, bool, bool]], other: list[tuple[str, bool, bool]]
) -> None:
    """Whatever the bytes; and the same record at another place is another summand."""
    first, second = record_of(one), record_of(other)
    assert (fingerprint(b"k", first) == fingerprint(b"k", second)) == first.same_versions(second)
    assert fingerprint(b"k", first) != fingerprint(b"l", first)
    assert 0 <= fingerprint(b"k", first) <= MASK


def test_a_version_without_its_bytes_is_not_the_same() -> None:
    """Else an owner that lost them would look whole."""
    record = record_of([("n1", False, True)])
    assert fingerprint(b"k", record) != fingerprint(b"k", record.strip())


def test_the_order_in_which_a_context_was_learnt_does_not_show() -> None:
    """Equal contexts are equal summands."""
    record = record_of([("n1", False, True), ("n2", False, True)])
    turned = msgspec.structs.replace(record, context=dict(reversed(record.context.items())))
    assert list(turned.context) != list(record.context)
    assert fingerprint(b"k", record) == fingerprint(b"k", turned)
