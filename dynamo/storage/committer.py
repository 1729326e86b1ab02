"""Group commit: many writers, one commit at a time.

What it keeps: jobs are committed in the order they were submitted; while one commit is on its way
to the disk the next batch gathers, so the price of a sync is shared by all who came meanwhile; no
more than `queue_max` jobs wait; each submitter hears its own job's outcome, after it is durable.
A Deferred that is cancelled leaves its job in place: it may be on disk already, and what the node
keeps in memory in step with its disk (`settle`) is told of it all the same.

After DeWitt et al., "Implementation techniques for main memory database systems" (1984), §5.2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from dynamo.errors import NotReady, Overloaded
from dynamo.storage.engine import Engine, Job
from dynamo.storage.threads import Run

GATHER_EACH_S = 0.0003
GATHER_MAX_S = 0.005
"""How long the next commit waits for company, for each write of the last one, and at most. A commit
costs far more than a write in it; alone, a writer waits for nobody."""

CallLater = Callable[[float, Callable[[], None]], object]
"""Calls back after so many seconds."""

CallSoon = Callable[[Callable[[], None]], object]
"""Calls back when the present turn of the reactor is over."""

Settle = Callable[[Any], Any]
"""Takes what a job returned, once that is durable, and gives what its submitter is told."""

Answer = tuple[Deferred[Any], Settle | None]


class Committer:
    """The only writer of `engine`.

    `run` runs a blocking call elsewhere, one at a time. `jobs_max` bounds one commit, `queue_max`
    the jobs that wait. `on_commit` hears the number of jobs in each commit done, `commits` counts
    them; `last_job`, if set, ends each, and nobody is told what came of it. With `call_soon` the
    first job of an idle time waits for the rest of its reactor turn. With `call_later` a commit
    that follows one of several writes waits a moment: more will come, and share it.
    """

    def __init__(
        self,
        engine: Engine,
        run: Run,
        *,
        jobs_max: int = 1024,
        queue_max: int = 20000,
        on_commit: Callable[[int], object] | None = None,
        call_soon: CallSoon | None = None,
        call_later: CallLater | None = None,
    ) -> None:
        self._engine = engine
        self._run = run
        self._jobs_max = jobs_max
        self._queue_max = queue_max
        self._on_commit = on_commit
        self._call_soon = call_soon
        self._call_later = call_later
        self.commits = 0
        self.last_job: Job | None = None
        self._gathering = False
        self._queue: deque[tuple[Job, Answer, int]] = deque()
        self._outcomes: deque[tuple[Answer, Any]] = deque()
        self._soon = False
        self._pumping = False
        self._committing = False
        self._delivering = False
        self._closing = False
        self._closed = False
        self._close_waiters: list[Deferred[None]] = []

    def __len__(self) -> int:
        """Jobs that wait for a commit to begin."""
        return len(self._queue)

    @property
    def behind(self) -> bool:
        """Whether more jobs wait than one commit takes."""
        return len(self._queue) > self._jobs_max

    def submit(self, job: Job, settle: Settle | None = None, writes: int = 1) -> Deferred[Any]:
        """Fires with what the job returned, once that is durable, or fails with what it raised.

        `settle` is called with it first, in the order of the jobs, whether or not the submitter
        still waits; it does not fail. `writes`: how many writes somebody waits for it stands for.
        """
        if self._closing:
            return fail(NotReady("This node is stopping."))
        if len(self._queue) >= self._queue_max:
            return fail(Overloaded("commit queue"))
        answer: Deferred[Any] = Deferred()
        self._queue.append((job, (answer, settle), writes))
        if self._call_soon is None:
            self._pump()
        elif not (self._soon or self._busy()):
            self._soon = True
            self._call_soon(self._pump)
        return answer

    def close(self) -> Deferred[None]:
        """Takes no more jobs, commits what is queued, then closes the engine."""
        waiter: Deferred[None] = Deferred()
        self._close_waiters.append(waiter)
        if self._closed:
            self._tell_closed(None)
        elif not self._closing:
            self._closing = True
            self._pump()
        return waiter

    def _busy(self) -> bool:
        """Whether a commit is on its way, or will be looked for when this call returns."""
        return self._pumping or self._committing or self._delivering or self._gathering

    def _pump(self) -> None:
        """Begins the next commit, if one may begin."""
        self._soon = False
        if self._busy():
            return
        self._pumping = True
        while self._queue and not self._committing:
            self._begin()
        self._pumping = False
        if self._closing and not self._committing and not self._closed:
            self._closed = True
            self._run(self._engine.close).addBoth(self._tell_closed)

    def _begin(self) -> None:
        self._committing = True
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._jobs_max))]
        jobs = [job for job, _, _ in batch]
        if self.last_job is not None:
            jobs.append(self.last_job)
        answers = [answer for _, answer, _ in batch]
        ends = (answers, sum(writes for _, _, writes in batch))
        self._run(lambda: self._engine.commit(jobs)).addCallbacks(
            self._committed, self._failed, callbackArgs=ends, errbackArgs=ends
        )

    def _committed(self, outcomes: list[Any], answers: list[Answer], writes: int) -> None:
        self._committing = False
        self.commits += 1
        self._outcomes.extend(zip(answers, outcomes, strict=False))
        if writes > 1 and self._call_later is not None and not self._closing:
            self._gathering = True
            wait = min(GATHER_EACH_S * writes, GATHER_MAX_S)
            self._call_later(wait, self._gathered)
        # The disk first: it works on the next batch while the answers of this one go out.
        self._pump()
        self._deliver()
        if self._on_commit is not None:
            self._on_commit(len(answers))

    def _gathered(self) -> None:
        self._gathering = False
        self._pump()

    def _failed(self, failure: Failure, answers: list[Answer], writes: int) -> None:
        self._committed([failure.value] * len(answers), answers, writes)

    def _deliver(self) -> None:
        """Tells the submitters. What they submit in turn is gathered and goes together."""
        if self._delivering:
            return
        self._delivering = True
        while self._outcomes:
            (answer, settle), outcome = self._outcomes.popleft()
            if isinstance(outcome, BaseException):
                answer.errback(Failure(outcome))
            else:
                answer.callback(outcome if settle is None else settle(outcome))
        self._delivering = False
        self._pump()

    def _tell_closed(self, result: Any) -> None:
        waiters, self._close_waiters = self._close_waiters, []
        for waiter in waiters:
            waiter.callback(result)
