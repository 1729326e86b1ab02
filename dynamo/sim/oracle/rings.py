"""What must hold while the ring changes, and who has a part in it.

It knows the layouts from the drives alone: whatever one of them adopts has been decided. Of two
drives that adopt the same version, both must have adopted the same. When a node is in no ring any
more its drive counts for nothing: what it had must be with others by then. Only what no other had
when it went, without having been there to hand it over, is let pass as gone with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from dynamo.core.layout import NONE, Layout
from dynamo.core.record import EMPTY, Record
from dynamo.core.ring import Member, Ring
from dynamo.ports import ClusterView
from dynamo.sim.history import Write
from dynamo.sim.oracle import rules
from dynamo.sim.oracle.live import LiveChecks, name, terms
from dynamo.sim.oracle.mirrors import covers, describe
from dynamo.sim.oracle.moving import MovingChecks
from dynamo.sim.oracle.registry import Registry
from dynamo.sim.workload import BUCKETS
from dynamo.sim.world import World

MARGIN_S = 0.3
"""For so long before a write nobody may have adopted another layout, if it is to be judged by the
one there is."""


@attrs.define(eq=False)
class RingChecks:
    """See the module. `latest`: the last layout that was decided, as far as a drive knows."""

    world: World
    live: LiveChecks
    latest: Layout = NONE
    adopted_at: float = float("-inf")
    latest_at: float = float("-inf")
    moving: MovingChecks = attrs.field(init=False)
    _coming_at: float = float("-inf")
    _by_version: dict[tuple[int, int], Layout] = attrs.field(factory=dict)
    _held: dict[str, Layout] = attrs.field(factory=dict)
    _before: dict[str, Layout] = attrs.field(factory=dict)
    _unseen: set[str] = attrs.field(factory=set)
    _rings: dict[tuple[Member, ...], Ring] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.moving = MovingChecks(self)

    @property
    def _registry(self) -> Registry:
        return self.live.registry

    # Layouts.

    def adopted(self, drive: str, layout: Layout) -> None:
        """A drive has another layout; `NONE` for one that is empty."""
        self.adopted_at = self.world.schedule.now
        self._before[drive] = self._held.get(drive, NONE)
        self._held[drive] = layout
        if not layout.version:
            return
        known = self._by_version.setdefault((layout.birth, layout.version), layout)
        births = {birth for birth, _ in self._by_version}
        if known != layout:
            self._broken(f"{drive} adopts {layout}, and another adopted {known}")
        elif len(births) > 1:
            self._broken(f"{drive} adopts a layout of a cluster that was founded apart: {layout}")
        else:
            self.live.tally.held("I16")
        if layout.order > self.latest.order:
            before, self.latest = self.latest, layout
            self.latest_at = self.world.schedule.now
            self.world.members = tuple(m.name for m in layout.members)
            self._changed(before, layout)

    def _changed(self, before: Layout, layout: Layout) -> None:
        if before.stage != "steady":
            self._look_at(before)
            self.moving.followed(before, layout, self._unseen)
        if layout.stage == "coming":
            # Who is not in doubt only now may have been away from the start.
            self._unseen.clear()
            self._coming_at = self.world.schedule.now
            self.moving.begins(self._coming_at)
            self.look()
        if layout.stage == "going" and before.stage == "coming":
            self._handed_over(layout)
            self._pulled(before)
            self.moving.go_over(before, {*self._unseen, *self.live.spoiled})
        for gone in before.names():
            if not layout.knows(gone) and gone not in self.world.absent:
                self._departed(gone)
        if layout.stage == "steady" or not before.version:
            rows = (row for mirror in self._registry.mirrors.values() for row in mirror.records)
            all_rows = dict.fromkeys(rows)
            self._registry.dirty.update(all_rows)
            self._registry.touched.update(all_rows)

    def look(self) -> None:
        """Notes who is away while a ring is coming; to be called now and then."""
        if self.latest.stage != "steady":
            self._look_at(self.latest)
        self.moving.look(self._unseen)

    def _look_at(self, layout: Layout) -> None:
        views = [h.node.view for h in self.world.hosts.values() if h.node is not None]
        # Who is cut off holds all others to be away; that says nothing of them.
        views = [view for view in views if _is_seen(view.name, views)]
        for member in layout.names():
            there = self.world.hosts[member].node is not None
            if not there or not all(_sees(v, member) for v in views if v.name != member):
                self._unseen.add(member)

    def rings(self) -> list[Ring]:
        """The ring reads go by, and the one writes reach as well, if there is one."""
        latest = self.latest
        return [self._ring(members) for members in (latest.members, latest.beside) if members]

    def owners(self, row: bytes) -> tuple[str, ...]:
        """The owners of a row by the ring that reads go by; () for one of no bucket."""
        rings = self.rings()
        return self._owners(rings[0], row) if rings else ()

    def all_owners(self, row: bytes) -> tuple[str, ...]:
        """By any layout that a node may still go by."""
        found: dict[str, None] = {}
        held = [self._held[n] for n in self.world.present() if n in self._held]
        for layout in dict.fromkeys((self.latest, *held)):
            for members in (layout.members, layout.beside):
                if members:
                    found.update(dict.fromkeys(self._owners(self._ring(members), row)))
        return tuple(found)

    def owners_by(self, members: tuple[Member, ...], row: bytes) -> tuple[str, ...]:
        """The owners of a row where these are the ring's members."""
        return self._owners(self._ring(members), row)

    def _owners(self, ring: Ring, row: bytes) -> tuple[str, ...]:
        found = self._registry.locate(row)
        if found is None or self._registry.is_gone(row):
            return ()
        partition = ring.partition(found.bucket.incarnation, found.place[1].encode())
        return ring.ranking(partition)[: found.bucket.properties.n or 3]

    def _ring(self, members: tuple[Member, ...]) -> Ring:
        if members not in self._rings:
            config = self.world.hosts[self.world.names[0]].config
            partitions, copies = config.cluster.partitions, config.replication.n
            self._rings[members] = Ring(members, partitions, copies)
        return self._rings[members]

    def why_not_steady(self) -> str:
        """What has to happen before all go by one steady layout with all that have a part in the
        cluster, as heavy as their operators want them; "" if that is so."""
        latest, world = self.latest, self.world
        if latest.stage != "steady":
            return f"The last layout is {latest}."
        behind = [n for n in world.present() if self._held.get(n) != latest]
        if behind:
            return f"{', '.join(behind)} do not go by {latest}."
        wanted = {n: world.hosts[n].config.node.weight for n in world.present()}
        weights = {m.name: m.weight for m in latest.members}
        return "" if wanted == weights else f"The ring is {weights}, and ought to be {wanted}."

    # What has to be where.

    def by_all_rings(self, write: Write, holders: Iterable[str], excused: int) -> None:
        """I16: an acknowledged strict write has W owners in each ring, where all nodes went by the
        same layout from before it until now; in any case W in the ring that reads go by, whoever
        went by which, for who goes by one of long ago gets nothing done."""
        if write.quorum not in (None, "strict") or BUCKETS[write.bucket].quorum != "strict":
            return
        n, r, w = terms(write.bucket, len(self.latest.members), w=write.w)
        if self.latest.version and self.latest_at <= write.begun - MARGIN_S and r + w > n:
            self._have_it(write, set(holders), excused, self.rings()[:1])
        if not self.latest.beside or self.adopted_at > write.begun - MARGIN_S:
            return
        nodes = [self.world.hosts[n].node for n in self.world.present()]
        if any(node is not None and node.view.layout != self.latest for node in nodes):
            return
        self._have_it(write, set(holders), excused, self.rings())

    def _have_it(self, write: Write, have: set[str], excused: int, rings: list[Ring]) -> None:
        for _, row in self._registry.rows(write.place):
            for ring in rings:
                owners = self._owners(ring, row)
                _, _, w = terms(write.bucket, len(ring.members), w=write.w)
                there = [owner for owner in owners if owner in have]
                if owners and len(there) + excused < w:
                    self._broken(
                        f"{write.id} of {name(write.place)} was acknowledged by {write.entry} with "
                        f"W={w}, and of its owners {', '.join(owners)} by {self.latest.stage} "
                        f"layout {self.latest.version} only {', '.join(there) or 'nobody'} has it"
                    )
                elif owners:
                    self.live.tally.held("I16")

    def _handed_over(self, layout: Layout) -> None:
        """I16 as reads go over: of what strict writes had told, so many new owners have it that R
        of them cannot miss it."""
        ring = self._ring(layout.members)
        for place, writes in self.live.history.at.items():
            if place[0] in BUCKETS and BUCKETS[place[0]].quorum == "strict":
                n, r, w = terms(place[0], len(ring.members))
                for v in rules.owed(writes):
                    if self._counts(v, r, w, n) and not v.replaced:
                        self._is_with(v, ring, r)

    def _pulled(self, coming: Layout) -> None:
        """I16 as reads go over: what every owner had before the ring began to come, every new owner
        has that was there all the while."""
        now, then = self._ring(coming.members), self._ring(coming.beside)
        away = {*self._unseen, *self.live.spoiled}
        for place, writes in self.live.history.at.items():
            if place[0] not in BUCKETS or BUCKETS[place[0]].conflicts == "latest":
                continue
            for v in rules.owed(writes):
                holders = self.live.holders(v) or ()
                for row in sorted({dot[0] for dot in self._registry.dots.get(v.id, ())}):
                    owners = self._owners(now, row)
                    if v.ended > self._coming_at - MARGIN_S or v.replaced or not owners:
                        continue
                    if not all(owner in holders for owner in owners):
                        continue
                    if all(owner in away for owner in owners):
                        continue  # There was nobody to have it from.
                    lacking = [o for o in self._owners(then, row) if o not in holders]
                    if any(owner not in away for owner in lacking):
                        self._broken(
                            f"reads go over from layout {coming.version}, and {', '.join(lacking)} "
                            f"lacks {v.id} of {name(place)}, which {', '.join(owners)} have"
                        )
                    else:
                        self.live.tally.held("I16")

    def _is_with(self, v: Write, ring: Ring, r: int) -> None:
        registry, live = self._registry, self.live
        for row in sorted({dot[0] for dot in registry.dots.get(v.id, ())}):
            owners, holders = self._owners(ring, row), live.holders(v) or ()
            have = [owner for owner in owners if owner in holders]
            if not owners or v.id in registry.losses.unkeepable:
                continue
            if len(have) + r > len(owners):
                live.tally.held("I16")
                continue
            self._broken(
                f"reads go over to layout {self.latest.version}, and of the owners of "
                f"{name(v.place)}, {', '.join(owners)}, only {', '.join(have) or 'nobody'} has "
                f"{v.id}, acknowledged at {v.ended:.3f} by {v.entry}"
            )

    def _counts(self, v: Write, r: int, w: int, n: int) -> bool:
        """Whether a strict read in the new ring has to meet this write."""
        asked = w if v.w is None else v.w
        lost = [*self.live.spoiled.values(), *self.live.departed.values()]
        return (
            v.quorum in (None, "strict") and r + asked > n and not any(at >= v.begun for at in lost)
        )

    # Who goes.

    def _departed(self, gone: str) -> None:
        registry, world = self._registry, self.world
        excused = gone in self._unseen
        world.absent[gone] = None
        world.since.pop(gone, None)
        self._held.pop(gone, None)
        self.live.departed[gone] = world.schedule.now
        world.trace.add("sim", f"{gone} has no part in the ring any more")
        mirror = registry.mirrors.pop(gone)
        registry.noted.left(gone)
        rows = dict.fromkeys((*mirror.records, *mirror.held))
        if excused:
            for row in rows:
                registry.gone_with(row, mirror.known(row))
            return
        for row in rows:
            if registry.is_gone(row):
                continue
            for version in mirror.known(row).versions:
                write = self.live.history.by_etag.get(version.etag)
                dot = (row, version.actor, version.counter)
                if write is None or write.outcome != "acked" or registry.holders(dot):
                    continue
                if write not in rules.owed(self.live.history.at.get(write.place, [])):
                    continue
                if registry.losses.was_lost(row, {version.actor: version.counter}):
                    continue
                self._broken(
                    f"{gone} has left, and {write.id} of {registry.told(row)}, acknowledged at "
                    f"{write.ended:.3f}, is on no other disk"
                )
                break
            else:
                self.live.tally.held("I16")

    def cleared(self, drive: str, row: bytes, old: Record) -> bool:
        """Whether a record may be dropped as one that others own: by the steady layout of its own
        drive it has no part in it, and every owner knows all that it knows, or did until a row was
        damaged, which it will mend. What was under way as the next layout came may end, as
        long as the node does not say that it goes by that."""
        registry, layout = self._registry, self._held.get(drive, NONE)
        node = self.world.hosts[drive].node
        if layout.beside and node is not None and node.view.layouts.used < layout.version:
            layout = self._before.get(drive, NONE)
        if layout.stage != "steady" or not layout.version:
            return False
        owners = self._owners(self._ring(layout.members), row)
        if not owners or drive in owners:
            return False
        for owner in owners:
            mirror = registry.mirrors.get(owner)
            known = mirror.known(row).merge(mirror.seems(row)) if mirror is not None else EMPTY
            if not covers(known.context, old.context):
                return False
        return True

    def strangers(self, row: bytes) -> list[str]:
        """Those that hold a record they do not own, at rest."""
        owners = self.owners(row)
        if not owners:
            return []
        mirrors = self._registry.mirrors
        return [n for n in mirrors if n not in owners and mirrors[n].records.get(row)]

    def uncleared(self, rows: Iterable[bytes]) -> None:
        """I16 at rest: nobody keeps what others own."""
        for row in rows:
            for stranger in self.strangers(row):
                record = self._registry.mirrors[stranger].records[row]
                self._broken(
                    f"{stranger} keeps {self._registry.told(row)}, {describe(record)}, at rest, "
                    f"which {', '.join(self.owners(row))} own"
                )

    def _broken(self, text: str) -> None:
        self.live.tally.broken("I16", self.live.now(), text)


def _is_seen(name: str, views: Sequence[ClusterView]) -> bool:
    """Whether at least half of the others believe that a member may be there."""
    others = [view for view in views if view.name != name]
    return 2 * sum(_sees(view, name) for view in others) >= len(others)


def _sees(view: ClusterView, name: str) -> bool:
    return view.is_healthy(name) or view.is_doubtful(name)
