"""How long things take on a simulated disk, and the thread that commits on it.

What would be a thread is a row of steps of the scheduler here: whatever takes time ends in a later
step, and a process that dies has no later steps. Nothing of a dead process is dropped either: a
coroutine that waits for an answer that never comes would run its `finally` when it is collected.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from dynamo.errors import NotReady
from dynamo.sim.disk_engine import SimEngine

WAKE_S = 0.0001
"""How long a thread, or the reactor, takes to notice what another has left for it, at most."""

SLOW_ODDS = 0.01
SLOW_FACTOR = 10
"""Now and then the disk has other things to do."""

T = TypeVar("T")


class Scheduler(Protocol):
    """What is needed of the reactor."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, call: Callable[..., Any], /, *args: Any) -> Any: ...


@attrs.define
class Pace:
    """A disk's speed. `latency_s`: the least and most that one operation takes; `slow` is a factor
    on all of it; while it is `stalled` nothing ends."""

    scheduler: Scheduler
    rng: random.Random
    latency_s: tuple[float, float]
    slow: float = 1.0
    stalled: bool = False

    def draw(self) -> float:
        """How long the next operation takes, in seconds."""
        low, high = self.latency_s
        latency = low + (high - low) * self.rng.random()
        return latency * SLOW_FACTOR if self.rng.random() < SLOW_ODDS else latency

    def wake(self) -> float:
        """How long the next wake-up takes, in seconds."""
        return WAKE_S * self.rng.random()


class Process:
    """The steps of one start of a node, until it ends or dies."""

    def __init__(self, pace: Pace, limbo: list[Any]) -> None:
        self.pace = pace
        self.dead = False
        self._limbo = limbo
        self._parked: list[Callable[[], None]] = []

    def later(self, delay: float, step: Callable[[], None]) -> None:
        """Takes the step after so many seconds, times the slowness of the disk."""
        self.pace.scheduler.callLater(delay * self.pace.slow, self._take, step)

    def resume(self) -> None:
        """Takes the steps that fell due while the disk was stalled, in their order."""
        parked, self._parked = self._parked, []
        for step in parked:
            self.pace.scheduler.callLater(0, self._take, step)

    def die(self) -> None:
        """No step is taken from now on."""
        self.dead = True

    def never(self) -> Deferred[Any]:
        """The answer of a dead process."""
        answer: Deferred[Any] = Deferred()
        self._limbo.append(answer)
        return answer

    def _take(self, step: Callable[[], None]) -> None:
        if self.dead:
            self._limbo.append(step)
        elif self.pace.stalled:
            self._parked.append(step)
        else:
            step()


class SimWriter:
    """The thread that commits: `run` is a `Run`, to the rules of `WriterThread`.

    A call runs when the thread gets to it. If it has committed, the sync takes its time, and the
    commit is there at the end of it; the answer comes a wake-up of the reactor later, when the next
    call may have begun.
    """

    def __init__(self, process: Process, engine: SimEngine) -> None:
        self._process = process
        self._pace = process.pace
        self._engine = engine
        self._calls: deque[tuple[Deferred[Any], Callable[[], Any]]] = deque()
        self._ended: deque[tuple[Deferred[Any], Any]] = deque()
        self._working = False
        self._waking = False
        self._stopped: Deferred[None] | None = None
        self._sync_began = 0.0
        self._sync_ends = 0.0

    def run(self, call: Callable[[], T], /) -> Deferred[T]:
        """Queues `call`; after `stop` it fails with `NotReady`, after a crash nothing comes."""
        if self._process.dead:
            return self._process.never()
        if self._stopped is not None:
            return fail(NotReady("The writer thread has stopped."))
        answer: Deferred[T] = Deferred()
        self._calls.append((answer, call))
        if not self._working:
            self._working = True
            self._process.later(self._pace.wake(), self._work)
        return answer

    def stop(self) -> Deferred[None]:
        """Takes no more calls; fires when those given have ended."""
        if self._stopped is None:
            self._stopped = Deferred()
            self._look_for_the_end()
        waiter: Deferred[None] = Deferred()
        self._stopped.addCallback(_pass_on, waiter)
        return waiter

    def synced(self) -> float:
        """How far the sync under way has come, from 0 to 1."""
        whole = self._sync_ends - self._sync_began
        gone = self._pace.scheduler.seconds() - self._sync_began
        return 1.0 if gone >= whole else gone / whole

    def _work(self) -> None:
        """Runs calls until one has to be synced."""
        while self._calls:
            answer, call = self._calls.popleft()
            self._engine.hold()
            result: Any
            try:
                result = call()
            except BaseException:
                result = Failure()
            if self._engine.owed is not None:
                latency = self._pace.draw()
                self._sync_began = self._pace.scheduler.seconds()
                self._sync_ends = self._sync_began + latency * self._pace.slow
                self._process.later(latency, partial(self._sync, answer, result))
                return
            self._end(answer, result)
        self._working = False

    def _sync(self, answer: Deferred[Any], result: Any) -> None:
        self._end(answer, result)
        self._work()

    def _end(self, answer: Deferred[Any], result: Any) -> None:
        self._ended.append((answer, result))
        if not self._waking:
            self._waking = True
            self._process.later(self._pace.wake(), self._deliver)
        self._engine.settle()

    def _deliver(self) -> None:
        self._waking = False
        while self._ended and not self._process.dead:
            answer, result = self._ended.popleft()
            if isinstance(result, Failure):
                answer.errback(result)
            else:
                answer.callback(result)
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        idle = not (self._working or self._waking)
        if idle and self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)


def _pass_on(result: None, waiter: Deferred[None]) -> None:
    waiter.callback(None)
