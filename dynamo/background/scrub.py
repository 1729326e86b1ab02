"""Scrub: everything on this disk is read again and verified, round after round.

A pass goes through hints, owned records, held copies, the chunks they refer to, and the chunk files
nobody refers to, each in its order, no faster than `bytes_per_second`; the next one begins when
`interval` seconds have passed since it began. Where it is, is written down now and then, so that a
restart goes on there. What fails is handed to the mender (`dynamo.background.mending`).

A chunk nobody refers to may belong to an upload under way. It is freed when it was so for
`orphan_s` seconds of this process's life and nobody wrote it again meanwhile; what an earlier
process left was swept at the start. The row of a damaged hint says of which key it is by a digest
alone: the key is looked for among those that the same pass walks.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IReactorTime

from dynamo.background.mending import Mender
from dynamo.errors import StorageFault
from dynamo.log import make_logger
from dynamo.storage import broken, hints, ledger, rows
from dynamo.storage.owned import TABLES
from dynamo.storage.recovery import Recovery
from dynamo.wire.codec import Place

ROWS_MAX = 128
ROWS_BYTES = 256 * 1024
"""Rows are read in the reactor's thread: about so many at a time."""
STEP_BYTES = 4 * 1024 * 1024
LOOK_BYTES = 4096
"""What is charged for looking at something that turns out small or absent."""
NAME_BYTES = 64
ORPHAN_S = 24 * 3600.0
ORPHANS_MAX = 100_000
HINTS_MAX = 1000
WRITE_DOWN_S = 30.0
HINTS, RECORDS, HELD, CHUNKS, ORPHANS = range(5)
START = Place()

log = make_logger()


@attrs.define(eq=False)
class Scrub:
    """Verifies this node's disk. `verified(count)` hears how many rows and chunks were whole.

    `passes` counts the passes completed in this process.
    """

    recovery: Recovery
    mender: Mender
    clock: IReactorTime
    bytes_per_second: int
    interval: float
    verified: Callable[[int], object] = lambda count: None
    orphan_s: float = ORPHAN_S
    passes: int = 0
    _place: Place = START
    _under_way: bool = False
    _due: float = 0.0
    _credit: float = 0.0
    _credited: float = 0.0
    _written_down: float = 0.0
    _done: int = 0
    _in_pass: int = 0
    _orphans: dict[bytes, float] = attrs.field(factory=dict)
    _bad_hints: dict[bytes, list[bytes]] = attrs.field(factory=dict)

    def load(self) -> None:
        """Goes on where an earlier process was."""
        self._place = ledger.scrubbing(self.recovery.copies.engine.view())

    def written(self, digest: bytes) -> None:
        """Somebody wrote a chunk, or would have if it had not been there, and will refer to it."""
        self._orphans.pop(digest, None)

    def progress(self) -> tuple[int, int]:
        """Bytes verified in this process's life, and about how many are left of the pass."""
        if not self._under_way:
            return self._done, 0
        _, size = self.recovery.copies.totals()
        return self._done, max(size - self._in_pass, 0)

    async def step(self) -> bool:
        """Verifies a stretch; True while a pass is under way."""
        now = self.clock.seconds()
        if not self._under_way:
            if now < self._due:
                return False
            self._under_way, self._due = True, now + self.interval
            self._credited = self._written_down = now
            self._in_pass = 0
        most = max(self.bytes_per_second, LOOK_BYTES)
        self._credit += self.bytes_per_second * (now - self._credited)
        self._credit = min(self._credit, most, STEP_BYTES)
        self._credited = now
        held_up = 0
        while self._credit > 0 and held_up < ROWS_BYTES:
            in_rows = self._place.part < CHUNKS
            used = await self._stretch()
            held_up += used if in_rows else 0
            self._credit -= used
            self._done += used
            self._in_pass += used
            if self._place == START:
                await self._finish()
                return False
        if now >= self._written_down + WRITE_DOWN_S:
            self._written_down = now
            await self.recovery.write_down(self._place)
        return True

    async def _finish(self) -> None:
        self._under_way = False
        self.passes += 1
        await self.recovery.write_down(self._place)
        log.debug("Verified {bytes} bytes in a pass", bytes=self._in_pass)

    async def _stretch(self) -> int:
        """Verifies what comes next and moves on; returns what it cost, in bytes."""
        part = self._place.part
        if part == HINTS:
            return self._hints()
        if part in (RECORDS, HELD):
            return await self._rows(TABLES[part - RECORDS])
        return await (self._chunk() if part == CHUNKS else self._unreferred())

    def _next_part(self) -> None:
        part = self._place.part + 1
        self._place = Place(part) if part <= ORPHANS else START

    # Rows.

    def _hints(self) -> int:
        if not self._place.key:
            self._bad_hints = {}
        view = self.recovery.copies.engine.view()
        bad, last = hints.damaged(view, self._place.key, ROWS_MAX)
        for row in bad[: max(HINTS_MAX - len(self._bad_hints), 0)]:
            log.error("The hint in row {row} is damaged", row=row.hex())
            self.mender.corrupt("hint")
            self._bad_hints.setdefault(hints.tail_of(row), []).append(row)
        if last:
            self._place = Place(HINTS, b"", last)
        else:
            self._next_part()
        return LOOK_BYTES

    async def _rows(self, table: str) -> int:
        known = sorted(self.mender.buckets.by_incarnation)  # The reaper has the others.
        incarnation = next((i for i in known if i >= self._place.incarnation), None)
        if incarnation is None:
            await self._end_of_rows(table)
            return LOOK_BYTES
        after = self._place.key if incarnation == self._place.incarnation else b""
        view = self.recovery.copies.engine.view()
        size = whole = 0
        uncounted: list[bytes] = []
        found: list[tuple[bytes, bytes]] = []
        start = after + b"\x00" if after else b""
        for count, (key, data) in enumerate(rows.walk(view, table, incarnation, start), 1):
            kept = broken.decode(table, rows.row(incarnation, key), data)
            whole += kept.was is None
            if kept.was is not None:
                self.mender.record(incarnation, key)
            elif not all(ledger.references(view, d) for d in kept.record.chunk_digests()):
                uncounted.append(key)
            if self._bad_hints:
                rows_of = self._bad_hints.pop(hints.tail(incarnation, key), [])
                found += [(row, key) for row in rows_of]
            size += len(key) + len(data)
            if count >= ROWS_MAX or size >= ROWS_BYTES:
                self._place = Place(self._place.part, incarnation, key)
                break
        else:
            self._place = Place(self._place.part, incarnation + b"\x00")
        self.verified(whole)
        for key in uncounted:
            await self.recovery.refer_again(incarnation, key)
        if found:
            await self.recovery.renew_hints(found)
        return max(size, LOOK_BYTES)

    async def _end_of_rows(self, table: str) -> None:
        self._next_part()
        if table != TABLES[-1] or not self._bad_hints:
            return
        lost = [row for tail in sorted(self._bad_hints) for row in self._bad_hints[tail]]
        self._bad_hints = {}
        await self.recovery.void_hints(lost)

    # Chunks.

    async def _chunk(self) -> int:
        view = self.recovery.copies.engine.view()
        digest, _ = next(view.scan("refs", self._place.key + b"\x00"), (b"", b""))
        del view
        if not digest:
            self._next_part()
            return LOOK_BYTES
        self._place = Place(CHUNKS, b"", digest)
        try:
            data = await self.mender.chunks.read(digest)
        except StorageFault as error:
            self.mender.chunk(digest, error)
            return LOOK_BYTES
        self.verified(1)
        return max(len(data), LOOK_BYTES)

    async def _unreferred(self) -> int:
        first = self._place.key[0] if self._place.key else 0
        names = await self.mender.chunks.names(first)
        view, now = self.recovery.copies.engine.view(), self.clock.seconds()
        unused = [name for name in names if not ledger.references(view, name)]
        del view
        old = []
        for name in unused:
            if name not in self._orphans and len(self._orphans) >= ORPHANS_MAX:
                continue
            if now - self._orphans.setdefault(name, now) >= self.orphan_s:
                old.append(name)
        keep = set(unused)
        for name in [n for n in self._orphans if n[0] == first and n not in keep]:
            del self._orphans[name]
        if old:
            log.info("Freeing {n} chunks that nobody refers to", n=len(old))
            await self.recovery.copies.discard(old)
        if first == 255:
            self._next_part()
        else:
            self._place = Place(ORPHANS, b"", bytes([first + 1]))
        return max(LOOK_BYTES, NAME_BYTES * len(names))
