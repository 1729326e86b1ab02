"""One queue of operations to one peer, sent in batches.

While a request is under way, what arrives meanwhile waits and goes out together as the next one;
what arrives in one turn of the reactor shares a request from the start. So the price of an HTTP
exchange is shared by as many operations as there is load, and a slow peer fills its own queue and
nothing else. A queue has a limit; past it an operation fails at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dynamo.errors import Overloaded, PeerBroke
from dynamo.wire.faults import raised
from dynamo.wire.messages import Coordinate, Fault, Merge, Op, Reply

OPS_MAX = 256
BYTES_MAX = 4 * 1024 * 1024
QUEUE_MAX = 10_000
QUEUE_BYTES_MAX = 32 * 1024 * 1024

Send = Callable[[Sequence[Op]], Deferred[Sequence[Reply]]]


class Lane:
    """Batches operations to `peer`, at most `in_flight_max` requests at once.

    `send` carries one batch and fires with its replies, in order. In `filled` it is while anything
    waits in it.
    """

    def __init__(
        self,
        peer: str,
        clock: IReactorTime,
        send: Send,
        in_flight_max: int = 1,
        filled: set[Lane] | None = None,
    ) -> None:
        self.peer = peer
        self._filled = filled if filled is not None else set()
        self._clock = clock
        self._send = send
        self._in_flight_max = in_flight_max
        self._in_flight = 0
        self._flushing = False
        self._queue: deque[tuple[Op, Deferred[Reply], int]] = deque()
        self._queued_bytes = 0
        self._gave_up = 0
        self._under_way: dict[Deferred[Sequence[Reply]], list[tuple[Op, Deferred[Reply]]]] = {}

    def call(self, op: Op) -> Deferred[Reply]:
        """Queues one operation; fires with its reply, or fails with the `Fault` it stands for."""
        if self._full() and not self._made_room():
            return fail(Overloaded(f"queue to {self.peer}"))
        done: Deferred[Reply] = Deferred(self._given_up)
        size = weight(op)
        self._queue.append((op, done, size))
        self._filled.add(self)
        self._queued_bytes += size
        self._flush_soon()
        return done

    @property
    def waiting(self) -> bool:
        """Whether a batch is being gathered that one more operation could join for free."""
        return bool(self._queue)

    @property
    def behind(self) -> bool:
        """Whether more waits than one request carries."""
        return len(self._queue) > OPS_MAX or self._queued_bytes > BYTES_MAX

    def _given_up(self, _: object) -> None:
        self._gave_up += 1
        if self._under_way:
            self._clock.callLater(0, self._break_off)

    def _break_off(self) -> None:
        """What nobody waits for any more should not be done late either: breaks off requests of
        which that is true of every operation."""
        for sent, batch in list(self._under_way.items()):
            if all(done.called for _, done in batch):
                sent.cancel()

    def _full(self) -> bool:
        return len(self._queue) >= QUEUE_MAX or self._queued_bytes >= QUEUE_BYTES_MAX

    def _made_room(self) -> bool:
        """Drops the operations that nobody waits for any more, if there may be any."""
        if self._gave_up:
            self._queue = deque(entry for entry in self._queue if not entry[1].called)
            self._queued_bytes = sum(size for _, _, size in self._queue)
            self._gave_up = 0
        return not self._full()

    def _flush_soon(self) -> None:
        if not self._flushing and self._in_flight < self._in_flight_max:
            self._flushing = True
            self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        batch: list[tuple[Op, Deferred[Reply]]] = []
        size = 0
        while self._queue and len(batch) < OPS_MAX and size < BYTES_MAX:
            op, done, each = self._queue.popleft()
            self._queued_bytes -= each
            if not done.called:  # cancelled while it waited
                batch.append((op, done))
                size += each
        if not self._queue:
            self._filled.discard(self)
        if not batch:
            return
        self._in_flight += 1
        sent = self._send([op for op, _ in batch])
        self._under_way[sent] = batch
        sent.addBoth(self._ended, sent)
        sent.addCallbacks(self._answered, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))
        sent.addErrback(self._failed, batch)
        if self._queue:
            self._flush_soon()

    def _answered(self, replies: Sequence[Reply], batch: list[tuple[Op, Deferred[Reply]]]) -> None:
        if len(replies) != len(batch):
            raise PeerBroke(self.peer, f"answered {len(batch)} operations {len(replies)} times")
        self._next()
        for (_, done), reply in zip(batch, replies, strict=True):
            if done.called:
                continue
            if isinstance(reply, Fault):
                done.errback(Failure(raised(self.peer, reply)))
            else:
                done.callback(reply)

    def _failed(self, failure: Failure, batch: list[tuple[Op, Deferred[Reply]]]) -> None:
        self._next()
        for _, done in batch:
            if not done.called:
                done.errback(failure)

    def _ended(self, result: Any, sent: Deferred[Sequence[Reply]]) -> Any:
        self._under_way.pop(sent, None)
        return result

    def _next(self) -> None:
        self._in_flight -= 1
        if self._queue:
            self._flush_soon()


def weight(op: Op) -> int:
    """Roughly how many bytes an operation takes on the wire."""
    if isinstance(op, Merge):
        size = 200
        for version in op.record.versions:
            size += len(version.body) + 34 * len(version.chunks)
        return size
    if isinstance(op, Coordinate) and op.draft is not None:
        return 200 + len(op.draft.body) + 34 * len(op.draft.chunks)
    return 100
