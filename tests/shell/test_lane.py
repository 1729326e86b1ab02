"""One queue to one peer: what waits together travels together, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from dynamo.api.vitals import crowded
from dynamo.core.record import Draft, Record
from dynamo.errors import Overloaded, PeerBroke, PeerUnreachable, StorageFull
from dynamo.replica import lane as lane_module
from dynamo.replica.lane import Lane
from dynamo.wire import faults, messages
from dynamo.wire.messages import BucketRead, Fault, Merge, MergeReply, Op, Reply


class Peer:
    """`batches` are those sent, `broken_off` those of them that the lane gave up; `heard` what each
    operation came to, by its name."""

    def __init__(self, in_flight_max: int = 1) -> None:
        self.clock = Clock()
        self.batches: list[tuple[Sequence[Op], Deferred[Sequence[Reply]]]] = []
        self.heard: dict[str, Any] = {}
        self.broken_off: list[object] = []
        self.lane = Lane("n2", self.clock, self._send, in_flight_max)

    def _send(self, ops: Sequence[Op]) -> Deferred[Sequence[Reply]]:
        answer: Deferred[Sequence[Reply]] = Deferred(self.broken_off.append)
        self.batches.append((ops, answer))
        return answer

    def ask(self, name: str, op: Op | None = None) -> Deferred[Reply]:
        done = self.lane.call(op or BucketRead(name))
        done.addBoth(self._hear, name)
        return done

    def _hear(self, result: Any, name: str) -> None:
        self.heard[name] = result.value if isinstance(result, Failure) else result

    def turn(self) -> None:
        self.clock.advance(0)

    def sizes(self) -> list[int]:
        return [len(ops) for ops, _ in self.batches]

    def answer(self, index: int, replies: Sequence[Reply] | None = None) -> None:
        ops, done = self.batches[index]
        done.callback([reply(op) for op in ops] if replies is None else replies)

    def fail(self, index: int, error: Exception) -> None:
        self.batches[index][1].errback(Failure(error))


def reply(op: Op) -> Reply:
    assert isinstance(op, BucketRead)
    return MergeReply({op.name: 1})


def test_one_turn_shares_one_request_and_so_does_what_comes_meanwhile() -> None:
    """And each operation gets its own reply."""
    peer = Peer()
    for name in "abc":
        peer.ask(name)
    assert peer.batches == []
    assert peer.lane.waiting
    peer.turn()
    for name in "defg":
        peer.ask(name)
        peer.turn()
    assert peer.sizes() == [3]
    peer.answer(0)
    assert set(peer.heard) == set("abc")
    peer.turn()
    assert peer.sizes() == [3, 4]
    peer.answer(1)
    assert peer.heard == {name: MergeReply({name: 1}) for name in "abcdefg"}
    assert not peer.lane.waiting
    assert peer.clock.getDelayedCalls() == []


def test_as_many_requests_as_allowed_are_under_way() -> None:
    """No more, whatever waits; the next begins when one ends, in any order."""
    peer = Peer(in_flight_max=3)
    for name in "abcdef":
        peer.ask(name)
        peer.turn()
    assert peer.sizes() == [1, 1, 1]
    peer.answer(1)
    peer.turn()
    assert peer.sizes() == [1, 1, 1, 3]
    for index in (3, 0, 2):
        peer.answer(index)
    assert set(peer.heard) == set("abcdef")


def test_a_batch_has_a_limit_in_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over waits for the next one, in order."""
    monkeypatch.setattr(lane_module, "OPS_MAX", 4)
    peer = Peer(in_flight_max=2)
    for i in range(10):
        peer.ask(str(i))
    for _ in range(3):
        peer.turn()
    assert peer.sizes() == [4, 4]
    peer.answer(0)
    peer.turn()
    assert peer.sizes() == [4, 4, 2]
    asked = [op.name for ops, _ in peer.batches for op in ops if isinstance(op, BucketRead)]
    assert asked == [str(i) for i in range(10)]


def test_a_batch_has_a_limit_in_bytes() -> None:
    """Large records travel in several requests."""
    peer = Peer(in_flight_max=100)
    body = bytes(lane_module.BYTES_MAX // 4)
    draft = Draft(write=b"w", size=len(body), etag="", body=body)
    record = Record().put(draft, actor="a", stamp=1)
    for i in range(9):
        peer.ask(str(i), Merge(b"i" * 8, b"k", record))
    for _ in range(5):
        peer.turn()
    assert peer.sizes() == [4, 4, 1]
    largest = max(len(messages.encode(ops)) for ops, _ in peer.batches)
    assert largest < lane_module.BYTES_MAX * 1.1


def test_a_lane_is_behind_when_more_waits_than_one_request_carries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By operations or by bytes; what is under way does not count."""
    for limit, number in (("OPS_MAX", 3), ("BYTES_MAX", 3 * lane_module.weight(BucketRead("x")))):
        with monkeypatch.context() as patch:
            patch.setattr(lane_module, limit, number)
            peer = Peer()
            for i in range(3):
                peer.ask(str(i))
            peer.turn()
            for i in range(3):
                peer.ask(str(i))
            assert not peer.lane.behind
            peer.ask("more")
            assert peer.lane.behind
            peer.answer(0)
            peer.turn()
            assert not peer.lane.behind


def test_the_lanes_in_which_something_waits_are_known() -> None:
    """So that nobody has to look at those to all members of a large cluster."""
    filled: set[Lane] = set()
    clock, sent = Clock(), []

    def send(ops: Any) -> Deferred[Any]:
        sent.append(Deferred())
        return sent[-1]

    lane = Lane("n2", clock, send, 1, filled)
    assert filled == set()
    lane.call(BucketRead("a"))
    assert filled == {lane}
    clock.advance(0)
    assert filled == set(), "what is under way does not wait"
    lane.call(BucketRead("b"))
    clock.advance(0)
    assert filled == {lane}
    assert lane.peer == "n2"
    sent[0].callback([MergeReply({})])
    clock.advance(0)
    assert filled == set()


def test_a_full_queue_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slow peer fills its own queue and nothing else."""
    monkeypatch.setattr(lane_module, "QUEUE_MAX", 3)
    peer = Peer()
    peer.ask("first")
    peer.turn()
    for i in range(4):
        peer.ask(str(i))
    assert isinstance(peer.heard["3"], Overloaded)
    assert set(peer.heard) == {"3"}
    peer.answer(0)
    peer.turn()
    peer.ask("again")
    assert "again" not in peer.heard


def test_a_queue_is_full_by_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a peer that hangs takes a bounded amount of memory."""
    monkeypatch.setattr(lane_module, "QUEUE_BYTES_MAX", 2 * lane_module.weight(BucketRead("x")))
    peer = Peer()
    peer.ask("first")
    peer.turn()
    for i in range(3):
        peer.ask(str(i))
    assert isinstance(peer.heard["2"], Overloaded)
    assert set(peer.heard) == {"2"}
    peer.answer(0)
    peer.turn()
    for i in range(3, 6):
        peer.ask(str(i))
    assert set(peer.heard) == {"2", "first", "5"}


def test_who_gave_up_waiting_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue full of the abandoned is not full."""
    monkeypatch.setattr(lane_module, "QUEUE_MAX", 3)
    peer = Peer()
    peer.ask("first")
    peer.turn()
    for i in range(3):
        peer.ask(str(i)).cancel()
    peer.ask("new")
    assert "new" not in peer.heard
    peer.answer(0)
    peer.turn()
    peer.answer(1)
    assert peer.heard["new"] == MergeReply({"new": 1})


def test_a_fault_fails_its_own_operation_only() -> None:
    """As the error it stands for."""
    peer = Peer()
    for name in "ab":
        peer.ask(name)
    peer.turn()
    peer.answer(0, [faults.fault(StorageFull()), MergeReply({})])
    assert isinstance(peer.heard["a"], StorageFull)
    assert peer.heard["b"] == MergeReply({})


@pytest.mark.parametrize("replies", [[], [MergeReply({})] * 3])
def test_another_number_of_replies_is_the_peers_fault(replies: list[Reply]) -> None:
    """None of them can be told apart; the lane goes on with the next batch."""
    peer = Peer()
    for name in "ab":
        peer.ask(name)
    peer.turn()
    peer.ask("c")
    peer.answer(0, replies)
    assert isinstance(peer.heard["a"], PeerBroke)
    assert isinstance(peer.heard["b"], PeerBroke)
    peer.turn()
    peer.answer(1)
    assert peer.heard["c"] == MergeReply({"c": 1})
    peer.ask("d")
    peer.turn()
    peer.ask("e")
    peer.turn()
    assert peer.sizes() == [2, 1, 1], "one at a time, as before"


def test_a_failed_request_fails_all_in_it_and_no_others() -> None:
    """What waited goes out next."""
    peer = Peer()
    for name in "ab":
        peer.ask(name)
    peer.turn()
    peer.ask("c")
    peer.fail(0, PeerUnreachable("n2", "refused the connection", sent=False))
    assert all(isinstance(peer.heard[name], PeerUnreachable) for name in "ab")
    peer.turn()
    peer.answer(1)
    assert peer.heard["c"] == MergeReply({"c": 1})


def test_a_cancelled_operation_is_not_sent_if_it_still_waits() -> None:
    """One under way goes its way, and its reply is passed over."""
    peer = Peer()
    early = peer.ask("early")
    early.cancel()
    under_way = peer.ask("under way")
    peer.ask("other")
    peer.turn()
    under_way.cancel()
    late = peer.ask("late")
    late.cancel()
    peer.answer(0)
    peer.turn()
    assert peer.sizes() == [2]
    for name in ("early", "under way", "late"):
        assert isinstance(peer.heard[name], CancelledError)
    assert peer.heard["other"] == MergeReply({"other": 1})


def test_a_request_nobody_waits_for_is_broken_off() -> None:
    """Lest it be done long after somebody else has done it; not while one in it is waited for."""
    peer = Peer()
    a, b = peer.ask("a"), peer.ask("b")
    peer.turn()
    a.cancel()
    peer.turn()
    assert peer.broken_off == []
    b.cancel()
    peer.turn()
    assert peer.broken_off == [peer.batches[0][1]]
    assert peer.heard.keys() == {"a", "b"}
    peer.ask("c")
    peer.turn()
    assert peer.sizes() == [2, 1]


def test_an_unknown_fault_is_the_peers() -> None:
    """The operation fails with what was said."""
    peer = Peer()
    peer.ask("a")
    peer.turn()
    peer.answer(0, [Fault("odd", "what?")])
    assert isinstance(peer.heard["a"], PeerBroke)


def test_a_node_is_crowded_by_what_waits_for_healthy_members(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And by its disk; what waits for one that may be gone is no measure of load."""
    monkeypatch.setattr(lane_module, "OPS_MAX", 2)
    peer = Peer()
    for i in range(3):
        peer.ask(str(i))
    healthy: Any = SimpleNamespace(is_healthy=lambda name: name == "n2")
    doubtful: Any = SimpleNamespace(is_healthy=lambda name: False)
    idle: Any = SimpleNamespace(behind=False)
    busy: Any = SimpleNamespace(behind=True)
    assert crowded(idle, healthy, {peer.lane})
    assert not crowded(idle, doubtful, {peer.lane})
    assert not crowded(idle, healthy, set())
    assert crowded(busy, healthy, set())
