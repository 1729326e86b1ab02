"""Background work: stepped while there is some, woken on news, backed off after faults."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from dynamo.background.runner import PAUSE_MAX_S, Runner, Task
from dynamo.errors import QuorumNotMet


class Bench:
    """One task whose steps are answered by hand; `steps` are the times they began."""

    def __init__(self, **timing: float) -> None:
        self.clock = Clock()
        self.runner = Runner(self.clock)
        self.steps: list[float] = []
        self.cancelled = 0
        self.waiting: Deferred[bool] | None = None
        self.task = Task("work", self._step, **({"idle_s": 10.0} | timing))
        self.runner.add(self.task)

    async def _step(self) -> bool:
        self.steps.append(self.clock.seconds())
        self.waiting = Deferred()
        try:
            return await self.waiting
        except CancelledError:
            self.cancelled += 1
            raise

    def answer(self, result: Any) -> None:
        waiting, self.waiting = self.waiting, None
        assert waiting is not None
        waiting.errback(result) if isinstance(result, Exception) else waiting.callback(result)

    def until(self, seconds: float) -> None:
        self.clock.advance(seconds - self.clock.seconds())


def test_a_busy_task_goes_on_and_an_idle_one_pauses() -> None:
    """`busy_s` between pieces of work, `idle_s` when there was none."""
    bench = Bench(busy_s=0.5)
    bench.until(0.5)
    bench.answer(True)
    bench.until(1.0)
    bench.answer(False)
    bench.until(10.9)
    assert bench.steps == [0.5, 1.0]
    bench.until(11.0)
    assert bench.steps == [0.5, 1.0, 11.0]


def test_one_step_at_a_time() -> None:
    """However long it takes and whoever calls meanwhile."""
    bench = Bench()
    bench.until(0.0)
    for _ in range(5):
        bench.runner.wake("work")
        bench.clock.advance(100)
    assert bench.steps == [0.0]


def test_news_during_a_step_are_looked_at_after_it() -> None:
    """Also if that step itself found nothing."""
    bench = Bench()
    bench.until(0.0)
    bench.runner.wake("work")
    bench.answer(False)
    bench.clock.advance(0)
    assert len(bench.steps) == 2
    bench.answer(False)
    bench.clock.advance(9)
    assert len(bench.steps) == 2


def test_news_wake_an_idle_task_at_once() -> None:
    """And only the one that is named."""
    bench = Bench()
    bench.until(0.0)
    bench.answer(False)
    bench.until(3.0)
    bench.runner.wake("other")
    bench.clock.advance(0)
    assert bench.steps == [0.0]
    bench.runner.wake("work")
    bench.clock.advance(0)
    assert bench.steps == [0.0, 3.0]


@pytest.mark.parametrize("error", [QuorumNotMet("read", 0, 1), ValueError("a bug")])
def test_a_failing_task_is_tried_ever_more_rarely(error: Exception) -> None:
    """Twice the pause each time, up to a bound; one success and it is as before."""
    seen: list[Any] = []
    globalLogPublisher.addObserver(seen.append)
    try:
        bench = Bench(idle_s=1.0)
        bench.until(0.0)
        pauses = []
        for _ in range(9):
            failed_at = bench.clock.seconds()
            bench.answer(error)
            while bench.waiting is None:
                bench.clock.advance(0.5)
            pauses.append(bench.clock.seconds() - failed_at)
    finally:
        globalLogPublisher.removeObserver(seen.append)
    assert pauses == [2, 4, 8, 16, 32, PAUSE_MAX_S, PAUSE_MAX_S, PAUSE_MAX_S, PAUSE_MAX_S]
    loud = [e for e in seen if e["log_level"] >= LogLevel.warn]
    assert bool(loud) is isinstance(error, ValueError), "a bug is said aloud, a wait is not"
    bench.answer(False)
    assert bench.task.faults == 0


def test_nothing_is_stepped_after_the_stop() -> None:
    """What waits is let go of, what runs is cancelled and consumed."""
    bench = Bench()
    bench.until(0.0)
    bench.runner.stop()
    assert bench.cancelled == 1
    bench.runner.wake("work")
    bench.clock.advance(1000)
    assert bench.steps == [0.0]
    assert bench.clock.getDelayedCalls() == []
    idle = Bench(busy_s=1.0)
    idle.runner.stop()
    idle.clock.advance(1000)
    assert idle.steps == []
