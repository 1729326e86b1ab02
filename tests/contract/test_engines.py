"""What every engine promises, asked of each of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dynamo.errors import DynamoError, NoSuchFile, StorageFault, StorageFull
from dynamo.storage.engine import KEY_BYTES_MAX, TABLES, Engine, Job, Transaction
from dynamo.storage.jobs import frees_space
from dynamo.storage.lmdb_engine import LmdbEngine
from dynamo.storage.memory_engine import MemoryEngine
from tests.support.sim_disk import WaitingEngine

THREADED = ["lmdb", "memory"]
"""The engines that may be read in one thread while another commits; in the simulator is one."""


@pytest.fixture(params=[*THREADED, "sim"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    make: dict[str, Callable[[], Engine]] = {
        "lmdb": lambda: LmdbEngine(tmp_path / "db"),
        "memory": MemoryEngine,
        "sim": WaitingEngine,
    }
    made = make[request.param]()
    yield made
    made.close()


@pytest.fixture(params=["lmdb", "memory", "sim"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine with room for about a megabyte."""
    make: dict[str, Callable[[], Engine]] = {
        "lmdb": lambda: LmdbEngine(tmp_path / "db", map_bytes=2 << 20, reserve_bytes=512 << 10),
        "memory": lambda: MemoryEngine(bytes_max=1 << 20),
        "sim": lambda: WaitingEngine(bytes_max=1 << 20),
    }
    made = make[request.param]()
    yield made
    made.close()


def put(key: bytes, value: bytes, table: str = "records") -> Job:
    return lambda t: t.put(table, key, value)


def delete(*keys: bytes, table: str = "records") -> Job:
    def job(t: Transaction) -> None:
        for key in keys:
            t.delete(table, key)

    return frees_space(job)


def everything(engine: Engine, table: str = "records") -> dict[bytes, bytes]:
    return dict(engine.view().scan(table, b""))


def test_a_key_that_was_never_put_reads_as_none(engine: Engine) -> None:
    """`get` of what is not there, or cannot be there, is None."""
    view = engine.view()
    for key in (b"a", b"", b"k" * (KEY_BYTES_MAX + 1)):
        assert view.get("records", key) is None


def test_a_read_sees_the_last_commit(engine: Engine) -> None:
    """A view made after a commit shows all of it, and gives bytes."""
    for value in (b"1", b"22", b""):
        assert engine.commit([put(b"a", value)]) == [None]
        assert engine.view().get("records", b"a") == value
        assert type(engine.view().get("records", b"a")) is bytes


def test_a_view_stays_one_picture(engine: Engine) -> None:
    """What is committed while a view is held does not show in it, in `get` or in a `scan`."""
    engine.commit([put(b"a", b"old"), put(b"c", b"old")])
    view = engine.view()
    items = view.scan("records", b"")
    first = next(items)

    engine.commit([put(b"a", b"new"), put(b"b", b"new"), delete(b"c")])

    assert view.get("records", b"a") == b"old"
    assert [first, *items] == [(b"a", b"old"), (b"c", b"old")]
    assert everything(engine) == {b"a": b"new", b"b": b"new"}


def test_tables_are_apart(engine: Engine) -> None:
    """The same key in two tables is two keys."""
    engine.commit([put(b"k", table.encode(), table) for table in TABLES])
    for table in TABLES:
        assert everything(engine, table) == {b"k": table.encode()}


def test_scan_goes_in_byte_order_within_its_bounds(engine: Engine) -> None:
    """A scan gives [start, stop), by unsigned bytes, shorter before longer."""
    keys = [b"\x00", b"a", b"a\x00", b"aa", b"b", b"\x80", b"\xff", b"\xff\xff"]
    engine.commit([put(key, b"v" + key) for key in reversed(keys)])
    view = engine.view()

    assert [k for k, _ in view.scan("records", b"")] == keys
    assert [k for k, _ in view.scan("records", b"a", b"b")] == [b"a", b"a\x00", b"aa"]
    assert [k for k, _ in view.scan("records", b"a\x00\x00")] == keys[3:]
    assert list(view.scan("records", b"b", b"b")) == []
    assert list(view.scan("records", b"b", b"a")) == []
    assert list(view.scan("records", b"\xff\xff\xff")) == []
    assert list(view.scan("hints", b"")) == []
    assert all(value == b"v" + key for key, value in view.scan("records", b""))


def test_jobs_see_their_own_and_earlier_changes(engine: Engine) -> None:
    """Inside a commit, `get` and `scan` show what this job and those before it wrote."""
    engine.commit([put(b"a", b"1"), put(b"b", b"1")])

    def later(t: Transaction) -> Any:
        t.put("records", b"c", b"3")
        return t.get("records", b"a"), t.get("records", b"b"), dict(t.scan("records", b""))

    outcomes = engine.commit([put(b"a", b"2"), delete(b"b"), later])

    assert outcomes[2] == (b"2", None, {b"a": b"2", b"c": b"3"})


def test_a_job_may_write_where_it_scans(engine: Engine) -> None:
    """A scan goes on behind the last key it gave, whatever was put or deleted meanwhile."""
    keys = [b"%03d" % number for number in range(200)]
    engine.commit([put(key, b"x" * 100) for key in keys])

    def job(t: Transaction) -> list[bytes]:
        seen = []
        for key, _ in t.scan("records", b"", b"500"):
            seen.append(key)
            t.delete("records", key)
            t.put("records", b"9" + key, b"behind the stop")
        return seen

    assert engine.commit([job]) == [keys]
    assert list(everything(engine)) == [b"9" + key for key in keys]


def test_a_refusal_before_the_first_write_is_the_outcome(engine: Engine) -> None:
    """A `DynamoError` is handed back as it was raised and changes nothing for the others."""
    refusal = NoSuchFile("b", "k")

    def refuse(t: Transaction) -> None:
        assert t.get("records", b"a") == b"1"
        raise refusal

    outcomes = engine.commit([put(b"a", b"1"), refuse, put(b"b", b"2")])

    assert outcomes == [None, refusal, None]
    assert everything(engine) == {b"a": b"1", b"b": b"2"}


@pytest.mark.parametrize("error", [ValueError("bug"), DynamoError("late"), KeyError(1)])
def test_a_job_that_raises_is_undone_alone(engine: Engine, error: Exception) -> None:
    """Puts over old, new and same-batch keys and deletes are all taken back; the rest stays."""
    engine.commit([put(b"old", b"0"), put(b"gone", b"0")])

    def fail(t: Transaction) -> None:
        t.put("records", b"old", b"bad")
        t.put("records", b"old", b"worse")
        t.put("records", b"new", b"bad")
        t.put("records", b"batch", b"bad")
        t.put("meta", b"m", b"bad")
        t.delete("records", b"gone")
        t.delete("records", b"batch")
        raise error

    outcomes = engine.commit([put(b"batch", b"1"), fail, put(b"after", b"1")])

    assert outcomes == [None, error, None]
    assert everything(engine) == {b"old": b"0", b"gone": b"0", b"batch": b"1", b"after": b"1"}
    assert everything(engine, "meta") == {}


def test_a_batch_of_failures_leaves_nothing(engine: Engine) -> None:
    """A commit in which every job fails is no change at all."""
    engine.commit([put(b"a", b"1")])

    def fail(t: Transaction) -> None:
        t.delete("records", b"a")
        raise ValueError

    assert all(isinstance(outcome, ValueError) for outcome in engine.commit([fail] * 50))
    assert everything(engine) == {b"a": b"1"}


def test_outcomes_come_in_the_order_of_the_jobs(engine: Engine) -> None:
    """Result i belongs to job i, and an empty commit has no results."""

    def number(i: int) -> Job:
        return lambda t: i

    assert engine.commit([number(i) for i in range(100)]) == list(range(100))
    assert engine.commit([]) == []


def test_the_longest_key_and_one_too_long(engine: Engine) -> None:
    """A key of 511 bytes is kept whole; a longer or an empty one is refused to its job alone."""
    longest = b"k" * KEY_BYTES_MAX
    outcomes = engine.commit([put(longest, b"v"), put(longest + b"k", b"v"), put(b"", b"v")])

    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, ValueError]
    assert everything(engine) == {longest: b"v"}
    assert engine.commit([lambda t: list(t.scan("records", longest))]) == [[(longest, b"v")]]
    assert engine.commit([delete(b"", longest + b"k")]) == [None]


def test_values_of_a_megabyte(engine: Engine) -> None:
    """Values up to 1 MiB come back as they were, also when replaced by other sizes."""
    big = bytes(range(256)) * 4096
    engine.commit([put(b"a", big), put(b"b", b""), put(b"c", big[:5000])])
    assert everything(engine) == {b"a": big, b"b": b"", b"c": big[:5000]}
    engine.commit([put(b"a", b""), put(b"b", big)])
    assert everything(engine) == {b"a": b"", b"b": big, b"c": big[:5000]}


def test_deleting_what_is_not_there_is_nothing(engine: Engine) -> None:
    """`delete` of an absent key neither fails nor counts as a change."""
    assert engine.commit([delete(b"a", b"a")]) == [None]
    assert everything(engine) == {}


def test_a_full_disk_refuses_growth_and_keeps_the_rest(small: Engine) -> None:
    """Growing jobs fail with `StorageFull` and leave nothing half-written; reads go on; jobs
    that free space work in the same batch; and what they freed can be written again."""
    number, full = 0, False
    while not full:
        outcomes = small.commit([put(b"%04d" % (number + i), b"v" * 9000) for i in range(4)])
        full = any(isinstance(outcome, StorageFull) for outcome in outcomes)
        number += 0 if full else 4
        assert number < 400, "the disk never filled"
    assert all(isinstance(outcome, StorageFull) for outcome in outcomes)
    held = everything(small)
    assert sorted(held) == [b"%04d" % i for i in range(number)]
    assert set(held.values()) == {b"v" * 9000}

    victims = [b"%04d" % i for i in range(number // 2)]
    huge = b"v" * 700_000
    outcomes = small.commit([put(b"x", huge), delete(*victims), put(b"y", huge)])
    assert [type(outcome) for outcome in outcomes] == [StorageFull, type(None), StorageFull]
    assert len(everything(small)) == number - len(victims)

    assert small.commit([put(b"x", b"v" * 9000), put(b"y", b"v" * 9000)]) == [None, None]
    assert small.view().get("records", b"x") == b"v" * 9000


def test_a_job_cannot_hide_a_failing_store(small: Engine) -> None:
    """A job that swallows the store's error does not get its half of the writes committed."""
    keys = [b"%04d" % i for i in range(600)]

    def swallow(t: Transaction) -> None:
        for key in keys:
            try:
                t.put("records", key, b"v" * 9000)
            except Exception:
                return

    assert isinstance(small.commit([swallow])[0], StorageFull)
    assert everything(small) == {}


def test_bytes_used_follows_what_is_stored(engine: Engine) -> None:
    """The size is known without reading everything, and covers at least the values."""
    engine.commit([put(b"%d" % i, b"v" * 10_000) for i in range(100)])
    assert engine.bytes_used() >= 1_000_000


def test_a_closed_engine_says_so(engine: Engine) -> None:
    """After `close` every use is a `StorageFault`, also of a view held over it; closing again
    is nothing."""
    engine.commit([put(b"a", b"1")])
    view = engine.view()
    engine.close()
    engine.close()
    uses: list[Callable[[], object]] = [
        engine.view,
        lambda: engine.commit([put(b"b", b"1")]),
        lambda: view.get("records", b"a"),
    ]
    for use in uses:
        with pytest.raises(StorageFault):
            use()


def test_a_commit_of_readers_sees_what_is_committed(engine: Engine) -> None:
    """A commit that writes nothing still answers."""
    engine.commit([put(b"a", b"1")])
    assert engine.commit([lambda t: t.get("records", b"a")]) == [b"1"]


def test_the_number_of_commits_grows_with_each(engine: Engine) -> None:
    before = engine.number()
    engine.commit([put(b"a", b"1")])
    first = engine.number()
    engine.commit([put(b"a", b"2"), put(b"b", b"2")])
    assert before < first < engine.number()


def test_the_number_outlives_a_restart(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "db")
    for value in (b"1", b"2", b"3"):
        engine.commit([put(b"a", value)])
    number = engine.number()
    engine.close()
    again = LmdbEngine(tmp_path / "db")
    assert again.number() >= number
    again.close()


@pytest.fixture
def nervous() -> Iterator[None]:
    """Threads take turns very often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("engine", THREADED, indirect=True)
@pytest.mark.usefixtures("nervous")
def test_reading_while_another_thread_commits(engine: Engine) -> None:
    """Every view shows a whole commit: two keys written together are always equal."""
    enough = threading.Event()
    outcomes: list[Any] = []

    def write() -> None:
        while not enough.is_set():
            number = len(outcomes)
            value = b"%d" % number * 50
            jobs = [put(b"a", value), put(b"m%d" % (number % 7), value), put(b"z", value)]
            outcomes.append(engine.commit(jobs))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(500):
            view = engine.view()
            items = dict(view.scan("records", b""))
            assert items.get(b"a") == items.get(b"z") == view.get("records", b"a")
            assert view.get("records", b"z") == view.get("records", b"a")
    finally:
        enough.set()
        writer.join()
    assert outcomes == [[None] * 3] * len(outcomes)
