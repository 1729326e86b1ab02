"""Group commit, stepped by hand: no threads, no time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from dynamo.errors import NoSuchFile, NotReady, Overloaded, StorageFault
from dynamo.storage.committer import GATHER_EACH_S, GATHER_MAX_S, Committer
from dynamo.storage.engine import Job, Transaction
from dynamo.storage.memory_engine import MemoryEngine
from dynamo.storage.threads import run_here


class Steps:
    """A `run` whose calls happen when `step` says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, call: Callable[[], Any], /) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.waiting.append((call, answer))
        return answer

    def step(self) -> None:
        call, answer = self.waiting.pop(0)
        try:
            result = call()
        except Exception:
            answer.errback(Failure())
        else:
            answer.callback(result)


class CountingEngine(MemoryEngine):
    """Notes the size of each commit; can be told to break."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.breaks: Exception | None = None
        self.closed = False

    def commit(self, jobs: Sequence[Job]) -> list[Any]:
        self.batches.append(len(jobs))
        if self.breaks is not None:
            raise self.breaks
        return super().commit(jobs)

    def close(self) -> None:
        super().close()
        self.closed = True


class Bench:
    """A committer on a counting engine; `heard` holds the answers in the order they came."""

    def __init__(self, **options: Any) -> None:
        self.engine = CountingEngine()
        self.steps = Steps()
        self.committed: list[int] = []
        self.heard: list[Any] = []
        self.committer = Committer(
            self.engine, self.steps, on_commit=self.committed.append, **options
        )

    def submit(self, number: int, writes: int = 1) -> Deferred[Any]:
        def job(t: Any) -> int:
            t.put("records", b"%06d" % number, b"")
            return number

        return self.committer.submit(job, writes=writes).addBoth(self.hear)

    def hear(self, outcome: Any) -> Any:
        self.heard.append(outcome.value if isinstance(outcome, Failure) else outcome)

    def keys(self) -> list[int]:
        return [int(key) for key, _ in self.engine.view().scan("records", b"")]


def test_what_comes_during_a_commit_goes_together_in_the_next() -> None:
    """One commit at a time; those who came meanwhile share the following one."""
    bench = Bench()
    for number in range(10):
        bench.submit(number)
    assert len(bench.steps.waiting) == 1
    assert bench.heard == []

    bench.steps.step()
    assert bench.heard == [0]
    bench.steps.step()

    assert bench.heard == list(range(10))
    assert bench.engine.batches == bench.committed == [1, 9]
    assert bench.steps.waiting == []


def test_call_soon_gathers_one_turn() -> None:
    """With `call_soon` all jobs of a turn share the first commit, and it is asked for once."""
    turn: list[Callable[[], None]] = []
    bench = Bench(call_soon=turn.append)
    for number in range(5):
        bench.submit(number)
    assert bench.steps.waiting == []
    assert len(turn) == 1

    turn.pop()()
    bench.submit(5)
    bench.steps.step()
    bench.steps.step()

    assert bench.engine.batches == [5, 1]
    assert bench.heard == list(range(6))
    assert turn == []


def test_a_commit_is_no_larger_than_jobs_max() -> None:
    """A long queue goes in batches of `jobs_max`, in order."""
    bench = Bench(jobs_max=4)
    for number in range(10):
        bench.submit(number)
    while bench.steps.waiting:
        bench.steps.step()
    assert bench.engine.batches == [1, 4, 4, 1]
    assert bench.heard == list(range(10))


def test_it_is_behind_when_more_waits_than_one_commit_takes() -> None:
    """What is being committed does not count."""
    bench = Bench(jobs_max=3)
    for number in range(4):
        bench.submit(number)
    assert not bench.committer.behind
    bench.submit(4)
    assert bench.committer.behind
    bench.steps.step()
    assert not bench.committer.behind


def test_a_full_queue_refuses_at_once() -> None:
    """Past `queue_max` the answer is `Overloaded`; those waiting are not touched, and there is
    room again when a batch has left the queue."""
    bench = Bench(queue_max=3)
    for number in range(6):
        bench.submit(number)
    assert [type(answer) for answer in bench.heard] == [Overloaded, Overloaded]
    assert bench.heard[0].queue == "commit queue"
    assert len(bench.committer) == 3

    bench.steps.step()
    bench.submit(6)
    bench.steps.step()
    bench.steps.step()

    assert bench.heard[2:] == [0, 1, 2, 3, 6]
    assert bench.keys() == [0, 1, 2, 3, 6]


def test_each_submitter_hears_its_own_outcome() -> None:
    """A job that raises fails its own Deferred alone."""
    bench = Bench()
    refusal = NoSuchFile("b", "k")

    def refuse(t: Any) -> None:
        raise refusal

    bench.submit(1)
    bench.committer.submit(refuse).addBoth(bench.hear)
    bench.submit(2)
    bench.steps.step()
    bench.steps.step()
    assert bench.heard == [1, refusal, 2]


def test_an_engine_that_breaks_fails_the_batch_and_not_the_next() -> None:
    """If the commit itself raises, everybody in it hears so, and the committer goes on."""
    bench = Bench()
    bench.engine.breaks = StorageFault("gone")
    for number in range(3):
        bench.submit(number)
    bench.steps.step()
    bench.engine.breaks = None
    bench.steps.step()
    assert [type(answer) for answer in bench.heard] == [StorageFault, int, int]


def test_a_cancelled_submitter_does_not_stop_the_others() -> None:
    """Cancelling, before or during the commit, leaves the job in place and the rest unharmed."""
    bench = Bench()
    first, second, third = (bench.submit(number) for number in range(3))
    first.cancel()
    second.cancel()
    bench.steps.step()
    bench.steps.step()
    assert [type(answer) for answer in bench.heard] == [CancelledError, CancelledError, int]
    assert bench.keys() == [0, 1, 2]
    assert third.called


def test_what_is_kept_in_step_with_the_disk_hears_of_every_job_that_is_on_it() -> None:
    """In the order of the jobs, before the submitter, whether or not that still waits; and of no
    job that failed."""
    bench = Bench()
    heard: list[str] = []

    def settle(result: str) -> str:
        heard.append(result)
        return result.upper()

    def fails(txn: Transaction) -> None:
        raise StorageFault("no")

    given_up = bench.committer.submit(lambda txn: "first", settle)
    failed = bench.committer.submit(fails, settle)
    told = bench.committer.submit(lambda txn: "third", settle)
    for answer in (given_up, failed):
        answer.addErrback(lambda _: None)
    given_up.cancel()
    told.addCallback(heard.append)
    bench.steps.step()
    bench.steps.step()
    assert heard == ["first", "third", "THIRD"]


def test_the_last_job_ends_every_commit() -> None:
    """It sees what the others of its commit wrote, and nobody is told of its outcome."""
    bench = Bench()
    seen: list[int] = []
    bench.committer.last_job = lambda txn: seen.append(sum(1 for _ in txn.scan("records", b"")))
    for number in range(3):
        bench.submit(number)
    bench.steps.step()
    bench.steps.step()
    assert seen == [1, 3]
    assert len(bench.heard) == 3


def test_the_disk_works_while_answers_go_out() -> None:
    """The next commit has begun before the first answer of the last one is heard."""
    bench = Bench()
    begun: list[int] = []
    bench.submit(0).addCallback(lambda _: begun.append(len(bench.steps.waiting)))
    bench.submit(1)
    bench.steps.step()
    assert begun == [1]
    bench.steps.step()


def test_what_answers_submit_is_gathered() -> None:
    """Jobs submitted while the answers of a commit go out share the next one."""
    bench = Bench()
    for number in range(4):
        bench.submit(number).addCallback(lambda _, number=number: bench.submit(10 + number))
    while bench.steps.waiting:
        bench.steps.step()
    assert bench.engine.batches == [1, 3, 1, 3]
    assert bench.heard == [0, 1, 2, 3, 10, 11, 12, 13]


def test_a_synchronous_run_does_not_recurse() -> None:
    """With a `run` that answers at once, a long chain of submissions uses no stack."""
    turn: list[Callable[[], None]] = []
    committer = Committer(MemoryEngine(), run_here, call_soon=turn.append)
    done: list[int] = []

    def go_on(number: int) -> None:
        done.append(number)
        if number < 3000:
            committer.submit(lambda t: number + 1).addCallback(go_on)

    committer.submit(lambda t: 0).addCallback(go_on)
    turn.pop()()
    assert done == list(range(3001))


def test_close_commits_what_is_queued_first() -> None:
    """`close` takes no more, waits for the queue, closes the engine and then answers, however
    often it was asked."""
    bench = Bench()
    for number in range(3):
        bench.submit(number)
    closes = [bench.committer.close(), bench.committer.close()]
    bench.submit(3)
    assert isinstance(bench.heard.pop(), NotReady)

    bench.steps.step()
    bench.steps.step()
    assert bench.heard == [0, 1, 2]
    assert not any(close.called for close in closes)
    bench.steps.step()

    assert bench.engine.closed
    assert all(close.called for close in [*closes, bench.committer.close()])


def test_close_of_an_idle_committer() -> None:
    """With nothing queued, or a turn still gathering, `close` does not wait for more."""
    turn: list[Callable[[], None]] = []
    bench = Bench(call_soon=turn.append)
    bench.submit(0)
    closed = bench.committer.close()
    bench.steps.step()
    bench.steps.step()
    assert closed.called
    assert bench.heard == [0]
    turn.pop()()
    assert bench.steps.waiting == []


def test_a_run_that_refuses_fails_the_jobs() -> None:
    """If the writer's thread is gone the submitters hear it; nothing hangs."""

    def refuse(call: Callable[[], Any], /) -> Deferred[Any]:
        return fail(NotReady("The writer thread has stopped."))

    committer = Committer(MemoryEngine(), refuse)
    heard: list[Any] = []
    committer.submit(lambda t: None).addErrback(lambda f: heard.append(f.type))
    assert heard == [NotReady]


@pytest.mark.parametrize("count", [1, 7, 40])
def test_on_commit_counts_every_job(count: int) -> None:
    """The numbers `on_commit` hears add up to the jobs submitted."""
    bench = Bench(jobs_max=8)
    for number in range(count):
        bench.submit(number)
    while bench.steps.waiting:
        bench.steps.step()
    assert sum(bench.committed) == count


def crowd(**options: Any) -> tuple[Bench, Clock]:
    """A bench whose first commit had three jobs and has just ended."""
    clock = Clock()
    bench = Bench(call_soon=lambda f: clock.callLater(0, f), call_later=clock.callLater, **options)
    for number in range(3):
        bench.submit(number)
    clock.advance(0)
    bench.steps.step()
    assert bench.engine.batches == [3]
    return bench, clock


def test_where_there_are_many_the_next_commit_waits_for_company() -> None:
    """A moment for each write of the last one, so that what follows shares a commit."""
    bench, clock = crowd()
    bench.submit(7)
    clock.advance(GATHER_EACH_S)
    bench.submit(8)
    assert not bench.steps.waiting
    clock.advance(3 * GATHER_EACH_S)
    bench.steps.step()
    assert bench.engine.batches == [3, 2]


def test_a_job_that_stands_for_many_writes_lets_the_next_commit_wait_for_as_many() -> None:
    """A peer's batch is one job and as much load as if each of its writes had come alone."""
    clock = Clock()
    bench = Bench(call_soon=lambda f: clock.callLater(0, f), call_later=clock.callLater)
    bench.submit(1, writes=4)
    clock.advance(0)
    bench.steps.step()
    bench.submit(2)
    clock.advance(3.9 * GATHER_EACH_S)
    assert not bench.steps.waiting
    clock.advance(0.2 * GATHER_EACH_S)
    assert len(bench.steps.waiting) == 1


def test_the_wait_is_bounded() -> None:
    """However many there were."""
    clock = Clock()
    bench = Bench(call_soon=lambda f: clock.callLater(0, f), call_later=clock.callLater)
    for number in range(1000):
        bench.submit(number)
    clock.advance(0)
    bench.steps.step()
    bench.submit(1000)
    clock.advance(GATHER_MAX_S)
    assert len(bench.steps.waiting) == 1


def test_a_writer_that_is_alone_waits_for_nobody() -> None:
    """After a commit of one job the next begins at once."""
    clock = Clock()
    bench = Bench(call_soon=lambda f: clock.callLater(0, f), call_later=clock.callLater)
    bench.submit(1)
    clock.advance(0)
    bench.submit(2)
    bench.steps.step()
    assert len(bench.steps.waiting) == 1


def test_closing_commits_what_was_gathered() -> None:
    """A node that stops while a commit waits for company loses nothing."""
    bench, clock = crowd()
    bench.submit(9)
    closed: list[None] = []
    bench.committer.close().addCallback(closed.append)
    clock.advance(GATHER_MAX_S)
    bench.steps.step()
    assert (bench.engine.batches, closed) == ([3, 1], [])
    bench.steps.step()
    assert (bench.engine.closed, closed) == (True, [None])
