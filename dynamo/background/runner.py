"""Background work under one supervisor: bounded steps, one at a time for each task.

A task does one bounded piece of work when it is stepped and says whether it made progress. Busy
tasks are stepped again soon, idle ones when they are woken or after their pause; one that fails
is logged and tried again later, with the pause doubled up to a bound.

Foreground requests come first (Dynamo §6.5): after a step with progress a task waits for as long
as `dynamo.core.admission` has it, so that all busy tasks together use no more of the time than
their share, divided among them by weight. A look that finds nothing is not charged. Time is the
reactor's, from the beginning of a step to its end, so a step that waits for a disk or a peer uses
time too: it is their time as well.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from dynamo.core.admission import PAUSE_MAX_S as THROTTLE_MAX_S
from dynamo.core.admission import Admission
from dynamo.core.rates import Rate
from dynamo.errors import DynamoError
from dynamo.log import make_logger

PAUSE_MAX_S = 60.0

State = Literal["running", "idle", "paused"]

log = make_logger()


@attrs.define(eq=False)
class Task:
    """One kind of work. `step()` does a piece and answers whether there is more to do now.

    `idle_s`: seconds until an idle task looks again unasked; `busy_s`: at least so long between
    two pieces. `weight`: its part of the share, relative to other busy tasks'. `granted()`: the
    share that the nodes it was last work for have to give, from 0 to 1. `progress()`: what
    is done in this process's life and what is left (None: unknown), in a unit of its own; without
    it, what counts is steps.
    """

    name: str
    step: Callable[[], Coroutine[Any, Any, bool]]
    idle_s: float
    busy_s: float = 0.0
    weight: float = 1.0
    progress: Callable[[], tuple[int, int | None]] | None = None
    granted: Callable[[], float] = lambda: 1.0
    faults: int = 0
    running: Deferred[bool] | None = None
    timer: IDelayedCall | None = None
    woken: bool = False
    paused: bool = False
    busy: bool = False
    steps: int = 0
    not_before: float = 0.0
    rate: Rate | None = None

    def counts(self) -> tuple[int, int | None]:
        """What is done, and what is left."""
        return (self.steps, None) if self.progress is None else self.progress()

    @property
    def state(self) -> State:
        """For an operator; a step that was under way when the task was paused still ends."""
        if self.paused:
            return "paused"
        return "running" if self.busy or self.running is not None else "idle"


@attrs.frozen
class Standing:
    """How far a task is. `rate`: units done per second over the last minute."""

    name: str
    state: State
    done: int
    left: int | None
    rate: float


@attrs.frozen
class Admitted:
    """The controller's state. `foreground_p99` (None: no requests) and `target`, what it is held
    to at this moment, are in seconds."""

    share: float
    foreground_p99: float | None
    target: float


class Runner:
    """Steps tasks until it is stopped. `crowded()`: whether a queue of this node's overflows.

    Without an `admission` that hears of foreground requests, nothing waits for them.
    """

    def __init__(
        self,
        clock: IReactorTime,
        admission: Admission | None = None,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock
        self._admission = admission or Admission()
        self._crowded = crowded
        self._tasks: dict[str, Task] = {}
        self._stopping = False

    def add(self, task: Task) -> None:
        """Begins stepping a task."""
        self._tasks[task.name] = task
        task.rate = Rate(self._clock.seconds(), task.counts()[0])
        self._later(task, task.busy_s)

    def wake(self, name: str) -> None:
        """There is something to do for a task: it is stepped at once, or, if it has used its
        share, as soon as it may be."""
        task = self._tasks.get(name)
        if task is None or self._stopping:
            return
        if task.woken and task.timer is not None and task.timer.active():
            return  # it is about to be stepped
        task.woken = True
        if task.running is None:
            self._later(task, self._wait(task))

    def stop(self) -> None:
        """Steps nothing any more; what is running is cancelled."""
        self._stopping = True
        for task in self._tasks.values():
            if task.timer is not None and task.timer.active():
                task.timer.cancel()
            if task.running is not None:
                task.running.cancel()

    # For operators.

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks, in the order they were added."""
        return tuple(self._tasks)

    def pause(self, name: str) -> None:
        """Steps this task no more until `resume`; a step under way ends. Raises `KeyError`."""
        task = self._tasks[name]
        task.paused = True
        if task.timer is not None and task.timer.active():
            task.timer.cancel()

    def resume(self, name: str) -> None:
        """Goes on with a paused task, at once. Raises `KeyError`."""
        task = self._tasks[name]
        if not task.paused:
            return
        task.paused = False
        if task.running is None and not self._stopping:
            self._later(task, self._wait(task))

    def standing(self, name: str) -> Standing:
        """How far a task is. Raises `KeyError`."""
        task = self._tasks[name]
        done, left = task.counts()
        rate = 0.0 if task.rate is None else task.rate.per_second(self._clock.seconds())
        return Standing(name, task.state, done, left, round(rate, 3))

    def admitted(self) -> Admitted:
        """What the tasks may use at this moment."""
        now, admission = self._clock.seconds(), self._admission
        return Admitted(admission.share(now), admission.p99(now), admission.limit)

    def steps(self) -> dict[str, int]:
        """How many steps each task has ended, failed ones included."""
        return {task.name: task.steps for task in self._tasks.values()}

    # Stepping.

    def _later(self, task: Task, seconds: float) -> None:
        if task.timer is not None and task.timer.active():
            task.timer.cancel()
        if not task.paused:
            task.timer = self._clock.callLater(seconds, self._run, task)

    def _wait(self, task: Task) -> float:
        """Seconds until a task has waited for the share it used. A clock set back adds none."""
        return min(max(0.0, task.not_before - self._clock.seconds()), THROTTLE_MAX_S)

    def _run(self, task: Task) -> None:
        task.woken = False
        task.running = Deferred.fromCoroutine(self._step(task))
        task.running.addCallbacks(
            self._stepped, self._failed, callbackArgs=(task,), errbackArgs=(task,)
        )

    async def _step(self, task: Task) -> bool:
        """One step, accounted for."""
        began = self._clock.seconds()
        try:
            more = await task.step()
        finally:
            task.steps += 1
        now = self._clock.seconds()
        if task.rate is not None:
            task.rate.look(now, task.counts()[0])
        if more:
            if self._crowded():
                self._admission.crowded(now)
            took, part = now - began, self._part(task)
            task.not_before = now + self._admission.pause(now, took, part, task.granted())
        return more

    def _part(self, task: Task) -> float:
        """A busy task's part of the share."""
        all_busy = sum(
            other.weight
            for other in self._tasks.values()
            if other is task or (other.busy and not other.paused)
        )
        return task.weight / all_busy

    def _stepped(self, more: bool, task: Task) -> None:
        task.running, task.faults, task.busy = None, 0, more
        if self._stopping:
            return
        if more:
            self._later(task, max(task.busy_s, self._wait(task)))
        else:
            self._later(task, task.busy_s if task.woken else task.idle_s)

    def _failed(self, failure: Failure, task: Task) -> None:
        task.running, task.busy, task.woken = None, False, False
        if self._stopping:
            return
        task.faults += 1
        if failure.check(DynamoError, CancelledError):
            log.debug("{task} waits: {why}", task=task.name, why=failure.getErrorMessage())
        else:
            log.failure("{task} failed", failure=failure, task=task.name)
        self._later(task, min(task.idle_s * 2 ** min(task.faults, 6), PAUSE_MAX_S))
