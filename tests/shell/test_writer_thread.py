"""The writer's thread, against a reactor that is a queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from dynamo.errors import NotReady
from dynamo.storage.threads import WriterThread, run_here

PATIENCE_S = 20


class QueueReactor:
    """Keeps what threads hand over until the test's thread runs it."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        self.wakes = 0

    def callFromThread(self, call: Callable[..., Any], /, *args: Any) -> None:
        self.wakes += 1
        self.calls.put((call, args))

    def run_until(self, deferred: Deferred[Any]) -> Any:
        """The outcome of the Deferred, having run what threads handed over until it came."""
        outcome: list[Any] = []
        deferred.addBoth(outcome.append)
        while not outcome:
            call, args = self.calls.get(timeout=PATIENCE_S)
            call(*args)
        return outcome[0]


@pytest.fixture
def reactor() -> QueueReactor:
    return QueueReactor()


@pytest.fixture
def writer(reactor: QueueReactor) -> Iterator[WriterThread]:
    made = WriterThread(reactor, "writer")
    yield made
    reactor.run_until(made.stop())


def test_calls_run_in_order_in_one_other_thread(
    reactor: QueueReactor, writer: WriterThread
) -> None:
    """All calls run in the same thread, not the caller's, first come first served."""
    order: list[int] = []
    threads: set[int] = set()

    def call(number: int) -> int:
        order.append(number)
        threads.add(threading.get_ident())
        return number

    answers = [writer.run(lambda number=number: call(number)) for number in range(100)]
    assert [reactor.run_until(answer) for answer in answers] == list(range(100))
    assert order == list(range(100))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_answers_fire_in_the_reactors_thread_only(
    reactor: QueueReactor, writer: WriterThread
) -> None:
    """A Deferred has not fired when the call has ended, only when the reactor gets to it."""
    ended = threading.Event()
    where: list[int] = []
    answer = writer.run(ended.set)
    answer.addCallback(lambda _: where.append(threading.get_ident()))
    assert ended.wait(PATIENCE_S)
    assert not where
    reactor.run_until(answer)
    assert where == [threading.get_ident()]


def test_a_call_that_raises_fails_its_answer_alone(
    reactor: QueueReactor, writer: WriterThread
) -> None:
    """Even `SystemExit` is an answer and not the end of the thread."""

    def exit_call() -> None:
        raise SystemExit(3)

    first = writer.run(lambda: 1 // 0)
    second = writer.run(exit_call)
    third = writer.run(lambda: "alive")
    assert reactor.run_until(first).check(ZeroDivisionError)
    assert reactor.run_until(second).check(SystemExit)
    assert reactor.run_until(third) == "alive"


def test_a_cancelled_answer_does_not_break_the_thread(
    reactor: QueueReactor, writer: WriterThread
) -> None:
    """The call runs all the same; what it returns or raises goes nowhere."""
    gate = threading.Event()
    ran: list[str] = []
    blocked = writer.run(lambda: gate.wait(PATIENCE_S))
    returns = writer.run(lambda: ran.append("returned"))
    raises = writer.run(lambda: ran.append("raised") or 1 // 0)
    for answer in (returns, raises):
        answer.cancel()
        assert reactor.run_until(answer).check(CancelledError)
    gate.set()
    assert reactor.run_until(blocked) is True
    assert reactor.run_until(writer.run(lambda: "alive")) == "alive"
    assert ran == ["returned", "raised"]


def test_one_wake_up_delivers_all_that_ended(reactor: QueueReactor, writer: WriterThread) -> None:
    """While the reactor is busy, ended calls gather behind one wake-up."""
    answers = [writer.run(lambda: None) for _ in range(50)]
    last = threading.Event()
    answers.append(writer.run(last.set))
    assert last.wait(PATIENCE_S)
    for answer in answers:
        reactor.run_until(answer)
    # The last call may have ended between the wake-up and its delivery.
    assert reactor.wakes <= 2


def test_stop_waits_for_what_was_given(reactor: QueueReactor) -> None:
    """`stop` answers after the last call, and the thread is gone then; later calls fail."""
    writer = WriterThread(reactor)
    done: list[int] = []
    answers = [writer.run(lambda number=number: done.append(number)) for number in range(20)]
    assert reactor.run_until(writer.stop()) is None
    assert done == list(range(20))
    assert all(answer.called for answer in answers)
    assert not [thread for thread in threading.enumerate() if thread.name == "writer"]
    late = reactor.run_until(writer.run(lambda: None))
    assert isinstance(late, Failure)
    assert late.check(NotReady)
    assert reactor.run_until(writer.stop()) is None


def test_a_thread_never_used_is_never_made(reactor: QueueReactor) -> None:
    """Making a writer starts nothing, so a process may fork afterwards; `stop` answers at once."""
    before = threading.active_count()
    writer = WriterThread(reactor)
    assert threading.active_count() == before
    assert reactor.run_until(writer.stop()) is None


def test_run_here_answers_at_once() -> None:
    """The synchronous `Run` gives results and failures like the threaded one."""
    heard: list[Any] = []
    run_here(lambda: 1).addCallback(heard.append)
    run_here(lambda: 1 // 0).addErrback(lambda f: heard.append(f.type))
    assert heard == [1, ZeroDivisionError]
