"""What the stores ask of the file system: sync, room, and one owner of a directory.

The rule: a name is durable when the directory that holds it was synced, bytes when their file
was; neither implies the other (Pillai et al., "All file systems are not created equal", 2014).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable

from dynamo.errors import StorageFault

BLOCK_BYTES = 4096
SCRATCH_BYTES = 1 << 20
DIRECT_BYTES_MIN = 128 << 10
"""Below this the page cache is cheaper."""

O_DIRECT: int = getattr(os, "O_DIRECT", 0)
_local = threading.local()


def is_full(code: int | None) -> bool:
    """Whether this `errno` says that the disk, the owner's share of it, or the file is full."""
    return code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def bytes_free(path: str) -> int:
    """Bytes an unprivileged process may still take on the file system of `path`."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def sync_directory(path: str) -> None:
    """Makes the names in the directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: str, data: bytes) -> None:
    """Makes a file of these bytes, over one that may be there; returns when they are on disk.

    Large ones go past the page cache: a copy there costs several times the writing, and drives
    out what is read. Where the file system does not know how, they go through it.
    """
    if len(data) >= DIRECT_BYTES_MIN and O_DIRECT:
        try:
            _write(path, data, _fill_direct, O_DIRECT)
            return
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    _write(path, data, _fill, 0)


def _write(path: str, data: bytes, fill: Callable[[int, bytes], None], flags: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | flags, 0o600)
    try:
        fill(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def _fill(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _fill_direct(handle: int, data: bytes) -> None:
    """Writes whole blocks from aligned memory, then cuts the file to its length."""
    scratch = _scratch()
    for start in range(0, len(data), SCRATCH_BYTES):
        size = min(SCRATCH_BYTES, len(data) - start)
        scratch[:size] = data[start : start + size]
        done, end = 0, -(-size // BLOCK_BYTES) * BLOCK_BYTES
        while done < end:
            # A write cut short, by a disk that fills, ends on a block; the next one says why.
            done += os.write(handle, scratch[done:end])
    os.ftruncate(handle, len(data))


def _scratch() -> memoryview:
    """This thread's memory for direct writes; a mapping begins on a page."""
    scratch: memoryview | None = getattr(_local, "scratch", None)
    if scratch is None:
        scratch = _local.scratch = memoryview(mmap.mmap(-1, SCRATCH_BYTES))
    return scratch


def lock_directory(path: str) -> int:
    """An open lock on the directory; the kernel lets go of it when the process ends."""
    handle = os.open(os.path.join(path, "owner.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(handle, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        raise StorageFault(
            f"The data directory {path} is in use by another process (pid {owner})."
        ) from error
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    except OSError:
        pass  # The number is for the message only; a full disk must not keep a node from starting.
    return handle
