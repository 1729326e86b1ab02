"""The disk of a simulated machine, and the faults it can have.

A `Drive` is what outlives the node: tables and chunk files. `Drive.open` gives the node a
`SimDisk`, which is a `dynamo.storage.disk.Disk` whose threads are steps of the scheduler. What a
power cut and a kill leave is said in `disk_engine` (the store) and `disk_chunks` (the files). All
chance comes from the `rng` handed in, so one seed and one order of calls give one run.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from types import MappingProxyType
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from dynamo.errors import StorageFault
from dynamo.sim.disk_chunks import Shelves, SimChunks
from dynamo.sim.disk_engine import Changes, Reader, SimEngine, Store, StoreView
from dynamo.sim.disk_steps import Pace, Process, Scheduler, SimWriter
from dynamo.storage.memory_engine import Table
from dynamo.storage.threads import Run

LATENCY_S = (0.0002, 0.002)
RECORD_TABLES = ("records", "held")


@attrs.frozen
class Picture:
    """What is on a drive: the tables as they were when it was asked for (a `View`), the chunks as
    they are at any time."""

    tables: StoreView
    chunks: Mapping[bytes, bytes]

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        return self.tables.get(table, key)

    def scan(
        self, table: str, start: bytes, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [start, stop) with their values, in byte order; `stop=None` is the end."""
        return self.tables.scan(table, start, stop)


@attrs.frozen
class Snapshot:
    """A copy of a whole data directory; it may be put back more than once."""

    tables: Mapping[str, Table]
    chunks: Mapping[bytes, bytes]
    number: int


class SimDisk:
    """An opened drive: a `Disk`."""

    def __init__(self, process: Process, engine: SimEngine, chunks: SimChunks) -> None:
        self.process = process
        self.engine = engine
        self.chunks = chunks
        self.writer = SimWriter(process, engine)
        self.run: Run = self.writer.run
        self._ended = False

    @property
    def closed(self) -> bool:
        """Whether nobody uses the drive through this any more."""
        return self.process.dead or (self.engine.closed and self._ended)

    def stop(self) -> Deferred[None]:
        """Ends the threads once the calls given have ended; the engine is closed before."""
        written = self.writer.stop()

        def end(_: None) -> None:
            self._ended = True

        return self.chunks.stop().addCallback(lambda _: written).addCallback(end)


class Drive:
    """The disk of one machine.

    `latency_s`: the least and most that one operation takes, in seconds. `bytes_max` is its size,
    None one without end. While it is `full`, whatever needs room fails with `StorageFull`.

    `counts`, by kind: what ended it (crash, kill), what became of what was unsynced then
    (commit_kept, commit_lost, and so for chunk and delete; torn files left), what was injected
    (refused for want of room, chunk_flipped, record_flipped, wiped, rolled_back).

    `limbo` is what waits for dead disks and would be cleaned up, unwanted, if it were let go;
    whoever has no more use of the dead nodes may clear it.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        rng: random.Random,
        *,
        latency_s: tuple[float, float] = LATENCY_S,
        bytes_max: int | None = None,
    ) -> None:
        self._rng = rng
        self._pace = Pace(scheduler, rng, latency_s)
        self._store = Store()
        self._shelves = Shelves(scheduler.seconds)
        self._checker = Reader()
        self._disk: SimDisk | None = None
        self.full = False
        self.bytes_max = bytes_max
        self.counts: Counter[str] = Counter()
        self.limbo: list[Any] = []

    def open(self) -> SimDisk:
        """The disk for one start of the node. Raises `StorageFault` while another has it."""
        if self.is_open:
            raise StorageFault("The data directory is in use by another process.")
        process = Process(self._pace, self.limbo)
        self._disk = SimDisk(
            process,
            SimEngine(self._store, self.room),
            SimChunks(self._shelves, process, self.room),
        )
        return self._disk

    @property
    def is_open(self) -> bool:
        """Whether a node has it: one that was neither stopped to the end nor killed."""
        return self._disk is not None and not self._disk.closed

    def room(self) -> int | None:
        """How many bytes may be added; None if there is no end to them."""
        if self.full:
            self.counts["refused"] += 1
            return -1
        if self.bytes_max is None:
            return None
        return max(0, self.bytes_max - self._store.bytes_used() - self._shelves.bytes_used)

    # The ends a node can come to without being asked.

    def crash(self) -> None:
        """Power goes. Of what is not synced a part is kept, by chance; the open disk is dead, and
        whoever waits for it hears nothing."""
        self.counts["crash"] += 1
        self._end_commit(lambda: self._rng.random() < 0.5)
        self._shelves.crash(self._rng, self.counts)
        self._bury()

    def kill(self) -> None:
        """The process is killed. What was written is kept, synced or not; whoever waits hears
        nothing."""
        self.counts["kill"] += 1
        self._end_commit(lambda: True)
        self.counts["torn"] += sum(not whole for whole in self._shelves.temps.values())
        self._bury()

    # Faults.

    @property
    def slow(self) -> float:
        """A factor on how long everything takes that begins from now on."""
        return self._pace.slow

    @slow.setter
    def slow(self, factor: float) -> None:
        self._pace.slow = factor

    @property
    def stalled(self) -> bool:
        """While this is true nothing ends; then everything that fell due does, in its order."""
        return self._pace.stalled

    @stalled.setter
    def stalled(self, stalled: bool) -> None:
        self._pace.stalled = stalled
        if not stalled and self._disk is not None:
            self._disk.process.resume()

    def flip_chunk(
        self, rng: random.Random, may: Callable[[bytes], bool] = lambda digest: True
    ) -> str | None:
        """Flips one bit of one stored chunk, of those `may` says it may be; says which, or None if
        there is none."""
        digests = sorted(d for d, data in self._shelves.live.items() if data and may(d))
        if not digests:
            return None
        digest = rng.choice(digests)
        bit, data = _flip(rng, self._shelves.live[digest])
        self._shelves.rot(digest, data)
        self.counts["chunk_flipped"] += 1
        return f"bit {bit} of chunk {digest.hex()}"

    def flip_record(
        self,
        rng: random.Random,
        may: Callable[[str, bytes, bytes], bool] = lambda table, row, value: True,
        rather: Callable[[bytes], bool] = lambda row: True,
    ) -> str | None:
        """Flips one bit of one record, owned or held, of those `may` says it may be, and of those
        that lie in a row of which `rather` is true if there are any; says which, or None if there
        is none.

        A view that is held sees it: the store did not do it."""
        tables = self._store.tables
        places = [
            (name, key)
            for name in RECORD_TABLES
            for key in tables[name].keys
            if tables[name].values[key] and may(name, key, tables[name].values[key])
        ]
        places = [place for place in places if rather(place[1])] or places
        if not places:
            return None
        name, key = rng.choice(places)
        bit, tables[name].values[key] = _flip(rng, tables[name].values[key])
        self.counts["record_flipped"] += 1
        return f"bit {bit} of the value at {key.hex()} in {name}"

    def wipe(self) -> None:
        """The data directory is gone. Only while no node has it."""
        self._check_closed()
        self._store.tables, self._store.number = Store().tables, 0
        self._shelves.replace({})
        self._shelves.temps.clear()
        self.counts["wiped"] += 1

    def snapshot(self) -> Snapshot:
        """A copy of the data directory, by a process: synced or not. Only while no node has it."""
        self._check_closed()
        return Snapshot(self._store.copy(), dict(self._shelves.live), self._store.number)

    def roll_back(self, snapshot: Snapshot) -> None:
        """Puts a copy back, durably. Only while no node has the directory."""
        self._check_closed()
        self._store.tables = {name: table.copy() for name, table in snapshot.tables.items()}
        self._store.number = snapshot.number
        self._shelves.replace(dict(snapshot.chunks))
        self._shelves.temps.clear()
        self.counts["rolled_back"] += 1

    # Looking on. None of this draws, waits or changes anything.

    def placed(self, digest: bytes) -> float | None:
        """When a chunk that is here got its name; None if it is not here."""
        shelves = self._shelves
        return shelves.placed.get(digest) if digest in shelves.live else None

    @property
    def on_commit(self) -> Callable[[Changes], None] | None:
        """Called with what a commit changed in the moment it becomes visible and durable, be that
        in a crash that keeps it."""
        return self._store.on_commit

    @on_commit.setter
    def on_commit(self, call: Callable[[Changes], None] | None) -> None:
        self._store.on_commit = call

    @property
    def chunks_durable(self) -> Mapping[bytes, bytes]:
        """The chunks a power cut now would leave if it kept nothing unsynced."""
        return MappingProxyType(self._shelves.durable)

    @property
    def chunks_flipped(self) -> Set[bytes]:
        """The chunks of which a bit has flipped since they were last written, here still or not."""
        return self._shelves.flipped

    def durable(self) -> Picture:
        """What a power cut now would leave if it kept nothing unsynced."""
        return Picture(self._store.view(self._checker), self.chunks_durable)

    def written(self) -> Picture:
        """What a running node sees."""
        return Picture(self._store.view(self._checker), MappingProxyType(self._shelves.live))

    def _end_commit(self, survives: Callable[[], bool]) -> None:
        """Decides about the commit on its way.

        A commit syncs its data, then the page that makes it current, each about half of the time.
        Before that page is written the commit is lost. A killed process does not end before a sync
        it has begun, so that a killed one's page, if written, is on disk.
        """
        if self._disk is None or self._disk.closed or self._disk.engine.owed is None:
            return
        engine = self._disk.engine
        if self._disk.writer.synced() >= 0.5 and survives():
            self.counts["commit_kept"] += 1
            engine.settle()
        else:
            self.counts["commit_lost"] += 1
            engine.owed = None

    def _bury(self) -> None:
        if self._disk is not None and not self._disk.closed:
            self._disk.engine.close()
            self._disk.process.die()
            self.limbo.append(self._disk)
        self._disk = None

    def _check_closed(self) -> None:
        if self.is_open:
            raise RuntimeError("The node that has this drive is to be stopped or killed first.")


def _flip(rng: random.Random, data: bytes) -> tuple[int, bytes]:
    """The data with one bit turned over, and which."""
    bit = rng.randrange(8 * len(data))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bit, bytes(flipped)
