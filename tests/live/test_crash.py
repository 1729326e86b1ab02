"""Kill -9 in the middle of commits, again and again, on one data directory.

A kill proves that nothing is half-visible and that what was acknowledged is in the kernel's hands;
that it is beyond them is `test_chunks` (order of syncs) and LMDB's own promise.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dynamo.errors import StorageFault
from dynamo.storage.chunks import FileChunks, digest_of
from dynamo.storage.lmdb_engine import LmdbEngine
from dynamo.storage.threads import run_here
from tests.live.storage_child import chunk_of, is_deleted_by, key_of

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
SEED = 20070


def start(directory: Path, first: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.live.storage_child", str(directory), str(first)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def kill_after(child: subprocess.Popen[bytes], answers: int, spin: int) -> int:
    """Kills the child some moments after so many answers; returns the last number it claimed."""
    assert child.stdout is not None
    last = -1
    for _ in range(answers):
        last = int(child.stdout.readline())
    for _ in range(spin):
        pass
    child.kill()
    for line in child.stdout:
        last = int(line)
    child.wait()
    child.stdout.close()
    return last


def check(directory: Path, claimed: int) -> int:
    """Everything claimed is whole, nothing else is half there; returns the last number stored."""
    engine = LmdbEngine(directory / "db", reserve_bytes=0)
    chunks = FileChunks(directory / "chunks", run_here)
    view = engine.view()
    records = dict(view.scan("records", b""))
    refs = dict(view.scan("refs", b""))
    last = max((int(key) for key in records), default=-1)

    assert last in (claimed, claimed + 1), "one batch at most was in the disk's hands"
    deleted = {is_deleted_by(number) for number in range(last + 1)}
    alive = [number for number in range(last + 1) if number not in deleted]
    digests = {number: digest_of(chunk_of(number)) for number in alive}
    assert records == {key_of(number): digest for number, digest in digests.items()}
    assert refs == {digest: key_of(number) for number, digest in digests.items()}

    chunks.sweep(refs.__contains__)
    for number, digest in digests.items():
        heard: list[Any] = []
        chunks.read(digest).addBoth(heard.append)
        assert heard == [chunk_of(number)]
    files = [path for path in (directory / "chunks").rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == sorted(d.hex() for d in digests.values())
    assert chunks.bytes_used() == sum(path.stat().st_size for path in files)
    engine.close()
    return last


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    """After each of several kills at seeded moments every claimed batch is there and whole, no
    batch is half-visible, and what the killed process left unfinished is swept."""
    rng = random.Random(SEED)
    first = 0
    for _ in range(8):
        child = start(tmp_path, first)
        claimed = kill_after(child, rng.randrange(1, 60), rng.randrange(0, 300_000))
        first = check(tmp_path, claimed) + 1
    assert first > 50


def test_one_process_owns_the_directory(tmp_path: Path) -> None:
    """A second process, or a second engine here, is told who has it; after a kill it is free."""
    child = start(tmp_path, 0)
    try:
        with pytest.raises(StorageFault, match=rf"in use by another process \(pid {child.pid}\)"):
            LmdbEngine(tmp_path / "db")
    finally:
        kill_after(child, 1, 0)
    engine = LmdbEngine(tmp_path / "db")
    with pytest.raises(StorageFault, match="in use"):
        LmdbEngine(tmp_path / "db")
    engine.close()
    LmdbEngine(tmp_path / "db").close()
