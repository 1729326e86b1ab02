"""What must have moved as reads go over to another ring, and by when.

While a ring is coming some still write by the old one alone. Only when none of those that are there
does so any more, what was written before is pulled by those who will own it, and what was kept for
members that are away is passed on to them. So whatever was on a disk by then must be where it is to
be when reads go over. Who was away is judged when it is back and counts as whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from dynamo.core.layout import Layout
from dynamo.sim.history import Write
from dynamo.sim.oracle import rules
from dynamo.sim.oracle.arrivals import Dot
from dynamo.sim.oracle.live import name
from dynamo.sim.oracle.mirrors import covers, knows
from dynamo.sim.workload import BUCKETS

if TYPE_CHECKING:
    from dynamo.sim.oracle.rings import RingChecks


@attrs.frozen
class Debt:
    """What a member that is away has to have when it counts as whole again."""

    write: Write
    dot: Dot
    version: int
    """By which layout it owns it."""


@attrs.define(eq=False)
class MovingChecks:
    """See the module. `before`: up to when somebody who is there was seen to go by an earlier
    layout than the coming one."""

    rings: RingChecks
    before: float = float("-inf")
    _debts: dict[str, list[Debt]] = attrs.field(factory=dict)

    # As time goes on.

    def begins(self, now: float) -> None:
        """A ring is coming."""
        self.before = now

    def look(self, unseen: set[str]) -> None:
        """To be called now and then."""
        rings = self.rings
        if rings.latest.stage == "coming" and self._behind(rings.latest, unseen):
            self.before = rings.world.schedule.now
        for member in [n for n in self._debts if self._is_whole(n)]:
            for debt in self._debts.pop(member):
                self._collect(member, debt)

    def _behind(self, layout: Layout, unseen: set[str]) -> list[str]:
        """Those that are there and do not go by it."""
        nodes = [(n, self.rings.world.hosts[n].node) for n in layout.names() if n not in unseen]
        return [
            member
            for member, node in nodes
            if node is not None
            and (node.identity.refilling or node.view.layouts.used < layout.version)
        ]

    def followed(self, before: Layout, layout: Layout, unseen: set[str]) -> None:
        """I16: a step of a change waits until all that are there go by the one before."""
        if layout.version != before.version + 1:
            return
        if (before.stage, layout.stage) not in (("coming", "going"), ("going", "steady")):
            return
        behind = self._behind(before, unseen)
        if behind:
            self._broken(
                f"layout {layout.version} is decided while {', '.join(behind)}, who was there all "
                f"the while, does not go by {before.version} yet"
            )
        else:
            self.rings.live.tally.held("I16")

    # As reads go over.

    def go_over(self, coming: Layout, away: set[str]) -> None:
        """I16: everything is where it has to be, but for those that are away."""
        rings, live = self.rings, self.rings.live
        for v, dot in self._owed():
            now = rings.owners_by(coming.members, dot[0])
            then = rings.owners_by(coming.beside, dot[0])
            have = [o for o in now if o not in away and self._had(dot, o)]
            holders = live.registry.holders(dot)
            lacking = [o for o in then if o not in now and o not in holders]
            there = [o for o in lacking if o not in away]
            if have and there:
                self._broken(
                    f"reads go over from layout {coming.version}, and {', '.join(there)} has not "
                    f"pulled {v.id} of {name(v.place)}, which {', '.join(have)} had when all went "
                    "by it"
                )
            elif have:
                live.tally.held("I16")
            others = [o for o in then if o in holders]
            for member in [o for o in then if o in away and o not in holders]:
                if self._has_synced(member, coming):
                    continue  # It is back, and has pulled what is new to it.
                if have and len(others) == len(then) - 1:
                    self._debts.setdefault(member, []).append(Debt(v, dot, coming.version + 1))
        self._passed_on(coming, away)

    def _has_synced(self, member: str, coming: Layout) -> bool:
        node = self.rings.world.hosts[member].node
        return node is not None and node.view.layouts.synced >= coming.version

    def _had(self, dot: Dot, owner: str) -> bool:
        """Whether an owner had it on its disk when all went by the coming layout."""
        return self.rings.live.registry.arrivals.everywhere(dot, (owner,), self.before, {})

    def _owed(self) -> Iterator[tuple[Write, Dot]]:
        live = self.rings.live
        for place, writes in live.history.at.items():
            if place[0] not in BUCKETS or BUCKETS[place[0]].conflicts == "latest":
                continue
            for v in rules.owed(writes):
                for dot in sorted(live.registry.dots.get(v.id, ())):
                    if not v.replaced and v.id not in live.registry.losses.unkeepable:
                        yield v, dot

    def _passed_on(self, coming: Layout, away: set[str]) -> None:
        """What is still kept for others, the coming owners have as well."""
        registry = self.rings.live.registry
        for keeper, note in registry.noted.before(self.before):
            if keeper in away or keeper not in registry.mirrors:
                continue
            for owner in self.rings.owners_by(coming.beside, note.row):
                if owner in away or owner not in registry.mirrors:
                    continue
                known = registry.mirrors[owner].known(note.row).context
                if covers(known, note.context):
                    self.rings.live.tally.held("I16")
                elif not registry.losses.was_lost(note.row, note.context):
                    self._broken(
                        f"reads go over from layout {coming.version}, and {owner} was not told of "
                        f"{registry.told(note.row)}, {note.context}, which {keeper} keeps for "
                        f"{note.target}"
                    )

    # When one is back.

    def _is_whole(self, member: str) -> bool:
        """Whether one that was away takes part again, and says that it lacks nothing."""
        rings = self.rings
        if member in rings.world.absent:
            return True
        node = rings.world.hosts[member].node
        return (
            node is not None
            and node.view.joined
            and not node.identity.refilling
            and node.view.layouts.used >= max(debt.version for debt in self._debts[member])
        )

    def _collect(self, member: str, debt: Debt) -> None:
        rings, registry, row = self.rings, self.rings.live.registry, debt.dot[0]
        spoiled = (
            rings.live.spoiled.get(member, -1.0) > 0 or debt.write.id in registry.losses.unkeepable
        )
        if member in rings.world.absent or spoiled:
            return
        writes = rings.live.history.at[debt.write.place]
        if debt.write.replaced or debt.write not in rules.owed(writes):
            return
        if member not in rings.owners(row) or registry.is_gone(row):
            return
        if knows(registry.mirrors[member].records.get(row), *debt.dot[1:]):
            rings.live.tally.held("I16")
            return
        self._broken(
            f"{member} was away while the ring changed to layout {debt.version}, counts as whole "
            f"again, and lacks {debt.write.id} of {registry.told(row)}, which all other owners had"
        )

    def _broken(self, text: str) -> None:
        self.rings.live.tally.broken("I16", self.rings.live.now(), text)
