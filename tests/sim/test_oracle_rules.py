"""What the oracle concludes from histories made by hand."""

from __future__ import annotations

from typing import Any

from dynamo.sim.history import Outcome, Write
from dynamo.sim.oracle import rules


def never(u: Write, v: Write) -> bool:
    return False


def always(u: Write, v: Write) -> bool:
    return True


def write(
    name: str,
    begun: float,
    ended: float,
    *,
    seen: tuple[str, ...] | None = (),
    outcome: Outcome = "acked",
    **more: Any,
) -> Write:
    return Write(
        name,
        "b",
        "k",
        0,
        "n1",
        begun,
        seen=None if seen is None else frozenset(seen),
        ended=ended,
        outcome=outcome,
        **more,
    )


def names(writes: Any) -> list[str]:
    return [w.id for w in writes]


def test_owed_is_what_nobody_had_seen() -> None:
    """A create replaces nothing; an update replaces what its client was shown."""
    a, b, c = write("a", 0, 1), write("b", 0, 1), write("c", 2, 3, seen=("a",))
    assert names(rules.owed([a, b, c])) == ["b", "c"]


def test_what_was_not_acknowledged_is_not_owed_and_may_replace() -> None:
    """Unless it was refused: then it was never done."""
    a = write("a", 0, 1)
    unknown = write("b", 2, 3, seen=("a",), outcome="unknown")
    refused = write("b", 2, 3, seen=("a",), outcome="refused")
    assert names(rules.owed([a, unknown])) == []
    assert names(rules.owed([a, refused])) == ["a"]


def test_a_write_without_context_may_replace_what_began_before_it_ended() -> None:
    """And nothing that came later."""
    a, blind, later = write("a", 0, 1), write("b", 2, 3, seen=None), write("c", 4, 5)
    assert names(rules.owed([a, blind, later])) == ["b", "c"]
    during = write("d", 2.5, 2.6)
    assert names(rules.owed([blind, during])) == ["b"]


def test_a_write_of_unknown_outcome_or_tried_twice_may_be_done_at_any_time() -> None:
    """If it carries no context."""
    blind = write("b", 0, 1, seen=None, deletes=True, outcome="unknown")
    later = write("c", 9, 10)
    assert names(rules.owed([blind, later])) == []
    blind.outcome, blind.twice = "acked", True
    assert names(rules.owed([blind, later])) == []
    blind.twice = False
    assert names(rules.owed([blind, later])) == ["c"]


def test_gone_is_what_an_acknowledged_write_had_seen() -> None:
    """But for a version of which it cannot have seen every dot."""
    a, b = write("a", 0, 1), write("b", 2, 3, seen=("a",), deletes=True)
    assert list(rules.gone([a, b], never)) == ["a"]
    assert list(rules.gone([a, b], always)) == []
    b.outcome = "unknown"
    assert list(rules.gone([a, b], never)) == []


def test_a_version_never_stands_beside_what_it_replaced() -> None:
    a, b, c = write("a", 0, 1), write("b", 2, 3, seen=("a",)), write("c", 2, 3)
    assert rules.together({"a", "c"}, [a, b, c], never) is None
    assert rules.together({"b", "c"}, [a, b, c], never) is None
    assert rules.together({"a", "b"}, [a, b, c], never) == (b, a)
    assert rules.together({"a", "b"}, [a, b, c], always) is None


def test_a_read_after_a_write_shows_it_or_what_replaced_it() -> None:
    a, b = write("a", 0, 1), write("b", 2, 3, seen=("a",))
    assert names(rules.missing(frozenset(), [a, b], 1.5, 1.8)) == ["a"]
    assert names(rules.missing(frozenset("a"), [a, b], 1.5, 1.8)) == []
    # One that began before the write was over need not.
    assert names(rules.missing(frozenset(), [a, b], 0.5, 1.8)) == []
    # The write that replaces it is under way: it may be seen, or not.
    assert names(rules.missing(frozenset(), [a, b], 1.5, 2.5)) == []
    assert names(rules.missing(frozenset(), [a, b], 4, 5)) == ["b"]


def test_a_key_is_surely_there_until_a_delete_may_have_reached_it() -> None:
    a = write("a", 0, 1)
    delete = write("d", 2, 3, deletes=True)
    assert rules.surely_there([a], 1.5, 1.8) is a
    assert rules.surely_there([a], 0.5, 1.8) is None
    assert rules.surely_there([a, delete], 1.5, 1.8) is a
    assert rules.surely_there([a, delete], 1.5, 2.5) is None
    assert rules.surely_there([a, delete], 4, 5) is None
    again = write("b", 6, 7)
    assert rules.surely_there([a, delete, again], 8, 9) is again
    delete.outcome = "unknown"
    assert rules.surely_there([a, delete, again], 8, 9) is None


def test_the_last_write_is_last_by_more_than_clocks_differ() -> None:
    a, b = write("a", 0, 1), write("b", 1.5, 2)
    assert rules.surely_last([a, b], 0.1) is b
    assert rules.surely_last([a, b], 0.6) is None
    b.outcome = "unknown"
    assert rules.surely_last([a, b], 0.1) is None
    a.outcome, b.outcome = "unknown", "acked"
    assert rules.surely_last([a, b], 0.1) is None
