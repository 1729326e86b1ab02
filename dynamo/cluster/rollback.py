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
    """The watch over one start.

    `opened` is this node's disk as this process found it; `renew(sure)` makes the node sign as
    somebody new, durably. If it is `sure` that the disk went back, the node's vote in the agreement
    in which it may have forgotten a promise also counts only with those of all; were that for a
    doubt, all could have it at once, and agree on nothing while one is away.
    """

    def __init__(
        self, opened: Origin, clock: IReactorTime, renew: Callable[[bool], Deferred[None]]
    ) -> None:
        self._opened = opened
        self._clock = clock
        self._renew = renew
        self._renewing = False
        self.doubted = False
        """Whether the node signs as somebody new because one that is there was silent."""
        self.found = False
        """Whether the disk was put back, and the node signs as somebody new for it."""

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
        sure = rolled_back(self._opened, seen)
        if not sure and (self.doubted or not silent):
            return False
        why = WENT_BACK if sure else UNKNOWN
        log.warn(f"{why} {SO}", name=self._opened.name, commit=self._opened.commit)
        self._begin(sure, after)
        return self._renewing

    def _begin(self, sure: bool, after: Callable[[], None]) -> None:
        self._renewing = True
        self._renew(sure).addCallbacks(
            self._renewed, self._failed, callbackArgs=(sure, after), errbackArgs=(sure, after)
        )

    def _renewed(self, _: None, sure: bool, after: Callable[[], None]) -> None:
        self._renewing, self.doubted = False, True
        self.found = self.found or sure
        after()

    def _failed(self, failure: Failure, sure: bool, after: Callable[[], None]) -> None:
        log.error("The new name cannot be stored: {why}", why=failure.getErrorMessage())
        self._clock.callLater(AGAIN_S, self._begin, sure, after)
