"""What the stores ask of the file system: sync, room, and one owner of a directory.

The rule: a name is durable when the directory that holds it was synced, bytes when their file
was; neither implies the other (Pillai et al., "All file systems are not created equal", 2014).
"""

from __future__ import annotations

import errno
import fcntl
import os

from dynamo.errors import StorageFault


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
    """Writes a new file and returns when its bytes are on disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)


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
