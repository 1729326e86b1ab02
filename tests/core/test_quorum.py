"""Tallies against an oracle that tries every way the open questions may still go."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.core.quorum import ReadTally, WriteTally, majority
from dynamo.core.record import EMPTY, Draft

NAMES = ("a", "b", "c", "d")
OUTCOMES = st.sampled_from(["ack", "fail", "open"])


def test_a_majority_is_more_than_half() -> None:
    """Any two majorities meet."""
    assert [majority(n) for n in range(1, 8)] == [1, 2, 2, 3, 3, 4, 4]


@given(st.integers(1, 5), st.lists(OUTCOMES, max_size=4), st.integers(0, 2))
def test_a_write_is_won_or_lost_as_soon_as_it_is_certain(
    needed: int, outcomes: list[str], spare: int
) -> None:
    """Won: W have it. Lost: however the rest answers, W cannot have it. Else pending."""
    tally = WriteTally(needed, spare=spare)
    for name, outcome in zip(NAMES, outcomes, strict=False):
        tally.ask(name)
        if outcome == "ack":
            tally.ack(name, {})
        elif outcome == "fail":
            tally.fail(name, "no")
    acked, unknown = outcomes.count("ack"), outcomes.count("open") + spare
    ends = {acked + more >= needed for more in range(unknown + 1)}
    certain = {True: "won", False: "lost"}
    expected = "won" if acked >= needed else certain[ends.pop()] if len(ends) == 1 else "pending"
    assert tally.verdict == expected


def test_one_node_counts_once_for_a_write() -> None:
    """I10: W means W distinct nodes; a late fault does not take an acknowledgement back."""
    tally = WriteTally(2)
    for _ in range(2):
        tally.ask("a")
        tally.ack("a", {"a": 1})
    tally.fail("a", "late")
    assert tally.acks == {"a": {"a": 1}}
    assert tally.verdict == "lost"
    assert tally.why() == ""


Answer = tuple[str, frozenset[str]]
ANSWERS = st.tuples(
    st.sampled_from(["answer", "fail", "open", "unasked"]),
    st.frozensets(st.sampled_from(NAMES), max_size=2),
)


def count(answered: dict[str, frozenset[str]]) -> int:
    return sum(1 for awaited in answered.values() if awaited <= set(answered))


def futures(asked: dict[str, Answer], spare: int) -> Iterator[dict[str, frozenset[str]]]:
    """Every way the open and the unasked may still answer, at their best: awaiting nobody."""
    done = {n: awaited for n, (kind, awaited) in asked.items() if kind == "answer"}
    for more in itertools.product([False, True], repeat=len(NAMES)):
        picked = [n for n, take in zip(NAMES, more, strict=True) if take]
        kinds = [asked[n][0] for n in picked]
        if all(kind in ("open", "unasked") for kind in kinds) and kinds.count("unasked") <= spare:
            yield done | dict.fromkeys(picked, frozenset())


@settings(max_examples=500)
@given(st.integers(1, 4), st.lists(ANSWERS, min_size=4, max_size=4))
def test_a_read_is_won_or_lost_as_soon_as_it_is_certain(needed: int, given_: list[Any]) -> None:
    """An answer counts when everybody its node awaits hints from has answered as well."""
    asked: dict[str, Answer] = dict(zip(NAMES, given_, strict=True))
    spare = sum(1 for kind, _ in given_ if kind == "unasked")
    tally = ReadTally(needed, spare=spare)
    for name, (kind, awaited) in asked.items():
        if kind != "unasked":
            tally.ask(name)
        if kind == "answer":
            tally.answer(name, EMPTY, awaited)
        elif kind == "fail":
            tally.fail(name, "no")
    done = {n: awaited for n, (kind, awaited) in asked.items() if kind == "answer"}
    assert set(tally.counted()) == {n for n, awaited in done.items() if awaited <= set(done)}
    if count(done) >= needed:
        assert tally.verdict == "won"
    elif any(count(future) >= needed for future in futures(asked, spare)):
        assert tally.verdict == "pending"
    else:
        assert tally.verdict == "lost"


def test_what_does_not_count_is_merged_all_the_same() -> None:
    """A node that awaits hints may still know something that nobody else does."""
    known = EMPTY.put(Draft(write=b"1", size=0, etag=""), actor="a", stamp=1)
    tally = ReadTally(1)
    tally.answer("a", known, ["z"])
    tally.answer("b", EMPTY)
    assert tally.counted() == ("b",)
    assert tally.merged(False) == known
    assert tally.why() == "a: counts only with z"


def test_the_merge_of_one_answer_in_a_latest_bucket_shows_one_version() -> None:
    """A node may hold several: the bucket was changed, or owned and held copies were joined."""
    record = EMPTY
    for number in range(3):
        draft = Draft(write=b"%d" % number, size=0, etag="")
        record = record.merge(EMPTY.put(draft, actor=f"n{number}", stamp=number, context={}))
    tally = ReadTally(1)
    tally.answer("a", record)
    assert [v.actor for v in tally.merged(True).live()] == ["n2"]
    assert len(tally.merged(False).live()) == 3


def test_a_verdict_names_the_faults_and_the_silent() -> None:
    """The detail of a 503 says who did what."""
    tally = WriteTally(2)
    tally.ask("b")
    tally.ask("a")
    tally.fail("a", "refused")
    assert tally.why() == "a: refused; b: no answer"


def test_who_is_asked_aside_does_not_count() -> None:
    """A node outside the preference list answers for the hints it keeps, not towards R."""
    tally = ReadTally(2, spare=0, aside={"z"})
    for name in ("a", "z"):
        tally.ask(name)
    tally.answer("a", EMPTY, ["z"])
    assert tally.verdict == "lost"
    tally.needed = 1
    assert tally.verdict == "pending"
    tally.answer("z", EMPTY)
    assert tally.counted() == ("a",)
    assert tally.verdict == "won"


def test_stand_ins_count_only_when_every_target_has_spoken() -> None:
    """One owner and a stand-in are no R=2 while another target might know more."""
    tally = ReadTally(2, stand_ins=frozenset({"s1", "s2"}), unasked=1, spare=1)
    for name in ("owner", "s1"):
        tally.ask(name)
        tally.answer(name, EMPTY)
    assert tally.verdict == "pending"
    tally.ask("s2")
    tally.unasked = tally.spare = 0
    assert tally.verdict == "pending"
    tally.patient = False
    assert tally.verdict == "won"
    tally.patient = True
    tally.answer("s2", EMPTY)
    assert tally.verdict == "won"


def test_owners_alone_are_enough() -> None:
    """With R owners heard, nobody else is waited for."""
    tally = ReadTally(2, stand_ins=frozenset({"s"}), unasked=1, spare=1)
    for name in ("a", "b"):
        tally.ask(name)
        tally.answer(name, EMPTY)
    assert tally.verdict == "won"
