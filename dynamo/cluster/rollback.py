"""A node whose disk was put back to an earlier state finds out before it serves.

Its peers saw further commits of the same data directory in an earlier start
(`dynamo.core.sightings`), and say so in the conversation every start begins with. The node then
signs its writes as an actor nobody has heard of, because it no longer knows which dots it gave out.
It does the same where one that is there cannot be heard, rather than wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dynamo.core.sightings import Origin, rolled_back
from dynamo.log import make_logger
from dynamo.wire.hello import Hello

AGAIN_S = 1.0

WENT_BACK = (
    "The data directory of {name} is at an earlier state (commit {commit}) than members have seen: "
    "it was put back."
)
UNKNOWN = (
    "A member that is there does not say how far it saw the data directory of {name}, which is now "
    "at commit {commit}: it may have been put back."
)
SO = (
    "{name} signs its writes by a new name from now on, and takes what it has forgotten from the "
    "others."
)

log = make_logger()


class Rollback:
    """The watch over one start. `opened` is this node's disk as this process found it; `renew()`
    makes the node sign as somebody new, durably."""

    def __init__(
        self, opened: Origin, clock: IReactorTime, renew: Callable[[], Deferred[None]]
    ) -> None:
        self._opened = opened
        self._clock = clock
        self._renew = renew
        self._renewing = False
        self.found = False
        """Whether the disk was put back, or may have been, and the node signs as somebody new."""

    def pending(
        self, hellos: Iterable[Hello], after: Callable[[], None], *, silent: bool = False
    ) -> bool:
        """Whether the node has to wait before it gives out a dot, by what peers say they saw of
        it; `silent`: it is about to serve, and one that is there has not said. `after()` is called
        when it need not wait any longer."""
        if self._renewing:
            return True
        if self.found:
            return False
        seen = [origin for hello in hellos for origin in hello.seen.get(self._opened.name, ())]
        if rolled_back(self._opened, seen):
            why = WENT_BACK
        elif silent:
            why = UNKNOWN
        else:
            return False
        log.warn(f"{why} {SO}", name=self._opened.name, commit=self._opened.commit)
        self._begin(after)
        return self._renewing

    def _begin(self, after: Callable[[], None]) -> None:
        self._renewing = True
        self._renew().addCallbacks(
            self._renewed, self._failed, callbackArgs=(after,), errbackArgs=(after,)
        )

    def _renewed(self, _: None, after: Callable[[], None]) -> None:
        self._renewing, self.found = False, True
        after()

    def _failed(self, failure: Failure, after: Callable[[], None]) -> None:
        log.error("The new name cannot be stored: {why}", why=failure.getErrorMessage())
        self._clock.callLater(AGAIN_S, self._begin, after)
