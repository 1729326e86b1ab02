"""A simulated disk that forgets nothing."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from dynamo.sim.schedule import Schedule
from dynamo.storage.chunks import MemoryChunks
from dynamo.storage.memory_engine import MemoryEngine


class Drive:
    """What is on it outlives the process."""

    def __init__(self, schedule: Schedule, rng: Random) -> None:
        self.schedule, self.rng = schedule, rng
        self.tables: Any = None
        self.stored: dict[bytes, bytes] = {}
        self.disk: SimDisk | None = None
        self.full = self.stalled = False
        self.slow = 1.0

    def flip_chunk(self, rng: Random) -> str | None:
        raise NotImplementedError

    flip_record = flip_chunk

    def wipe(self) -> None:
        raise NotImplementedError

    def snapshot(self) -> Any:
        raise NotImplementedError

    def roll_back(self, snapshot: Any) -> None:
        raise NotImplementedError

    def open(self) -> SimDisk:
        """For one run of a node."""
        self.disk = SimDisk(self)
        return self.disk

    def kill(self) -> None:
        """The process is gone."""
        assert self.disk is not None
        self.disk.dead = True

    crash = kill


class SimDisk:
    """The drive as an opened data directory."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self.dead = False
        self.engine = MemoryEngine(drive.tables)
        drive.tables = self.engine.tables
        self.chunks = MemoryChunks(self.run, stored=drive.stored)

    def run(self, call: Callable[[], Any], /) -> Deferred[Any]:
        """Does it a moment later."""
        answer: Deferred[Any] = Deferred()
        wait = self._drive.rng.uniform(0.0002, 0.001)
        self._drive.schedule.callLater(wait, self._do, call, answer)
        return answer

    def stop(self) -> Deferred[None]:
        """Nothing to stop."""
        return succeed(None)

    def _do(self, call: Callable[[], Any], answer: Deferred[Any]) -> None:
        if self.dead:
            return
        try:
            result = call()
        except Exception:
            answer.errback(Failure())
        else:
            answer.callback(result)
