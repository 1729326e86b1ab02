"""Background work under one supervisor: bounded steps, one at a time for each task.

A task does one bounded piece of work when it is stepped and says whether it made progress. Busy
tasks are stepped again soon, idle ones when they are woken or after their pause; one that fails
is logged and tried again later, with the pause doubled up to a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from dynamo.errors import DynamoError
from dynamo.log import make_logger

PAUSE_MAX_S = 60.0

log = make_logger()


@attrs.define(eq=False)
class Task:
    """One kind of work. `step()` does a piece and answers whether there is more to do now.

    `idle_s`: seconds until an idle task looks again unasked; `busy_s`: between two pieces.
    """

    name: str
    step: Callable[[], Coroutine[Any, Any, bool]]
    idle_s: float
    busy_s: float = 0.0
    faults: int = 0
    running: Deferred[bool] | None = None
    timer: IDelayedCall | None = None
    woken: bool = False


class Runner:
    """Steps tasks until it is stopped."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._tasks: dict[str, Task] = {}
        self._stopping = False

    def add(self, task: Task) -> None:
        """Begins stepping a task."""
        self._tasks[task.name] = task
        self._later(task, task.busy_s)

    def wake(self, name: str) -> None:
        """There is something to do for a task: it is stepped at once."""
        task = self._tasks.get(name)
        if task is None or self._stopping:
            return
        task.woken = True
        if task.running is None:
            self._later(task, 0)

    def stop(self) -> None:
        """Steps nothing any more; what is running is cancelled."""
        self._stopping = True
        for task in self._tasks.values():
            if task.timer is not None and task.timer.active():
                task.timer.cancel()
            if task.running is not None:
                task.running.cancel()

    def _later(self, task: Task, seconds: float) -> None:
        if task.timer is not None and task.timer.active():
            task.timer.cancel()
        task.timer = self._clock.callLater(seconds, self._run, task)

    def _run(self, task: Task) -> None:
        task.woken = False
        task.running = Deferred.fromCoroutine(task.step())
        task.running.addCallbacks(
            self._stepped, self._failed, callbackArgs=(task,), errbackArgs=(task,)
        )

    def _stepped(self, more: bool, task: Task) -> None:
        task.running, task.faults = None, 0
        if not self._stopping:
            self._later(task, task.busy_s if more or task.woken else task.idle_s)

    def _failed(self, failure: Failure, task: Task) -> None:
        task.running = None
        if self._stopping:
            return
        task.faults += 1
        if failure.check(DynamoError, CancelledError):
            log.debug("{task} waits: {why}", task=task.name, why=failure.getErrorMessage())
        else:
            log.failure("{task} failed", failure=failure, task=task.name)
        self._later(task, min(task.idle_s * 2 ** min(task.faults, 6), PAUSE_MAX_S))
