"""A file system that is really full: a small tmpfs where this may be mounted.

Where it may not, the same steps run with a limit on the size of the store and a faked `statvfs`,
so that the promise is asked for everywhere.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dynamo.errors import StorageFull
from dynamo.storage import lmdb_engine
from dynamo.storage.chunks import FileChunks, digest_of
from dynamo.storage.engine import Job
from dynamo.storage.jobs import frees_space
from dynamo.storage.lmdb_engine import LmdbEngine
from dynamo.storage.threads import run_here

pytestmark = pytest.mark.live

DISK_BYTES = 16 << 20
VALUE = b"v" * 10_000


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on a file system of 16 MiB, or one that says it is."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(tmp_path)]
    try:
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:

        def room(path: str) -> int:
            used = sum(f.stat().st_blocks * 512 for f in tmp_path.rglob("*") if f.is_file())
            return max(0, DISK_BYTES - used)

        monkeypatch.setattr(lmdb_engine, "bytes_free", room)
    yield tmp_path
    if mounted:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def put(key: bytes, value: bytes = VALUE) -> Job:
    return lambda t: t.put("records", key, value)


def delete(key: bytes) -> Job:
    return frees_space(lambda t: t.delete("records", key))


def fill(engine: LmdbEngine, make: Callable[[int], Job]) -> int:
    """Commits until the disk is full; returns how many were stored."""
    for number in range(5000):
        outcome = engine.commit([make(number)])[0]
        if isinstance(outcome, StorageFull):
            return number
        assert outcome is None
    raise AssertionError("the disk never filled")


def is_tmpfs(path: Path) -> bool:
    return os.path.ismount(path)


@pytest.mark.parametrize("reserve_bytes", [1 << 20, 0])
def test_the_store_lives_through_a_full_disk(disk: Path, reserve_bytes: int) -> None:
    """With and without a reserve, growing stops with `StorageFull`, what was stored stays and
    is read, deletes work, what they free is written again, and a restart finds it all."""
    if reserve_bytes == 0 and not is_tmpfs(disk):
        pytest.skip("without a real full disk there is no ENOSPC to meet")
    engine = LmdbEngine(disk / "db", reserve_bytes=reserve_bytes)
    stored = fill(engine, lambda number: put(b"%05d" % number))
    assert stored > 500
    for _ in range(3):
        assert isinstance(engine.commit([put(b"more")])[0], StorageFull)
    assert [key for key, _ in engine.view().scan("records", b"")] == [
        b"%05d" % number for number in range(stored)
    ]

    for number in range(0, stored, 2):
        assert engine.commit([delete(b"%05d" % number)]) == [None]
    again = [engine.commit([put(b"again %03d" % number)])[0] for number in range(stored // 8)]
    assert again == [None] * len(again)

    engine.close()
    engine = LmdbEngine(disk / "db", reserve_bytes=reserve_bytes)
    kept = dict(engine.view().scan("records", b""))
    assert len(kept) == stored // 2 + len(again)
    assert set(kept.values()) == {VALUE}
    engine.close()


def test_a_disk_that_fills_during_the_commit(disk: Path) -> None:
    """When somebody takes the room after it was looked at, the system's own refusal is
    `StorageFull` too, nothing of the batch is there, and the store goes on."""
    if not is_tmpfs(disk):
        pytest.skip("without a real full disk there is no ENOSPC to meet")
    engine = LmdbEngine(disk / "db", reserve_bytes=1 << 20)
    engine.commit([put(b"old")])
    ballast = disk / "ballast"

    def crowd(t: Any) -> None:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"b" * 10_000) == 10_000:
                pass
        t.put("records", b"crowded", VALUE * 20)

    outcomes = engine.commit([put(b"a"), crowd, put(b"b")])
    assert [type(outcome) for outcome in outcomes] == [StorageFull] * 3
    assert list(engine.view().scan("records", b"")) == [(b"old", VALUE)]
    ballast.unlink()
    assert engine.commit([delete(b"old"), put(b"new")]) == [None, None]
    engine.close()


def test_the_reserve_is_kept(disk: Path) -> None:
    """However the last commits grow, the reserve is left for deleting."""
    engine = LmdbEngine(disk / "db", reserve_bytes=2 << 20)
    fill(engine, lambda number: put(b"%05d" % number, b"v" * 300_000))
    fill(engine, lambda number: put(b"small %05d" % number, b"v" * 3_000))
    assert lmdb_engine.bytes_free(str(disk)) >= 2 << 20
    engine.close()


def test_room_elsewhere_lets_writes_go_on(disk: Path) -> None:
    """When another file goes, the next commit is stored, without a restart."""
    engine = LmdbEngine(disk / "db", reserve_bytes=1 << 20)
    (disk / "ballast").write_bytes(b"b" * (10 << 20))
    fill(engine, lambda number: put(b"%05d" % number))
    (disk / "ballast").unlink()
    assert engine.commit([put(b"more")]) == [None]
    assert engine.view().get("records", b"more") == VALUE
    engine.close()


def test_chunks_on_a_full_disk(disk: Path) -> None:
    """Chunks fill the disk up to the reserve and leave no temporary file; the ordered store can
    still delete, and a chunk can be written when one has gone."""
    reserve = 1 << 20 if is_tmpfs(disk) else 1 << 40
    engine = LmdbEngine(disk / "db", reserve_bytes=1 << 20)
    engine.commit([put(b"a"), put(b"b")])
    chunks = FileChunks(disk / "chunks", run_here, reserve_bytes=reserve)
    digests: list[bytes] = []
    heard: list[Any] = [None]
    while heard.pop() is None:
        data = b"%08d" % len(digests) * (1 << 16)
        digests.append(digest_of(data))
        chunks.write(digests[-1], data).addBoth(heard.append)
        heard = [getattr(answer, "value", answer) for answer in heard]
        failure = heard[-1]
    assert isinstance(failure, StorageFull)
    assert not list((disk / "chunks" / "tmp").iterdir())
    assert chunks.bytes_used() == (len(digests) - 1) * (1 << 19)
    assert engine.commit([delete(b"a")]) == [None]

    if len(digests) > 1:
        chunks.delete(digests[0])
        chunks.write(digests[-1], data).addBoth(heard.append)
        assert heard == [None]
    engine.close()
