"""Which requests of a member come too late to be done.

A request whose sender has long given up may still lie in a network or in the socket of a process
that was paused, and do there what nobody expects any more. Every member numbers its requests, in
the order (incarnation, number): an incarnation is on disk before it is used and rises with every
start. A fence says of a member that none of its requests below a number is under way any more, so
that one which still comes is a straggler.
"""

from __future__ import annotations

import attrs

from dynamo.core.sightings import Origin


@attrs.define
class Fences:
    """The fence of each member, by name. `refused` counts stragglers."""

    by_name: dict[str, Origin] = attrs.field(factory=dict)
    refused: int = 0

    def put(self, fence: Origin) -> None:
        """Nothing below `fence` is under way at the member it names."""
        known = self.by_name.get(fence.name)
        if known is None or _order(fence) > _order(known):
            self.by_name[fence.name] = fence

    def passes(self, sent: Origin | None) -> bool:
        """Whether a request is none that was given up before the fence was put. One that does not
        say who sent it is not from a member."""
        fence = None if sent is None else self.by_name.get(sent.name)
        if sent is None or fence is None or sent.incarnation > fence.incarnation:
            return True
        # Two starts share an incarnation only where a disk was put back.
        same = sent.incarnation == fence.incarnation and sent.boot == fence.boot
        if same and sent.number >= fence.number:
            return True
        self.refused += 1
        return False


def _order(origin: Origin) -> tuple[int, int]:
    return (origin.incarnation, origin.number)
