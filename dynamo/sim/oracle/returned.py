"""What is checked as soon as every node sees every other, while hints still wait to be told."""

from __future__ import annotations

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


@attrs.define(eq=False)
class ReturnChecks:
    """See the module. It asks as `rest` does."""

    rest: RestChecks
    listing: ListingChecks

    def readable(self, rows: list[bytes]) -> None:
        """I1 before hints have arrived: what W nodes acknowledged is in every read and listing
        that R answered, for the owners say whom they await and stand-ins are asked."""
        found = [self.rest.registry.locate(row) for row in rows]
        places = sorted({located.place for located in found if located is not None})
        places = [p for p in places if BUCKETS.get(p[0], LATEST).conflicts != "latest"]
        nodes = self.rest.world.running()
        rs = {place: terms(place[0], self.rest.live.members)[1] for place in places}
        listings: list[tuple[str, str, dict[str, str] | None]] = []
        for bucket in dict.fromkeys(place[0] for place in places):
            for node in nodes:
                self.listing.list_bucket(node, bucket, WHOLE, must=False).addCallback(
                    lambda listed, node, bucket: listings.append((node, bucket, listed)),
                    node,
                    bucket,
                )
        work = [(node, place, rs[place]) for place in places for node in nodes]
        reads = self.rest.reads(work, must=False)
        for read in reads:
            told = f"{read.entry} at R={read.r}, which shows {sorted(read.shown)}"
            self._abreast(read.place, read.r or 0, read.shown, f"a read by {told}")
        for node, bucket, listed in listings:
            for place in [p for p in places if p[0] == bucket]:
                if listed is None:
                    break
                write = self.rest.live.history.by_etag.get(listed.get(place[1], ""))
                shown = frozenset((write.id,)) if write is not None else frozenset()
                self._abreast(place, rs[place], shown, f"the listing by {node}", newest=True)

    def _abreast(
        self, place: Place, r: int, shown: frozenset[str], told: str, *, newest: bool = False
    ) -> None:
        """`newest`: one version stands for all."""
        due = self._due(place, r)
        lacking = [v for v in due if v.id not in shown]
        if lacking and not (newest and shown):
            v = lacking[0]
            self.rest.live.tally.broken(
                "I1",
                self.rest.live.now(),
                f"{v.id} of {name(place)}, acknowledged at {v.ended:.3f} by {v.entry}, is not in "
                f"{told} as soon as all were back; {self.rest.live._dots(v)}; "
                f"{self.rest.records(place)}",
            )
        elif due:
            self.rest.live.tally.held("I1")
        writes = self.rest.live.history.at.get(place, [])
        known = [w for w in writes if w.id in shown or self._met(w, r)]
        pair = rules.stale(shown, known, self.rest.live.now() + START_S, self.rest.live.uncovered)
        if pair is not None and self._met(pair[0], r) and not self.rest.forgotten(pair[1]):
            u, v = pair
            self.rest.live.tally.broken(
                "I3",
                self.rest.live.now(),
                f"{v.id} of {name(place)} is in {told} as soon as all were back, though {u.id} "
                f"replaced it; {self.rest.live._dots(u, v)}; {self.rest.records(place)}",
            )

    def _met(self, write: Write, r: int) -> bool:
        """Whether each R nodes have one of the W that acknowledged it."""
        n, _, w = terms(write.bucket, self.rest.live.members, w=write.w)
        return r + w > n

    def _due(self, place: Place, r: int) -> list[Write]:
        """The versions that a read of R nodes has to show, whatever else is under way."""
        writes = self.rest.live.history.at.get(place, [])
        lost = self.rest.registry.unkeepable
        return [v for v in rules.owed(writes) if self._met(v, r) and v.id not in lost]
