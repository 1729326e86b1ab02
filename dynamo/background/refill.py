"""Taking back what was on a lost disk, from the other owners of each partition.

What is lacking of whom is every pair of this node and another owner that is not whole yet
(`dynamo.core.refilling`); how it is pulled says `dynamo.background.pulling`. A crash of either side
costs a comparison.
"""

from __future__ import annotations

import attrs

from dynamo.background.pulling import Pulling
from dynamo.core.exchanges import Pair
from dynamo.log import make_logger
from dynamo.storage.facts import Identity

BEGINNING = "This node takes back what was on its disk: {left} partitions are to be compared"

log = make_logger()


@attrs.define(eq=False)
class Refill:
    """See the module. `identity` says whether there is anything to do."""

    pulling: Pulling
    identity: Identity
    _expected: object = None

    async def step(self) -> bool:
        """Does a slice; True if there is more to do now."""
        pulling = self.pulling
        if self.identity.whole or not pulling.around.keeper.trees.complete:
            return False
        if not self.identity.actor or not self._look():
            return False
        if pulling.state.done:
            await self._end()
            return False
        more = await pulling.step()
        self._tell()
        return more

    def appeared(self, peer: str) -> None:
        """A member is there: what it holds is asked for at the next step."""
        self.pulling.appeared(peer)

    def _look(self) -> bool:
        """Takes note of what pairs there are; False if the keys have to be counted anew first."""
        pulling, ring = self.pulling, self.pulling.around.view.ring
        if not pulling.recount():
            self._expected = None
            return False
        classes = pulling.around.classes()
        if self._expected != (ring.version, classes):
            self._expected = (ring.version, classes)
            pulling.state.expect(self._pairs(classes))
            pulling.state.mark(pulling.clock.seconds())
            self._tell()
        return True

    def _pairs(self, classes: tuple[int, ...]) -> list[Pair]:
        ring, me = self.pulling.around.view.ring, self.pulling.around.view.name
        return [
            (partition, peer, copies)
            for partition in range(ring.partitions)
            for copies in classes
            if me in (owners := ring.owners(partition, copies))
            for peer in owners
            if peer != me
        ]

    # What is said of it.

    def _tell(self) -> None:
        self.pulling.tell(BEGINNING, "whole")

    async def _end(self) -> None:
        state = self.pulling.state
        progress = state.progress(self.pulling.clock.seconds())
        await self.identity.end_refill()
        log.info(
            "This node is whole: {done} partitions, for which it took {keys} keys and {size} bytes",
            done=progress.partitions_done,
            keys=state.keys,
            size=progress.bytes,
        )
