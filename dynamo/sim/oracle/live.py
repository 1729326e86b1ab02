"""What is checked while the run goes on: at each acknowledgement, read, listing and failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs

from dynamo.core.buckets import Properties
from dynamo.core.quorum import majority
from dynamo.core.record import Context
from dynamo.errors import BadRequest
from dynamo.sim.history import (
    BucketChange,
    History,
    Listing,
    Outcomes,
    Place,
    Read,
    Write,
)
from dynamo.sim.oracle import rules
from dynamo.sim.oracle.registry import Registry
from dynamo.sim.tally import Tally
from dynamo.sim.workload import BUCKETS
from dynamo.wire.context import decode_context

CALM_S = 20.0
"""How long after the last fault everything has to work again."""

CHANGE_S = 6.0
"""For so long before a bucket's change all members must have seen each other, so that what was
left of earlier ones is over, and none is passed over as dead."""

PATIENCE_MIN_S = 3.0
"""Who gives an operation less time may find it too short."""


@attrs.define(eq=False)
class LiveChecks:
    """A `Watcher`. `calm_since()`: since when no fault is active, None while one is.

    `spoiled`: when a drive last lost something durable, by node; `damaged`: in which of the node's
    starts that was. `excused` counts what was let pass, by reason.
    """

    history: History
    registry: Registry
    tally: Tally
    now: Callable[[], float]
    calm_since: Callable[[], float | None]
    members: int
    spoiled: dict[str, float] = attrs.field(factory=dict)
    damaged: dict[str, int] = attrs.field(factory=dict)
    emptied: dict[str, float] = attrs.field(factory=dict)
    """As `spoiled`, without flipped bits: who knows what it lacks has to ask enough others for it
    before it counts in a quorum again."""
    excused: Counter[str] = attrs.field(factory=Counter)
    whole: Callable[[], bool] = lambda: False
    """Whether that is so, and every node has what was on a lost disk."""
    whole_since: float | None = None
    """Since when that was so whenever it was looked; None if it was not the last time."""
    well: Callable[[], bool] = lambda: False
    """Whether every node runs and is well in the eyes of every other now, be it whole or not."""
    well_since: float | None = None
    """As `whole_since`."""
    _emptied_at: dict[str, tuple[float, float]] = attrs.field(factory=dict)
    """When a bucket was last deleted for all to know: begin and end."""
    owners: Callable[[bytes], tuple[str, ...]] = lambda row: ()
    """The owners of a row, by any layout that is in use."""
    departed: dict[str, float] = attrs.field(factory=dict)
    """When a node was last seen to have no part in the ring any more."""
    by_all_rings: Callable[[Write, list[str], int], None] = lambda write, have, lost: None
    """Looks whether a write reached enough owners of each ring."""
    serves: Callable[[str, float], bool] = lambda name, since: True
    """Whether a node is to serve now, and was then."""

    # Writes.

    def wrote(self, write: Write) -> None:
        """I10: who was told that W have it, W have it, on disk, in that moment."""
        if write.outcome != "acked" or write.bucket not in BUCKETS:
            return
        n, _, w = terms(write.bucket, self.members, w=write.w)
        lost = sum(at >= write.begun for at in (*self.spoiled.values(), *self.departed.values()))
        have = self.holders(write)
        if have is None:
            return
        self.by_all_rings(write, have, lost)
        if len(have) + lost >= w:
            self.tally.held("I10")
            return
        self._broken(
            "I10",
            f"{write.id} of {name(write.place)} was acknowledged by {write.entry} with W={w} of "
            f"{n}, and {', '.join(have) or 'nobody'} has it on disk",
        )

    def holders(self, write: Write) -> list[str] | None:
        """The drives that have a write; None if that cannot be told."""
        registry = self.registry
        if write.deletes:
            for _, row, context in self.contexts(write):
                return registry.covering(row, context) if context else None
            return None
        dots = registry.dots.get(write.id, set())
        if not dots:
            # Replaced within the commit that stored it: its dot was on no disk by itself, and only
            # the answer may have told it.
            actor, _, counter = write.version.rpartition(".")
            dots = {(row, actor, int(counter)) for _, row in registry.rows(write.place) if actor}
            if not dots:
                return None
        found: list[str] = []
        for dot in sorted(dots):
            found += [holder for holder in registry.holders(dot) if holder not in found]
        return found

    def contexts(self, write: Write) -> list[tuple[str, bytes, Context]]:
        """The context a write carried, with the row it is of."""
        if not write.context:
            return []
        for bucket, row in self.registry.rows(write.place):
            try:
                context = decode_context(write.context, bucket.incarnation, write.key)
            except BadRequest:
                continue
            return [(write.bucket, row, context)]
        return []

    def uncovered(self, u: Write, v: Write) -> bool:
        """Whether some dot of `v` is not in the context that `u` carried. Only a write that was
        tried twice has more than one."""
        if v.id in self.registry.losses.put_back:
            self.excused["put back"] += 1
            return True
        dots = self.registry.dots.get(v.id, ())
        for _, row, context in self.contexts(u):
            for at, actor, counter in dots:
                if len(dots) > 1 and at == row and counter > context.get(actor, 0):
                    self.excused["two dots"] += 1
                    return True
        return False

    # Reads.

    def read(self, read: Read) -> None:
        """I8, I9 and I11."""
        writes = self.history.at.get(read.place, [])
        pair = rules.together(read.shown, writes, self.uncovered)
        if pair is not None:
            u, v = pair
            self._broken(
                "I8",
                f"{read.entry} showed {v.id} of {name(read.place)} beside {u.id}, whose client "
                f"{u.client} had seen it: {self._dots(u, v)}",
            )
        elif read.shown:
            self.tally.held("I8")
        if len(read.shown) > 1:
            self.tally.held("I11")
        self._returned(read, writes)
        if not read.newest and self._strict(read.bucket, read.r, read.quorum):
            self._strict_read(read, writes)
        if not read.newest:
            self._shown_by_all(read, writes)

    def _shown_by_all(self, read: Read, writes: list[Write]) -> None:
        """What every owner has had on its disk since before a read began is in it, however few
        were asked; tried while all see each other, for a reader that is cut off from all owners
        hears stand-ins alone. An owner that lost its disk, or a record of it, since then has to
        know that, and to ask the others."""
        properties = BUCKETS.get(read.bucket)
        since = self.well_since if self.well() else None
        if properties is None or properties.conflicts == "latest":
            return
        if since is None or since > read.begun:
            return
        for v in rules.missing(read.shown, writes, read.begun, read.ended):
            if self._everywhere(v, read.begun):
                self._broken(
                    "I9",
                    f"{v.id} of {name(read.place)}, acknowledged at {v.ended:.3f} by {v.entry}, is "
                    f"on every owner's disk and not in the read begun at {read.begun:.3f} through "
                    f"{read.entry} at R={read.r}: {sorted(read.shown)}; {self._dots(v)}",
                )
                return
        self.tally.held("I9")

    def _everywhere(self, v: Write, since: float) -> bool:
        arrivals = self.registry.arrivals
        return any(
            arrivals.everywhere(dot, self.owners(dot[0]), since, self.spoiled)
            for dot in sorted(self.registry.dots.get(v.id, ()))
        )

    def _strict(self, bucket: str, r: int | None, quorum: str | None) -> bool:
        """Whether this read meets every write that the bucket's own W acknowledged."""
        properties = BUCKETS.get(bucket)
        if properties is None or properties.conflicts == "latest":
            return False
        n, r, w = terms(bucket, self.members, r=r)
        return (quorum or properties.quorum) == "strict" and r + w > n

    def _strict_write(self, write: Write) -> bool:
        n, r, w = terms(write.bucket, self.members, w=write.w)
        properties = BUCKETS[write.bucket]
        return (write.quorum or properties.quorum) == "strict" and r + w > n

    def _strict_read(self, read: Read, writes: list[Write]) -> None:
        n, r, _ = terms(read.bucket, self.members, r=read.r)
        for v in rules.missing(read.shown, writes, read.begun, read.ended):
            if not self._strict_with(v, r):
                continue
            if self._spoilt(v, r, n):
                self.excused["disk lost"] += 1
                continue
            self._broken(
                "I9",
                f"{v.id} of {name(read.place)}, acknowledged at {v.ended:.3f} by {v.entry}, is not "
                f"in the read begun at {read.begun:.3f} through {read.entry}: "
                f"{sorted(read.shown)}; {self._dots(v)}",
            )
            return
        if not self._showed_stale(read.place, read.shown, read.begun, read.entry, r, n):
            self.tally.held("I9")

    def _showed_stale(
        self, place: Place, shown: frozenset[str], begun: float, entry: str, r: int, n: int
    ) -> bool:
        """Whether what a strict write had replaced before a strict read began was shown by it."""
        writes = self.history.at.get(place, [])
        strict = [w for w in writes if self._strict_with(w, r) or w.id in shown]
        pair = rules.stale(shown, strict, begun, self.uncovered)
        if pair is None or not self._strict_with(pair[0], r) or self._spoilt(pair[0], r, n):
            return False
        u, v = pair
        self._broken(
            "I9",
            f"{v.id} of {name(place)} is shown by {entry}, asked at {begun:.3f}, though {u.id}, "
            f"acknowledged at {u.ended:.3f}, replaced it; {self._dots(u, v)}",
        )
        return True

    def _strict_with(self, write: Write, r: int) -> bool:
        """Whether a strict read of R nodes has to meet this write."""
        n, _, w = terms(write.bucket, self.members, w=write.w)
        return (write.quorum or BUCKETS[write.bucket].quorum) == "strict" and r + w > n

    def _spoilt(self, v: Write, r: int, n: int) -> bool:
        """Whether disks lost so much of `v` that R of N need not meet it: all that had it, for one
        that lost its own does not count without the others; or members that are gone did."""
        held = self.holders(v) or ()
        if any(at >= v.begun for at in self.emptied.values()) and not held:
            return True
        return any(at >= v.begun for at in self.departed.values()) and len(held) + r <= n

    def listed(self, listing: Listing) -> None:
        """I2, I9, I12 of a listing."""
        last = ""
        for key, etag in listing.entries:
            write = self.history.by_etag.get(etag)
            if write is None or write.place != (listing.bucket, key):
                self._broken(
                    "I2",
                    f"{listing.entry} listed {name((listing.bucket, key))} with ETag {etag[:12]}, "
                    f"which is {write.id if write else 'nobody'}'s",
                )
            if key.encode() <= last.encode() and last:
                self._broken("I12", f"{listing.entry} listed {key!r} after {last!r}")
            last = key
        if not self._strict(listing.bucket, listing.r, listing.quorum):
            return
        keys = {key for key, _ in listing.entries}
        n, r, _ = terms(listing.bucket, self.members, r=listing.r)
        for key, etag in listing.entries:
            write = self.history.by_etag.get(etag)
            if write is not None:
                shown = frozenset((write.id,))
                place = (listing.bucket, key)
                self._showed_stale(place, shown, listing.begun, listing.entry, r, n)
        for place, writes in self.history.at.items():
            if place[0] != listing.bucket or place[1] in keys:
                continue
            strict = [w for w in writes if self._strict_write(w) or w.deletes]
            there = rules.surely_there(strict, listing.begun, listing.ended)
            if there is not None and not self._spoilt(there, r, n):
                self._broken(
                    "I9",
                    f"{there.id} of {name(place)}, acknowledged at {there.ended:.3f}, is not in "
                    f"the listing begun at {listing.begun:.3f} through {listing.entry}",
                )
        self.tally.held("I9")

    def changed(self, change: BucketChange) -> None:
        """I9 of a bucket: who was told of a change finds that every member has it, on disk."""
        whole = self.whole_since if self.whole() else None
        if (
            change.outcome != "acked"
            or not change.alone
            or whole is None
            or whole > change.begun - CHANGE_S
            or any(at >= change.begun - CHANGE_S for at in self.spoiled.values())
        ):
            return
        for host, mirror in self.registry.mirrors.items():
            state = mirror.buckets.get(change.bucket)
            if (state is not None and state.exists) == change.deletes:
                what = "deleted" if change.deletes else "made"
                self._broken(
                    "I9",
                    f"bucket {change.bucket} was {what}, acknowledged at {change.ended:.3f}, and "
                    f"{host} does not know",
                )
                return
        self.tally.held("I9")
        if change.deletes:
            self._emptied_at[change.bucket] = (change.begun, change.ended)

    def _returned(self, read: Read, writes: list[Write]) -> None:
        """I3: what was written before a bucket was deleted does not come back with its name."""
        begun, ended = self._emptied_at.get(read.bucket, (0.0, float("inf")))
        if read.begun < ended:
            return
        back = [w.id for w in writes if w.id in read.shown and w.end_or_never() < begun]
        if back:
            self._broken(
                "I3",
                f"{read.entry} showed {', '.join(back)} of {name(read.place)}, whose bucket was "
                f"deleted since, acknowledged at {ended:.3f}",
            )
        else:
            self.tally.held("I3")

    # Failures.

    def ended(self, outcome: Outcomes) -> None:
        """I15: when nothing is wrong, everything works."""
        calm = self.calm_since()
        if (
            calm is None
            or outcome.stale
            or outcome.begun - calm < CALM_S
            or outcome.patience < PATIENCE_MIN_S
            or not self.serves(outcome.entry, outcome.begun - CALM_S)
        ):
            return
        if outcome.word or outcome.status >= 502 or outcome.status == 500:
            self._broken(
                "I15",
                f"{outcome.kind} of {outcome.target[:60]} through {outcome.entry}, begun at "
                f"{outcome.begun:.3f}, ended with {outcome.word or outcome.status} after "
                f"{outcome.ended - outcome.begun:.3f} s, though all is well since {calm:.3f}: "
                f"{outcome.told}",
            )
        else:
            self.tally.held("I15")

    def wrong(self, invariant: str, text: str) -> None:
        """A client was given what cannot be."""
        self._broken(invariant, text)

    def held(self, invariant: str) -> None:
        """A client was given what it had to be."""
        self.tally.held(invariant)

    def _dots(self, *writes: Write) -> str:
        told = []
        for write in writes:
            dots = sorted(self.registry.dots.get(write.id, ()))
            of = ", ".join(
                f"{actor}.{counter} on {'+'.join(self.registry.holders((row, actor, counter)))}"
                for row, actor, counter in dots
            )
            told.append(f"{write.id} is {of or 'nowhere'}")
        return "; ".join(told)

    def _broken(self, invariant: str, text: str) -> None:
        self.tally.broken(invariant, self.now(), text)


def terms(
    bucket: str, members: int, *, r: int | None = None, w: int | None = None
) -> tuple[int, int, int]:
    """n, r, w of one request in a cluster of so many."""
    properties = BUCKETS.get(bucket, Properties())
    n = min(properties.n or 3, members)

    def count(asked: int | None, chosen: int | str | None) -> int:
        if asked is not None:
            return asked
        return min(chosen, n) if isinstance(chosen, int) else majority(n)

    return n, count(r, properties.r), count(w, properties.w)


def name(place: Place) -> str:
    """A key in words."""
    return f"{place[0]}/{place[1][:40]}"
