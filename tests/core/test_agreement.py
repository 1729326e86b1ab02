"""Agreement on the next layout: one value a version, whatever is lost, doubled, late or restarted.

A small world of messages: acceptors keep their promises on disk and answer from them, proposers
hold one ballot after another and forget everything when they crash. Which values are chosen is
seen from outside, by who accepted what, whether or not any proposer lives to hear of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.core.agreement import (
    NO_BALLOT,
    Ballot,
    Promise,
    Proposal,
    electors,
    next_ballot,
)
from dynamo.core.layout import NONE, Layout, with_member, without
from dynamo.core.ring import Member

properties = settings(deadline=None, max_examples=300)
seeds = st.integers(0, 2**32)


def layout_of(names: Iterable[str]) -> Layout:
    return NONE.found([Member(name) for name in names], 7)


def joined_by(base: Layout, name: str) -> Layout:
    """The layout by which a newcomer is coming."""
    changed = base.change(with_member(base.next_members, Member(name)))
    assert changed is not None
    return changed


def left_by(base: Layout, name: str) -> Layout:
    changed = base.change(without(base.next_members, name))
    assert changed is not None
    return changed


@attrs.define(eq=False)
class Proposer:
    """What one process knows; `attempt` tells the questions of one ballot from those of another."""

    name: str
    value: Layout
    seen: Ballot = NO_BALLOT
    proposal: Proposal | None = None
    attempt: int = 0
    asking: str = ""


@attrs.frozen
class Message:
    """To an acceptor, or (`answer`) back to the proposer that asked."""

    proposer: str
    acceptor: str
    attempt: int
    op: str
    ballot: Ballot
    value: Layout | None = None
    answer: tuple[Promise, bool, bool] | None = None


class Congress:
    """Acceptors, proposers and what is under way between them."""

    def __init__(self, rng: Random, members: int, proposers: int) -> None:
        self.rng = rng
        self.base = layout_of(f"m{i}" for i in range(members))
        self.names = [m.name for m in self.base.members]
        self.version = self.base.version + 1
        self.disks = {name: Promise() for name in self.names}
        self.proposers = {
            f"p{i}": Proposer(f"p{i}", joined_by(self.base, f"j{i}")) for i in range(proposers)
        }
        self.wires: list[Message] = []
        self.attempts = self.restarts = 0
        self.accepted: dict[tuple[Ballot, str], set[str]] = {}
        self.counted: dict[tuple[Ballot, str], set[str]] = {}
        self.values: dict[str, Layout] = {}
        self.told: list[Layout] = []
        self.forgetful: set[str] = set()
        self.earlier: dict[str, list[Promise]] = {name: [Promise()] for name in self.names}

    # What proposers do.

    def begin(self, proposer: Proposer) -> None:
        names, needed = electors(self.base, proposer.value, proposer.name)
        ballot = next_ballot(proposer.name, [proposer.seen])
        proposer.seen = ballot
        self.attempts += 1
        proposer.attempt, proposer.asking = self.attempts, "prepare"
        proposer.proposal = Proposal(self.version, ballot, proposer.value, names, needed)
        self._ask(proposer, None)

    def _ask(self, proposer: Proposer, value: Layout | None) -> None:
        assert proposer.proposal is not None
        for name in sorted(proposer.proposal.electors):
            ballot = proposer.proposal.ballot
            self.wires.append(
                Message(proposer.name, name, proposer.attempt, proposer.asking, ballot, value)
            )

    def crash(self, proposer: Proposer) -> None:
        """It starts again, knows of no ballot, and wants something else."""
        proposer.seen, proposer.proposal, proposer.attempt = NO_BALLOT, None, 0
        self.restarts += 1
        proposer.value = joined_by(self.base, f"{proposer.name}-{self.restarts}")

    def put_back(self, acceptor: str) -> None:
        """Its disk is back at what it was at some time before, and it knows that."""
        self.disks[acceptor] = self.rng.choice(self.earlier[acceptor])
        self.forgetful.add(acceptor)

    # What messages do.

    def deliver(self, message: Message) -> None:
        if message.answer is None:
            self._vote(message)
        else:
            self._heard(message, *message.answer)

    def _vote(self, message: Message) -> None:
        was = self.disks[message.acceptor].about(self.version)
        if message.op == "prepare":
            new = was.prepare(message.ballot)
        else:
            assert message.value is not None
            new = was.accept(message.ballot, message.value)
            if new is not None:
                self._note(message.acceptor, message.ballot, message.value)
        if new is not None:
            self.disks[message.acceptor] = new
            self.earlier[message.acceptor].append(new)
        answer = (new or was, new is not None, message.acceptor in self.forgetful)
        self.wires.append(attrs.evolve(message, value=None, answer=answer))

    def _note(self, acceptor: str, ballot: Ballot, value: Layout) -> None:
        self.values[repr(value)] = value
        self.accepted.setdefault((ballot, repr(value)), set()).add(acceptor)
        if acceptor not in self.forgetful:
            self.counted.setdefault((ballot, repr(value)), set()).add(acceptor)

    def _heard(self, message: Message, promise: Promise, yes: bool, forgot: bool) -> None:
        proposer = self.proposers[message.proposer]
        proposal = proposer.proposal
        if proposal is None or proposer.attempt != message.attempt:
            return
        if not yes:
            proposer.seen = max(proposer.seen, promise.promised)
        elif message.op == "prepare":
            proposal.promise(message.acceptor, promise, forgot=forgot)
            if proposal.heard and proposer.asking == "prepare":
                proposer.asking = "accept"
                self._ask(proposer, proposal.choice)
        else:
            proposal.accept(message.acceptor, forgot=forgot)
            if proposal.decided:
                self.told.append(proposal.choice)

    # What comes of it.

    def chosen(self) -> list[Layout]:
        """Each value that most members accepted in one ballot, at any time, or all with those that
        had forgotten something."""
        most, everybody = len(self.names) // 2 + 1, set(self.names)
        texts = {text for (_, text), who in self.counted.items() if len(who) >= most}
        texts |= {text for (_, text), who in self.accepted.items() if who == everybody}
        return [self.values[text] for text in sorted(texts)]

    def turmoil(self, steps: int, putting_back: Sequence[str] = ()) -> None:
        """Ballots, crashes, and messages in any order, lost, or delivered twice; and disks of some
        acceptors that are put back."""
        for _ in range(steps):
            dice = self.rng.random()
            if putting_back and dice < 0.04:
                self.put_back(self.rng.choice(putting_back))
            elif dice < 0.12:
                self.begin(self.proposers[self.rng.choice(sorted(self.proposers))])
            elif dice < 0.2:
                self.crash(self.proposers[self.rng.choice(sorted(self.proposers))])
            elif self.wires:
                at = self.rng.randrange(len(self.wires))
                if dice < 0.28:
                    del self.wires[at]
                elif dice < 0.37:
                    self.deliver(self.wires[at])
                else:
                    self.deliver(self.wires.pop(at))
            self.check()

    def check(self) -> None:
        chosen = self.chosen()
        assert len(chosen) <= 1, "two values were decided for one version"
        assert all(value == chosen[0] for value in self.told), "one was told what is not so"


@properties
@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_never_two_values_for_one_version(seed: int, members: int, proposers: int) -> None:
    """Whoever is told that a value was decided is told the one there is."""
    Congress(Random(seed), members, proposers).turmoil(150)


@properties
@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_never_two_values_though_less_than_half_forget(
    seed: int, members: int, proposers: int
) -> None:
    """Not even where all vote, those that forgot included."""
    congress = Congress(Random(seed), members, proposers)
    congress.turmoil(150, congress.names[: (members - 1) // 2])


def test_the_turmoil_decides_at_all() -> None:
    """Or the property would say nothing."""
    worlds = [Congress(Random(seed), 3, 3) for seed in range(50)]
    for world in worlds:
        world.turmoil(150)
    assert sum(bool(world.told) for world in worlds) > 15
    assert len({repr(world.told[0]) for world in worlds if world.told}) > 1
    assert any(len({b for (b, _) in world.accepted}) > 3 for world in worlds)


@properties
@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_a_lone_proposer_with_most_members_gets_a_decision(
    seed: int, members: int, proposers: int
) -> None:
    """Whatever was before: its own value or one that was accepted, in three ballots at most; and
    what had been decided stays."""
    world = Congress(Random(seed), members, proposers)
    world.turmoil(80)
    before, accepted = world.chosen(), list(world.values.values())
    world.wires.clear()
    there = world.rng.sample(world.names, members // 2 + 1)
    lone = world.proposers["p0"]
    if world.rng.random() < 0.5:
        world.crash(lone)
    world.told.clear()
    for _ in range(3):
        world.begin(lone)
        while world.wires:
            message = world.wires.pop(world.rng.randrange(len(world.wires)))
            if message.acceptor in there:
                world.deliver(message)
        if world.told:
            break
    world.check()
    assert world.told
    assert world.told[0] in [lone.value, *accepted]
    assert not before or world.told[0] == before[0]


@given(seeds, st.integers(1, 5), st.integers(0, 5))
def test_where_most_have_forgotten_all_have_to_vote(seed: int, members: int, missing: int) -> None:
    """Or a cluster whose disks were all put back could never change its ring again."""
    world = Congress(Random(seed), members, 1)
    for name in world.names[: members // 2 + 1]:
        world.put_back(name)
    there = world.names[: max(0, members - missing)]
    world.begin(world.proposers["p0"])
    while world.wires:
        message = world.wires.pop(world.rng.randrange(len(world.wires)))
        if message.acceptor in there:
            world.deliver(message)
    assert bool(world.told) is (not missing)


def test_who_forgets_amid_a_ballot_does_not_change_what_was_chosen() -> None:
    """A promise that comes late is no part of the choice."""
    base, names = layout_of("abc"), frozenset("abc")
    mine, theirs = joined_by(base, "d"), joined_by(base, "e")
    proposal = Proposal(base.version + 1, (2, "a"), mine, names, 2)
    for name in "ab":
        proposal.promise(name, Promise(base.version + 1))
    proposal.accept("a")
    proposal.accept("b", forgot=True)
    proposal.promise("c", Promise(base.version + 1, (1, "c"), (1, "c"), theirs))
    assert proposal.choice == mine
    assert not proposal.decided
    proposal.accept("c")
    assert proposal.decided


def test_a_proposer_that_forgot_its_ballot_does_not_use_it_again() -> None:
    """n1 gets one value accepted by itself alone, crashes, and comes with another: whoever had
    promised that ballot to the first does not promise it to the second."""
    base = layout_of(("n1", "n2", "n3"))
    ballot = next_ballot("n1", [])
    first = Promise(2).prepare(ballot)
    assert first is not None
    assert first.prepare(ballot) is None
    assert first.accept(ballot, joined_by(base, "n4")) is not None


def test_a_promise_heeds_no_lower_ballot() -> None:
    """Neither to prepare nor to accept; and what it accepted it tells."""
    value = joined_by(layout_of("a"), "b")
    promised = Promise(2).prepare((5, "n1"))
    assert promised is not None
    assert promised.prepare((4, "n9")) is None
    assert promised.accept((4, "n9"), value) is None
    accepted = promised.accept((6, "n2"), value)
    assert accepted == Promise(2, (6, "n2"), (6, "n2"), value)
    assert accepted.prepare((5, "n9")) is None
    later = accepted.prepare((7, "n3"))
    assert later is not None
    assert (later.accepted, later.value) == ((6, "n2"), value)


def test_what_was_said_of_one_version_binds_for_no_other() -> None:
    said = Promise(2, (9, "n1"), (9, "n1"), layout_of("a"))
    assert said.about(2) is said
    assert said.about(3) == Promise(3)


def test_the_value_of_the_highest_ballot_is_carried_through() -> None:
    """Of those promised; what comes after there are enough changes nothing any more."""
    base = layout_of(("n1", "n2", "n3"))
    low, high, mine = (joined_by(base, name) for name in ("n4", "n5", "n6"))
    names = frozenset(("n1", "n2", "n3"))
    proposal = Proposal(2, (9, "n1"), mine, names, 2)
    proposal.promise("n1", Promise(2, (9, "n1"), (2, "n2"), low))
    proposal.promise("stranger", Promise(2, (9, "n1"), (8, "n9"), high))
    assert not proposal.heard
    proposal.promise("n2", Promise(2, (9, "n1"), (3, "n1"), high))
    assert proposal.heard
    proposal.promise("n3", Promise(2, (9, "n1"), (4, "n1"), low))
    assert proposal.choice == high
    proposal.accept("stranger")
    proposal.accept("n1")
    proposal.accept("n1")
    assert not proposal.decided
    proposal.accept("n3")
    assert proposal.decided


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_who_founds_and_who_changes(size: int, needed: int) -> None:
    """Most of those that found it; most of the ring, of which a joiner is no part."""
    names = [f"n{i}" for i in range(size)]
    base = layout_of(names)
    assert electors(NONE, base, "n0") == (frozenset(names), needed)
    coming = joined_by(base, "n9")
    assert electors(base, coming, "n9") == (frozenset(names), needed)
    assert electors(coming, coming.switch(), "n0") == (frozenset(names), needed)
    going = coming.switch()
    assert electors(going, going.end(), "n0")[0] == {*names, "n9"}


@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_taking_one_out_needs_most_of_the_ring(size: int) -> None:
    names = [f"n{i}" for i in range(size)]
    base = layout_of(names)
    if size > 1:
        for proposer in names:
            assert electors(base, left_by(base, "n0"), proposer) == (
                frozenset(names),
                size // 2 + 1,
            )


def test_of_two_either_takes_out_the_other_alone() -> None:
    """And sees it through alone."""
    base = layout_of(("a", "b"))
    coming = left_by(base, "b")
    going = coming.switch()
    for step_from, step in ((base, coming), (coming, going), (going, going.end())):
        assert electors(step_from, step, "a") == (frozenset("a"), 1)


def test_of_two_nobody_takes_itself_out_alone_nor_without_the_other() -> None:
    """Both leaving at once would otherwise leave each other alone, each by its own layout."""
    base = layout_of(("a", "b"))
    assert electors(base, left_by(base, "b"), "b") == (frozenset("ab"), 2)
    assert electors(base, joined_by(base, "c"), "a") == (frozenset("ab"), 2)
    coming = left_by(base, "b")
    assert electors(coming, coming.switch(), "b") == (frozenset("ab"), 2)


@given(st.text("abc", max_size=2), st.lists(st.tuples(st.integers(0, 9), st.text("abc"))))
def test_the_next_ballot_is_above_all_seen(name: str, seen: list[Ballot]) -> None:
    assert all(next_ballot(name, seen) > ballot for ballot in [NO_BALLOT, *seen])
