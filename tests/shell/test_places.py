"""The order of the keys on disk and the trees over it, held to what `records` says, at every
moment: after any work, amid counting and flushing, and after a crash between any two commits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from dynamo.background.census import Census
from dynamo.core.buckets import Bucket
from dynamo.core.merkle import change, fingerprint
from dynamo.storage import places, rows
from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable
from dynamo.storage.places import PlaceBook
from dynamo.storage.recovery import Recovery
from dynamo.storage.trees import Trees
from dynamo.wire.codec import KEEPING
from tests.support.disk import INCARNATION, Disk, draft, now, record

LONG = b"m" * 600
KEYS = [b"k", b"l", b"m", LONG, b"n" * 470, b"o" * 471]
PARTITIONS = 8
OTHER = b"bucket-2"


class Counted:
    """A disk, its trees, and the work that counts and flushes, a step at a time."""

    def __init__(self, before: Counted | None = None, copies_of: Any = lambda i: 3) -> None:
        self.disk = Disk(None if before is None else before.disk)
        self.trees = Trees(PARTITIONS, copies_of)
        self.copies: Copies = self.disk.copies
        self.copies.moved = self.trees.apply
        self.census = self.new_census()

    def new_census(self) -> Census:
        table = BucketTable(self.disk.engine, self.copies.committer)
        table.by_incarnation = {INCARNATION: Bucket("b", 1, False), OTHER: Bucket("c", 1, False)}
        return Census(trees=self.trees, copies=self.copies, buckets=table)

    def step(self) -> bool:
        return now(Deferred.fromCoroutine(self.census.step()))

    def settle(self) -> None:
        """Until there is nothing to count or to flush; the second look finds it quiet."""
        for _ in range(3):
            while self.step():
                pass

    def begin_to_flush(self) -> None:
        """Up to a sweep's first rows."""
        while not self.census._flushing:
            self.step()
        self.step()
        self.step()

    def said(self) -> dict[bytes, tuple[bytes, bytes, int | None]]:
        """Every place with its key and fingerprint, as a listing shows them."""
        view, shape = self.disk.engine.view(), self.trees.shape
        found = {}
        for partition in range(PARTITIONS):
            for where, p in self.copies.places.of(view, shape, partition, range(shape.leaves)):
                found[where] = (p.incarnation, p.key, p.fingerprint)
        return found

    def expected(self) -> dict[bytes, tuple[bytes, bytes, int]]:
        """The same from table `records` alone."""
        view, found = self.disk.engine.view(), {}
        for incarnation in (INCARNATION, OTHER):
            for key, data in rows.walk(view, "records", incarnation):
                where, row = places.place(incarnation, key), rows.row(incarnation, key)
                known = KEEPING["records"].decode(row, data)
                if known.known():
                    found[where] = (incarnation, key, fingerprint(where, known))
        return found

    def check(self) -> None:
        expected = self.expected()
        assert self.said() == expected
        if self.trees.complete:
            shape = self.trees.shape
            for partition in range(PARTITIONS):
                leaves = shape.empty()
                for where, (_, _, mark) in expected.items():
                    found, leaf = shape.find(where[:8])
                    if found == partition:
                        change(leaves, leaf, mark)
                assert self.trees.leaves(3, partition) == leaves

    def work(self, number: int, kind: str, key: bytes, target: str) -> None:
        disk, made = self.disk, draft(str(number))
        if kind == "put":
            disk.put(key, made, context={})
        elif kind == "replace":
            disk.put(key, made)
        elif kind == "delete":
            disk.put(key, None)
        elif kind == "stand in":
            disk.put(key, made, owner=False, missed_by=[target])
        elif kind == "hold":
            disk.hold(target, key, record(str(number), f"a{number}"))
        elif kind == "merge":
            disk.merge(key, record(str(number), f"a{number % 3}", number), latest=number % 2 == 0)
        elif kind == "merge all":
            many = [(OTHER, k, record(str(number), "a", number), False) for k in KEYS[:3]]
            now(self.copies.merge_all(many))
        elif kind == "drop":
            disk.drop(target)
        elif kind == "forget":
            now(self.copies.forget(OTHER if number % 2 else INCARNATION, limit=2))


def slow(counted: Counted) -> list[Any]:
    """From now on a commit takes until the call for it in the list is made."""
    waiting: list[Any] = []

    def run(call: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        waiting.append(lambda: done.callback(call()))
        return done

    counted.copies.committer._run = run
    return waiting


WORK = ["put", "replace", "delete", "stand in", "hold", "merge", "merge all", "drop", "forget"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from([*WORK, "step", "step", "settle", "crash"]),
        st.sampled_from(KEYS),
        st.sampled_from(["n2", "n3"]),
    ),
    max_size=30,
)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that work falls between the steps of one count and one flush."""
    monkeypatch.setattr("dynamo.storage.places.FLUSH_ROWS", 2)
    monkeypatch.setattr("dynamo.storage.trees.COUNT_ROWS", 2)


@settings(max_examples=300)
@given(STEPS)
def test_places_and_trees_say_what_records_say(steps: list[Any]) -> None:
    """Kept step by step they are as if made from scratch, wherever counting and flushing stand."""
    counted = Counted()
    for number, (kind, key, target) in enumerate(steps):
        if kind == "step":
            counted.step()
        elif kind == "settle":
            counted.settle()
        elif kind == "crash":
            counted = Counted(counted)
        else:
            counted.work(number, kind, key, target)
        counted.check()
    counted.settle()
    assert counted.trees.complete
    assert counted.copies.places.pending == {}
    assert counted.disk.rows("changes") == 0
    assert counted.disk.rows("places") == len(counted.expected())
    counted.check()


def test_a_store_from_before_there_were_places_gets_them() -> None:
    """In bounded steps, with writes in between; a damaged record costs no other its place."""
    counted = Counted()
    for number, key in enumerate(KEYS):
        counted.work(number, "put", key, "")
    tables = counted.disk.engine.tables
    for name in ("places", "changes"):
        for key in list(tables[name].keys):
            tables[name].set(key, None)
    tables["records"].set(rows.row(INCARNATION, b"l"), b"\x01\xff")
    old = Counted(counted)
    assert not old.said()
    steps = 0
    while not old.trees.complete:
        old.step()
        steps += 1
        if steps == 2:
            old.work(100, "replace", b"k", "")
    assert steps > 4
    old.settle()
    assert {key for _, key, _ in old.said().values()} == set(KEYS) - {b"l"}
    tables["records"].set(rows.row(INCARNATION, b"l"), None)
    old.check()


def test_a_store_is_looked_through_for_places_once() -> None:
    """The second start trusts the first."""
    counted = Counted()
    counted.work(1, "put", b"k", "")
    counted.settle()
    again = Counted(counted)
    again.disk.engine.tables["places"].set(next(iter(again.said())), None)
    again.settle()
    assert again.said() == {}


def test_a_flush_ends_what_a_start_has_to_look_at() -> None:
    """Rows of `changes` go when what they name is in `places`, and not before."""
    counted = Counted()
    counted.settle()
    for number, key in enumerate(KEYS):
        counted.work(number, "put", key, "")
    assert counted.disk.rows("changes") == len(KEYS)
    counted.begin_to_flush()
    assert 0 < counted.disk.rows("places") < len(KEYS)
    assert counted.disk.rows("changes") == len(KEYS)
    counted.settle()
    assert counted.disk.rows("changes") == 0
    assert counted.copies.places.pending == {}


def test_news_during_a_flush_is_not_taken_for_written() -> None:
    """A key that changes between being picked and being written stays pending."""
    counted = Counted()
    counted.settle()
    for number, key in enumerate(KEYS):
        counted.work(number, "put", key, "")
    counted.begin_to_flush()
    for number, key in enumerate(KEYS, 100):
        counted.work(number, "replace", key, "")
    counted.check()
    while counted.census._flushing:
        counted.step()
    assert counted.disk.rows("changes") == len(KEYS)
    crashed = Counted(counted)
    crashed.check()


def test_what_is_picked_for_a_flush_may_be_old_by_the_time_it_is_written() -> None:
    """A write that is on its way to the disk when the flush picks its rows stays pending."""
    counted = Counted()
    counted.settle()
    counted.work(1, "put", b"k", "")
    while not counted.census._flushing:
        counted.step()
    counted.step()
    waiting = slow(counted)
    written = counted.copies.merge(INCARNATION, b"k", record("news", "b"))
    flushed = Deferred.fromCoroutine(counted.census.step())
    while waiting:
        waiting.pop(0)()
    assert len(now(written).versions) == 2
    assert now(flushed) is False
    counted.check()
    Counted(counted).check()


def test_a_submitter_that_gives_up_does_not_make_the_trees_forget() -> None:
    """A client that hangs up while its write is on the way to the disk: the write is there."""
    counted = Counted()
    counted.settle()
    waiting = slow(counted)
    written = counted.copies.coordinate(
        INCARNATION, b"k", draft("1"), actor="me", stamp=1, context={}, missed_by=["n2"]
    )
    written.addErrback(lambda _: None)
    written.cancel()
    waiting.pop()()
    assert counted.copies.hints.counts == {"n2": 1}
    counted.check()


def test_keys_are_counted_apart_by_the_copies_their_bucket_wants() -> None:
    """And anew when a bucket wants another number; meanwhile no partition is said to be known."""
    wanted = {INCARNATION: 3, OTHER: 1}
    counted = Counted(copies_of=lambda incarnation: wanted[incarnation])
    counted.settle()
    counted.work(1, "put", b"k", "")
    counted.work(2, "merge all", b"", "")
    trees = counted.trees

    def found(copies: int) -> int:
        return sum(1 for p in range(PARTITIONS) for leaf in trees.leaves(copies, p) if leaf)

    assert (found(3), found(1)) == (1, 3)
    assert trees.check_copies([INCARNATION, OTHER])
    wanted[OTHER] = 3
    assert not trees.check_copies([INCARNATION, OTHER])
    assert trees.root(3, 0) == b""
    counted.work(3, "replace", b"k", "")
    counted.step()
    counted.work(4, "merge all", b"", "")
    counted.settle()
    assert (found(3), found(1)) == (4, 0)
    counted.check()


def test_one_leaf_is_listed_without_the_others() -> None:
    """From behind any place on, pending and written alike."""
    counted = Counted()
    counted.settle()
    for number in range(40):
        counted.work(number, "put", b"%d" % number, "")
        if number == 20:
            counted.settle()
    assert 0 < len(counted.copies.places.pending) < 40
    view, shape, book = counted.disk.engine.view(), counted.trees.shape, counted.copies.places
    for where in counted.said():
        partition, leaf = shape.find(where[:8])
        listed = [w for w, _ in book.of(view, shape, partition, [leaf])]
        assert listed == sorted(w for w in counted.said() if shape.find(w[:8]) == (partition, leaf))
        behind = [w for w, _ in book.of(view, shape, partition, [leaf], where)]
        assert behind == [w for w in listed if w > where]


def test_a_book_is_read_from_what_was_committed() -> None:
    """What a start finds pending is what the last process had pending."""
    counted = Counted()
    counted.work(1, "put", b"k", "")
    counted.work(2, "put", LONG, "")
    counted.work(3, "forget", b"", "")
    book = PlaceBook(counted.disk.engine.view())
    assert book.pending == counted.copies.places.pending


@pytest.mark.parametrize("flushed", [False, True])
def test_a_record_that_was_damaged_and_mended_counts_once(flushed: bool) -> None:
    """Nobody can say what was there, so the tree goes by what was said of it last."""
    counted = Counted()
    disk = counted.disk
    for number in range(5):
        disk.put(b"k%d" % number, draft(str(number)))
    if flushed:
        counted.settle()
    else:
        counted.step()
    row = rows.row(INCARNATION, b"k1")
    rotten = bytearray(disk.engine.tables["records"].values[row])
    rotten[-1] ^= 1
    disk.engine.tables["records"].set(row, bytes(rotten))
    now(Recovery(disk.copies).set_aside(INCARNATION, b"k1"))
    disk.merge(b"k1", record("since", "b"))
    now(Recovery(disk.copies).mend(INCARNATION, b"k1", record("told", "c")))
    counted.settle()
    counted.check()
