"""What the oracle says of a commit whose records name chunks."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from twisted.internet.task import Clock

from dynamo.core.record import Record
from dynamo.sim.disk import Drive
from dynamo.storage.chunks import digest_of
from tests.sim.test_oracle_registry import Drives, put
from tests.support.sim_disk import drive_on, step, wait

DATA = b"data"
DIGEST = digest_of(DATA)


class Chunked(Drives):
    """As `Drives`, with a simulated drive for each node."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.drives = {name: drive_on(self.clock) for name in ("n1", "n2")}
        self.disks = {name: drive.open() for name, drive in self.drives.items()}
        self.registry.stored.drive = self.drives.get

    def store(self, at: str, data: bytes = DATA) -> None:
        wait(self.clock, self.disks[at].chunks.write(digest_of(data), data))

    def name(self, record: Record, write: str, *chunks: bytes) -> Record:
        draft = msgspec.structs.replace(self.write(write), body=b"", chunk_size=4, chunks=chunks)
        return put(record, draft)


def test_a_record_is_stored_with_its_chunks() -> None:
    """On that drive, whatever is on others."""
    drives = Chunked()
    record = drives.name(Record(), "w1", DIGEST)
    drives.store("n1")
    drives.keep("n1", record)
    drives.keep("n1", record, table="held")
    assert drives.broken() == []
    assert drives.tally.exercised["I6"] == 2
    drives.keep("n2", record)
    assert drives.broken() == ["I6"]
    assert "n2 stored in records a record of b/k, and lacks" in drives.tally.violations[0].text
    assert DIGEST.hex()[:12] in drives.tally.violations[0].text


def test_what_a_row_named_before_is_not_asked_for() -> None:
    """Damage may have taken it, and the record goes on; what is new in it has to be there."""
    drives = Chunked()
    drives.store("n1")
    first = drives.name(Record(), "w1", DIGEST)
    drives.keep("n1", first)
    drives.disks["n1"].chunks.delete(DIGEST)
    other = digest_of(b"more")
    drives.store("n1", b"more")
    second = drives.name(first, "w2", DIGEST, other)
    drives.keep("n1", second)
    assert drives.broken() == []
    drives.keep("n1", drives.name(second, "w3", DIGEST, digest_of(b"none")))
    assert drives.broken() == ["I6"]


def test_a_chunk_that_is_not_synced_is_not_there() -> None:
    drives = Chunked()
    drives.disks["n1"].chunks.write(DIGEST, DATA)
    while drives.drives["n1"].placed(DIGEST) is None:
        step(drives.clock)
    drives.keep("n1", drives.name(Record(), "w1", DIGEST))
    assert drives.broken() == ["I6"]
    assert "has not synced" in drives.tally.violations[0].text


def flip(drive: Drive) -> None:
    assert drive.flip_chunk(random.Random(1)) is not None


@pytest.mark.parametrize(("damage", "told"), [(flip, []), (lambda drive: None, ["I6"])])
def test_what_damage_took_is_let_pass(damage: Callable[[Drive], None], told: list[str]) -> None:
    """It may be found while the record is on its way to disk; until it is written anew."""
    drives = Chunked()
    drives.store("n1")
    damage(drives.drives["n1"])
    drives.disks["n1"].chunks.delete(DIGEST)
    drives.keep("n1", drives.name(Record(), "w1", DIGEST))
    assert drives.broken() == told
    drives.store("n1")
    drives.disks["n1"].chunks.delete(DIGEST)
    drives.keep("n1", drives.name(Record(), "w2", DIGEST), key="l")
    assert drives.broken() == [*told, "I6"]
