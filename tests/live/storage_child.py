"""The process that `test_crash` kills: commits numbered batches and tells each one it may claim.

Run as `python -m tests.live.storage_child DIRECTORY FIRST`. Each batch is a chunk and two records
that refer to it; every third batch also deletes an older one. A number is printed only when its
commit was acknowledged.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from dynamo.storage.chunks import FileChunks, digest_of
from dynamo.storage.committer import Committer
from dynamo.storage.jobs import frees_space
from dynamo.storage.lmdb_engine import LmdbEngine
from dynamo.storage.threads import run_here


def key_of(number: int) -> bytes:
    return b"%08d" % number


def chunk_of(number: int) -> bytes:
    """The bytes of batch `number`; some 60 KB."""
    return (b"chunk %d;" % number) * 6000


def is_deleted_by(number: int) -> int | None:
    """The older batch that batch `number` deletes, or None."""
    return number - 5 if number % 3 == 0 and number >= 5 else None


def make_job(number: int) -> Any:
    digest = digest_of(chunk_of(number))

    def job(t: Any) -> int:
        t.put("records", key_of(number), digest)
        t.put("refs", digest, key_of(number))
        old = is_deleted_by(number)
        if old is not None:
            gone = t.get("records", key_of(old))
            t.delete("records", key_of(old))
            t.delete("refs", gone)
        return number

    return frees_space(job)


def say(line: str) -> None:
    """One write, so that a kill cuts between lines or nowhere."""
    os.write(1, line.encode() + b"\n")


def main(directory: str, first: int) -> None:
    engine = LmdbEngine(Path(directory) / "db", reserve_bytes=0)
    chunks = FileChunks(Path(directory) / "chunks", run_here)
    committer = Committer(engine, run_here)
    say("ready")
    number = first
    while True:
        data = chunk_of(number)
        chunks.write(digest_of(data), data)
        committer.submit(make_job(number)).addCallback(lambda done: say(str(done)))
        old = is_deleted_by(number)
        if old is not None:
            chunks.delete(digest_of(chunk_of(old)))
        number += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
