"""What is checked of what is shown while hints still wait to be told.

Once when some are cut off and only the others answer, and once as soon as every node sees every
other again. Keys are read, and buckets listed, with the R of the bucket and with R=1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from dynamo.core.buckets import Properties
from dynamo.sim.history import Place, Write
from dynamo.sim.oracle import rules
from dynamo.sim.oracle.listed import WHOLE, ListingChecks
from dynamo.sim.oracle.live import name, terms
from dynamo.sim.oracle.rest import RestChecks
from dynamo.sim.schedule import START_S
from dynamo.sim.workload import BUCKETS

LATEST = Properties(conflicts="latest")

OVER_S = 6.0
"""A write that was acknowledged so long ago carries nothing about any more."""

PLACES_MAX = 24
"""Of how many keys is asked while some are cut off."""


@attrs.frozen
class Shown:
    """What a node shows of a key when R are asked. `newest`: one version stands for all."""

    node: str
    place: Place
    r: int
    ids: frozenset[str]
    newest: bool

    @property
    def told(self) -> str:
        """It in words."""
        what = "the listing" if self.newest else "a read"
        return f"{what} by {self.node} at R={self.r}, which shows {sorted(self.ids)}"


@attrs.define(eq=False)
class ReturnChecks:
    """See the module. It asks as `rest` does."""

    rest: RestChecks
    listing: ListingChecks

    # When all are back.

    def hinted(self, rows: Sequence[bytes]) -> list[bytes]:
        """Those of the rows of which somebody keeps a hint for an owner."""
        registry = self.rest.registry
        return [
            row
            for row in rows
            if registry.locate(row) is not None
            and any(registry.hinted(row, owner) for owner in self.rest.owners(row))
        ]

    def readable(self, rows: Sequence[bytes]) -> None:
        """I1 before hints have arrived: what W nodes acknowledged is in every read and listing
        that R answered, for the owners say whom they await and stand-ins are asked."""
        places = self._places(rows)
        nodes = self.rest.world.running()
        # Now: what is asked repairs as it goes, and that may leave hints of another sort.
        known = {v.id for p in places for v in self._writes(p) if self._is_known_of(v)}
        for shown in self._ask(places, nodes):
            self._abreast(shown, known)

    def _abreast(self, shown: Shown, known_of: set[str]) -> None:
        place, r = shown.place, shown.r
        lacking = self._lacking(shown, lambda v: self._met(v, r) or v.id in known_of)
        if lacking:
            self._lost(lacking, shown, "as soon as all were back")
        writes = self._writes(place)
        known = [w for w in writes if w.id in shown.ids or self._met(w, r)]
        now = self.rest.live.now() + START_S
        pair = rules.stale(shown.ids, known, now, self.rest.live.uncovered)
        if pair is not None and self._met(pair[0], r) and not self.rest.forgotten(pair[1]):
            u, v = pair
            self._broken(
                "I3",
                f"{v.id} of {name(place)} is in {shown.told} as soon as all were back, though "
                f"{u.id} replaced it; {self.rest.live._dots(u, v)}; {self.rest.records(place)}",
            )

    def _met(self, write: Write, r: int) -> bool:
        """Whether each R nodes have one of the W that acknowledged it."""
        n, _, w = terms(write.bucket, self.rest.live.members, w=write.w)
        return r + w > n

    def _is_known_of(self, v: Write) -> bool:
        """Whether each owner has it, or was away and awaits a hint of it: its word counts for
        nothing then without those who keep hints for it. One that was there all the time and only
        did not answer knows nothing of its hints."""
        if v.ended + OVER_S > self.rest.world.schedule.now:
            return False
        registry = self.rest.registry
        for dot in sorted(registry.dots.get(v.id, ())):
            have, owners = registry.holders(dot), self.rest.owners(dot[0])
            if owners and all(o in have or registry.missed(dot, o) for o in owners):
                return True
        return False

    # When some are cut off.

    def reachable(self, rows: Sequence[bytes], away: Sequence[str]) -> None:
        """I1 while some are cut off: what an owner has that can be reached is in every read and
        listing that is answered, however many stand-ins, who never heard of it, do answer."""
        few = [row for row in rows if self._few(row, away)]
        nodes = [node for node in self.rest.world.running() if node not in away]
        for shown in self._ask(self._places(few)[:PLACES_MAX], nodes):
            if shown.r != terms(shown.place[0], self.rest.live.members)[1]:
                continue
            lacking = self._lacking(shown, lambda v: self._is_there(v, away))
            if lacking:
                self._lost(lacking, shown, f"while {', '.join(away)} are cut off")

    def _few(self, row: bytes, away: Sequence[str]) -> bool:
        """Whether so many owners are away that stand-ins could make up R without the others."""
        owners = self.rest.owners(row)
        return 0 < sum(owner not in away for owner in owners) < len(owners)

    def _is_there(self, v: Write, away: Sequence[str]) -> bool:
        """Whether an owner that can be reached has had it for long."""
        if v.ended + OVER_S > self.rest.world.schedule.now:
            return False
        arrivals, since = self.rest.registry.arrivals, v.ended + OVER_S
        return any(
            arrivals.everywhere(dot, (owner,), since, self.rest.live.spoiled)
            for dot in sorted(self.rest.registry.dots.get(v.id, ()))
            for owner in self.rest.owners(dot[0])
            if owner not in away
        )

    # Both.

    def _writes(self, place: Place) -> list[Write]:
        return self.rest.live.history.at.get(place, [])

    def _places(self, rows: Sequence[bytes]) -> list[Place]:
        found = [self.rest.registry.locate(row) for row in rows]
        places = sorted({located.place for located in found if located is not None})
        return [p for p in places if BUCKETS.get(p[0], LATEST).conflicts != "latest"]

    def _ask(self, places: Sequence[Place], nodes: Sequence[str]) -> list[Shown]:
        """What these nodes show of these keys, as far as they answer."""
        live = self.rest.live
        rs = {place: terms(place[0], live.members)[1] for place in places}
        listings: list[tuple[str, str, int, dict[str, str] | None]] = []
        for bucket, r in sorted({(p[0], r) for p, own in rs.items() for r in (own, 1)}):
            for node in nodes:
                self.listing.list_bucket(node, bucket, WHOLE, must=False, r=r).addCallback(
                    lambda listed, *of: listings.append((*of, listed)), node, bucket, r
                )
        work = [(node, p, r) for p, own in rs.items() for r in {own: 0, 1: 0} for node in nodes]
        found = [
            Shown(read.entry, read.place, read.r or 0, read.shown, False)
            for read in self.rest.reads(work, must=False)
        ]
        for node, bucket, r, listed in listings:
            for place in [p for p in places if p[0] == bucket and listed is not None]:
                write = live.history.by_etag.get((listed or {}).get(place[1], ""))
                ids = frozenset((write.id,)) if write is not None else frozenset()
                found.append(Shown(node, place, r, ids, True))
        return found

    def _lacking(self, shown: Shown, due: Callable[[Write], bool]) -> Write | None:
        """A version that is due and not shown."""
        writes = self._writes(shown.place)
        lost = self.rest.registry.losses.unkeepable
        owed = [v for v in rules.owed(writes) if v.id not in lost and due(v)]
        if owed:
            self.rest.live.tally.held("I1")
        if shown.newest and shown.ids:
            return None
        return next((v for v in owed if v.id not in shown.ids), None)

    def _lost(self, v: Write, shown: Shown, when: str) -> None:
        self._broken(
            "I1",
            f"{v.id} of {name(shown.place)}, acknowledged at {v.ended:.3f} by {v.entry}, is not in "
            f"{shown.told} {when}; {self.rest.live._dots(v)}; {self.rest.records(shown.place)}",
        )

    def _broken(self, invariant: str, text: str) -> None:
        self.rest.live.tally.broken(invariant, self.rest.live.now(), text)
