"""Background work: stepped while there is some, woken on news, backed off after faults; held back
for those who wait, and by operators."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel, globalLogPublisher

from dynamo.background.runner import PAUSE_MAX_S, Admitted, Runner, Standing, Task
from dynamo.core.admission import PAUSE_MAX_S as THROTTLE_MAX_S
from dynamo.core.admission import Admission
from dynamo.errors import QuorumNotMet
from tests.support.http import Errors, logged_errors

__all__ = ["logged_errors"]


class Bench:
    """One task whose steps are answered by hand; `steps` are the times they began."""

    def __init__(self, admission: Admission | None = None, **more: Any) -> None:
        self.clock = Clock()
        self.runner = Runner(self.clock, admission)
        self.steps: list[float] = []
        self.cancelled = 0
        self.waiting: Deferred[bool] | None = None
        self.task = Task("work", self._step, **({"idle_s": 10.0} | more))
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
def test_a_failing_task_is_tried_ever_more_rarely(error: Exception, logged_errors: Errors) -> None:
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
    logged_errors.clear()
    bench.answer(False)
    assert bench.task.faults == 0
    assert bench.runner.standing("work").state == "idle"


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


# Foreground first.


class Works:
    """Tasks that are always busy, with steps of a given length; how long each has worked."""

    def __init__(self, clock: Clock, runner: Runner) -> None:
        self._clock, self._runner = clock, runner
        self.worked: dict[str, float] = {}

    def add(self, name: str, seconds: float, **more: Any) -> Task:
        self.worked[name] = 0.0

        async def step() -> bool:
            await deferLater(self._clock, seconds)
            self.worked[name] += seconds
            return True

        task = Task(name, step, idle_s=10.0, **more)
        self._runner.add(task)
        return task

    def run(self, seconds: float) -> None:
        until = self._clock.seconds() + seconds
        while self._clock.seconds() < until:
            due = min(call.getTime() for call in self._clock.getDelayedCalls())
            self._clock.advance(max(0.0, min(due, until) - self._clock.seconds()))


class Granted(Admission):
    """An admission that has made up its mind."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def _judge(self) -> None: ...


def works(share: float) -> Works:
    clock = Clock()
    return Works(clock, Runner(clock, Granted(share)))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.75])
def test_a_busy_task_uses_no_more_than_its_share(share: float) -> None:
    """It waits in proportion to what the step took."""
    busy = works(share)
    busy.add("scrub", 0.05)
    busy.run(200)
    assert busy.worked["scrub"] / 200 == pytest.approx(share, abs=0.01)


def test_busy_tasks_divide_the_share_by_weight() -> None:
    """Whatever the lengths of their steps; one that is idle or paused leaves its part to others."""
    busy = works(0.2)
    busy.add("handoff", 0.01, weight=3.0)
    scrub = busy.add("scrub", 0.05)
    busy.run(100)
    assert busy.worked["handoff"] / 100 == pytest.approx(0.15, abs=0.01)
    assert busy.worked["scrub"] / 100 == pytest.approx(0.05, abs=0.01)
    busy._runner.pause("scrub")
    before = dict(busy.worked)
    busy.run(100)
    assert (busy.worked["handoff"] - before["handoff"]) / 100 == pytest.approx(0.2, abs=0.01)
    assert busy.worked["scrub"] - before["scrub"] <= 0.05
    assert scrub.state == "paused"


def test_a_task_waits_for_those_it_is_work_for() -> None:
    """By what they have to give at the time; the others' share is not theirs."""
    busy, theirs = works(0.5), [0.1]
    busy.add("transfer", 0.01, granted=lambda: theirs[0])
    busy.run(100)
    assert busy.worked["transfer"] / 100 == pytest.approx(0.1, abs=0.01)
    theirs[0] = 1.0
    busy.run(100)
    assert busy.worked["transfer"] / 100 == pytest.approx((0.1 + 0.5), abs=0.02)


def test_with_all_the_time_granted_nobody_waits() -> None:
    """However many are busy: the pause is their own."""
    busy = works(1.0)
    busy.add("handoff", 0.1)
    busy.add("scrub", 0.1, busy_s=0.1)
    busy.run(100)
    assert busy.worked["handoff"] == pytest.approx(100, abs=0.2)
    assert busy.worked["scrub"] == pytest.approx(50, abs=0.2)


def test_a_long_step_waits_for_a_bounded_time() -> None:
    """What was congested then may be free by now."""
    bench = Bench(admission=Granted(0.05))
    bench.until(0.0)
    bench.until(30.0)
    bench.answer(True)
    bench.until(30.0 + THROTTLE_MAX_S - 0.1)
    assert bench.steps == [0.0]
    bench.until(30.0 + THROTTLE_MAX_S)
    assert bench.steps == [0.0, 35.0]


def test_looks_that_find_nothing_are_not_charged() -> None:
    """A woken task looks at once, though the look before took its time."""
    bench = Bench(admission=Granted(0.05))
    bench.until(0.0)
    bench.until(2.0)
    bench.answer(False)
    bench.until(2.5)
    bench.runner.wake("work")
    bench.clock.advance(0)
    assert bench.steps == [0.0, 2.5]


def test_news_give_no_more_than_the_share() -> None:
    """A busy task that is woken waits out what it used all the same."""
    bench = Bench(admission=Granted(0.5))
    bench.until(0.0)
    bench.until(1.0)
    bench.answer(True)
    bench.until(1.5)
    bench.runner.wake("work")
    bench.until(1.9)
    assert bench.steps == [0.0]
    bench.until(2.0)
    assert bench.steps == [0.0, 2.0]


@pytest.mark.parametrize("paused_at", [0.5, 1.2])
def test_a_pause_gives_no_more_than_the_share(paused_at: float) -> None:
    """Whether it came during the step or after it, what was used is waited out."""
    bench = Bench(admission=Granted(0.5))
    bench.until(0.0)
    for at in sorted((paused_at, 1.0)):
        bench.until(at)
        bench.answer(True) if at == 1.0 else bench.runner.pause("work")
    bench.until(1.5)
    bench.runner.resume("work")
    bench.until(1.9)
    assert bench.steps == [0.0]
    bench.until(2.0)
    assert bench.steps == [0.0, 2.0]


def test_a_clock_set_back_holds_nobody_up() -> None:
    """A task that is woken then waits no longer than any does."""
    bench = Bench(admission=Granted(0.5))
    bench.until(1.0)
    bench.answer(True)
    bench.clock.rightNow -= 1000
    bench.runner.wake("work")
    bench.clock.advance(THROTTLE_MAX_S)
    assert len(bench.steps) == 2


def test_the_share_follows_the_clients() -> None:
    """Slow answers hold a task back, and quick ones let it go on; so does a full queue."""
    clock, admission, full = Clock(), Admission(0.05), [False]
    busy = Works(clock, Runner(clock, admission, lambda: full[0]))
    busy.add("scrub", 0.01)

    def worked(seconds: int, latency: float | None) -> float:
        before = busy.worked["scrub"]
        for _ in range(seconds * 10):
            if latency is not None:
                admission.waited(clock.seconds(), latency)
            busy.run(0.1)
        return (busy.worked["scrub"] - before) / seconds

    assert worked(10, 0.01) == pytest.approx(1.0, abs=0.01)
    worked(10, 0.3)
    assert worked(10, 0.3) == pytest.approx(0.05, abs=0.01)
    worked(65, 0.01)
    assert worked(10, 0.01) == pytest.approx(1.0, abs=0.01)
    full[0] = True
    worked(10, None)
    assert worked(10, None) == pytest.approx(0.05, abs=0.02)
    full[0] = False
    worked(11, None)
    assert worked(10, None) == pytest.approx(1.0, abs=0.01)


# For operators.


def test_a_paused_task_ends_its_step_and_takes_no_other() -> None:
    """Neither by time nor by news, until it is resumed; doing either twice is doing it once."""
    bench = Bench(idle_s=1.0)
    bench.until(0.0)
    for _ in range(2):
        bench.runner.pause("work")
        assert bench.runner.standing("work").state == "paused"
    assert bench.cancelled == 0
    bench.answer(True)
    bench.runner.wake("work")
    bench.clock.advance(100)
    assert bench.steps == [0.0]
    for _ in range(2):
        bench.runner.resume("work")
        bench.clock.advance(0)
        assert bench.steps == [0.0, 100.0]
        assert bench.runner.standing("work").state == "running"
    bench.answer(False)
    assert bench.runner.standing("work").state == "idle"
    bench.runner.resume("work")
    bench.until(100.9)
    assert bench.steps == [0.0, 100.0], "there was no pause to end"
    bench.until(101.0)
    assert bench.steps == [0.0, 100.0, 101.0]


def test_a_task_resumed_during_its_step_takes_one_at_a_time() -> None:
    """As if it had never been paused."""
    bench = Bench(idle_s=1.0)
    bench.until(0.0)
    bench.runner.pause("work")
    bench.runner.resume("work")
    bench.clock.advance(100)
    assert bench.steps == [0.0]
    bench.answer(False)
    bench.until(101.0)
    assert bench.steps == [0.0, 101.0]


def test_a_paused_task_that_fails_is_not_tried_again() -> None:
    """And one that waited is not stepped when its time comes; nor after the stop."""
    bench = Bench(idle_s=1.0)
    bench.until(0.0)
    bench.runner.pause("work")
    bench.answer(QuorumNotMet("read", 0, 1))
    assert not bench.task.busy
    bench.clock.advance(100)
    bench.runner.resume("work")
    bench.until(100.0)
    bench.answer(False)
    bench.runner.pause("work")
    bench.clock.advance(100)
    assert bench.steps == [0.0, 100.0]
    bench.runner.stop()
    bench.runner.resume("work")
    assert bench.clock.getDelayedCalls() == []


def test_how_far_a_task_is() -> None:
    """In its own unit; without one, by its steps."""
    done = [0]
    bench = Bench(progress=lambda: (done[0], 7))
    bench.until(0.0)
    for _ in range(10):
        bench.clock.advance(1.0)
        done[0] += 5
        bench.answer(True)
        bench.clock.advance(0)
    assert bench.runner.standing("work") == Standing("work", "running", 50, 7, 5.0)
    assert bench.runner.steps() == {"work": 10}
    assert bench.runner.names == ("work",)
    plain = Bench()
    plain.until(0.0)
    plain.answer(True)
    assert plain.runner.standing("work") == Standing("work", "running", 1, None, 1.0)
    for call in (plain.runner.pause, plain.runner.resume, plain.runner.standing):
        with pytest.raises(KeyError):
            call("other")


def test_what_the_tasks_may_use_is_told() -> None:
    """The share, what clients wait now, and what they should at most."""
    clock, admission = Clock(), Admission(0.05)
    runner = Runner(clock, admission)
    assert runner.admitted() == Admitted(1.0, None, 0.05)
    admission.waited(0.0, 0.05)
    clock.advance(1.0)
    assert runner.admitted() == Admitted(1.0, 0.05, 0.05)


def test_a_task_that_cannot_say_how_far_it_is_goes_on(logged_errors: Errors) -> None:
    """Its mistake is a fault like any other: told, and tried again later."""
    broken = [False]

    def progress() -> tuple[int, None]:
        if broken[0]:
            raise ValueError("a bug")
        return 0, None

    bench = Bench(idle_s=1.0, progress=progress)
    bench.until(0.0)
    broken[0] = True
    bench.answer(True)
    bench.until(2.0)
    assert bench.steps == [0.0, 2.0]
    assert len(logged_errors) == 1
    logged_errors.clear()


def test_many_reasons_to_wake_are_one() -> None:
    """A task that is about to be stepped is left to that, and not sorted in anew."""
    bench = Bench()
    bench.until(0.0)
    bench.answer(False)
    bench.until(1.0)
    bench.runner.wake("work")
    timer = bench.task.timer
    for _ in range(5):
        bench.runner.wake("work")
    assert bench.task.timer is timer
    bench.until(1.0)
    assert bench.steps == [0.0, 1.0]


def test_news_after_a_fault_do_not_wait_for_the_next_try() -> None:
    """Whether or not there were news during the step that failed."""
    bench = Bench()
    bench.until(0.0)
    bench.runner.wake("work")
    bench.answer(QuorumNotMet("read", 0, 1))
    bench.until(1.0)
    bench.runner.wake("work")
    bench.until(1.0)
    assert bench.steps == [0.0, 1.0]
