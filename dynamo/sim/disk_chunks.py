"""The chunk files of a simulated machine, and the chunk store a node has on them.

What it keeps of a file system (Pillai et al., "All file systems are not created equal", 2014): the
bytes under a name were synced before they got it; a name given or taken away is durable when its
directory was synced after that, or when the kernel wrote it back unasked; of what is not, a power
cut keeps, name by name, as much as it likes. A temporary file may be left, whole or torn.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Generator
from functools import partial
from itertools import count
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dynamo.errors import Corrupt, MissingChunks, StorageFault, StorageFull
from dynamo.sim.disk_steps import Process
from dynamo.storage.chunks import verify
from dynamo.storage.disk import CHUNK_THREADS

WRITEBACK_S = 30.0
"""After this time the kernel has written a change of a directory back by itself."""

TEMP_ODDS = 0.5
"""How likely a power cut leaves a temporary file."""

Call = Generator[float, None, Any]
"""A blocking call as a thread makes it; it gives the seconds that each of its waits takes."""


@attrs.define
class Change:
    """That a name got these bytes, or was taken away (None)."""

    number: int
    when: float
    digest: bytes
    data: bytes | None


class Shelves:
    """The directories of chunks. `live` is what a process sees, `durable` what a power cut leaves
    at the worst; `unsynced` are the changes between the two, in order, by directory. `temps` are
    the unfinished files, and whether they are whole. `changes` counts every change there was;
    `placed` says when a name last got its bytes; `flipped` are the names whose bytes have changed
    by themselves since.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.live: dict[bytes, bytes] = {}
        self.durable: dict[bytes, bytes] = {}
        self.unsynced: dict[int, list[Change]] = {}
        self.temps: dict[str, bool] = {}
        self.placed: dict[bytes, float] = {}
        self.flipped: set[bytes] = set()
        self.bytes_used = 0
        self._seconds = seconds
        self.changes = 0
        self._written_back = 0.0

    def set(self, digest: bytes, data: bytes | None) -> None:
        """Gives the name these bytes, or takes it away."""
        now = self._seconds()
        if now - self._written_back > WRITEBACK_S:
            self._write_back(now)
        old = self.live.pop(digest, b"")
        if data is not None:
            self.live[digest] = data
            self.placed[digest] = now
            self.flipped.discard(digest)
        self.bytes_used += len(data or b"") - len(old)
        self.changes += 1
        change = Change(self.changes, now, digest, data)
        self.unsynced.setdefault(digest[0], []).append(change)

    def sync(self, shelf: int, number: int) -> None:
        """Makes the changes of one directory up to `number` durable."""
        changes = self.unsynced.pop(shelf, [])
        left = [change for change in changes if change.number > number]
        if left:
            self.unsynced[shelf] = left
        for change in changes[: len(changes) - len(left)]:
            _apply(self.durable, change)

    def crash(self, rng: random.Random, counts: Counter[str]) -> None:
        """Power goes: of each name's unsynced changes a first part is kept."""
        self._write_back(self._seconds())
        for shelf in sorted(self.unsynced):
            by_name: dict[bytes, list[Change]] = {}
            for change in self.unsynced[shelf]:
                by_name.setdefault(change.digest, []).append(change)
            for changes in by_name.values():
                kept = rng.randint(0, len(changes))
                for place, change in enumerate(changes):
                    kind = "chunk" if change.data is not None else "delete"
                    counts[f"{kind}_{'kept' if place < kept else 'lost'}"] += 1
                    if place < kept:
                        _apply(self.durable, change)
        for name, whole in sorted(self.temps.items()):
            if rng.random() >= TEMP_ODDS:
                del self.temps[name]
            elif not whole:
                counts["torn"] += 1
        self.replace(self.durable)

    def replace(self, stored: dict[bytes, bytes]) -> None:
        """Puts these chunks, durable all, in the place of what is there."""
        stored = dict(stored)
        for place in (self.durable, self.live):
            place.clear()
            place.update(stored)
        self.unsynced.clear()
        self.placed = dict.fromkeys(stored, self._seconds())
        self.bytes_used = sum(map(len, stored.values()))

    def rot(self, digest: bytes, data: bytes) -> None:
        """Changes bytes where they lie, behind everybody's back."""
        old = self.live[digest]
        self.live[digest] = data
        self.flipped.add(digest)
        self.bytes_used += len(data) - len(old)
        if self.durable.get(digest) == old:
            self.durable[digest] = data
        for change in self.unsynced.get(digest[0], []):
            if change.digest == digest and change.data == old:
                change.data = data

    def _write_back(self, now: float) -> None:
        self._written_back = now
        for shelf, changes in list(self.unsynced.items()):
            old = [change.number for change in changes if now - change.when > WRITEBACK_S]
            if old:
                self.sync(shelf, old[-1])


class SimChunks:
    """The `Chunks` on `shelves`, by a pool of threads that are steps of `process`.

    `room` says how many bytes may be added, below zero if none; None is a disk without end.
    """

    def __init__(self, shelves: Shelves, process: Process, room: Callable[[], int | None]) -> None:
        self._shelves = shelves
        self._process = process
        self._room = room
        self._used = 0
        self._free = CHUNK_THREADS
        self._open = 0
        self._calls: deque[tuple[Deferred[Any], Call]] = deque()
        self._temps = count()
        # As in `FileChunks`: an earlier run may have died before it synced a directory.
        self._named = dict.fromkeys(range(256), 1)
        self._synced = dict.fromkeys(range(256), 0)
        self._new: dict[bytes, int] = {}
        self._stopped: Deferred[None] | None = None

    def write(self, digest: bytes, data: bytes) -> Deferred[None]:
        return self._give(self._write(digest, data))

    def read(self, digest: bytes) -> Deferred[bytes]:
        return self._give(self._read(digest))

    def names(self, first: int) -> Deferred[list[bytes]]:
        return self._give(self._names(first))

    def has(self, digest: bytes) -> bool:
        self._check_alive()
        return digest in self._shelves.live and digest not in self._new

    def delete(self, digest: bytes) -> None:
        self._check_alive()
        data = self._shelves.live.get(digest)
        if data is not None:
            self._shelves.set(digest, None)
            self._used -= len(data)

    def sweep(self, keep: Callable[[bytes], bool]) -> int:
        self._check_alive()
        unwanted = [digest for digest in sorted(self._shelves.live) if not keep(digest)]
        for digest in unwanted:
            self._shelves.set(digest, None)
        removed = len(unwanted) + len(self._shelves.temps)
        self._shelves.temps.clear()
        self._used = self._shelves.bytes_used
        return removed

    def bytes_used(self) -> int:
        return self._used

    def stop(self) -> Deferred[None]:
        """Takes no more calls; fires when those given have ended."""
        if self._stopped is None:
            self._stopped = Deferred()
            self._look_for_the_end()
        return self._stopped

    # What the threads do.

    def _write(self, digest: bytes, data: bytes) -> Call:
        verify(digest, data)
        if self._shelves.live.get(digest) != data:
            self._check_room(len(data))
            yield from self._place(digest, data)
        yield from self._sync(digest[0])

    def _place(self, digest: bytes, data: bytes) -> Call:
        """Puts the bytes under their name, whole or not at all."""
        temp, temps = f"{digest.hex()}.{next(self._temps)}", self._shelves.temps
        temps[temp] = False
        yield self._process.pace.draw()
        try:
            self._check_room(len(data))
        except StorageFull:
            del temps[temp]
            raise
        temps[temp] = True
        yield self._process.pace.wake()
        del temps[temp]
        self._used += len(data) - len(self._shelves.live.get(digest, b""))
        self._shelves.set(digest, data)
        self._named[digest[0]] += 1
        self._new[digest] = self._named[digest[0]]

    def _sync(self, shelf: int) -> Call:
        """Ends when every name given before the call is durable."""
        wanted = self._named[shelf]
        if self._synced[shelf] < wanted:
            last = self._shelves.changes
            yield self._process.pace.draw()
            self._shelves.sync(shelf, last)
            self._synced[shelf] = max(self._synced[shelf], wanted)
            self._new = {d: n for d, n in self._new.items() if n > self._synced[d[0]]}

    def _read(self, digest: bytes) -> Call:
        yield self._process.pace.draw()
        data = self._shelves.live.get(digest)
        if data is None:
            raise MissingChunks((digest,))
        try:
            return verify(digest, data)
        except Corrupt:
            # Set aside, as `FileChunks` does.
            self.delete(digest)
            raise

    def _names(self, first: int) -> Call:
        yield self._process.pace.draw()
        return sorted(digest for digest in self._shelves.live if digest[0] == first)

    def _check_room(self, size: int) -> None:
        room = self._room()
        if room is not None and room < size:
            raise StorageFull

    def _check_alive(self) -> None:
        if self._process.dead:
            raise StorageFault("The machine of this disk has no power.")

    # The threads.

    def _give(self, call: Call) -> Deferred[Any]:
        if self._process.dead or self._stopped is not None:
            return self._process.never()
        answer: Deferred[Any] = Deferred()
        self._open += 1
        self._calls.append((answer, call))
        self._begin()
        return answer

    def _begin(self) -> None:
        while self._free and self._calls:
            self._free -= 1
            self._process.later(
                self._process.pace.wake(), partial(self._go_on, *self._calls.popleft())
            )

    def _go_on(self, answer: Deferred[Any], call: Call) -> None:
        result: Any
        try:
            self._process.later(next(call), partial(self._go_on, answer, call))
            return
        except StopIteration as end:
            result = end.value
        except Exception:
            result = Failure()
        self._free += 1
        self._begin()
        self._process.later(self._process.pace.wake(), partial(self._answer, answer, result))

    def _answer(self, answer: Deferred[Any], result: Any) -> None:
        if isinstance(result, Failure):
            answer.errback(result)
        else:
            answer.callback(result)
        self._open -= 1
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        if self._stopped is not None and not self._open and not self._stopped.called:
            self._stopped.callback(None)


def _apply(stored: dict[bytes, bytes], change: Change) -> None:
    if change.data is None:
        stored.pop(change.digest, None)
    else:
        stored[change.digest] = change.data
