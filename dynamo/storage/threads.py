"""One thread that takes blocking calls in order and answers in the reactor's thread.

What it keeps: calls run strictly one after another, in the order given; a Deferred fires in the
reactor's thread only; a call that raises, or whose Deferred was cancelled, does not stop the next
one; `stop` answers when the last call given has ended. The thread is made by the first `run`, so
that a process may still fork after this was built, and it is no daemon: nothing it does is cut
off by the end of the interpreter.

In the manner of `twisted._threads.ThreadWorker`, with one wake-up of the reactor for all that
ended since the last.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from dynamo.errors import NotReady

T = TypeVar("T")


class Run(Protocol):
    """Runs a blocking call somewhere and answers with its result or failure."""

    def __call__(self, call: Callable[[], T], /) -> Deferred[T]: ...


class CallsFromThread(Protocol):
    """What is needed of the reactor."""

    def callFromThread(self, call: Callable[..., Any], /) -> None: ...


def run_here(call: Callable[[], T], /) -> Deferred[T]:
    """The `Run` that does it at once, in the calling thread: for tests and the simulator."""
    try:
        return succeed(call())
    except Exception:
        return fail(Failure())


class WriterThread:
    """A thread with a queue; `run` is a `Run`."""

    def __init__(self, reactor: CallsFromThread, name: str = "writer") -> None:
        self._reactor = reactor
        self._name = name
        self._thread: threading.Thread | None = None
        self._calls: SimpleQueue[tuple[Deferred[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._ended: deque[tuple[Deferred[Any], Any]] = deque()
        self._waking = False
        self._stopped: Deferred[None] | None = None

    def run(self, call: Callable[[], T], /) -> Deferred[T]:
        """Queues `call`; after `stop` it fails with `NotReady`."""
        if self._stopped is not None:
            return fail(NotReady(f"The {self._name} thread has stopped."))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=False)
            self._thread.start()
        answer: Deferred[T] = Deferred()
        self._calls.put((answer, call))
        return answer

    def stop(self) -> Deferred[None]:
        """Takes no more calls; fires when those given have ended and the thread with them."""
        if self._stopped is None:
            self._stopped = Deferred()
            if self._thread is None:
                self._stopped.callback(None)
            else:
                self._calls.put(None)
        waiter: Deferred[None] = Deferred()
        self._stopped.addCallback(_pass_on, waiter)
        return waiter

    def _work(self) -> None:
        """The thread."""
        while (item := self._calls.get()) is not None:
            answer, call = item
            result: Any
            try:
                result = call()
            except BaseException:
                result = Failure()
            self._ended.append((answer, result))
            # Without the names the thread would hold the last call's data until the next one.
            del item, answer, call, result
            # `_deliver` lowers the flag before it looks, so what was appended is seen.
            if not self._waking:
                self._waking = True
                self._reactor.callFromThread(self._deliver)
        self._reactor.callFromThread(self._end)

    def _deliver(self) -> None:
        self._waking = False
        while self._ended:
            answer, result = self._ended.popleft()
            if isinstance(result, Failure):
                answer.errback(result)
            else:
                answer.callback(result)

    def _end(self) -> None:
        self._deliver()
        assert self._thread is not None
        assert self._stopped is not None
        self._thread.join()
        self._stopped.callback(None)


def _pass_on(result: None, waiter: Deferred[None]) -> None:
    waiter.callback(None)
