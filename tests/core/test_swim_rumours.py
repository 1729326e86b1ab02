"""The queue of news: order, replacement, byte budget, bounds (memberlist's queue_test.go)."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.members import Liveness, Update
from dynamo.core.messages import size
from dynamo.core.rumours import Rumours
from tests.support.swim_machine import record

ROOM = 100_000


def names(updates: list[Update]) -> list[str]:
    """Whom they are about."""
    return [update.member.name for update in updates]


def test_fewest_sent_first() -> None:
    """What was sent least goes first."""
    queue = Rumours()
    queue.add(Update(record("a")))
    queue.take(ROOM, 9)
    queue.add(Update(record("b")))
    assert names(queue.take(size(Update(record("b"))), 9)) == ["b"]


def test_largest_then_newest_first() -> None:
    """Among equals the largest goes first, then the newest."""
    queue = Rumours()
    for member in (record("a"), record("b"), record("big", zone="z" * 50)):
        queue.add(Update(member))
    assert names(queue.take(ROOM, 9)) == ["big", "b", "a"]


def test_newer_replaces_older() -> None:
    """One item for each member, whatever was queued about it."""
    queue = Rumours()
    queue.add(Update(record("a", 1, Liveness.SUSPECT), "x"))
    queue.add(Update(record("a", 2)))
    assert len(queue) == 1
    assert queue.take(ROOM, 9) == [Update(record("a", 2))]


def test_retransmit_limit() -> None:
    """An item goes out exactly as often as the limit says."""
    queue = Rumours()
    queue.add(Update(record("a")))
    assert [len(queue.take(ROOM, 3)) for _ in range(5)] == [1, 1, 1, 0, 0]
    assert len(queue) == 0


def test_byte_budget() -> None:
    """Never more than fits; what does not fit waits, and a smaller one may go in its place."""
    queue = Rumours()
    small, large = Update(record("s")), Update(record("l", zone="z" * 200))
    queue.add(small)
    queue.add(large)
    assert queue.take(size(small), 9) == [small]
    assert queue.take(0, 9) == []
    assert queue.take(ROOM, 9)[0] == large


def test_row_21_first_goes_first() -> None:
    """serf 16537: one's own leave is not behind thousands of other news."""
    queue = Rumours()
    for i in range(500):
        queue.add(Update(record(f"n{i}", zone="z" * 60)))
    queue.add(Update(record("me", 2, Liveness.LEFT)), first=True)
    for _ in range(3):
        assert names(queue.take(300, 9))[0] == "me"


def test_row_18_bounded() -> None:
    """memberlist 299: beyond the limit the item sent most gives way, and is counted."""
    queue = Rumours(limit=10)
    queue.add(Update(record("old")))
    queue.take(ROOM, 9)
    for i in range(15):
        queue.add(Update(record(f"n{i:02}")))
    assert (len(queue), queue.dropped) == (10, 6)
    assert "old" not in queue
    queue.forget("n14")
    queue.clear()
    assert len(queue) == 0
    assert queue.take(ROOM, 9) == []


@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_everything_is_sent_as_often_as_it_may_be(rnd: random.Random, limit: int) -> None:
    """Against a count by hand: no item is lost, none goes out too often, no packet is too full."""
    queue, sent = Rumours(), dict[str, int]()
    for i in range(40):
        queue.add(Update(record(f"n{i}", zone="z" * rnd.randrange(80))))
    while len(queue):
        room = rnd.randrange(150, 900)
        taken = queue.take(room, limit)
        assert sum(map(size, taken)) <= room
        assert len(set(names(taken))) == len(taken)
        for name in names(taken):
            sent[name] = sent.get(name, 0) + 1
    assert set(sent.values()) == {limit}
    assert len(sent) == 40
