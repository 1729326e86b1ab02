"""What one more member costs the others: what is done at a news of one, and how much is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from dynamo.cluster.followers import Followers, Standing
from dynamo.cluster.naming import Naming
from dynamo.cluster.peers import DOUBT_S, Peers
from dynamo.core.agreement import Promise
from dynamo.core.layout import Layout, without
from dynamo.core.members import Liveness, Member, Role
from dynamo.core.ring import Member as Placed
from dynamo.core.ring import Ring
from dynamo.storage.committer import Committer
from dynamo.storage.facts import Identity
from dynamo.storage.memory_engine import MemoryEngine
from dynamo.wire import agreeing
from dynamo.wire.messages import Op
from tests.support.rings import ask, changes, one_ring, watched
from tests.support.shells import Far, World
from tests.support.swim_machine import record

MANY = tuple(f"n{number}" for number in range(1, 21))


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """What members ask each other meanwhile."""
    counts: Counter[str] = Counter()
    hello, call = Far.hello, Far.call

    async def counted_hello(self: Far, timeout: float, *, asker: str = "") -> Any:
        counts["hello"] += 1
        return await hello(self, timeout, asker=asker)

    def counted_call(self: Far, op: Op) -> Any:
        counts[type(op).__name__] += 1
        return call(self, op)

    with patch.object(Far, "hello", counted_hello), patch.object(Far, "call", counted_call):
        yield counts


def test_a_member_more_costs_questions_by_the_number_of_members() -> None:
    """It asks all of the others and all ask it, once or twice; each layout is put to all of them
    once, and all are told."""
    world = World()
    for name in MANY:
        world.start(name, "n1", "n2")
    world.until(lambda: one_ring(world, *MANY), "founded")
    world.run(5)
    with counted() as counts:
        world.start("n21", "n1", "n2")
        world.until(lambda: one_ring(world, *MANY, "n21"), "joined")
    n, layouts = len(MANY), 3
    assert 2 * n <= counts["hello"] <= 4 * n
    for what in ("LayoutPrepare", "LayoutAccept", "LayoutLearn"):
        assert 0 < counts[what] <= (layouts + 1) * (n + 1), what


def test_many_that_join_at_once_are_asked_for_together() -> None:
    """By one of them, and not by each: a few layouts for all, and not a ballot after the other."""
    world = World()
    with watched() as ledger:
        world.form("n1", "n2", "n3")
        world.run(2)
        with counted() as counts:
            for name in MANY[3:13]:
                world.start(name, "n1", "n2", "n3")
            world.until(lambda: one_ring(world, *MANY[:13]), "all have joined")
        latest = max(version for _, version in ledger.adopted)
    assert latest <= 1 + 3 + 3
    assert counts["LayoutPrepare"] <= 100


def test_one_that_was_taken_out_is_not_asked_for_by_others_that_join() -> None:
    """It has not heard of it, and says to be joining still."""
    world = World()
    world.form("n1", "n2", "n3")
    for shell in world.up:
        shell.syncs = False
    n4 = world.start("n4", "n1")
    world.until(lambda: world.nodes["n1"].view.layout.knows("n4"), "n4 is coming")
    world.run(1)
    world.apart("n4")
    world.until(lambda: world.nodes["n1"].liveness()["n4"] == "dead", "n4 seems dead")
    ask(world, changes(world.nodes["n1"]).remove("n4"))
    world.run(1)
    world.heal()
    for shell in world.up:
        shell.syncs = True
    world.until(lambda: n4.book.out, "n4 hears of it", 60)
    world.start("n5", "n1")
    world.until(lambda: one_ring(world, "n1", "n2", "n3", "n5"), "n5 has joined")
    assert world.nodes["n1"].swim.member("n4").role is Role.LEAVING  # type: ignore[union-attr]


def test_a_joiner_counts_as_one_when_it_goes_by_the_layout() -> None:
    """One that goes by an earlier one may have been taken out of this one."""
    world = World()
    world.form("n1", "n2", "n3")
    peers = world.nodes["n1"].view.peers
    layout = world.nodes["n1"].view.layout
    there = Layout(layout.version, layout.birth, without(layout.members, "n2"))
    known = peers.by_name["n2"]
    for role, goes_by, joins in (
        (Role.JOINING, layout.version, ["n2"]),
        (Role.JOINING, layout.version - 1, []),
        (Role.ACTIVE, layout.version, []),
        (Role.LEAVING, layout.version, []),
    ):
        known.member = record("n2", role=role, layout=goes_by)
        assert [m.name for m, ready in peers.joiners(there).items() if ready] == joins
    known.member = record("n2", role=Role.JOINING, layout=layout.version)
    assert peers.joiners(layout) == {}, "it has a part in it"
    known.problem = "belongs to another cluster"
    assert peers.joiners(there) == {}


def test_news_of_one_member_is_a_look_at_one() -> None:
    world = World()
    n1, *_ = world.form(*MANY)
    world.run(20)
    looked: list[str] = []
    awaits = Peers.awaits

    def noted(self: Peers, known: Any, layout: Layout) -> bool:
        looked.append(known.member.name)
        return awaits(self, known, layout)

    with patch.object(Peers, "awaits", noted):
        n1.view.evidence("n2", False)
        assert looked == ["n2"]
        assert n1.view.is_doubtful("n2")
        world.run(DOUBT_S)
        assert not n1.view.is_doubtful("n2")
        assert looked.count("n2") == 2
        assert len(looked) < len(MANY) / 2


@attrs.define
class Told:
    """What is known of the others, and of whom it was asked for."""

    records: dict[str, Member]
    asked: list[str] = attrs.field(factory=list)
    copies: frozenset[int] = frozenset({3})

    def record(self, name: str) -> Member | None:
        self.asked.append(name)
        return self.records.get(name)

    def classes(self) -> frozenset[int]:
        return self.copies


def followers(told: Told, layout: Layout) -> Followers:
    ring, beside = Ring(layout.members, 32, 3), Ring(layout.beside, 32, 3)
    return Followers("n1", told, lambda: Standing(layout.version, layout.version, ring, beside))


def test_a_member_that_keeps_the_others_waiting_is_looked_at_first() -> None:
    members = tuple(Placed(name) for name in sorted(MANY))
    layout = Layout(7, 1, members, (*members, Placed("n99")), True)
    records = {m.name: record(m.name, layout=7, synced=7) for m in layout.beside}
    told = Told(records)
    here, asked = followers(told, layout), told.asked
    assert here.all_use(layout)
    assert here.all_ready(layout)
    records["n9"] = record("n9", layout=6, synced=6)
    assert not here.all_use(layout)
    assert not here.all_ready(layout)
    asked.clear()
    assert not here.all_use(layout)
    assert not here.all_ready(layout)
    assert set(asked) == {"n9"}
    assert here.waits_for(layout) == ["Not yet going by layout 7: n9."]
    records["n9"] = record("n9", layout=7, synced=6)
    assert here.all_use(layout)
    assert not here.all_ready(layout)
    records["n9"] = records["n8"] = record("n8", layout=7, synced=7)
    assert here.all_ready(layout)


def test_a_change_waits_for_one_of_those_who_take_over_the_only_copy() -> None:
    """Who is away is not waited for, but where none of the coming owners has taken it over."""
    members = tuple(Placed(name) for name in ("n1", "n2", "n3", "n4"))
    layout = Layout(7, 1, members, members[:3], True)
    records = {m.name: record(m.name, layout=7, synced=7) for m in members}
    records["n3"] = record("n3", layout=7, synced=6, liveness=Liveness.DEAD)
    told = Told(records)
    here = followers(told, layout)
    assert here.all_ready(layout), "of three owners two have it"
    told.copies = frozenset({1, 3})
    assert not here.all_ready(layout)
    assert here.waits_for(layout) == ["n3 must be there to take over what it will own."]
    records["n3"] = record("n3", layout=7, synced=7, liveness=Liveness.DEAD)
    assert here.all_ready(layout), "it had taken it over before it went"


def test_why_a_change_does_not_go_on_is_logged_once_if_it_lasts() -> None:
    members = tuple(Placed(name) for name in ("n1", "n2", "n3"))
    layout = Layout(7, 1, members[:2], members, True)
    records = {m.name: record(m.name, layout=7, synced=6) for m in members}
    here, heard = followers(Told(records), layout), list[LogEvent]()

    def lines(until_s: int) -> list[str]:
        heard.clear()
        globalLogPublisher.addObserver(heard.append)
        for tick in range(2 * (until_s - 20), 2 * until_s):
            here.tell(layout, tick / 2)
        globalLogPublisher.removeObserver(heard.append)
        return [formatEvent(event) for event in heard]

    taking = "Still taking over what they will own, or passing on what they keep"
    assert lines(20) == [f"The ring does not change yet: {taking}: n2, n3."]
    assert lines(40) == []
    records["n2"] = record("n2", layout=7, synced=7)
    assert lines(60) == [f"The ring does not change yet: {taking}: n3."]
    records["n3"] = record("n3", layout=7, synced=7)
    assert lines(80) == []


def test_actors_learnt_while_one_is_stored_are_stored_together() -> None:
    waiting: list[Callable[[], None]] = []

    def later(call: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        waiting.append(lambda: done.callback(call()))
        return done

    engine = MemoryEngine()
    identity = Identity(engine, Committer(engine, later))
    nobody: Any = None
    naming = Naming(identity, nobody, nobody, nobody, nobody)
    for name in MANY:
        naming.note(name, name)
    commits = 0
    while waiting:
        waiting.pop()()
        commits += 1
    assert commits == 2
    again = Identity(engine, Committer(engine, lambda call: succeed(call())))
    again.load()
    assert again.actors == {name: name for name in MANY}


def test_a_member_that_writes_under_an_earlier_actor_again_has_had_the_later_one() -> None:
    """Its disk was put back; a new one must not take the later one a second time."""
    engine = MemoryEngine()
    identity = Identity(engine, Committer(engine, lambda call: succeed(call())))
    nobody: Any = None
    naming = Naming(identity, nobody, nobody, nobody, nobody)
    for actor in ("n2", "n2~3", "n2", "n2~2", ""):
        naming.note("n2", actor)
    assert identity.actors == {"n2": "n2~3"}


def test_a_yes_does_not_carry_what_the_proposer_has() -> None:
    """Its own layout, and the value it was asked to accept; what was accepted before it must."""
    members = tuple(Placed(name) for name in MANY)
    layout, value = Layout(3, 5, members), Layout(4, 5, members, members[1:], True)
    mine, theirs = (2, "n1"), (1, "n2")
    promised = agreeing.vote(layout, Promise(4, mine, theirs, value), True, False)
    assert promised.layout == Layout(3, 5)
    assert promised.promise.value == value
    accepted = agreeing.vote(layout, Promise(4, mine, mine, value), True, False)
    assert accepted.yes
    assert (accepted.layout, accepted.promise.value) == (Layout(3, 5), None)
    refused = agreeing.vote(layout, Promise(4, mine), False, False)
    assert refused.layout == layout
    overtaken = agreeing.vote(value, Promise(4, mine), True, False)
    assert overtaken.layout == value
