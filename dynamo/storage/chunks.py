"""Chunks: immutable pieces of bodies, each named by the blake3 digest of its bytes.

What it keeps: bytes that do not match their name are neither stored nor served; `write` answers
when the chunk would survive a power cut, also if somebody else stored it a moment ago; a reader
never sees half a chunk; a full disk leaves no trace of what did not fit. A chunk is written once,
so two writers of one name cannot differ. Whoever reads a chunk that is damaged sets it aside: from
then on it is missing, and is fetched from another node. Writing over a damaged one heals it too.

On disk a chunk is `xx/<digest in hex>`, xx being the first two digits, and is made in `tmp/`:
write, fsync, rename, fsync of the directory (Pillai et al., "All file systems are not created
equal", 2014, say why each step is there). `delete` needs no sync: what comes back after a crash
is swept at the next start. A damaged chunk goes to `quarantine/`, for somebody to look at.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Protocol

from blake3 import blake3
from twisted.internet.defer import Deferred

from dynamo.errors import Corrupt, MissingChunks, StorageFault, StorageFull
from dynamo.storage.files import bytes_free, is_full, sync_directory, write_durably
from dynamo.storage.threads import Run, run_here

DIGEST_BYTES = 32
ASIDE_MAX = 64
"""Damaged chunks that are kept; more are removed."""


def digest_of(data: bytes) -> bytes:
    """The name of a chunk."""
    return blake3(data).digest()


def verify(digest: bytes, data: bytes) -> bytes:
    """The bytes, if they are what `digest` names; raises `Corrupt` if not."""
    if digest_of(data) != digest:
        raise Corrupt(f"The bytes of chunk {digest.hex()} are not what its name says.")
    return data


class Chunks(Protocol):
    """The port. `has` and `delete` block shortly and may be called from the committing thread."""

    def write(self, digest: bytes, data: bytes) -> Deferred[None]:
        """Stores a chunk durably; nothing to do if it is there. Fails with `Corrupt` if `data`
        is not what `digest` names, with `StorageFull` if there is no room."""

    def read(self, digest: bytes) -> Deferred[bytes]:
        """The bytes, verified. Fails with `MissingChunks`, or with `Corrupt` if they are damaged;
        then the chunk is no longer there. `StorageFault`: it could not be read just now."""

    def names(self, first: int) -> Deferred[list[bytes]]:
        """The digests of the chunks that are there and whose first byte is `first`, in order."""

    def has(self, digest: bytes) -> bool:
        """Whether the chunk is there, and would be after a power cut (not whether it is whole)."""

    def delete(self, digest: bytes) -> None:
        """Removes the chunk; nothing happens if it is not there."""

    def sweep(self, keep: Callable[[bytes], bool]) -> int:
        """At start, before any other call: removes what an earlier run left unfinished and every
        chunk `keep` does not want. Returns how many files went. Blocks."""

    def bytes_used(self) -> int:
        """Bytes of all chunks, kept up to date since `sweep` counted them."""


class MemoryChunks:
    """The `Chunks` in memory, for tests and the simulator.

    `stored` is public: a test may flip bits in it, and a restarted node may be handed it.
    `bytes_max` may be changed at any time to fill the disk or make room. `aside` are the damaged
    ones.
    """

    def __init__(
        self,
        run: Run = run_here,
        *,
        stored: dict[bytes, bytes] | None = None,
        bytes_max: int | None = None,
    ) -> None:
        self.stored = {} if stored is None else stored
        self.aside: dict[bytes, bytes] = {}
        self.bytes_max = bytes_max
        self._run = run

    def write(self, digest: bytes, data: bytes) -> Deferred[None]:
        return self._run(partial(self._write, digest, data))

    def read(self, digest: bytes) -> Deferred[bytes]:
        return self._run(partial(self._read, digest))

    def names(self, first: int) -> Deferred[list[bytes]]:
        return self._run(lambda: sorted(name for name in self.stored if name[0] == first))

    def has(self, digest: bytes) -> bool:
        return digest in self.stored

    def delete(self, digest: bytes) -> None:
        self.stored.pop(digest, None)

    def sweep(self, keep: Callable[[bytes], bool]) -> int:
        unwanted = [digest for digest in self.stored if not keep(digest)]
        for digest in unwanted:
            del self.stored[digest]
        return len(unwanted)

    def bytes_used(self) -> int:
        return sum(map(len, self.stored.values()))

    def _write(self, digest: bytes, data: bytes) -> None:
        verify(digest, data)
        if self.stored.get(digest) == data:
            return
        if self.bytes_max is not None and self.bytes_used() + len(data) > self.bytes_max:
            raise StorageFull
        self.stored[digest] = data

    def _read(self, digest: bytes) -> bytes:
        data = self.stored.get(digest)
        if data is None:
            raise MissingChunks((digest,))
        if digest_of(data) != digest:
            if len(self.aside) < ASIDE_MAX:
                self.aside[digest] = data
            del self.stored[digest]
        return verify(digest, data)


class _Shelf:
    """One directory of chunks, and how far its names are known to be durable.

    `named` counts renames into it and `synced` how many of them the last fsync covers, so that
    writers who meet here share one. It starts unsynced: an earlier run may have died in between.
    `new` has the names that the fsync may not have covered yet, each with its count.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.naming = threading.Lock()
        self._syncing = threading.Lock()
        self.named = 1
        self.new: dict[bytes, int] = {}
        self._synced = 0

    def rename(self, temp: str, path: str, digest: bytes) -> None:
        """Gives a chunk its name here; `naming` is held."""
        self.new[digest] = self.named + 1  # before anybody can see it
        try:
            os.rename(temp, path)
        except BaseException:
            del self.new[digest]
            raise
        self.named += 1

    def sync(self) -> None:
        """Returns when every name given before the call is durable."""
        wanted = self.named
        with self._syncing:
            if self._synced >= wanted:
                return
            covered = self.named
            sync_directory(self.path)
            self._synced = covered
            with self.naming:
                self.new = {name: count for name, count in self.new.items() if count > covered}


class FileChunks:
    """The `Chunks` in `directory`; `run` is a small pool of threads.

    `reserve_bytes` of the file system stay free: what is kept there for the ordered store, which
    must be able to delete on a disk that chunks have filled.
    """

    def __init__(
        self, directory: str | os.PathLike[str], run: Run, *, reserve_bytes: int = 0
    ) -> None:
        self._directory = os.path.abspath(os.fspath(directory))
        self._run = run
        self._reserve_bytes = reserve_bytes
        self._temp = os.path.join(self._directory, "tmp")
        self._aside = os.path.join(self._directory, "quarantine")
        self._shelves = [
            _Shelf(os.path.join(self._directory, f"{number:02x}")) for number in range(256)
        ]
        self._numbers = count()
        self._used = 0
        self._counting = threading.Lock()
        self._make_directories()

    def write(self, digest: bytes, data: bytes) -> Deferred[None]:
        return self._run(partial(self._write, digest, data))

    def read(self, digest: bytes) -> Deferred[bytes]:
        return self._run(partial(self._read, digest))

    def names(self, first: int) -> Deferred[list[bytes]]:
        return self._run(partial(self._names, first))

    def has(self, digest: bytes) -> bool:
        # Asked first whether it exists: a new name is in `new` before it is seen.
        return os.path.exists(self._path(digest)) and digest not in self._shelves[digest[0]].new

    def delete(self, digest: bytes) -> None:
        path = self._path(digest)
        with self._shelves[digest[0]].naming:
            size = _size(path)
            if size is not None:
                os.unlink(path)
                self._count(-size)

    def sweep(self, keep: Callable[[bytes], bool]) -> int:
        removed = 0
        for entry in os.scandir(self._temp):
            os.unlink(entry.path)
            removed += 1
        used = 0
        for shelf in self._shelves:
            for entry in os.scandir(shelf.path):
                digest = _named_by(entry.name)
                if digest is None:
                    continue  # Not ours.
                if keep(digest):
                    used += entry.stat().st_size
                else:
                    os.unlink(entry.path)
                    removed += 1
        with self._counting:
            self._used = used
        return removed

    def bytes_used(self) -> int:
        return self._used

    def _write(self, digest: bytes, data: bytes) -> None:
        verify(digest, data)
        shelf, path = self._shelves[digest[0]], self._path(digest)
        try:
            if not _holds(path, data):
                self._check_room(len(data))
                self._place(shelf, digest, data)
            shelf.sync()
        except OSError as error:
            raise _write_fault(error) from error

    def _place(self, shelf: _Shelf, digest: bytes, data: bytes) -> None:
        """Puts the bytes under their name, whole or not at all."""
        path = self._path(digest)
        temp = os.path.join(self._temp, f"{os.path.basename(path)}.{next(self._numbers)}")
        try:
            write_durably(temp, data)
            with shelf.naming:
                replaced = _size(path) or 0
                shelf.rename(temp, path, digest)
                self._count(len(data) - replaced)
        except BaseException:
            if os.path.exists(temp):
                os.unlink(temp)
            raise

    def _read(self, digest: bytes) -> bytes:
        path = self._path(digest)
        try:
            try:
                return verify(digest, _bytes_of(path))
            except Corrupt:
                # Somebody may have healed it since. With the lock held nobody does.
                with self._shelves[digest[0]].naming:
                    return self._verify_or_set_aside(digest, path)
        except FileNotFoundError:
            raise MissingChunks((digest,)) from None
        except OSError as error:
            why = error.strerror
            raise StorageFault(f"The chunk {digest.hex()} cannot be read: {why}") from error

    def _verify_or_set_aside(self, digest: bytes, path: str) -> bytes:
        try:
            return verify(digest, _bytes_of(path))
        except Corrupt:
            self._count(-(_size(path) or 0))
            if len(os.listdir(self._aside)) < ASIDE_MAX:
                os.rename(path, os.path.join(self._aside, os.path.basename(path)))
            else:
                os.unlink(path)
            raise

    def _names(self, first: int) -> list[bytes]:
        try:
            found = [_named_by(name) for name in os.listdir(self._shelves[first].path)]
        except OSError as error:
            raise StorageFault(f"The chunks cannot be listed: {error.strerror}") from error
        return sorted(digest for digest in found if digest is not None)

    def _check_room(self, size: int) -> None:
        if self._reserve_bytes and bytes_free(self._directory) - size < self._reserve_bytes:
            raise StorageFull

    def _make_directories(self) -> None:
        try:
            shelves = [shelf.path for shelf in self._shelves]
            for path in (self._directory, self._temp, self._aside, *shelves):
                os.makedirs(path, exist_ok=True)
            sync_directory(self._directory)
            sync_directory(os.path.dirname(self._directory))
        except OSError as error:
            raise _write_fault(error) from error

    def _path(self, digest: bytes) -> str:
        return f"{self._shelves[digest[0]].path}/{digest.hex()}"

    def _count(self, change: int) -> None:
        with self._counting:
            self._used += change


def _bytes_of(path: str) -> bytes:
    """A file's bytes. Raises `Corrupt` where the disk itself says that it cannot give them."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except OSError as error:
        if error.errno == errno.EIO:
            raise Corrupt(f"The disk cannot read {path}.") from error
        raise


def _write_fault(error: OSError) -> StorageFault:
    if is_full(error.errno):
        return StorageFull()
    return StorageFault(f"A chunk cannot be written: {error.strerror}")


def _holds(path: str, data: bytes) -> bool:
    """Whether exactly these bytes are there already; damaged ones are to be written anew."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall() == data
    except OSError:
        return False


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def _named_by(name: str) -> bytes | None:
    """The digest a file name stands for, or None if it is no chunk's name."""
    if len(name) != 2 * DIGEST_BYTES or name.lower() != name:
        return None
    try:
        return bytes.fromhex(name)
    except ValueError:
        return None
