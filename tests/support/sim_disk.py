"""A simulated drive on a clock of its own, as a store that answers at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dynamo.sim.disk import LATENCY_S, Drive
from dynamo.sim.disk_chunks import Shelves, SimChunks
from dynamo.sim.disk_engine import StoreView
from dynamo.sim.disk_steps import Pace, Process
from dynamo.storage.engine import Job
from tests.support.disk import now

T = TypeVar("T")


def drive_on(clock: Clock, seed: int = 0, **more: Any) -> Drive:
    return Drive(clock, random.Random(seed), **more)


def wait(clock: Clock, done: Deferred[T]) -> T:
    """The result of a Deferred, after moving the clock until it fires or nothing is left to do."""
    while not done.called and clock.calls:
        step(clock)
    return now(done)


def step(clock: Clock) -> None:
    """Moves the clock to the next thing to do and does it."""
    clock.advance(max(0.0, clock.calls[0].getTime() - clock.seconds()))


class WaitingEngine:
    """The engine of a simulated disk; a commit goes through the disk's thread and is waited for."""

    def __init__(
        self, before: WaitingEngine | None = None, *, bytes_max: int | None = None
    ) -> None:
        if before is None:
            self.clock = Clock()
            self.drive = drive_on(self.clock, bytes_max=bytes_max)
        else:
            self.clock, self.drive = before.clock, before.drive
            wait(self.clock, before.disk.stop())
        self.disk = self.drive.open()

    def view(self) -> StoreView:
        return self.disk.engine.view()

    def commit(self, jobs: Sequence[Job]) -> list[Any]:
        return wait(self.clock, self.disk.run(lambda: self.disk.engine.commit(jobs)))

    def number(self) -> int:
        return self.disk.engine.number()

    def bytes_used(self) -> int:
        return self.disk.engine.bytes_used()

    def close(self) -> None:
        self.disk.engine.close()


class WaitingChunks(SimChunks):
    """Simulated chunks; a call is waited for."""

    def __init__(self, shelves: Shelves, clock: Clock) -> None:
        pace = Pace(clock, random.Random(0), LATENCY_S)
        super().__init__(shelves, Process(pace, []), lambda: None)
        self.clock = clock

    def write(self, digest: bytes, data: bytes) -> Deferred[None]:
        return self._waited(super().write(digest, data))

    def read(self, digest: bytes) -> Deferred[bytes]:
        return self._waited(super().read(digest))

    def names(self, first: int) -> Deferred[list[bytes]]:
        return self._waited(super().names(first))

    def _waited(self, done: Deferred[T]) -> Deferred[T]:
        while not done.called and self.clock.calls:
            step(self.clock)
        return done
