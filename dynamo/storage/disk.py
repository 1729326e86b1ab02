"""The port of a node's disk: the ordered store, the chunks, and the thread that may block on them.

`LocalDisk` is the one a node runs on. Whoever builds a node may hand in another, as the simulator
does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from dynamo.storage.chunks import Chunks, FileChunks
from dynamo.storage.engine import Engine
from dynamo.storage.lmdb_engine import LmdbEngine
from dynamo.storage.threads import Run, WriterThread

RESERVE_BYTES = 64 * 1024 * 1024
CHUNK_THREADS = 3


class Disk(Protocol):
    """An opened data directory, used by nobody else."""

    @property
    def engine(self) -> Engine: ...

    @property
    def chunks(self) -> Chunks: ...

    @property
    def run(self) -> Run:
        """Runs blocking calls on the engine, strictly one after another."""

    def stop(self) -> Deferred[None]:
        """Ends the threads once the calls given have ended; the engine is closed before."""


OpenDisk = Callable[[], Disk]
"""Opens a node's disk when the node starts. Raises `StorageFault`."""


class LocalDisk:
    """The directory `where`: LMDB under `store`, chunk files under `chunks`."""

    def __init__(self, where: str | os.PathLike[str], reactor: Any) -> None:
        os.makedirs(where, exist_ok=True)
        self._writer = WriterThread(reactor)
        self._threads = ThreadPool(0, CHUNK_THREADS, "chunks")
        self.engine = LmdbEngine(os.path.join(where, "store"), reserve_bytes=RESERVE_BYTES)
        self.run: Run = self._writer.run
        self._threads.start()
        self.chunks = FileChunks(
            os.path.join(where, "chunks"),
            partial(deferToThreadPool, reactor, self._threads),
            reserve_bytes=RESERVE_BYTES,
        )

    def stop(self) -> Deferred[None]:
        self._threads.stop()
        return self._writer.stop()
