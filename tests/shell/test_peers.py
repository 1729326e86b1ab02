"""The conversation with a member that appears: bucket states first, then it is relied on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from dynamo.cluster.peers import AT_ONCE, REASK_S, RETRY_S, Known, Peers
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.layout import Layout
from dynamo.core.members import Liveness, Member, Role
from dynamo.core.ring import Member as Placed
from dynamo.errors import PeerBroke, PeerUnreachable
from dynamo.storage.committer import Committer
from dynamo.storage.facts import BucketTable
from dynamo.storage.memory_engine import MemoryEngine
from dynamo.wire import messages
from dynamo.wire.hello import Hello
from tests.support.swim_machine import record


def at_once(call: Callable[[], Any]) -> Deferred[Any]:
    return succeed(call())


def table(*buckets: Bucket) -> BucketTable:
    engine = MemoryEngine()
    made = BucketTable(engine, Committer(engine, at_once))
    made.merge(buckets)
    return made


def hello(who: str, buckets: str, **more: Any) -> Hello:
    said = Hello(
        name=who,
        cluster_name="test",
        partitions=8,
        zone="",
        weight=1.0,
        api="",
        cluster="",
        actor=who,
        boot="1",
        joined=True,
        actors={},
        hints={},
        buckets=buckets,
        objects=0,
        bytes=0,
    )
    return msgspec.structs.replace(said, **more)


@attrs.define(eq=False)
class Scripted:
    """A peer that waits for the test: each `hello` is a Deferred in `asked`, others are answered
    from its own table."""

    name: str
    table: BucketTable = attrs.field(factory=table)
    asked: list[Deferred[Hello]] = attrs.field(factory=list)
    called: list[Any] = attrs.field(factory=list)
    answer: Callable[[Any], Any] | None = None
    refuses: bool = False
    gathering: bool = False

    async def hello(self, timeout: float, *, asker: str = "") -> Hello:
        assert asker == "me"
        if self.refuses:
            raise PeerUnreachable(self.name, "refused", sent=False)
        self.asked.append(Deferred())
        return await self.asked[-1]

    def call(self, op: Any) -> Deferred[Any]:
        self.called.append(op)
        if self.answer is not None:
            return succeed(self.answer(op))
        if isinstance(op, messages.BucketMerge):
            return self.table.merge(op.buckets).addCallback(
                lambda held: messages.BucketsReply(tuple(held))
            )
        names = sorted(n for n in self.table.states if n > op.after)[:2]
        done = len(names) < 2
        return succeed(messages.BucketsReply(tuple(self.table.states[n] for n in names), done))

    def says(self, **more: Any) -> None:
        """Answers the last question."""
        self.asked[-1].callback(hello(self.name, self.table.digest(), **more))

    def is_silent(self) -> None:
        self.asked[-1].errback(PeerUnreachable(self.name, "said nothing"))


LAYOUT = Layout(
    2,
    1,
    tuple(Placed(name) for name in ("b", "gone", "me", "stopped")),
    tuple(Placed(name) for name in ("b", "coming", "gone", "me", "stopped")),
    True,
)


class Bench:
    """Peers of a node "me"; `changes` and `settled` are what it was told."""

    def __init__(self, *buckets: Bucket) -> None:
        self.clock = Clock()
        self.table = table(*buckets)
        self.remotes: dict[str, Scripted] = {}
        self.changes = 0
        self.settled: list[str] = []
        self.learnt: list[tuple[str, int]] = []
        self.peers = Peers(
            about_me=lambda: hello("me", self.table.digest()),
            clock=self.clock,
            buckets=self.table,
            remote=self._remote,
            timeout=1.0,
            changed=self._changed,
            settled=self.settled.append,
            learn=self._learn,
        )

    def _remote(self, name: str, address: str) -> Any:
        return self.remotes.setdefault(address, Scripted(name))

    def _changed(self, known: Known | None) -> None:
        self.changes += 1

    async def _learn(self, replica: Any, said: Hello) -> None:
        self.learnt.append((replica.name, said.layout))

    def take(self, member: Member, appeared: bool = True) -> tuple[Known, Scripted]:
        known = self.peers.take(member, appeared=appeared)
        return known, self.remotes[member.address]


B = record("b", role=Role.ACTIVE)
ME = Placed("me", "z1", 2.0)
ONE, TWO, THREE = (
    Bucket(n).create(1, i, Properties()) for i, n in enumerate(("one", "two", "three"))
)


def test_who_refuses_is_not_there_and_who_does_not_answer_is_silent() -> None:
    """Until it answers."""
    bench = Bench()
    known, b = bench.take(B)
    b.is_silent()
    assert known.silent
    b.refuses = True
    bench.clock.advance(RETRY_S)
    assert not known.silent
    b.refuses = False
    bench.clock.advance(RETRY_S)
    b.is_silent()
    assert known.silent
    bench.clock.advance(RETRY_S)
    b.says()
    assert not known.silent


def test_a_member_that_appears_is_settled_after_the_exchange_of_buckets() -> None:
    """Both know all that either knew, page by page, before it is relied on."""
    bench = Bench(ONE)
    known, b = bench.take(B)
    b.table = table(TWO, THREE, Bucket("four").create(1, 9, Properties()))
    assert not known.settled
    b.says()
    assert known.settled
    assert bench.settled == ["b"]
    assert bench.table.digest() == b.table.digest() != ""
    assert len(bench.table.states) == 4


def test_equal_buckets_are_not_sent_again() -> None:
    """A digest says so."""
    bench = Bench(ONE)
    known, b = bench.take(B)
    b.table = table(ONE)
    b.says()
    assert known.settled
    assert b.called == []


def test_silence_is_asked_again_while_gossip_holds_it_alive() -> None:
    """Each half second; asked once is asked, but not settled."""
    bench = Bench()
    known, b = bench.take(B)
    for turn in range(1, 5):
        b.is_silent()
        assert (known.asked, known.settled, len(b.asked)) == (True, False, turn)
        bench.clock.advance(RETRY_S)
        assert len(b.asked) == turn + 1
    bench.take(B.become(Liveness.DEAD), appeared=False)
    b.is_silent()
    bench.clock.advance(10 * RETRY_S)
    assert len(b.asked) == 5
    assert bench.clock.getDelayedCalls() == []


def test_a_return_amidst_a_conversation_begins_another() -> None:
    """What was said before it went away counts for nothing."""
    bench = Bench()
    known, b = bench.take(B)
    bench.take(B.become(Liveness.DEAD), appeared=False)
    bench.take(B)
    b.says()
    assert not known.settled
    assert bench.settled == []
    bench.clock.advance(0)
    b.says()
    assert known.settled
    assert bench.settled == ["b"]


def test_only_one_conversation_at_a_time() -> None:
    """Whoever wants another waits for it."""
    bench = Bench()
    known, b = bench.take(B)
    waits = [bench.peers.converse(known) for _ in range(3)]
    assert len(b.asked) == 1
    b.says()
    assert all(wait.called for wait in waits)


def test_an_answer_without_delay() -> None:
    """Does not leave the member as if a conversation were going on for ever."""
    bench = Bench()
    known, b = bench.take(B)
    b.says()
    b.refuses = True
    assert bench.peers.converse(known).called
    assert known.asking is None


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"name": "c"}, "answers as"),
        ({"cluster_name": "other"}, "cluster"),
        ({"partitions": 16}, "partitions"),
        ({"format": 2}, "format"),
    ],
)
def test_who_does_not_belong_is_not_relied_on(said: dict[str, Any], word: str) -> None:
    """Another's process at the address, another cluster, another number of partitions: no buckets
    are exchanged, why is kept, and it is asked again as it may be put right."""
    bench = Bench(ONE)
    known, b = bench.take(B)
    b.says(**said)
    assert not known.settled
    assert word in known.problem
    assert b.called == []
    bench.clock.advance(RETRY_S)
    b.says()
    assert known.settled
    assert known.problem == ""


@pytest.mark.parametrize(
    "answer",
    [
        lambda op: messages.ChunksReply(()),
        lambda op: messages.BucketsReply((TWO,), False),
        lambda op: (_ for _ in ()).throw(PeerBroke("b", "nonsense")),
    ],
)
def test_a_peer_that_answers_nonsense(answer: Callable[[Any], Any]) -> None:
    """The wrong kind, the same page for ever, nothing readable: not settled, tried again later."""
    bench = Bench(ONE)
    known, b = bench.take(B)
    b.answer = answer
    b.says()
    assert not known.settled
    assert len(b.called) < 5
    b.answer = None
    bench.clock.advance(RETRY_S)
    b.says()
    assert known.settled


def test_hints_are_awaited_until_there_are_none() -> None:
    """A member that keeps hints for this node is asked again until it has handed them over."""
    bench = Bench()
    known, b = bench.take(B)
    assert bench.peers.awaiting(LAYOUT) == ("b",)
    b.says(hints={"me": 3, "x": 9})
    assert known.settled
    for left in (2, 1):
        assert bench.peers.awaiting(LAYOUT) == ("b",)
        bench.clock.advance(REASK_S)
        b.says(hints={"me": left})
    bench.clock.advance(REASK_S)
    b.says(hints={"me": 0})
    assert bench.peers.awaiting(LAYOUT) == ()
    bench.clock.advance(10)
    assert len(b.asked) == 4


def test_who_was_held_to_be_away_asks_everybody_again() -> None:
    """Also a member that it never missed: it may have noted hints since it was asked. An answer
    to an earlier question does not do."""
    bench = Bench()
    known, b = bench.take(B)
    b.says()
    assert bench.peers.awaiting(LAYOUT) == ()
    bench.peers.was_away()
    assert bench.peers.awaiting(LAYOUT) == ("b",)
    assert known.settled
    bench.peers.was_away()
    b.says()
    assert bench.peers.awaiting(LAYOUT) == ("b",)
    bench.clock.advance(0)
    b.says(hints={"me": 3})
    assert bench.peers.awaiting(LAYOUT) == ("b",)
    bench.clock.advance(REASK_S)
    b.says(hints={"me": 0})
    assert bench.peers.awaiting(LAYOUT) == ()
    bench.clock.advance(10)
    assert len(b.asked) == 4


def test_a_member_that_does_not_answer_is_not_awaited_for_ever() -> None:
    """When this node was held to be away, as at any other time."""
    bench = Bench()
    _, b = bench.take(B)
    b.says()
    bench.peers.was_away()
    b.is_silent()
    assert bench.peers.awaiting(LAYOUT) == ()
    bench.clock.advance(RETRY_S)
    b.says(hints={"me": 1})
    assert bench.peers.awaiting(LAYOUT) == ("b",)


def test_who_is_awaited() -> None:
    """Members that are there and were not asked since they appeared; not one that is gone, as
    nobody could wait for it, nor one that has no part in the ring."""
    bench = Bench()
    _, b = bench.take(B)
    bench.take(record("gone", liveness=Liveness.DEAD, role=Role.ACTIVE), appeared=False)
    bench.take(record("stopped", liveness=Liveness.LEFT, role=Role.ACTIVE), appeared=False)
    _, c = bench.take(record("new", role=Role.JOINING))
    _, d = bench.take(record("coming", role=Role.JOINING))
    assert bench.peers.awaiting(LAYOUT) == ("b", "coming")
    c.is_silent()
    d.is_silent()
    assert bench.peers.awaiting(LAYOUT) == ("b",)
    b.is_silent()
    assert bench.peers.awaiting(LAYOUT) == ("b",)
    bench.take(B.become(Liveness.SUSPECT), appeared=False)
    assert bench.peers.awaiting(LAYOUT) == ("b",)
    bench.take(B.become(Liveness.DEAD), appeared=False)
    assert bench.peers.awaiting(LAYOUT) == ()
    bench.take(B)
    assert bench.peers.awaiting(LAYOUT) == ("b",)


def test_another_address_is_another_conversation() -> None:
    """The one with the old address no longer counts."""
    bench = Bench()
    _, b = bench.take(B)
    moved = record("b", 2, address="b2:7000", role=Role.ACTIVE)
    known, b2 = bench.take(moved, appeared=False)
    assert b2 is not b
    b.says()
    assert not known.settled
    b2.says()
    assert known.settled


def test_after_a_stop_nobody_is_asked() -> None:
    """Neither again nor anew."""
    bench = Bench()
    known, b = bench.take(B)
    bench.peers.stop()
    b.is_silent()
    bench.clock.advance(10)
    assert bench.peers.converse(known).called
    assert len(b.asked) == 1
    assert bench.clock.getDelayedCalls() == []


def test_a_members_layout_is_learnt_before_it_is_relied_on() -> None:
    bench = Bench()
    known, b = bench.take(B)
    b.says(layout=7)
    assert (bench.learnt, known.settled) == ([("b", 7)], True)


def test_who_founds_a_cluster() -> None:
    """The first by name of those that are there, with all of them, as they describe themselves."""
    bench = Bench()
    assert bench.peers.founders(ME) == [ME]
    _, z = bench.take(record("z", zone="z9", weight=0.5))
    assert bench.peers.founders(ME) == [], "z may go by a layout"
    z.says()
    assert bench.peers.founders(ME) == [ME, Placed("z", "z9", 0.5)]
    _, dead = bench.take(record("a", liveness=Liveness.DEAD))
    assert not dead.asked
    assert len(bench.peers.founders(ME)) == 2, "one that is not there founds nothing"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("b", {}),
        ("z", {"layout": 1}),
        ("z", {"actor": ""}),
        ("z", {"cluster_name": "other"}),
    ],
)
def test_who_does_not_found_one(name: str, more: dict[str, Any]) -> None:
    """If another comes first by name, has a layout, has no actor yet, or does not belong."""
    bench = Bench()
    _, other = bench.take(record(name))
    other.says(**more)
    assert bench.peers.founders(ME) == []


def test_a_node_talks_to_a_bounded_number_at_a_time() -> None:
    """With each of a large cluster it has to, and each takes a connection."""
    bench = Bench()
    talks = [bench.take(record(f"m{i}"))[1] for i in range(AT_ONCE + 2)]
    assert [len(talk.asked) for talk in talks] == [1] * AT_ONCE + [0, 0]
    talks[7].says()
    talks[3].is_silent()
    assert [len(talk.asked) for talk in talks] == [1] * (AT_ONCE + 2)
    assert bench.settled == ["m7"]


def test_one_that_waits_for_its_turn_is_asked_once() -> None:
    bench = Bench()
    talks = [bench.take(record(f"m{i}")) for i in range(AT_ONCE + 1)]
    late, peer = talks[-1]
    told: list[bool] = []
    for _ in range(3):
        bench.peers.converse(late).addCallback(lambda _: told.append(True))
    talks[0][1].says()
    assert len(peer.asked) == 1
    assert told == []
    peer.says()
    assert told == [True] * 3
    assert len(peer.asked) == 1


def test_who_waits_for_a_turn_is_not_asked_by_a_node_that_has_stopped() -> None:
    bench = Bench()
    talks = [bench.take(record(f"m{i}"))[1] for i in range(AT_ONCE + 1)]
    bench.peers.stop()
    talks[0].says()
    assert talks[-1].asked == []
