"""Reaped tombstones, in models: no dot twice, nothing killed that nobody has seen, and nothing that
was deleted comes back, in whatever order things happen."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.core.fences import Fences
from dynamo.core.grace import Grace
from dynamo.core.record import EMPTY, Record
from dynamo.core.sightings import Origin
from dynamo.core.watches import Watches
from tests.core.test_record import REPLICAS, History, World

Step = tuple[str, str, str, int | None, int]
KINDS = ["put", "put", "delete", "delete", "merge", "merge", "read", "lose", "send", "come", "reap"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(REPLICAS),
        st.sampled_from(REPLICAS),
        st.one_of(st.none(), st.integers(-1, 5)),
        st.integers(0, 7),
    ),
    max_size=60,
)


@attrs.define
class Reaped:
    """What came of a run: `world`, and how many records went."""

    world: World
    gone: int = 0
    flying: list[tuple[Record, History]] = attrs.field(factory=list)

    def play(self, step: Step) -> None:
        kind, at, other, token, number = step
        world = self.world
        if kind in ("put", "delete"):
            world.put(at, token, number, delete=kind == "delete")
        elif kind == "merge":
            world.merge(at, other)
        elif kind == "read":
            world.read(at)
        elif kind == "lose":
            world.lose(at)
        elif kind == "send":
            self.flying.append((world.records[at], world.histories[at]))
        elif kind == "come" and self.flying:
            record, history = self.flying.pop(number % len(self.flying))
            world.records[at] = world.records[at].merge(record, latest=world.latest)
            world.histories[at] = world.histories[at].joined(history)
        elif kind == "reap":
            self.reap(number)

    def reap(self, where: int) -> None:
        """Where all hold one tombstone or nothing it goes, from some. What was on its way has
        arrived or is held off: that is the other model's business."""
        world = self.world
        known = [r for r in world.records.values() if r.known()]
        if not known or not known[0].is_tombstone() or any(r != known[0] for r in known):
            return
        self.flying.clear()
        for i, at in enumerate(REPLICAS):
            if where & (1 << i) and world.records[at].known():
                actor = f"{at}~{world.hands[at]}"
                own = known[0].context.get(actor, 0)
                world.floors[actor] = max(world.floors.get(actor, 0), own)
                world.records[at] = EMPTY
                self.gone += 1


@settings(max_examples=600)
@given(STEPS, st.integers(1, 7))
def test_a_key_that_was_reaped_can_begin_anew(steps: list[Step], where: int) -> None:
    """No dot is given out twice, and what a replica shows is what it knows of that nothing has
    overwritten: with clients' old contexts, with stand-ins that forget, with half a burial."""
    run = Reaped(World())
    for at in REPLICAS:
        run.play(("put", at, at, None, 0))
    for _ in range(2):
        for at in REPLICAS:
            for other in REPLICAS:
                run.play(("merge", at, other, None, 0))
    run.play(("read", "a", "a", None, 0))
    run.play(("delete", "a", "a", None, 0))
    for at in REPLICAS:
        run.play(("merge", at, "a", None, 0))
    run.play(("reap", "a", "a", None, where))
    assert run.gone
    for step in steps:
        run.play(step)
        run.world.check()


# The questions, asked in any order that messages may take.

OLD, DELETED = 1, 2
"""What may be held of the key: nothing (0), a version, its tombstone. What is more wins."""


@attrs.define(eq=False)
class Work:
    """Something under way at a member that has read and will send: it carries `state`."""

    at: int
    since: int
    state: int
    messages: int = 0


@attrs.define(eq=False)
class Letter:
    """A merge on its way. `work`: whose, None when it was given up."""

    to: int
    sent: Origin
    state: int
    work: Work | None


@attrs.define(eq=False)
class Member:
    number: int
    holds: int
    grace: Grace = attrs.field(factory=Grace)
    fences: Fences = attrs.field(factory=Fences)
    watches: Watches = attrs.field(factory=Watches)
    messages: int = 0

    def origin(self) -> Origin:
        self.messages += 1
        return Origin(f"n{self.number}", 1, "boot", 1, 1, self.messages)


KEY = (b"incarnat", b"k")
CARE = frozenset({"settle", "fence", "watch"})
"""What is taken care of."""


class Town:
    """Four members, of which the first two own the key and the others may keep a copy of it."""

    def __init__(self, rng: Random, care: frozenset[str] = CARE) -> None:
        self.rng = rng
        self.care = care
        self.members = [Member(i, DELETED if i == 0 else rng.choice([0, 1, 2])) for i in range(4)]
        self.work: list[Work] = []
        self.letters: list[Letter] = []
        self.buried = 0
        self.leader = self.lead()

    def happen(self) -> None:
        """One thing, at random."""
        rng = self.rng
        what = rng.randrange(9)
        if what == 0 and len(self.work) < 6:
            member = rng.choice(self.members)
            self.work.append(Work(member.number, member.grace.enter(), 0))
        elif what == 1 and self.work:
            work = rng.choice(self.work)
            work.state = max(work.state, rng.choice(self.members).holds)
        elif what == 2 and self.work:
            work = rng.choice(self.work)
            work.messages += 1
            origin = self.members[work.at].origin()
            self.letters.append(Letter(rng.randrange(4), origin, work.state, work))
        elif what == 3 and self.letters:
            self.arrive(self.letters.pop(rng.randrange(len(self.letters))))
        elif what == 4 and self.letters:
            self.end_of(rng.choice(self.letters))
        elif what == 5:
            done = [work for work in self.work if not work.messages]
            for work in done[:1]:
                self.work.remove(work)
                self.members[work.at].grace.leave(work.since)
        elif what == 6:
            self.members[rng.choice([2, 3])].holds = 0
        else:
            next(self.leader)

    def arrive(self, letter: Letter) -> None:
        member = self.members[letter.to]
        if member.fences.passes(letter.sent):
            if "watch" in self.care:
                member.watches.touched(*KEY)
            member.holds = max(member.holds, letter.state)
        self.end_of(letter)

    def end_of(self, letter: Letter) -> None:
        """It was answered, or its sender waits no longer."""
        if letter.work is not None:
            letter.work.messages -= 1
            letter.work = None

    def lead(self) -> Iterator[None]:
        """The leader's questions, one member at a time, round after round."""
        number = 0
        while True:
            number += 1
            yield from self.round(number)
            yield

    def order(self) -> list[Member]:
        return self.rng.sample(self.members, 4)

    def round(self, number: int) -> Iterator[None]:
        for member in self.order():
            member.watches.begin("n0", number, [KEY])
            yield
            if member.holds not in (0, DELETED) or (member.number > 1 and member.holds):
                return
        fences = []
        for member in self.order() if "settle" in self.care else []:
            mark = member.grace.mark()
            while not member.grace.passed(mark):
                yield
            fence, mark = member.origin(), member.grace.mark()
            yield
            while not member.grace.passed(mark):
                yield
            fences.append(fence)
        for member in self.order():
            for fence in fences if "fence" in self.care else []:
                member.fences.put(fence)
            if not member.watches.intact("n0", number, KEY):
                return
            yield
        for member in self.order():
            if member.watches.intact("n0", number, KEY) and member.holds == DELETED:
                member.holds = 0
                self.buried += 1
            yield


def run(town: Town, steps: int) -> None:
    for _ in range(steps):
        town.happen()
        if town.buried:
            held = [member.holds for member in town.members]
            assert OLD not in held, "what was deleted came back"


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_nothing_returns_once_it_was_buried(seed: int) -> None:
    run(Town(Random(seed)), 400)


def test_the_model_does_bury() -> None:
    towns = [Town(Random(seed)) for seed in range(100)]
    for town in towns:
        run(town, 600)
    assert sum(town.buried > 0 for town in towns) > 20


@pytest.mark.parametrize("care", sorted(CARE))
def test_each_precaution_is_needed(care: str) -> None:
    """Without it something comes back, so that the model can tell."""
    with pytest.raises(AssertionError, match="came back"):
        _run_many(5000, CARE - {care})


def _run_many(seeds: int, care: frozenset[str]) -> None:
    for seed in range(seeds):
        run(Town(Random(seed), care), 400)
