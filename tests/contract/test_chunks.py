"""What every chunk store promises, asked of each of them; then what only files can do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dynamo.errors import Corrupt, MissingChunks, StorageFault, StorageFull
from dynamo.sim.disk_chunks import Shelves, SimChunks
from dynamo.storage import chunks as chunks_module
from dynamo.storage import files as files_module
from dynamo.storage.chunks import Chunks, FileChunks, MemoryChunks, digest_of
from dynamo.storage.threads import run_here
from tests.support.sim_disk import WaitingChunks, step

Damage = Callable[[bytes, bytes], None]


class Fixture:
    """A chunk store, how to open it again, and how to damage what it holds."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind, self.path = kind, path
        self.stored: dict[bytes, bytes] = {}
        self.clock = Clock()
        self.shelves = Shelves(self.clock.seconds)
        self.chunks = self.open()

    def open(self) -> Chunks:
        if self.kind == "files":
            return FileChunks(self.path, run_here)
        if self.kind == "sim":
            return WaitingChunks(self.shelves, self.clock)
        return MemoryChunks(stored=self.stored)

    def damage(self, digest: bytes, data: bytes) -> None:
        if self.kind == "files":
            file_of(self.path, digest).write_bytes(data)
        elif self.kind == "sim":
            self.shelves.rot(digest, data)
        else:
            self.stored[digest] = data


@pytest.fixture(params=["files", "memory", "sim"])
def fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Fixture:
    return Fixture(request.param, tmp_path / "chunks")


def result(deferred: Deferred[Any]) -> Any:
    """What has come of a Deferred that fired; raises what it failed with."""
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    assert outcome, "it has not fired"
    if hasattr(outcome[0], "raiseException"):
        outcome[0].raiseException()
    return outcome[0]


def store(chunks: Chunks, data: bytes) -> bytes:
    digest = digest_of(data)
    assert result(chunks.write(digest, data)) is None
    return digest


def file_of(directory: Path, digest: bytes) -> Path:
    return directory / digest.hex()[:2] / digest.hex()


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


WHOLE = bytes(range(256)) * 4096
"""One mebibyte."""


@pytest.mark.parametrize(
    "data", [b"", b"a", WHOLE, WHOLE[:-1], WHOLE[:200_001], WHOLE[:131_072], WHOLE * 2 + b"tail"]
)
def test_what_is_written_is_read(fixture: Fixture, data: bytes) -> None:
    """Bytes of any size, odd ones too, come back, also after opening the store again."""
    digest = store(fixture.chunks, data)
    for chunks in (fixture.chunks, fixture.open()):
        assert result(chunks.read(digest)) == data
        assert chunks.has(digest)


def test_a_chunk_counts_as_there_when_a_power_cut_would_leave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not between its renaming and the sync of its directory: a record that names it, of somebody
    else who has the same bytes, would outlive it. Nor if that sync fails."""
    chunks, digest = FileChunks(tmp_path / "chunks", run_here), digest_of(WHOLE)
    sync, seen, broken = chunks_module.sync_directory, list[tuple[bool, bool]](), True

    def look(path: str) -> None:
        seen.append((file_of(tmp_path / "chunks", digest).exists(), chunks.has(digest)))
        if broken:
            raise OSError(errno.EIO, "The disk is ill")
        sync(path)

    monkeypatch.setattr(chunks_module, "sync_directory", look)
    with pytest.raises(StorageFault):
        result(chunks.write(digest, WHOLE))
    assert not chunks.has(digest)
    broken = False
    result(chunks.write(digest, WHOLE))
    assert seen == [(True, False), (True, False)]
    assert chunks.has(digest)
    assert FileChunks(tmp_path / "chunks", run_here).has(digest)


def test_a_simulated_chunk_counts_as_there_when_a_power_cut_would_leave_it() -> None:
    clock = Clock()
    shelves, digest = Shelves(clock.seconds), digest_of(WHOLE)
    chunks = WaitingChunks(shelves, clock)
    done, seen = SimChunks.write(chunks, digest, WHOLE), set[tuple[bool, bool, bool]]()
    while not done.called:
        seen.add((digest in shelves.live, digest in shelves.durable, chunks.has(digest)))
        step(clock)
    assert seen == {(False, False, False), (True, False, False), (True, True, True)}


def test_an_absent_chunk_is_missing(fixture: Fixture) -> None:
    """Reading it names the digest; deleting it is nothing."""
    absent = digest_of(b"never written")
    with pytest.raises(MissingChunks) as caught:
        result(fixture.chunks.read(absent))
    assert caught.value.digests == (absent,)
    assert not fixture.chunks.has(absent)
    fixture.chunks.delete(absent)


def test_bytes_that_do_not_match_are_not_stored(fixture: Fixture) -> None:
    """Receipt is verified: what is not what its name says leaves no trace."""
    digest = digest_of(b"right")
    with pytest.raises(Corrupt):
        result(fixture.chunks.write(digest, b"wrong"))
    assert not fixture.chunks.has(digest)
    assert fixture.chunks.bytes_used() == 0


@pytest.mark.parametrize("damaged", [b"rigHt", b"righ", b""])
def test_damaged_bytes_are_not_served_and_can_be_healed(fixture: Fixture, damaged: bytes) -> None:
    """A read of flipped or cut bytes fails; writing the right ones makes it whole."""
    digest = store(fixture.chunks, b"right")
    fixture.damage(digest, damaged)
    with pytest.raises(Corrupt):
        result(fixture.chunks.read(digest))

    store(fixture.chunks, b"right")

    assert result(fixture.chunks.read(digest)) == b"right"


@pytest.mark.parametrize("damaged", [b"rigHt", b"righ", b""])
def test_a_damaged_chunk_is_set_aside_by_who_reads_it(fixture: Fixture, damaged: bytes) -> None:
    """From then on it is missing: not there, not listed, not counted; and it can be written."""
    digest = store(fixture.chunks, b"right")
    fixture.damage(digest, damaged)
    chunks = fixture.open()
    assert chunks.sweep(lambda name: True) == 0
    with pytest.raises(Corrupt):
        result(chunks.read(digest))
    assert not chunks.has(digest)
    assert result(chunks.names(digest[0])) == []
    assert chunks.bytes_used() == 0
    with pytest.raises(MissingChunks):
        result(chunks.read(digest))
    store(chunks, b"right")
    assert result(chunks.read(digest)) == b"right"
    assert chunks.bytes_used() == 5


def test_the_names_that_are_there(fixture: Fixture) -> None:
    """By their first byte, in order, each once; what was deleted is not among them."""
    digests = sorted(store(fixture.chunks, b"%d" % number) for number in range(600))
    fixture.chunks.delete(digests.pop())
    found = [result(fixture.chunks.names(first)) for first in range(256)]
    assert [name for names in found for name in names] == digests
    assert all(name[0] == first for first, names in enumerate(found) for name in names)


def test_writing_again_changes_nothing(fixture: Fixture) -> None:
    """A write is idempotent, in what is stored and in what is counted."""
    digest = store(fixture.chunks, b"x" * 1000)
    store(fixture.chunks, b"x" * 1000)
    assert fixture.chunks.bytes_used() == 1000
    fixture.chunks.delete(digest)
    fixture.chunks.delete(digest)
    assert fixture.chunks.bytes_used() == 0
    assert not fixture.chunks.has(digest)


def test_sweep_keeps_what_is_wanted(fixture: Fixture) -> None:
    """It removes exactly the chunks nobody refers to, says how many, and counts the rest."""
    digests = [store(fixture.chunks, b"%d" % number * 100) for number in range(10)]
    wanted = set(digests[::2])
    chunks = fixture.open()

    assert chunks.sweep(wanted.__contains__) == 5

    assert [chunks.has(digest) for digest in digests] == [digest in wanted for digest in digests]
    assert chunks.bytes_used() == 500
    assert chunks.sweep(wanted.__contains__) == 0


def test_files_sweep_removes_leftovers_and_leaves_strangers(tmp_path: Path) -> None:
    """What an interrupted write left in `tmp/` goes; a file that is no chunk stays."""
    chunks = FileChunks(tmp_path, run_here)
    digest = store(chunks, b"kept")
    (tmp_path / "tmp" / "half.0").write_bytes(b"ke")
    (tmp_path / digest.hex()[:2] / "notes.txt").write_bytes(b"not ours")

    assert FileChunks(tmp_path, run_here).sweep(lambda d: True) == 1

    assert files_in(tmp_path) == sorted([digest.hex(), "notes.txt"])


def test_files_keep_some_damaged_ones_for_whoever_wants_to_look(tmp_path: Path) -> None:
    """In a folder of their own, not more than so many, and through restarts."""
    chunks = FileChunks(tmp_path, run_here)
    for number in range(chunks_module.ASIDE_MAX + 3):
        digest = store(chunks, b"%d" % number)
        file_of(tmp_path, digest).write_bytes(b"damaged")
        with pytest.raises(Corrupt):
            result(chunks.read(digest))
    assert FileChunks(tmp_path, run_here).sweep(lambda name: False) == 0
    kept = list((tmp_path / "quarantine").iterdir())
    assert len(kept) == chunks_module.ASIDE_MAX
    assert {path.read_bytes() for path in kept} == {b"damaged"}
    assert len(files_in(tmp_path)) == len(kept)


def test_files_a_chunk_healed_meanwhile_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer puts the right bytes there between the look and the lock."""
    chunks = FileChunks(tmp_path, run_here)
    digest = store(chunks, b"right")
    file_of(tmp_path, digest).write_bytes(b"wrong")
    looks: list[str] = []
    real = chunks_module._bytes_of

    def look(path: str) -> bytes:
        data = real(path)
        if not looks:
            file_of(tmp_path, digest).write_bytes(b"right")
        looks.append(path)
        return data

    monkeypatch.setattr(chunks_module, "_bytes_of", look)
    assert result(chunks.read(digest)) == b"right"
    assert len(looks) == 2
    assert chunks.has(digest)


@pytest.mark.parametrize(("code", "kept"), [(errno.EIO, False), (errno.EMFILE, True)])
def test_files_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kept: bool
) -> None:
    """Where the disk says so, the chunk is damaged; where the process is to blame, it is not."""
    chunks = FileChunks(tmp_path, run_here)
    digest = store(chunks, b"data")

    def refuse(*args: Any, **more: Any) -> Any:
        raise OSError(code, "no")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        answer: list[Any] = []
        chunks.read(digest).addBoth(answer.append)
    assert (answer[0].check(Corrupt) is None) is kept
    assert answer[0].check(StorageFault)
    assert chunks.has(digest) is kept


def test_files_full_disk_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the sync says there is no room the answer is `StorageFull`, the temporary file is
    gone, and the same write works when there is room."""
    chunks = FileChunks(tmp_path, run_here)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageFull):
            result(chunks.write(digest_of(b"x"), b"x"))
    assert files_in(tmp_path) == []
    assert chunks.bytes_used() == 0
    assert result(chunks.read(store(chunks, b"x"))) == b"x"


def test_files_keep_the_reserve_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that would eat into the reserve is refused before a byte is written."""
    chunks = FileChunks(tmp_path, run_here, reserve_bytes=1000)
    for free, fits in ((1099, False), (1100, True)):
        monkeypatch.setattr(chunks_module, "bytes_free", lambda path, free=free: free)
        answer: list[Any] = []
        chunks.write(digest_of(b"x" * 100), b"x" * 100).addBoth(answer.append)
        assert (answer == [None]) is fits
    assert chunks.bytes_used() == 100


def test_memory_full(tmp_path: Path) -> None:
    """The simulated disk fills and drains too."""
    chunks = MemoryChunks(bytes_max=150)
    first = store(chunks, b"a" * 100)
    with pytest.raises(StorageFull):
        result(chunks.write(digest_of(b"b" * 100), b"b" * 100))
    chunks.delete(first)
    store(chunks, b"b" * 100)


def test_files_without_direct_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that refuses writes past its cache gets them through it."""
    chunks = FileChunks(tmp_path, run_here)
    refused: list[str] = []
    real_open = os.open

    def refuse(path: str, flags: int, *rest: Any) -> int:
        if flags & files_module.O_DIRECT:
            refused.append(path)
            raise OSError(22, "Invalid argument")
        return real_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    digest = store(chunks, WHOLE)
    assert len(refused) == 1
    assert result(chunks.read(digest)) == WHOLE


def test_files_a_leftover_of_the_same_name_is_no_hindrance(tmp_path: Path) -> None:
    """A write meets the temporary file of a process that died, not yet swept, and goes on."""
    chunks = FileChunks(tmp_path, run_here)
    digest = digest_of(b"data")
    (tmp_path / "tmp" / f"{digest.hex()}.0").write_bytes(b"longer than the data was")
    assert result(chunks.read(store(chunks, b"data"))) == b"data"


class Syscalls:
    """Records what happens to files, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        fsync, rename = os.fsync, os.rename

        def noted_fsync(handle: int) -> None:
            self.calls.append("fsync " + os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
            fsync(handle)

        def noted_rename(old: str, new: str) -> None:
            self.calls.append("rename to " + os.path.basename(new))
            rename(old, new)

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(os, "rename", noted_rename)


def test_files_sync_bytes_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that survives a power cut: bytes, name, directory; and a second writer of the
    same chunk costs no sync, unless the process is new."""
    chunks = FileChunks(tmp_path, run_here)
    seen = Syscalls(monkeypatch)
    name = store(chunks, b"data").hex()
    assert seen.calls == [f"fsync {name}.0", f"rename to {name}", f"fsync {name[:2]}"]

    seen.calls.clear()
    store(chunks, b"data")
    assert seen.calls == []

    again = FileChunks(tmp_path, run_here)
    seen.calls.clear()
    store(again, b"data")
    assert seen.calls == [f"fsync {name[:2]}"]


def test_files_many_threads(tmp_path: Path) -> None:
    """Writers, readers and deleters of the same few chunks at once: every answer is one of the
    promised ones, and the count of bytes is right in the end."""
    blobs = [bytes([number]) * 5000 for number in range(4)]
    chunks = FileChunks(tmp_path, run_here)

    def work(seed: int) -> None:
        for turn in range(60):
            data = blobs[(seed + turn) % 4]
            digest = digest_of(data)
            if (seed + turn) % 3 == 0:
                chunks.delete(digest)
            result(chunks.write(digest, data))
            with suppress(MissingChunks):
                assert result(chunks.read(digest)) == data

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, seed) for seed in range(6)]:
            done.result(timeout=60)

    assert chunks.bytes_used() == 5000 * len(files_in(tmp_path))
    assert not list((tmp_path / "tmp").iterdir())
