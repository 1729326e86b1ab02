"""What a large body's record needs where the body was not sent as it came.

While the ring changes a body goes to the targets by the ring that reads go by, and to as many by
the other as W needs (`dynamo.core.preference.Preference.bearers`). The rest are brought their
chunks here: one member after another, and with pauses, since no client waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from dynamo.ports import ClusterView
from dynamo.replica.transfer import fetch, others, supply
from dynamo.wire import messages

T = TypeVar("T")

SHARE = 0.25
"""Of the time, while a member is brought chunks."""

PAUSE_MAX_S = 1.0
CHUNKS_MAX = 64
"""So many may be on their way or wait for it, since the ring's next step waits for them too; for
more a hint is kept."""


@attrs.define(eq=False)
class Supplying:
    """Brings chunks to the members of `view` that lack them."""

    view: ClusterView
    clock: IReactorTime
    _chunks: int = 0
    _turn: DeferredSemaphore = attrs.field(factory=lambda: DeferredSemaphore(1))

    def has_room(self, chunks: int) -> bool:
        """Whether so many more may wait."""
        return self._chunks + chunks <= CHUNKS_MAX

    def bring(
        self,
        name: str,
        merge: messages.Merge,
        lacking: Sequence[bytes],
        waited_for: Callable[[], bool],
    ) -> Deferred[None]:
        """Sends a member the chunks it lacks, then the record; fires when it has taken that, and
        fails as its calls do, or with `MissingChunks` if nobody has them.

        `waited_for()`: a client's answer depends on it, so that it waits for no turn and makes no
        pauses."""
        work = partial(self._bring, name, merge, lacking, waited_for)
        if waited_for():
            return Deferred.fromCoroutine(work())
        self._chunks += len(lacking)
        brought: Deferred[None] = self._turn.run(lambda: Deferred.fromCoroutine(work()))
        return brought.addBoth(self._ended, len(lacking))

    def _ended(self, outcome: T, chunks: int) -> T:
        self._chunks -= chunks
        return outcome

    async def _bring(
        self,
        name: str,
        merge: messages.Merge,
        lacking: Sequence[bytes],
        waited_for: Callable[[], bool],
    ) -> None:
        target = self.view.replica(name)
        holders = [self.view.replica(self.view.name), *others(self.view, name)]
        began: float | None = None

        async def next_one(digest: bytes) -> bytes:
            nonlocal began
            if began is not None and not waited_for():
                took = self.clock.seconds() - began
                pause = min(took * (1 / SHARE - 1), PAUSE_MAX_S)
                await deferLater(self.clock, pause)  # type: ignore[arg-type]
            began = self.clock.seconds()
            return await fetch(digest, holders)

        await supply(target, lacking, next_one)
        await target.call(merge)
