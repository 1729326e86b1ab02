"""What the oracle says of reads while hints wait, or of few nodes, of histories made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo.core.record import Record
from dynamo.sim.oracle.arrivals import Arrivals
from dynamo.sim.oracle.returned import ReturnChecks, Shown
from dynamo.storage import hints
from dynamo.wire.codec import HINT, Hint
from tests.sim.test_oracle_live import Run
from tests.sim.test_oracle_registry import MADE, Spoilt, put
from tests.sim.test_oracle_rest import at_rest

DOT = (b"row", "n1", 1)
LATER = 2000.0


def test_what_every_owner_has_is_everywhere_from_then_on() -> None:
    arrivals = Arrivals()
    arrivals.note(DOT, "n1", 5.0)
    assert not arrivals.everywhere(DOT, ("n1", "n2"), 10.0, {})
    arrivals.note(DOT, "n2", 8.0)
    assert arrivals.everywhere(DOT, ("n1", "n2"), 10.0, {})
    assert not arrivals.everywhere(DOT, ("n1", "n2"), 7.0, {})
    assert not arrivals.everywhere(DOT, (), 10.0, {})
    assert arrivals.everywhere(DOT, ("n1", "n2"), 10.0, {"n2": 9.0})
    assert not arrivals.everywhere(DOT, ("n1", "n2"), 10.0, {"n1": 9.0, "n2": 9.0})


def on_disks(run: Run, *names: str) -> None:
    """The write w1, acknowledged at second 1, is on these drives."""
    write = run.did("w1", 0, 1)
    draft = run.write("w9")
    run.history.by_etag[draft.etag] = write
    for name in names:
        run.keep(name, put(Record(), draft))
    run.live.owners = lambda row: ("n1", "n2")


@pytest.mark.parametrize(
    ("disks", "well", "broken"),
    [(("n1", "n2"), True, ["I9"]), (("n1", "n2"), False, []), (("n1",), True, [])],
)
def test_what_every_owner_has_is_in_any_read(
    disks: tuple[str, ...], well: bool, broken: list[str]
) -> None:
    """I9 at R=1: while all see each other."""
    run = Run()
    on_disks(run, *disks)
    run.live.well, run.live.well_since = lambda: well, 100.0
    run.read("w1", LATER, LATER + 1, r=1)
    assert run.broken() == []
    run.read("", LATER, LATER + 1, r=1)
    assert run.broken() == broken


def returned(run: Run, now: float = LATER) -> ReturnChecks:
    checks, there = at_rest(run)
    there.now = now
    listing: Any = None
    return ReturnChecks(checks, listing)


def shown(ids: str, r: int, *, newest: bool = False) -> Shown:
    return Shown("n2", ("strict", "k"), r, frozenset(ids.split()), newest)


def test_what_a_quorum_took_is_shown_as_soon_as_all_are_back() -> None:
    """I1: where each R meet one of the W; by a listing one version for all."""
    run = Run()
    on_disks(run, "n1")
    checks = returned(run)
    checks._abreast(shown("w1", 2), set())
    checks._abreast(shown("w1", 2, newest=True), set())
    checks._abreast(shown("", 1), set())
    assert run.broken() == []
    checks._abreast(shown("", 2), set())
    checks._abreast(shown("", 2, newest=True), set())
    assert run.broken() == ["I1", "I1"]


@pytest.mark.parametrize(
    ("holder", "away", "now", "known"),
    [
        ("n1", True, LATER, True),
        ("n1", True, 2.0, False),
        ("n1", False, LATER, False),
        ("n3", True, LATER, False),
    ],
    ids=["known", "not long ago", "was there all the time", "another write's hint"],
)
def test_who_awaits_a_hint_does_not_make_a_file_not_found(
    holder: str, away: bool, now: float, known: bool
) -> None:
    """I1 at R=1: what an owner lacks, a hint tells that was made when it was away, by a node that
    has the write."""
    run = Run()
    on_disks(run, "n1")
    run.watch("n3")
    run.registry.away = lambda name, other: away and (name, other) == (holder, "n2")
    place = hints.place("n2", MADE.incarnation, b"k")
    hint = HINT.encode(place, Hint(0, MADE.incarnation, b"k"))
    run.commit(holder, "hints", place, None, hint)
    (write,) = run.history.at["strict", "k"]
    assert returned(run, now)._is_known_of(write) == known
    returned(run, now)._abreast(shown("", 1), {write.id} if known else set())
    assert run.broken() == (["I1"] if known else [])


def test_a_hint_that_is_made_again_still_tells_of_who_was_away() -> None:
    run = Run()
    on_disks(run, "n1")
    place = hints.place("n2", MADE.incarnation, b"k")
    hint = HINT.encode(place, Hint(0, MADE.incarnation, b"k"))
    row, *_ = next(iter(run.registry.dots["w1"]))
    for away, missed in ((True, True), (False, True)):
        run.registry.away = lambda name, other, away=away: away  # type: ignore[misc]
        run.commit("n1", "hints", place, None, hint)
        assert run.registry.missed((row, "n1", 1), "n2") == missed
    run.commit("n1", "hints", place, hint, None)
    assert not run.registry.missed((row, "n1", 1), "n2")


def test_of_which_rows_a_hint_waits() -> None:
    """One for somebody who owns the key; what no hint tells of is anti-entropy's."""
    run = Run()
    for key in ("told", "left", "lost"):
        run.keep("n1", put(Record(), run.write(f"w-{key}", key)), key=key)
    run.note("n1", "n2", "told")
    run.note("n1", "n3", "left")
    rows = [run.row(key) for key in ("told", "left", "lost")]
    assert returned(run).hinted([*rows, b"nobody's"]) == [run.row("told")]


def test_what_was_replaced_is_not_shown_when_all_are_back() -> None:
    """I3."""
    run = Run()
    run.did("w1", 0, 1)
    run.did("w2", 2, 3, seen=("w1",))
    returned(run)._abreast(shown("w2", 2), set())
    assert run.broken() == []
    returned(run)._abreast(shown("w1 w2", 2), set())
    assert run.broken() == ["I3"]


def test_what_an_owner_has_that_can_be_reached_is_there() -> None:
    """However many others are cut off; not once its disk was spoiled."""
    run = Run()
    on_disks(run, "n1")
    (write,) = run.history.at["strict", "k"]
    write.ended = 1001.0
    checks = returned(run)
    assert checks._is_there(write, ("n2",))
    assert not checks._is_there(write, ("n1",))
    run.live.spoiled["n1"] = LATER
    assert not checks._is_there(write, ("n2",))


def test_a_wiped_drive_has_nothing_any_more() -> None:
    """And what comes back to it came then."""
    run = Run()
    on_disks(run, "n1", "n2")
    run.registry.reread("n1", Spoilt())
    assert run.registry.holders((run.row(), "n1", 1)) == ["n2"]
