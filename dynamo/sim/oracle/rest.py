"""What is checked when all is quiet: convergence, and what every node shows of every key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from dynamo.core.record import EMPTY
from dynamo.sim.client import Answer
from dynamo.sim.clients import Clients
from dynamo.sim.history import Place, Read, Write
from dynamo.sim.oracle import rules
from dynamo.sim.oracle.arrivals import Dot
from dynamo.sim.oracle.live import LiveChecks, name, terms
from dynamo.sim.oracle.mirrors import describe
from dynamo.sim.oracle.registry import Registry
from dynamo.sim.oracle.rings import RingChecks
from dynamo.sim.schedule import START_S
from dynamo.sim.workload import BUCKETS
from dynamo.sim.world import World
from dynamo.storage import ledger
from dynamo.storage.chunks import digest_of

AT_ONCE = 16
"""Final reads under way at a time."""

TIMERS_MAX = 40
"""How many calls a node at rest may be waiting for besides one for each connection."""


@attrs.define(eq=False)
class RestChecks:
    """See the module. `apart`: the most two wall clocks were ever apart, in seconds."""

    world: World
    live: LiveChecks
    clients: Clients
    rings: RingChecks = attrs.field(kw_only=True)
    apart: float = 0.0

    @property
    def registry(self) -> Registry:
        """What is on the drives."""
        return self.live.registry

    # Who owns what.

    def unequal(self, rows: list[bytes]) -> list[bytes]:
        """Those of the rows whose owners do not hold the same."""
        return [row for row in rows if not self._equal(row)]

    def owners(self, row: bytes) -> tuple[str, ...]:
        """The owners of a row, () for one of no bucket."""
        return self.rings.owners(row)

    def _equal(self, row: bytes) -> bool:
        mirrors = self.registry.mirrors
        owned = [
            mirrors[owner].records.get(row, EMPTY) for owner in self.owners(row) if owner in mirrors
        ]
        equal = all(record == owned[0] for record in owned[1:])
        return equal and not self.rings.strangers(row)

    # Convergence.

    def converged(self) -> None:
        """I6: owners equal, nothing kept for others, and the chunks that records name are there."""
        registry = self.registry
        rows = self._rows()
        self.rings.uncleared(rows)
        self._alike(rows, "at rest")
        for host, mirror in registry.mirrors.items():
            kept = [row for row in mirror.held if not registry.is_gone(row)]
            if mirror.hints and kept:
                self._broken("I6", f"{host} still has {len(mirror.hints)} hints at rest")
            for row in kept:
                told = f"{registry.told(row)}, {describe(mirror.held[row])}"
                self._broken("I6", f"{host} still keeps a copy of {told}")
            self._chunks(host)
            self._timers(host)

    def mended(self) -> None:
        """I6 of what was damaged at rest and nobody has read since."""
        self._alike(self._rows(), "after damage at rest")
        for host in self.registry.mirrors:
            for told in self.lacking(host):
                self._broken("I6", f"{host} lacks {told}, after damage at rest")

    def _rows(self) -> dict[bytes, None]:
        mirrors = self.registry.mirrors.values()
        return dict.fromkeys(row for m in mirrors for row in (*m.records, *m.held))

    def _alike(self, rows: Iterable[bytes], when: str) -> None:
        mirrors = self.registry.mirrors
        for row in rows:
            if self._equal(row):
                self.live.tally.held("I6")
                continue
            states = "; ".join(
                f"{owner} {describe(mirrors[owner].records.get(row, EMPTY))}"
                for owner in self.owners(row)
            )
            self._broken("I6", f"owners of {self.registry.told(row)} differ {when}: {states}")

    def _timers(self, host: str) -> None:
        """A node at rest waits for few things: one for each connection, and what its runners, its
        pools and its gossip need."""
        there = self.world.hosts[host]
        pending = self.world.schedule.pending(there.reactor)
        if len(pending) > len(there.machine.ends) + TIMERS_MAX:
            often = Counter(pending).most_common(3)
            self._broken("I18", f"{host} waits for {len(pending)} things at rest: {often}")
        else:
            self.live.tally.held("I18")

    def _chunks(self, host: str) -> None:
        for told in self.lacking(host):
            self._broken("I6", f"{host} lacks {told}")
        self._freed(host)
        named = sum(bool(r.chunk_digests()) for r in self.registry.mirrors[host].records.values())
        self.live.tally.held("I6", named)

    def _freed(self, host: str) -> None:
        """What records named and none names any more is gone. What was stored since, for a write
        that came to nothing, may stay until the node's next start; so may what a record named whose
        row was damaged since the last one: what it named cannot be known."""
        mirror, drive = self.registry.mirrors[host], self.world.hosts[host].drive
        named, doubtful = mirror.named(), self.doubtful(host)
        for digest, at in mirror.unnamed.items():
            if digest in named:
                continue
            placed = drive.placed(digest)
            if placed is not None and doubtful and digest in mirror.pinned:
                self.live.excused["chunks after damage"] += 1
            elif placed is not None and placed - START_S < at:
                told = f"{host} keeps chunk {digest.hex()[:12]}, which no record names"
                self._broken("I6", f"{told} since {at:.3f}")
            else:
                self.live.tally.held("I6")

    def doubtful(self, host: str) -> bool:
        """Whether a row was damaged since the node's last start, or was damaged still at that one,
        so that its accounts are right again only with the next."""
        there = self.world.hosts[host]
        damaged = there.starts == self.live.damaged.get(host)
        return damaged or ledger.doubtful(there.drive.durable())

    def lacking(self, host: str) -> list[str]:
        """The records of a node of which a chunk is not on its disk, or not whole, in words."""
        stored = self.world.hosts[host].drive.chunks_durable
        rotten = host in self.live.spoiled
        found = []
        for row, record in self.registry.mirrors[host].records.items():
            for digest in sorted(record.chunk_digests()):
                data = stored.get(digest)
                if data is None or (rotten and digest_of(data) != digest):
                    found.append(f"a chunk of {self.registry.told(row)}, {describe(record)}")
        return found

    # What is shown.

    def judge(self, read: Read) -> None:
        """I1, I2, I3, I11 of a read at rest."""
        writes = self.live.history.at.get(read.place, [])
        if BUCKETS[read.bucket].conflicts == "latest":
            self._judge_latest(read, writes)
            return
        tally = self.live.tally
        for v in rules.owed(writes):
            if v.id in read.shown:
                tally.held("I1")
            elif v.id in self.registry.losses.unkeepable:
                self.live.excused["disk lost"] += 1
            else:
                self._broken(
                    "I1",
                    f"{v.id} of {name(read.place)}, acknowledged at {v.ended:.3f} by {v.entry}, is "
                    f"not shown by {read.entry} at R={read.r}, which shows {sorted(read.shown)}; "
                    f"{self.live._dots(v)}; {self.records(read.place)}",
                )
        for id_, u in rules.gone(writes, self.live.uncovered).items():
            v = self.live.history.writes[id_]
            if id_ not in read.shown:
                tally.held("I3" if u.deletes else "I1")
            elif self.forgotten(v):
                self.live.excused["disk lost"] += 1
            else:
                self._broken(
                    "I3",
                    f"{id_} of {name(read.place)} is shown by {read.entry} at R={read.r}, though "
                    f"{u.id}, acknowledged at {u.ended:.3f}, replaced it; {self.live._dots(v, u)}; "
                    f"{self.records(read.place)}",
                )
        self._doomstone(read, writes)
        tally.held("I2", len(read.shown))
        if len(read.shown) > 1:
            tally.held("I11")

    def _doomstone(self, read: Read, writes: list[Write]) -> None:
        """I4: what was made again after a delete stays."""
        deleted = [w for w in writes if w.deletes and w.outcome == "acked"]
        if not deleted:
            return
        first = min(w.ended for w in deleted)
        for v in rules.owed(writes):
            if v.seen == frozenset() and v.begun > first and v.id in read.shown:
                self.live.tally.held("I4")
            elif (
                v.seen == frozenset()
                and v.begun > first
                and v.id not in self.registry.losses.unkeepable
            ):
                told = f"{v.id} of {name(read.place)}, made after a delete at {first:.3f}"
                self._broken("I4", f"{told}, is not shown by {read.entry}; {self.live._dots(v)}")

    def forgotten(self, v: Write) -> bool:
        """Whether a disk that was lost alone knew that `v` is replaced."""
        return any(
            counter <= lost.get(actor, 0)
            for row, actor, counter in self.registry.dots.get(v.id, ())
            for lost in self.registry.losses.lost.get(row, ())
        )

    def _judge_latest(self, read: Read, writes: list[Write]) -> None:
        """I1 of a register: the highest stamp that ever was on a disk wins, and it is the one
        written last if that was later than clocks can disagree about. A version that an old disk
        brought back after its tombstone was reaped is let pass, as where siblings are kept."""
        rows = {row for _, row in self.registry.rows(read.place)}
        dots = [dot for dot in self.registry.versions if dot[0] in rows]
        if any(self.registry.losses.lost.get(row) for row in rows):
            self.live.excused["disk lost"] += 1
            return
        if read.shown & self.registry.losses.put_back:
            self.live.excused["put back"] += 1
            return
        best = max(dots, key=self._order, default=None)
        expected: set[str] = set()
        if best is not None and not self.registry.versions[best].deleted:
            expected = {self.registry.write_of(self.registry.versions[best])}
        if set(read.shown) != expected:
            told = f"{read.entry} shows {sorted(read.shown)} of {name(read.place)} at R={read.r}"
            self._broken("I1", f"{told}; the newest is {sorted(expected)}: {best}")
            return
        last = rules.surely_last(writes, self.apart)
        if last is not None and set(read.shown) != (set() if last.deletes else {last.id}):
            told = f"{last.id} of {name(read.place)} was written last, at {last.begun:.3f}"
            shown = [self.live.history.writes[id_] for id_ in sorted(read.shown)]
            self._broken(
                "I1",
                f"{told}; {read.entry} shows {sorted(read.shown)}; {self.live._dots(last, *shown)}",
            )
            return
        self.live.tally.held("I1")

    def _order(self, dot: Dot) -> tuple[int, str, int]:
        return self.registry.versions[dot].order

    def records(self, place: Place) -> str:
        told = []
        for bucket, row in self.registry.rows(place):
            if bucket.exists:
                told += [
                    f"{host} {describe(mirror.records[row])}"
                    for host, mirror in self.registry.mirrors.items()
                    if row in mirror.records
                ]
        return "; ".join(told)

    # Asking.

    def read_all(self) -> dict[Place, frozenset[str]]:
        """Reads every key ever written through every node, in turns with every R."""
        work: list[tuple[str, Place, int]] = []
        for number, place in enumerate(sorted(self.live.history.at)):
            if place[0] not in BUCKETS:
                continue
            n = terms(place[0], len(self.world.members))[0]
            for turn, node in enumerate(self.world.running()):
                work.append((node, place, 1 + (number + turn) % n))
        shown: dict[Place, frozenset[str]] = {}
        for read in self.reads(work):
            self.judge(read)
            shown[read.place] = read.shown
        return shown

    def reads(self, work: list[tuple[str, Place, int]], *, must: bool = True) -> list[Read]:
        """What was read; `must`: each has to be answered."""
        found: list[Read] = []
        waiting = list(reversed(work))
        under_way = [0]
        schedule = self.world.schedule

        def begin() -> None:
            while waiting and under_way[0] < AT_ONCE:
                node, place, r = waiting.pop()
                under_way[0] += 1
                look = self.clients.look(node, place, {"r": str(r)})
                asked = Deferred.fromCoroutine(look).addCallback(done, node, place, r)
                asked.addErrback(lambda f: schedule.callLater(0.0, f.raiseException))

        def done(result: Any, node: str, place: Place, r: int) -> None:
            under_way[0] -= 1
            if isinstance(result, Read):
                found.append(result)
            elif isinstance(result, Answer) and result.stale:
                waiting.append((node, place, r))
            elif isinstance(result, Answer) and must:
                told = result.failed or result.status
                self._broken("I15", f"{node} answers {told} to a read of {name(place)} at R={r}")
            begin()

        begin()
        schedule.run_while(lambda: bool(waiting or under_way[0]), schedule.now + 120.0)
        return found

    def _broken(self, invariant: str, text: str) -> None:
        self.live.tally.broken(invariant, self.live.now(), text)
