"""What other nodes are answered by layout, and what is on disk of layouts and votes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from dynamo.api.peer import PeerFace
from dynamo.api.site import site
from dynamo.core.agreement import Promise
from dynamo.core.layout import NONE, Layout
from dynamo.core.record import EMPTY
from dynamo.core.ring import Member
from dynamo.core.sightings import Origin
from dynamo.storage.agreed import LAYOUT_ROW, OUT_ROW, PROMISE_ROW, LayoutBook
from dynamo.storage.committer import Committer
from dynamo.storage.facts import REFILL, Identity
from dynamo.storage.memory_engine import MemoryEngine
from dynamo.wire import agreeing, messages
from dynamo.wire.messages import Fault
from dynamo.wire.signing import Signer
from tests.support.http import Client, request_bytes

INCARNATION = b"incarnat"
LAYOUT = NONE.found([Member("n1"), Member("n2")], 3)

BY_RING = [
    messages.Read(INCARNATION, b"k", True),
    messages.Merge(INCARNATION, b"k", EMPTY, False),
    messages.Coordinate(INCARNATION, b"k", None, None, 3, 2, False, False, 1.0),
    messages.Scan(INCARNATION, b"", b"", 10),
]
BY_NAME = [
    agreeing.LayoutRead(),
    agreeing.LayoutPrepare(2, (1, "n2")),
    agreeing.LayoutAccept((1, "n2"), LAYOUT),
    agreeing.LayoutLearn(LAYOUT),
    messages.BucketList(""),
]


class Local:
    """Notes what got as far as the replica."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def answer(self, ops: list[Any]) -> list[Any]:
        self.asked += ops
        return [agreeing.LayoutReply(NONE)] * len(ops)


def sent(
    ops: list[Any], mine: int, theirs: int | None, floor: int = 0
) -> tuple[list[Any], list[Any]]:
    """What a node that goes by `mine` does with a batch of one that goes by `theirs` (None: it
    does not say who it is): what reached its replica, and its replies."""
    local: Any = Local()
    nothing: Any = None
    face = PeerFace(local, Signer(()), lambda: 0.0, nothing, nothing, layout=lambda: (mine, floor))
    client = Client(site(face.app, reactor=Clock(), body_limit=1 << 20))
    origin = None if theirs is None else Origin("n2", 1, "b", 1, 1, 1, theirs)
    client.send(request_bytes("POST", "/peer/ops", messages.encode(ops, origin)))
    (answer,) = client.responses()
    assert answer.status == 200
    return local.asked, messages.open_replies(answer.body)[1]


@pytest.mark.parametrize("op", BY_RING, ids=lambda op: type(op).__name__)
@pytest.mark.parametrize(("mine", "theirs"), [(5, 3), (3, 5), (1, 9), (9, 1)])
def test_two_layouts_apart_is_refused(op: Any, mine: int, theirs: int) -> None:
    """The whole batch, with the reason, whatever else is in it."""
    ops = [BY_NAME[0], op, op]
    asked, replies = sent(ops, mine, theirs)
    assert asked == []
    assert len(replies) == len(ops)
    for reply in replies:
        assert isinstance(reply, Fault)
        assert reply.code == "not_ready"
        assert reply.detail == (
            f"This node goes by layout {mine} of the ring, and the sender by {theirs}."
        )


@pytest.mark.parametrize("op", BY_RING, ids=lambda op: type(op).__name__)
@pytest.mark.parametrize(
    ("mine", "theirs"), [(5, 5), (5, 4), (5, 6), (0, 7), (7, 0), (0, 0), (7, None)]
)
def test_neighbours_and_whoever_goes_by_none_are_answered(
    op: Any, mine: int, theirs: int | None
) -> None:
    asked, replies = sent([op], mine, theirs)
    assert len(asked) == 1
    assert not isinstance(replies[0], Fault)


@pytest.mark.parametrize(("floor", "refused"), [(3, False), (4, False), (5, True)])
def test_a_neighbour_below_the_floor_is_refused(floor: int, refused: bool) -> None:
    """All who were there had gone on from its layout already."""
    asked, replies = sent([BY_RING[0]], 5, 4, floor)
    assert (asked == [], isinstance(replies[0], Fault)) == (refused, refused)


@pytest.mark.parametrize("op", BY_NAME, ids=lambda op: type(op).__name__)
def test_who_is_behind_may_still_learn_and_vote(op: Any) -> None:
    asked, replies = sent([op], 9, 2)
    assert asked == [op]
    assert not isinstance(replies[0], Fault)


# On disk.


class Disk:
    """An engine and what is opened on it again and again. `fault`: what the next commits raise."""

    def __init__(self) -> None:
        self.tables: Any = None
        self.fault: Exception | None = None
        self.commits = 0

    def open(self) -> LayoutBook:
        engine = MemoryEngine(self.tables)
        self.tables = engine.tables
        committer = Committer(engine, self._run)
        identity = Identity(engine, committer)
        identity.load()
        book = LayoutBook(engine, committer, identity)
        book.load()
        return book

    def _run(self, call: Callable[[], Any]) -> Deferred[Any]:
        self.commits += 1
        return succeed(call()) if self.fault is None else fail(self.fault)


def now(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addCallback(found.append)
    return found[0]


def test_votes_outlive_the_process() -> None:
    """What was promised and accepted is known after a restart, and kept to."""
    disk = Disk()
    book = disk.open()
    said, yes, _ = now(book.vote(1, lambda p: p.prepare((4, "n2"))))
    assert (said, yes) == (Promise(1, (4, "n2")), True)
    book = disk.open()
    said, yes, _ = now(book.vote(1, lambda p: p.prepare((3, "n1"))))
    assert (said, yes) == (Promise(1, (4, "n2")), False)
    assert now(book.vote(1, lambda p: p.accept((3, "n1"), LAYOUT)))[1] is False
    assert now(book.vote(1, lambda p: p.accept((4, "n2"), LAYOUT)))[1] is True
    said, yes, _ = now(disk.open().vote(1, lambda p: p.prepare((5, "n1"))))
    assert (said, yes) == (Promise(1, (5, "n1"), (4, "n2"), LAYOUT), True)


@given(st.integers(1, 6), st.integers(0, 8))
def test_votes_are_on_the_next_version_only(present: int, version: int) -> None:
    """Not on what is decided, nor on what nobody can propose yet; and that leaves no trace."""
    book = Disk().open()
    now(book.adopt(Layout(present, 3, LAYOUT.members)))
    asked: list[Promise] = []

    def change(promise: Promise) -> Promise | None:
        asked.append(promise)
        return promise.prepare((1, "n1"))

    said, yes, _ = now(book.vote(version, change))
    assert yes is (version == present + 1)
    assert len(asked) == (1 if yes else 0)
    assert said.version == version
    assert (book.engine.view().get("meta", PROMISE_ROW) is not None) is yes


def test_what_was_said_of_a_version_is_void_for_the_next() -> None:
    disk = Disk()
    book = disk.open()
    now(book.vote(1, lambda p: p.accept((9, "n2"), LAYOUT)))
    now(book.adopt(LAYOUT))
    said, yes, _ = now(disk.open().vote(2, lambda p: p.prepare((1, "n1"))))
    assert (said, yes) == (Promise(2, (1, "n1")), True)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=8))
def test_only_a_later_layout_is_adopted(orders: list[tuple[int, int]]) -> None:
    """By version, then birth; and the latest is there after a restart."""
    disk = Disk()
    book, highest = disk.open(), (0, 0)
    for version, birth in orders:
        news = now(book.adopt(Layout(version, birth, LAYOUT.members)))
        assert news is ((version, birth) > highest)
        highest = max(highest, (version, birth))
        assert book.layout.order == highest
    assert disk.open().layout == book.layout


@pytest.mark.parametrize("refill", [True, False])
@pytest.mark.parametrize("out", [True, False])
def test_what_follows_from_a_layout_is_in_the_same_commit(refill: bool, out: bool) -> None:
    """So that no crash comes between: a member that does not know that it lacks something would
    say that it is not there."""
    disk = Disk()
    book = disk.open()
    assert now(book.adopt(LAYOUT, refill=refill, out=out))
    assert disk.commits == 1
    assert (book.identity.refilling, book.out) == (refill, out)
    again = disk.open()
    assert (again.layout, again.identity.refilling, again.out) == (LAYOUT, refill, out)
    now(again.adopt(Layout(2, 3, LAYOUT.members)))
    assert (again.identity.refilling, again.out) == (refill, out), "no later one takes it back"


def test_nothing_of_a_layout_that_was_not_stored_holds() -> None:
    disk = Disk()
    book = disk.open()
    disk.fault = OSError("no space left")
    failed: list[Any] = []
    book.adopt(LAYOUT, refill=True, out=True).addErrback(failed.append)
    assert len(failed) == 1
    assert (book.layout, book.identity.refilling, book.out) == (NONE, False, False)
    disk.fault = None
    rows = [book.engine.view().get("meta", row) for row in (LAYOUT_ROW, REFILL, OUT_ROW)]
    assert rows == [None, None, None]
    assert now(book.adopt(LAYOUT))


def test_an_older_layout_says_nothing_of_what_is_lacked() -> None:
    book = Disk().open()
    now(book.adopt(Layout(5, 3, LAYOUT.members)))
    assert not now(book.adopt(LAYOUT, refill=True, out=True))
    assert (book.identity.refilling, book.out) == (False, False)
    assert book.engine.view().get("meta", REFILL) is None
