"""What a node whose disk was lost lacks, against a plain table of pairs; and how far it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.refilling import Refilling

OWNERS = ("n1", "n2", "n3", "n4")
PAIRS = st.tuples(st.integers(0, 5), st.sampled_from(OWNERS[1:]), st.integers(2, 3))


@given(st.sets(PAIRS), st.lists(PAIRS), st.sets(PAIRS))
def test_what_is_lacking_is_what_was_expected_and_not_taken(
    first: set[tuple[int, str, int]],
    taken: list[tuple[int, str, int]],
    then: set[tuple[int, str, int]],
) -> None:
    state = Refilling("n1")
    assert not state.done, "it is not known yet what there is to do"
    state.expect(sorted(first))
    for pair in taken:
        state.took(pair)
    for expected in (first, then):
        if expected is then:
            state.expect(sorted(then))
        lacking = expected - set(taken)
        assert {pair for pairs in state.lacking() for pair in pairs} == lacking
        assert state.left == len({pair[0] for pair in lacking})
        assert state.done == (not lacking)
        progress = state.progress(0.0)
        assert progress.partitions_left == state.left
        assert progress.partitions_done == len({p[0] for p in expected}) - state.left
    for partition in range(6):
        for copies in (2, 3):
            absent = state.lacks(partition, copies, OWNERS)
            assert absent == tuple(
                [o for o in OWNERS[1:] if (partition, o, copies) not in set(taken)]
            )


def test_a_node_lacks_nothing_of_what_it_does_not_own() -> None:
    assert Refilling("n1").lacks(0, 3, ("n2", "n3", "n4")) == ()


def test_to_begin_anew_is_to_lack_everything() -> None:
    state = Refilling("n1")
    state.expect([(0, "n2", 3)])
    state.took((0, "n2", 3))
    assert state.done
    state.begin_anew()
    assert not state.done
    assert state.lacks(0, 3, OWNERS) == OWNERS[1:]


def test_rates_are_of_the_last_seconds() -> None:
    state = Refilling("n1")
    state.expect([(partition, "n2", 3) for partition in range(100)])
    assert state.progress(0.0).seconds_left is None
    for second in range(40):
        state.mark(float(second))
        state.bytes += 10 if second < 20 else 1000
        if second >= 20:
            state.took((second, "n2", 3))
    progress = state.progress(40.0)
    assert 900 <= progress.bytes_per_second <= 1000
    assert progress.partitions_left == 80
    assert progress.seconds_left is not None
    assert 80 <= progress.seconds_left <= 90
    assert state.tenths() == 2
