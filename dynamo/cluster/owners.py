"""Who has a place in the ring: every member that serves or has served, and did not leave for good.

Whether a member is there makes no difference: it keeps its place while it is stopped, dead, or
being replaced by another process under its name.
"""

from __future__ import annotations

from collections.abc import Iterable

from dynamo.core.members import Liveness, Member, Role
from dynamo.core.ring import Member as Placed
from dynamo.core.ring import Ring
from dynamo.log import make_logger

log = make_logger()


class Owners:
    """The ring and the members in it."""

    def __init__(self, partitions: int, copies: int) -> None:
        self._copies = copies
        self._in_ring: dict[str, Member] = {}
        self.ring = Ring((), partitions, copies)

    def update(self, members: Iterable[Member]) -> bool:
        """Takes what is known of the members; whether the ring became another."""
        for member in members:
            # Whoever takes over a name takes its place from the start; a new one when it serves.
            if gone(member):
                self._in_ring.pop(member.name, None)
            elif member.name in self._in_ring or member.role is not Role.JOINING:
                self._in_ring[member.name] = member
        placed = [Placed(name=m.name, zone=m.zone, weight=m.weight) for m in self._in_ring.values()]
        placed.sort(key=lambda member: member.name)
        if tuple(placed) == self.ring.members:
            return False
        self.ring = Ring(placed, self.ring.partitions, self._copies)
        names = ", ".join(sorted(self._in_ring))
        log.info("The ring has {n} members: {names}", n=len(placed), names=names)
        return True


def gone(member: Member) -> bool:
    """Whether a member left for good; one that was only stopped keeps its place."""
    return member.liveness is Liveness.LEFT and member.role is Role.LEAVING
