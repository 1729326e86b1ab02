"""The simulated disk: what a crash, a kill and each fault leaves, when an answer comes, and that a
seed says it all."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dynamo.errors import Corrupt, MissingChunks, NotReady, StorageFault, StorageFull
from dynamo.sim.disk import Drive, SimDisk
from dynamo.sim.disk_chunks import WRITEBACK_S
from dynamo.sim.disk_engine import Changes
from dynamo.sim.disk_steps import Pace, Process
from dynamo.storage.chunks import digest_of
from dynamo.storage.committer import Committer
from dynamo.storage.copies import Copies
from dynamo.storage.disk import Disk
from dynamo.storage.engine import Job
from dynamo.storage.hints import HintBook
from dynamo.storage.jobs import frees_space
from dynamo.storage.places import PlaceBook
from tests.support.disk import draft, failing
from tests.support.sim_disk import drive_on, step, wait

LONG_S = 1.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def drive(clock: Clock) -> Drive:
    return drive_on(clock)


def put(key: bytes, value: bytes = b"v", table: str = "records") -> Job:
    return lambda txn: txn.put(table, key, value)


def commit(disk: SimDisk, *jobs: Job) -> Deferred[list[Any]]:
    return disk.run(lambda: disk.engine.commit(jobs))


def store(clock: Clock, disk: SimDisk, data: bytes) -> bytes:
    digest = digest_of(data)
    wait(clock, disk.chunks.write(digest, data))
    return digest


def keys(disk: SimDisk, table: str = "records") -> list[bytes]:
    return [key for key, _ in disk.engine.view().scan(table, b"")]


def until(clock: Clock, reached: Callable[[], bool]) -> None:
    """Moves the clock, step by step, until something is so."""
    while not reached():
        assert clock.calls, "it never comes"
        step(clock)


def failure(clock: Clock, done: Deferred[Any]) -> Exception:
    while not done.called:
        step(clock)
    return failing(lambda: done)


# When an answer comes.


def test_a_commit_is_seen_when_it_is_durable_and_answered_after(clock: Clock, drive: Drive) -> None:
    """Nothing shows while it syncs; then readers and the platter have it at once, and the one who
    asked hears of it a moment later."""
    disk = drive.open()
    done = commit(disk, put(b"a"))
    until(clock, lambda: disk.engine.owed is not None)
    assert (keys(disk), drive.durable().get("records", b"a")) == ([], None)

    until(clock, lambda: disk.engine.owed is None)

    assert (keys(disk), drive.durable().get("records", b"a")) == ([b"a"], b"v")
    assert not done.called
    assert wait(clock, done) == [None]
    assert 0.0002 <= clock.seconds() <= 0.0222


def test_calls_run_one_after_another_and_a_failing_one_stops_nothing(
    clock: Clock, drive: Drive
) -> None:
    """The next call sees what the one before it committed, and each hears its own outcome."""
    disk, order = drive.open(), []

    def broken() -> None:
        raise ValueError("a bug")

    commit(disk, put(b"a")).addCallback(order.append)
    disk.run(lambda: keys(disk)).addCallback(order.append)
    disk.run(broken).addErrback(lambda failed: order.append(failed.value.args))
    last = commit(disk, put(b"b")).addCallback(order.append)

    wait(clock, last)

    assert order == [[None], [b"a"], ("a bug",), [None]]


def test_two_commits_in_one_call_are_two_commits(clock: Clock, drive: Drive) -> None:
    """The first had returned, so it is there whatever becomes of the second."""
    disk = drive.open()
    disk.run(lambda: [disk.engine.commit([put(key)]) for key in (b"a", b"b")])
    until(clock, lambda: disk.engine.owed is not None)
    assert keys(disk) == [b"a"]


def test_a_stopped_disk_answers_what_it_was_given_and_takes_no_more(
    clock: Clock, drive: Drive
) -> None:
    """`stop` waits for the writer and for the chunks; then another start may open the drive."""
    disk = drive.open()
    commit(disk, put(b"a"))
    data = b"x" * 100
    written = disk.chunks.write(digest_of(data), data)
    closed = disk.run(disk.engine.close)
    stopped = disk.stop()
    assert isinstance(failing(lambda: commit(disk, put(b"b"))), NotReady)
    with pytest.raises(StorageFault, match="in use"):
        drive.open()

    wait(clock, stopped)

    assert written.called
    assert closed.called
    again = drive.open()
    assert keys(again) == [b"a"]
    assert wait(clock, again.chunks.read(digest_of(data))) == data


def test_chunk_calls_overlap_but_for_three_at_a_time(clock: Clock) -> None:
    """Six reads take as long as two, one after another."""
    drive = drive_on(clock, latency_s=(0.1, 0.1))
    disk = drive.open()
    digest = store(clock, disk, b"data")
    began = clock.seconds()
    reads = [disk.chunks.read(digest) for _ in range(6)]
    for read in reads:
        assert wait(clock, read) == b"data"
    # An operation may be one of the slow ones, so that only the least is sure.
    assert 0.2 <= clock.seconds() - began < 0.6


# What a crash leaves.


def test_a_crash_keeps_an_unsynced_commit_whole_or_not_at_all() -> None:
    """Over many seeds both happen, and only once its meta page is being written."""
    ends = Counter(crashed_in_commit(seed, 0.9) for seed in range(40))
    assert set(ends) == {(), (b"a", b"b")}
    assert {crashed_in_commit(seed, 0.4) for seed in range(40)} == {()}


def crashed_in_commit(seed: int, part: float) -> tuple[bytes, ...]:
    """The keys there are after a crash when so much of a commit's time had gone by."""
    clock = Clock()
    drive = drive_on(clock, seed)
    disk = drive.open()
    done = commit(disk, put(b"a"), put(b"b", table="held"))
    until(clock, lambda: disk.engine.owed is not None)
    clock.advance((clock.calls[0].getTime() - clock.seconds()) * part)
    drive.crash()
    clock.advance(LONG_S)
    assert not done.called
    disk = drive.open()
    assert drive.counts["commit_kept"] + drive.counts["commit_lost"] == 1
    return tuple(keys(disk) + keys(disk, "held"))


def test_a_kill_keeps_what_was_written(clock: Clock, drive: Drive) -> None:
    """A commit whose meta page was written, a name whose directory is not synced: both are there,
    and the unfinished file is swept."""
    disk = drive.open()
    done = disk.chunks.write(digest_of(b"named"), b"named")
    until(clock, lambda: digest_of(b"named") in drive.written().chunks)
    other = disk.chunks.write(digest_of(b"torn"), b"torn")
    until(clock, lambda: bool(drive._shelves.temps))
    assert digest_of(b"named") not in drive.chunks_durable or done.called

    drive.kill()
    clock.advance(LONG_S)

    assert not other.called
    disk = drive.open()
    assert disk.chunks.has(digest_of(b"named"))
    assert disk.chunks.sweep(lambda digest: True) == 1
    assert drive.counts["torn"] == 1


def test_a_name_without_a_sync_may_go_and_its_bytes_are_never_half() -> None:
    """Over many seeds the name is there or not after a crash; there, it reads whole."""
    assert {crashed_after_rename(seed) for seed in range(30)} == {True, False}


def crashed_after_rename(seed: int) -> bool:
    clock = Clock()
    drive = drive_on(clock, seed)
    disk, digest = drive.open(), digest_of(b"data")
    done = disk.chunks.write(digest, b"data")
    until(clock, lambda: digest in drive.written().chunks)
    assert drive.chunks_durable == {}
    drive.crash()
    clock.advance(LONG_S)
    assert not done.called
    disk = drive.open()
    if disk.chunks.has(digest):
        assert wait(clock, disk.chunks.read(digest)) == b"data"
        return True
    assert isinstance(failure(clock, disk.chunks.read(digest)), MissingChunks)
    return False


def test_an_unfinished_file_may_be_left_and_is_swept() -> None:
    """A crash amid the write of the bytes leaves no name, and a torn file or none."""
    assert {crashed_amid_a_write(seed) for seed in range(30)} == {0, 1}


def crashed_amid_a_write(seed: int) -> int:
    """How many files were swept."""
    clock = Clock()
    drive = drive_on(clock, seed)
    drive.open().chunks.write(digest_of(b"data"), b"data")
    until(clock, lambda: bool(drive._shelves.temps))
    drive.crash()
    disk = drive.open()
    assert drive.written().chunks == {}
    swept = disk.chunks.sweep(lambda digest: True)
    assert drive.counts["torn"] == swept
    assert disk.chunks.sweep(lambda digest: True) == 0
    return swept


def test_each_name_in_a_directory_is_synced(clock: Clock, drive: Drive) -> None:
    """Also when the directory was synced before, for another name in it."""
    disk, (one, other) = drive.open(), in_one_directory(2)
    for data in (one, other):
        digest = store(clock, disk, data)
        assert drive.chunks_durable[digest] == data


def in_one_directory(count: int) -> list[bytes]:
    """So many chunks of one directory."""
    datas = (b"%d" % number for number in range(10_000))
    return [data for data in datas if digest_of(data)[0] == 7][:count]


def test_a_deleted_chunk_may_come_back_unless_it_is_long_gone() -> None:
    """A crash may undo a deletion, until the kernel has written it back."""
    assert {deleted_and_crashed(seed, 0.0) for seed in range(30)} == {True, False}
    assert {deleted_and_crashed(seed, WRITEBACK_S + 1) for seed in range(30)} == {False}


def deleted_and_crashed(seed: int, seconds: float) -> bool:
    """Whether the chunk is there."""
    clock = Clock()
    drive = drive_on(clock, seed)
    disk = drive.open()
    digest = store(clock, disk, b"data")
    clock.advance(LONG_S)
    disk.chunks.delete(digest)
    assert (drive.written().chunks, drive.durable().chunks) == ({}, {digest: b"data"})
    clock.advance(seconds)
    if seed % 2:
        store(clock, disk, b"another")
        assert (digest in drive.chunks_durable) is (seconds < WRITEBACK_S)
    drive.crash()
    return drive.open().chunks.has(digest)


def test_a_second_writer_of_a_name_not_yet_durable_waits_for_it(clock: Clock, drive: Drive) -> None:
    """Its answer, too, means that the chunk survives a power cut, also in a new process."""
    disk, digest = drive.open(), digest_of(b"data")
    disk.chunks.write(digest, b"data")
    until(clock, lambda: digest in drive.written().chunks)
    drive.kill()
    disk = drive.open()
    assert drive.chunks_durable == {}
    wait(clock, disk.chunks.write(digest, b"data"))
    assert drive.chunks_durable == {digest: b"data"}


def test_a_dead_disk_does_nothing_more(clock: Clock, drive: Drive) -> None:
    """What a dead node still asks is not answered and changes nothing."""
    disk = drive.open()
    digest = store(clock, disk, b"data")
    drive.kill()
    waiting = [
        disk.run(lambda: pytest.fail("it ran")),
        disk.chunks.read(digest),
        disk.chunks.write(digest_of(b"new"), b"new"),
    ]
    uses: list[Callable[[], object]] = [
        disk.engine.view,
        lambda: disk.engine.commit([put(b"a")]),
        lambda: disk.chunks.delete(digest),
        lambda: disk.chunks.sweep(lambda digest: False),
    ]
    for use in uses:
        with pytest.raises(StorageFault):
            use()
    clock.advance(LONG_S)
    assert not any(answer.called for answer in waiting)
    assert drive.written().chunks == {digest: b"data"}


Asking = Callable[[Drive, SimDisk], Deferred[Any]]


def answered_with_a_crash(drive: Drive, disk: SimDisk) -> Deferred[Any]:
    """The second of two answers that are ready, of which the first one brings the crash."""
    disk.run(lambda: None).addCallback(lambda _: drive.crash())
    return disk.run(lambda: None)


def asked_after_a_crash(drive: Drive, disk: SimDisk) -> Deferred[Any]:
    drive.crash()
    return disk.run(lambda: None)


def asked_while_stalled(drive: Drive, disk: SimDisk) -> Deferred[Any]:
    drive.stalled = True
    return commit(disk, put(b"a"))


@pytest.mark.parametrize(
    "ask",
    [
        lambda drive, disk: commit(disk, put(b"a")),
        lambda drive, disk: disk.chunks.read(digest_of(b"")),
        answered_with_a_crash,
        asked_after_a_crash,
        asked_while_stalled,
    ],
)
def test_nothing_that_waits_for_a_dead_disk_is_cleaned_up(
    clock: Clock, drive: Drive, ask: Asking
) -> None:
    """A coroutine of the dead node stands where it stood: its `finally` would act on the living."""
    cleaned: list[bool] = []
    begin(drive, ask, cleaned)
    clock.advance(0.0001)
    clock.advance(0.0001)
    drive.crash()
    clock.advance(LONG_S)
    gc.collect()
    assert cleaned == []
    drive.limbo.clear()
    gc.collect()
    assert cleaned == [True]


def begin(drive: Drive, ask: Asking, cleaned: list[bool]) -> None:
    async def work() -> None:
        try:
            await ask(drive, disk)
        finally:
            cleaned.append(True)

    disk = drive.open()
    Deferred.fromCoroutine(work())


# Faults.


def test_a_full_disk_takes_deletes_only(clock: Clock, drive: Drive) -> None:
    """Growth fails with `StorageFull`, freeing jobs and deletions work, and all is well after."""
    disk = drive.open()
    wait(clock, commit(disk, put(b"a")))
    digest = store(clock, disk, b"data")
    drive.full = True
    free = frees_space(lambda txn: txn.delete("records", b"a"))

    # A job that is not marked is not tried, whatever it does: LMDB's engine does not, either.
    outcomes = wait(clock, commit(disk, lambda txn: txn.delete("records", b"a")))
    assert isinstance(outcomes[0], StorageFull)
    assert keys(disk) == [b"a"]

    outcomes = wait(clock, commit(disk, put(b"b"), free))

    assert [type(outcome) for outcome in outcomes] == [StorageFull, type(None)]
    new = digest_of(b"new")
    assert isinstance(failure(clock, disk.chunks.write(new, b"new")), StorageFull)
    wait(clock, disk.chunks.write(digest, b"data"))
    disk.chunks.delete(digest)
    assert (keys(disk), drive.written().chunks) == ([], {})
    drive.full = False
    assert wait(clock, commit(disk, put(b"b"))) == [None]
    store(clock, disk, b"new")


def test_a_disk_that_fills_amid_a_write_leaves_no_trace(clock: Clock, drive: Drive) -> None:
    """The temporary file is gone with the failure."""
    disk = drive.open()
    done = disk.chunks.write(digest_of(b"data"), b"data")
    until(clock, lambda: bool(drive._shelves.temps))
    drive.full = True
    assert isinstance(failure(clock, done), StorageFull)
    assert drive._shelves.temps == {}
    assert disk.chunks.bytes_used() == 0


def test_a_stalled_disk_ends_nothing_until_it_goes_on(clock: Clock, drive: Drive) -> None:
    """Everything that fell due meanwhile comes then, in its order."""
    disk, order = drive.open(), []
    drive.stalled = True
    for number in range(5):
        commit(disk, put(b"%d" % number)).addCallback(lambda _, number=number: order.append(number))
    disk.chunks.write(digest_of(b"data"), b"data").addCallback(lambda _: order.append("chunk"))
    clock.advance(LONG_S)
    assert (order, keys(disk)) == ([], [])
    drive.stalled = False
    for _ in range(100):
        clock.advance(0.01)
    assert sorted(order, key=str) == [0, 1, 2, 3, 4, "chunk"]
    assert [number for number in order if number != "chunk"] == [0, 1, 2, 3, 4]


def test_what_fell_due_in_a_stall_keeps_its_order(clock: Clock) -> None:
    """First what was due first; what falls due while the rest is taken up, after it."""
    pace = Pace(clock, random.Random(0), (0.0, 0.0), stalled=True)
    process, taken = Process(pace, []), []
    for number in (3, 1, 2):
        process.later(number, partial(taken.append, number))
    clock.pump([1.0] * 4)
    assert taken == []
    pace.stalled = False
    process.resume()
    process.later(0, partial(taken.append, 4))
    clock.advance(0)
    assert taken == [1, 2, 3, 4]


def test_a_slow_disk_takes_that_much_longer(clock: Clock) -> None:
    """The factor is on every latency."""
    taken = []
    for slow in (1.0, 50.0):
        clock = Clock()
        drive = drive_on(clock)
        drive.slow = slow
        wait(clock, commit(drive.open(), put(b"a")))
        taken.append(clock.seconds())
    assert taken[1] == pytest.approx(50 * taken[0])


def test_a_flipped_chunk_is_corrupt_also_after_a_crash_and_can_be_healed(
    clock: Clock, drive: Drive
) -> None:
    """Exactly one bit of the stored bytes is turned, on the platter too."""
    disk = drive.open()
    assert drive.flip_chunk(random.Random(1)) is None
    digest = store(clock, disk, b"data")
    said = drive.flip_chunk(random.Random(1))
    assert said is not None
    assert digest.hex() in said
    drive.crash()
    disk = drive.open()
    changed = int.from_bytes(drive.chunks_durable[digest]) ^ int.from_bytes(b"data")
    assert changed.bit_count() == 1
    assert isinstance(failure(clock, disk.chunks.read(digest)), Corrupt)
    store(clock, disk, b"data")
    assert wait(clock, disk.chunks.read(digest)) == b"data"


def test_a_flipped_record_is_one_bit_off(clock: Clock, drive: Drive) -> None:
    """Only values in the tables of records are touched, and the description names the place."""
    disk = drive.open()
    wait(clock, commit(disk, put(b"m", table="meta"), put(b"mark", b"")))
    assert drive.flip_record(random.Random(1)) is None
    wait(clock, commit(disk, put(b"k", b"value", "held")))
    said = drive.flip_record(random.Random(1))
    assert said is not None
    assert b"k".hex() in said
    data = disk.engine.view().get("held", b"k")
    assert data is not None
    assert (int.from_bytes(data) ^ int.from_bytes(b"value")).bit_count() == 1


def test_a_directory_is_wiped_copied_and_put_back(clock: Clock, drive: Drive) -> None:
    """A snapshot stays what it was, may be put back twice, and is durable then."""
    disk = drive.open()
    wait(clock, commit(disk, put(b"a")))
    digest = store(clock, disk, b"data")
    for misuse in (drive.wipe, drive.snapshot):
        with pytest.raises(RuntimeError):
            misuse()
    drive.kill()
    snapshot = drive.snapshot()
    wait(clock, commit(drive.open(), put(b"c")))
    drive.kill()
    for _ in range(2):
        drive.wipe()
        disk = drive.open()
        assert (keys(disk), drive.written().chunks, drive.chunks_durable) == ([], {}, {})
        drive.kill()
        drive.roll_back(snapshot)
        disk = drive.open()
        assert (keys(disk), drive.chunks_durable) == ([b"a"], {digest: b"data"})
        wait(clock, commit(disk, put(b"b")))
        store(clock, disk, b"more")
        drive.kill()


def test_the_checker_is_told_of_every_change(clock: Clock, drive: Drive) -> None:
    """`on_commit` hears what was before and after, once, and not of what changed nothing."""
    told: list[Changes] = []
    drive.on_commit = told.append
    disk = drive.open()

    def fail(txn: Any) -> None:
        txn.put("meta", b"m", b"bad")
        raise ValueError

    wait(clock, commit(disk, put(b"a", b"1"), fail))
    wait(clock, commit(disk, put(b"a", b"1")))
    wait(clock, commit(disk, put(b"a", b"2"), lambda txn: txn.delete("records", b"none")))
    assert told == [
        {"records": {b"a": (None, b"1")}},
        {"records": {b"a": (b"1", b"2")}},
    ]


# The whole.


CHUNKS = [*in_one_directory(12), *(b"%d" % number for number in range(12))]


class Story:
    """A node that commits numbers in order and stores chunks, on a drive that ends it again and
    again. Commit n writes n to two tables and moves a counter."""

    def __init__(self, seed: int) -> None:
        self.clock = Clock()
        self.rng = random.Random(seed)
        self.drive = drive_on(self.clock, seed)
        self.disk = self.drive.open()
        self.told: list[Changes] = []
        self.drive.on_commit = self.told.append
        self.next = 0
        self.acked: list[int] = []
        self.chunks_acked: set[bytes] = set()
        self.chunks_asked: Counter[bytes] = Counter()
        self.log: list[object] = []

    def commit(self) -> None:
        number, self.next = self.next, self.next + 1
        key = b"%06d" % number

        def job(txn: Any) -> None:
            txn.put("meta", b"last", key)

        done = commit(self.disk, put(key), job, put(key, table="held"))
        done.addCallback(lambda _: self.acked.append(number))

    def chunk(self) -> None:
        data = self.rng.choice(CHUNKS)
        digest = digest_of(data)
        self.chunks_asked[digest] += 1

        def stored(_: None) -> None:
            self.chunks_asked[digest] -= 1
            self.chunks_acked.add(digest)

        self.disk.chunks.write(digest, data).addCallback(stored)

    def delete(self) -> None:
        # One that is being written at the time may be gone or not.
        free = sorted(digest for digest in self.chunks_acked if not self.chunks_asked[digest])
        if free:
            digest = self.rng.choice(free)
            self.chunks_acked.discard(digest)
            self.disk.chunks.delete(digest)

    def end(self, kind: str) -> None:
        getattr(self.drive, kind)()
        self.disk = self.drive.open()
        self.check()
        self.chunks_asked.clear()
        self.next = len(keys(self.disk))
        self.acked = list(range(self.next))
        self.disk.chunks.sweep(lambda digest: True)

    def check(self) -> None:
        there = [int(key) for key in keys(self.disk)]
        # In order: no commit without all before it. Answered: all there. Whole: both tables.
        assert there == list(range(len(there)))
        assert self.acked == list(range(len(self.acked)))
        assert len(there) >= len(self.acked)
        assert keys(self.disk) == keys(self.disk, "held")
        last = self.disk.engine.view().get("meta", b"last")
        assert last == (b"%06d" % (len(there) - 1) if there else None)
        assert self.drive.chunks_durable.keys() >= self.chunks_acked
        for picture in (self.drive.written(), self.drive.durable()):
            for digest, data in picture.chunks.items():
                assert digest_of(data) == digest
        told = [key for one in self.told for key in one.get("records", {})]
        assert told == keys(self.disk)
        self.log.append((self.clock.seconds(), there, sorted(self.chunks_acked)))

    def wait(self, seconds: float) -> None:
        until = self.clock.seconds() + seconds
        while self.clock.calls and self.clock.calls[0].getTime() <= until:
            step(self.clock)
            self.check()
        self.clock.advance(max(0.0, until - self.clock.seconds()))


STEPS = st.lists(
    st.one_of(
        st.sampled_from(["commit", "commit", "chunk", "chunk", "delete"]),
        st.sampled_from(["crash", "kill"]),
        st.floats(0, 0.003),
    ),
    max_size=60,
)


def tell(seed: int, steps: list[Any]) -> Story:
    story = Story(seed)
    for one in steps:
        if isinstance(one, float):
            story.wait(one)
        elif one in ("crash", "kill"):
            story.end(one)
        else:
            getattr(story, one)()
    story.wait(LONG_S)
    assert len(story.acked) == story.next
    return story


@given(seed=st.integers(0, 1000), steps=STEPS)
def test_what_was_answered_survives_whole_and_in_order(seed: int, steps: list[Any]) -> None:
    """Whatever is done and whenever power goes: every answered commit and chunk is there, no
    commit is half there, none without those before it; and the same seed tells the same story."""
    first, second = tell(seed, steps), tell(seed, steps)
    assert first.log == second.log
    assert first.drive.counts == second.drive.counts


@given(
    rows=st.dictionaries(st.binary(min_size=1, max_size=1), st.just(b"old"), max_size=6),
    turns=st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.booleans()), max_size=12),
    taken=st.integers(0, 6),
    start=st.binary(max_size=1),
)
def test_a_scan_goes_on_in_its_picture_whatever_is_committed(
    rows: dict[bytes, bytes], turns: list[tuple[bytes, bool]], taken: int, start: bytes
) -> None:
    """A scan begun before, amid or after commits gives the rows as the view was taken."""
    clock = Clock()
    disk = drive_on(clock).open()
    disk.engine.commit([put(key, value) for key, value in rows.items()])
    view = disk.engine.view()
    items, seen = view.scan("records", start), []
    for number, (key, there) in enumerate(turns):
        if number >= taken:
            seen += [item for _, item in zip(range(1), items, strict=False)]
        disk.engine.commit([put(key, b"new") if there else lambda t, k=key: t.delete("records", k)])
    seen += items
    assert seen == sorted((key, value) for key, value in rows.items() if key >= start)


def test_a_nodes_copies_live_on_it(clock: Clock, drive: Drive) -> None:
    """The parts of a real node, on the drive through a crash: the record and its chunk are there,
    the chunk nobody refers to is swept."""
    copies = copies_on(clock, drive.open())
    disk_chunks = copies.chunks
    digests = [digest_of(data) for data in (b"used", b"unused")]
    wait(clock, disk_chunks.write(digests[0], b"used"))
    wait(clock, disk_chunks.write(digests[1], b"unused"))
    asked: dict[str, Any] = {"actor": "me", "stamp": 1, "context": None}
    wait(clock, copies.coordinate(b"bucket-1", b"k", draft("w", b"", digests[0]), **asked))

    drive.crash()
    copies = copies_on(clock, drive.open())

    assert copies.sweep() == 1
    (version,) = copies.read(b"bucket-1", b"k").versions
    assert version.chunks == (digests[0],)
    assert wait(clock, copies.chunks.read(digests[0])) == b"used"
    assert not copies.chunks.has(digests[1])


def copies_on(clock: Clock, disk: Disk) -> Copies:
    return Copies(
        engine=disk.engine,
        committer=Committer(disk.engine, disk.run, call_later=clock.callLater),
        chunks=disk.chunks,
        alone=disk.run,
        observe=lambda stamp: None,
        hints=HintBook(disk.engine.view()),
        places=PlaceBook(disk.engine.view()),
    )
