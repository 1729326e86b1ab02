"""What only the engine on disk promises: readers that pin nothing, faults, one owner."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynamo.errors import Corrupt, StorageFault, StorageFull
from dynamo.storage import lmdb_engine
from dynamo.storage.engine import Job
from dynamo.storage.lmdb_engine import LmdbEngine
from dynamo.storage.lmdb_view import LmdbView


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LmdbEngine]:
    made = LmdbEngine(tmp_path / "db")
    yield made
    made.close()


def put(key: bytes, value: bytes) -> Job:
    return lambda t: t.put("records", key, value)


def rewrite(engine: LmdbEngine, times: int) -> None:
    for _ in range(times):
        assert engine.commit([put(b"k", os.urandom(20_000))]) == [None]


def test_dropped_views_let_pages_be_used_again(engine: LmdbEngine) -> None:
    """Reading between commits does not make the file grow."""
    rewrite(engine, 20)
    size = engine.bytes_used()
    for _ in range(200):
        assert engine.view().get("records", b"k") is not None
        assert len(list(engine.view().scan("records", b""))) == 1
        rewrite(engine, 1)
    assert engine.bytes_used() <= 2 * size


def test_a_forgotten_view_is_closed(engine: LmdbEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view held over very many commits fails its holder instead of pinning pages for ever; a
    younger one, and one that another thread may be using, are left alone."""
    monkeypatch.setattr(lmdb_engine, "VIEW_COMMITS_MAX", 10)
    monkeypatch.setattr(lmdb_engine, "VIEWS_WATCHED_MAX", 4)
    rewrite(engine, 1)
    forgotten = engine.view()
    elsewhere: list[LmdbView] = []
    thread = threading.Thread(target=lambda: elsewhere.append(engine.view()))
    thread.start()
    thread.join()
    rewrite(engine, 10)
    young = engine.view()
    rewrite(engine, 1)
    for _ in range(5):
        engine.view()

    with pytest.raises(StorageFault):
        forgotten.get("records", b"k")
    with pytest.raises(StorageFault):
        list(forgotten.scan("records", b""))
    assert young.get("records", b"k") is not None
    assert elsewhere.pop().get("records", b"k") is not None


def test_a_failing_disk_is_an_outcome_and_not_the_end(engine: LmdbEngine) -> None:
    """When the system refuses a write in the middle of a commit, the jobs fail, nothing of them
    is there, reads go on, and the next commit is stored."""
    rewrite(engine, 1)
    before = engine.view().get("records", b"k")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        outcomes = engine.commit([put(b"%d" % n, b"v" * 200_000) for n in range(20)])
        assert engine.view().get("records", b"k") == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert all(isinstance(outcome, StorageFault) for outcome in outcomes)
    assert [key for key, _ in engine.view().scan("records", b"")] == [b"k"]
    rewrite(engine, 2)


def test_a_store_whose_directory_is_gone_says_so(
    engine: LmdbEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the system outside LMDB is the jobs' outcome too."""

    def broken(path: str) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(lmdb_engine, "bytes_free", broken)
        outcome = engine.commit([put(b"a", b"1")])[0]
    assert type(outcome) is StorageFault
    assert engine.commit([put(b"a", b"1")]) == [None]


def test_room_is_looked_at_before_each_commit(
    engine: LmdbEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less than the reserve nothing grows; with enough it does again."""
    for free, kind in ((1 << 20, StorageFull), (1 << 30, type(None)), (0, StorageFull)):
        monkeypatch.setattr(lmdb_engine, "bytes_free", lambda path, free=free: free)
        assert [type(outcome) for outcome in engine.commit([put(b"a", b"1")])] == [kind]


@pytest.mark.parametrize("content", [b"\xff" * 8192, b"not a store" * 1000])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    """Opening garbage is `Corrupt`, and the lock is let go."""
    (tmp_path / "data.mdb").write_bytes(content)
    for _ in range(2):
        with pytest.raises(Corrupt, match="damaged"):
            LmdbEngine(tmp_path)
    (tmp_path / "data.mdb").unlink()
    LmdbEngine(tmp_path).close()


def test_only_the_owner_may_read_the_files(engine: LmdbEngine, tmp_path: Path) -> None:
    """What clients stored is not readable by other users of the machine."""
    rewrite(engine, 1)
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "db").iterdir()} == {0}


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    """Closing and opening loses nothing and keeps tables apart."""
    engine = LmdbEngine(tmp_path)
    engine.commit([put(b"a", b"1"), lambda t: t.put("meta", b"a", b"2")])
    engine.close()
    engine = LmdbEngine(tmp_path)
    assert engine.view().get("records", b"a") == b"1"
    assert engine.view().get("meta", b"a") == b"2"
    engine.close()
