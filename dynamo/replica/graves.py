"""What this node answers when tombstones are about to be reaped, as one of all the members.

A tombstone may go when nothing older than it is left, anywhere or on its way. In four questions, of
which each is put to every member once all have answered the one before:

1. *Look*: the very tombstone, or nothing, is all this node holds of the key. From then on the node
   takes note if anything is about to be stored or noted of it.
2. *Settle*: whatever was under way here when all had looked has ended, and so has whatever was sent
   since: what could still arrive of it lies below the fence that is answered.
3. *Seal*: what lies below anybody's fence is not done here any more, and nothing has been stored or
   noted of the key since the first question.
4. *Bury*: it goes.

docs/ARCHITECTURE.md says why that is enough.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred

from dynamo.core.fences import Fences
from dynamo.core.grace import Grace
from dynamo.core.sightings import Origin
from dynamo.core.watches import Watches
from dynamo.errors import BadRequest, NotReady
from dynamo.ports import ClusterView
from dynamo.storage import burials
from dynamo.storage.copies import Copies
from dynamo.wire import reaping
from dynamo.wire.messages import Op, Reply

GRAVES_MAX = 1024


@attrs.define(eq=False)
class GraveKeeper:
    """See the module. `origin()` is what the next request of this node says of itself, or None
    while it does not yet say which start it is of. `wall_ms` reads milliseconds since the epoch,
    `actor()` is the node's. `reaped` counts tombstones that went from this disk."""

    copies: Copies
    view: ClusterView
    actor: Callable[[], str]
    wall_ms: Callable[[], int]
    origin: Callable[[], Origin | None]
    grace: Grace
    fences: Fences = attrs.field(factory=Fences)
    watches: Watches = attrs.field(factory=Watches)
    reaped: int = 0

    def __attrs_post_init__(self) -> None:
        self.copies.touched = self.watches.touched

    def handlers(self) -> dict[type[Op], Callable[..., Reply | Deferred[Reply]]]:
        """For `dynamo.replica.local.LocalReplica.handlers`."""
        return {
            reaping.GravesLook: self._look,
            reaping.GravesSettle: self._settle,
            reaping.GravesSeal: self._seal,
            reaping.GravesBury: self._bury,
        }

    def _look(self, op: reaping.GravesLook) -> Deferred[Reply]:
        self._check(op.ring, len(op.graves))
        self.watches.begin(op.sender, op.number, [(i, key) for i, key, _ in op.graves])
        looked = burials.look(self.copies, op.graves, self.wall_ms())
        return looked.addCallback(lambda clean: reaping.GravesReply(tuple(clean)))

    def _settle(self, op: reaping.GravesSettle) -> Reply:
        self._check(op.ring, 0)
        fence = self.origin()
        if fence is None:
            raise NotReady("This node has not said yet which start it is of.")
        ended = not op.mark or self.grace.passed(op.mark)
        return reaping.GravesSettled(ended, self.grace.mark(), fence)

    def _seal(self, op: reaping.GravesSeal) -> Reply:
        self._check(op.ring, len(op.keys))
        for fence in op.fences:
            self.fences.put(fence)
        intact = [self.watches.intact(op.sender, op.number, key) for key in op.keys]
        return reaping.GravesReply(tuple(intact))

    def _bury(self, op: reaping.GravesBury) -> Deferred[Reply]:
        ready = [
            (incarnation, key, mark)
            for incarnation, key, mark in op.graves[:GRAVES_MAX]
            if self.watches.intact(op.sender, op.number, (incarnation, key))
        ]
        buried = burials.bury(self.copies, self.actor(), ready)
        return buried.addCallback(self._buried)

    def _buried(self, gone: int) -> Reply:
        self.reaped += gone
        return reaping.GravesReply((True,) * gone)

    def _check(self, ring: str, number: int) -> None:
        if ring != self.view.ring.version:
            raise NotReady("This node knows of other members.")
        if number > GRAVES_MAX:
            raise BadRequest("bad_graves", f"At most {GRAVES_MAX} keys may be asked about.")
