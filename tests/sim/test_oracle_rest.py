"""What the oracle says when all is quiet, of histories made by hand."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from dynamo.core.record import Record
from dynamo.sim.history import Read
from dynamo.sim.oracle.listed import ListingChecks
from dynamo.sim.oracle.rest import TIMERS_MAX, RestChecks
from dynamo.sim.oracle.rings import RingChecks
from dynamo.sim.schedule import START_S
from dynamo.storage import ledger
from dynamo.wire.codec import KEEPING
from tests.sim.test_oracle_live import Run
from tests.sim.test_oracle_registry import Spoilt, put


@attrs.define
class Rest(RestChecks):
    """The checks with owners told beforehand: both drives."""

    def owners(self, row: bytes) -> tuple[str, ...]:
        return ("n1", "n2")


def unchanged(run: Run) -> RingChecks:
    """A ring that stays what it is."""
    nobody: Any = None
    return RingChecks(nobody, run.live)


def rest(run: Run, **more: Any) -> RestChecks:
    nobody: Any = None
    return Rest(nobody, run.live, nobody, rings=unchanged(run), **more)


def judge(run: Run, shown: str, bucket: str = "strict") -> list[str]:
    """What is broken by this read at rest."""
    before = len(run.broken())
    read = Read(bucket, "k", 0, "n1", 90, 91, frozenset(shown.split()), r=1)
    rest(run).judge(read)
    return run.broken()[before:]


def test_what_is_owed_is_shown() -> None:
    """I1."""
    run = Run()
    run.did("w1", 0, 1)
    run.did("w2", 2, 3, seen=("w1",))
    run.did("w3", 2, 3)
    assert judge(run, "w2 w3") == []
    assert judge(run, "w2") == ["I1"]
    run.registry.losses.unkeepable.add("w3")
    assert judge(run, "w2") == []
    assert run.live.excused == {"disk lost": 1}


def test_what_is_gone_is_not_shown() -> None:
    """I3."""
    run = Run()
    run.did("w1", 0, 1)
    run.did("d", 2, 3, seen=("w1",), deletes=True)
    assert judge(run, "") == []
    assert judge(run, "w1") == ["I3"]


def test_a_lost_disk_excuses_only_what_it_alone_knew_to_be_gone() -> None:
    run = Run()
    write = run.did("w1", 0, 1)
    draft = run.write("w9")
    run.history.by_etag[draft.etag] = write
    run.keep("n1", put(Record(), draft))
    run.did("d", 2, 3, seen=("w1",), deletes=True)
    assert judge(run, "w1") == ["I3"]
    run.registry.losses.lost[run.row()] = [{"n2": 4}]
    assert judge(run, "w1") == ["I3"]
    run.registry.losses.lost[run.row()] = [{"n1": 1}]
    assert judge(run, "w1") == []


def test_what_was_made_again_stays() -> None:
    """I4, and I1 with it."""
    run = Run()
    run.did("w1", 0, 1)
    run.did("d", 2, 3, seen=("w1",), deletes=True)
    run.did("w2", 4, 5)
    assert judge(run, "w2") == []
    assert judge(run, "") == ["I1", "I4"]


def test_a_register_shows_its_newest() -> None:
    """The highest stamp on any disk; nothing else."""
    run = Run()
    run.history.at[("latest", "k")] = []
    assert judge(run, "", "latest") == []
    assert judge(run, "w1", "latest") == ["I1"]


def test_owners_are_equal_at_rest() -> None:
    """I6."""
    run = Run()
    first = put(Record(), run.write("w1"))
    run.keep("n1", first)
    assert rest(run).unequal([run.row()]) == [run.row()]
    run.keep("n2", first)
    assert rest(run).unequal([run.row()]) == []


def test_what_an_old_disk_brought_back_of_a_register_is_let_pass() -> None:
    """I1: its tombstone was reaped, so nobody knew that it is gone."""
    run = Run()
    run.history.at[("latest", "k")] = []
    assert judge(run, "w1", "latest") == ["I1"]
    run.registry.losses.put_back.add("w1")
    assert judge(run, "w1", "latest") == []
    assert run.live.excused == {"put back": 1}


class StubNode:
    """What `_freed`, `_timers` and `_count` look at of a world: one host."""

    def __init__(self) -> None:
        self.chunks: dict[bytes, float] = {}
        self.pending_calls: list[str] = []
        self.meta: dict[bytes, bytes] = {}
        self.starts = 1
        self.drive = self.reactor = self.machine = self.schedule = self
        self.hosts = {"n1": self, "n2": self}
        self.ends: list[int] = []
        self.now = 0.0

    def durable(self) -> StubNode:
        return self

    def get(self, table: str, key: bytes) -> bytes | None:
        return self.meta.get(key)

    def placed(self, digest: bytes) -> float | None:
        at = self.chunks.get(digest)
        return None if at is None else at + START_S

    def pending(self, reactor: object) -> list[str]:
        return self.pending_calls


def at_rest(run: Run) -> tuple[Any, StubNode]:
    there: Any = StubNode()
    return Rest(there, run.live, there, rings=unchanged(run)), there


def test_a_chunk_that_nothing_names_any_more_is_gone() -> None:
    """I6: what was stored since, for a write that came to nothing, may stay."""
    run = Run()
    checks, there = at_rest(run)
    run.registry.mirrors["n1"].unnamed[b"chunk"] = 10.0
    checks._freed("n1")
    there.chunks[b"chunk"] = 11.0
    checks._freed("n1")
    assert run.broken() == []
    there.chunks[b"chunk"] = 9.0
    checks._freed("n1")
    assert run.broken() == ["I6"]


def test_a_chunk_of_a_damaged_record_stays_until_the_next_start() -> None:
    run = Run()
    checks, there = at_rest(run)
    mirror = run.registry.mirrors["n1"]
    mirror.unnamed[b"chunk"] = 10.0
    there.chunks[b"chunk"] = 9.0
    mirror.pinned.add(b"chunk")
    run.live.damaged["n1"] = 1
    checks._freed("n1")
    assert run.broken() == []
    assert run.live.excused == {"chunks after damage": 1}
    there.starts = 2
    there.meta[ledger.DOUBTFUL] = b""  # It was damaged still.
    checks._freed("n1")
    assert run.broken() == []
    there.meta.clear()
    checks._freed("n1")
    assert run.broken() == ["I6"]


def test_what_a_damaged_row_named_is_remembered() -> None:
    """And nothing of what the drive still names."""
    run = Run()
    draft = msgspec.structs.replace(run.write("w1"), body=b"", chunk_size=30, chunks=(b"d" * 32,))
    record, row = put(Record(), draft), run.row()
    run.keep("n1", record)
    run.keep("n2", record)
    run.registry.reread("n1", Spoilt())
    run.registry.reread("n2", Spoilt({row: KEEPING["records"].encode(row, record)}))
    assert run.registry.mirrors["n1"].pinned == {b"d" * 32}
    assert run.registry.mirrors["n2"].pinned == set()


def test_a_node_at_rest_waits_for_few_things() -> None:
    """I18: one for each connection, and some more."""
    run = Run()
    checks, there = at_rest(run)
    there.ends = [1, 2]
    there.pending_calls = ["late"] * (TIMERS_MAX + 2)
    checks._timers("n1")
    assert run.broken() == []
    there.pending_calls.append("late")
    checks._timers("n1")
    assert run.broken() == ["I18"]


def test_a_node_counts_its_own_keys() -> None:
    """I12."""
    run = Run()
    checks, _ = at_rest(run)
    first = put(Record(), run.write("w1"))
    run.keep("n1", first)
    listing = ListingChecks(checks)
    listing._count("n1", (1, 30))
    assert run.broken() == []
    listing._count("n1", (0, 30))
    assert run.broken() == ["I12"]
    run.live.damaged["n1"] = 1
    listing._count("n1", (0, 30))
    assert run.broken() == ["I12"]
    assert run.live.excused == {"totals after damage": 1}
