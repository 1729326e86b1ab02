"""What the next step of a change of the ring waits for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.layout import Layout
from dynamo.core.ring import Member
from dynamo.core.steps import in_words, lacking

FOUR, OTHERS = (tuple([Member(name) for name in names]) for names in ("abcd", "abce"))
COMING, GOING = Layout(2, 1, FOUR, OTHERS, True), Layout(3, 1, OTHERS, FOUR)
STEADY = Layout(4, 1, OTHERS)


def waits(layout: Layout, uses: dict[str, int], synced: str = "", away: str = "") -> str:
    found = [
        (
            name,
            lacking(
                layout,
                name,
                there=name not in away,
                uses=uses.get(name, layout.version),
                synced=layout.version if name in synced else layout.version - 1,
            ),
        )
        for name in layout.names()
    ]
    return " ".join(in_words(layout, found))


def test_first_all_have_to_go_by_it_then_to_hold_what_they_ought_to() -> None:
    """A leaver too, which passes on its hints; once the ring is going there is nothing to hold."""
    behind = "Not yet going by layout 2: b, d."
    taking = "Still taking over what they will own, or passing on what they keep:"
    assert waits(COMING, {"b": 1, "d": 0}, "ace") == behind
    assert waits(COMING, {"b": 1, "d": 0}, "a") == f"{behind} {taking} c, e."
    assert waits(COMING, {}, "abce") == f"{taking} d."
    assert waits(COMING, {}, "abcde") == ""
    assert waits(GOING, {"e": 2}) == "Not yet going by layout 3: e."
    assert waits(GOING, {}) == ""
    assert waits(STEADY, {"a": 0}) == ""


def test_members_that_are_away_are_not_waited_for_but_to_join() -> None:
    gone = "e is joining and not there; start it again or remove it."
    assert waits(COMING, {"b": 1}, "acde", away="b") == ""
    assert waits(COMING, {"e": 0}, "abcd", away="e") == gone
    assert waits(GOING, {"e": 0}, away="e") == ""


@given(
    st.sampled_from((COMING, GOING, STEADY)),
    st.sampled_from("abcde"),
    st.booleans(),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_who_comes_further_never_lacks_more(
    layout: Layout, name: str, there: bool, uses: int, synced: int
) -> None:
    order = ("presence", "use", "data", "")

    def lack(more: int) -> int:
        found = lacking(layout, name, there=there, uses=uses + more, synced=synced + more)
        return order.index(found)

    assert lack(0) <= lack(1)
    assert not there or lack(5) == order.index("")
