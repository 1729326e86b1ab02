"""Faults of disks.

What spoils a disk (a flipped bit, a data directory that is gone or old) may take copies that are
nowhere else if it meets a second node before the first has been mended. So all such faults of a
run fall on one node, and on another one only after the cluster had settled.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from dynamo.sim.fault_processes import Processes
from dynamo.sim.plan import Fault
from dynamo.storage import broken
from dynamo.storage.chunks import digest_of

if TYPE_CHECKING:
    from dynamo.sim.disk import Drive, Picture
    from dynamo.sim.world import Host, World

DISK_KINDS = {
    "disk_full": "A disk takes nothing more.",
    "disk_slow": "Everything a disk does takes `amount` times as long.",
    "disk_stalled": "A disk does nothing for a while.",
    "chunk_flip": "A bit flips in a chunk on a disk.",
    "record_flip": "A bit flips in a record on a disk.",
    "wipe": "A process is killed and its disk replaced by an empty one.",
    "roll_back": "A process is killed and its disk is put back to what it was `seconds` before.",
}
SPOILING = frozenset(("chunk_flip", "record_flip", "wipe", "roll_back"))


class Disks:
    """Begins and ends faults of disks. `settled()` says whether every copy is where it should be;
    `spoiled(name, knowing)` is told of each disk that is not what was written to it any more, and
    whether its checksums say so; `lags(row)`: whether it is one that is to be damaged first, as an
    owner lacks something of it, so that mending it has to be careful whom it asks."""

    def __init__(
        self,
        world: World,
        processes: Processes,
        settled: Callable[[], bool],
        spoiled: Callable[[str, bool], None],
        lags: Callable[[bytes], bool],
    ) -> None:
        self._world = world
        self._processes = processes
        self._settled = settled
        self._tell = spoiled
        self._lags = lags
        self._spoiled = ""
        self._rng = Random(f"{world.seed}:flips")
        self._on: dict[int, Fault] = {}
        self._snapshots: dict[int, Any] = {}

    def begin(self, number: int, fault: Fault) -> str:
        """Lets it happen; gives the reason if there is nothing to do it to."""
        hosts = self._processes.free(fault)
        if not hosts:
            return f"{', '.join(fault.targets)} down"
        (host,) = hosts
        if fault.kind in SPOILING and not self.may_spoil(host.name):
            return f"{self._spoiled} is not mended yet"
        if fault.kind.endswith("_flip"):
            return self._flip(host, fault.kind)
        self._on[number] = fault
        if fault.kind == "wipe":
            self._processes.take_down(number, host.name, "kill")
            host.drive.wipe()
            self._tell(host.name, False)
        elif fault.kind == "roll_back":
            self._processes.take_down(number, host.name, "kill")
            self._snapshots[number] = host.drive.snapshot()
            self._processes.let_up(number)
        else:
            self._follow(host)
        return ""

    def end(self, number: int) -> None:
        """It is over."""
        fault = self._on.pop(number, None)
        if fault is None:
            return
        host = self._world.hosts[fault.targets[0]]
        if fault.kind == "wipe":
            self._processes.let_up(number)
        elif fault.kind == "roll_back":
            self._put_back(number, host)
        else:
            self._follow(host)

    def may_spoil(self, name: str) -> bool:
        """Whether this disk may come to lack something; then it is the one that does."""
        if self._spoiled not in ("", name) and not self._settled():
            return False
        self._spoiled = name
        return True

    def rot(self) -> None:
        """Flips a bit in a record and one in a chunk, both on one disk, if there are any."""
        running = [host for host in self._world.hosts.values() if host.node is not None]
        self._rng.shuffle(running)
        for host in running:
            if self.may_spoil(host.name):
                why_not = [self._flip(host, kind) for kind in ("record_flip", "chunk_flip")]
                if not all(why_not):
                    return

    def _flip(self, host: Host, kind: str) -> str:
        # Those that are down may have left the ring, and then give nobody anything.
        hosts = [other for other in self._world.hosts.values() if other is not host]
        others = [other.drive for other in hosts if other.node is not None]
        if kind == "chunk_flip":
            where = host.drive.flip_chunk(self._rng, lambda d: _whole_elsewhere(d, others))
        else:
            pictures = [drive.durable() for drive in others]

            def told(table: str, row: bytes, value: bytes) -> bool:
                return _told_elsewhere(table, row, value, pictures)

            where = host.drive.flip_record(self._rng, told, self._lags)
        if where is None:
            return "nothing is stored that is anywhere else"
        self._tell(host.name, True)
        self._world.trace.add(host.name, f"disk: {where} flips")
        return ""

    def _put_back(self, number: int, host: Host) -> None:
        if host.node is not None:
            self._world.kill(host.name)
        host.drive.roll_back(self._snapshots.pop(number))
        self._tell(host.name, False)
        self._processes.rise(host.name)

    def _follow(self, host: Host) -> None:
        """Makes a disk what the faults on it say."""
        faults = [fault for fault in self._on.values() if host.name in fault.targets]
        drive = host.drive
        drive.full = any(f.kind == "disk_full" for f in faults)
        drive.slow = max((f.amount for f in faults if f.kind == "disk_slow"), default=1.0)
        stalled = any(f.kind == "disk_stalled" for f in faults)
        if drive.stalled != stalled:
            drive.stalled = stalled


def _whole_elsewhere(digest: bytes, others: list[Drive]) -> bool:
    """Whether another disk could give a chunk, and refers to it, so that it is there for long: what
    is nowhere else no system keeps."""
    for drive in others:
        data = drive.chunks_durable.get(digest)
        referred = drive.durable().get("refs", digest) is not None
        if referred and data is not None and digest_of(data) == digest:
            return True
    return False


def _told_elsewhere(table: str, row: bytes, value: bytes, others: list[Picture]) -> bool:
    """Whether another owner's disk holds the same record."""
    kept = broken.decode(table, row, value)
    if kept.was is not None:
        return False
    for picture in others:
        theirs = picture.get("records", row)
        if theirs and broken.decode("records", row, theirs).record == kept.record:
            return True
    return False
