"""What the oracle says when all is quiet, of histories made by hand."""

from __future__ import annotations

from typing import Any

import attrs

from dynamo.core.record import Record
from dynamo.sim.history import Read
from dynamo.sim.oracle.rest import RestChecks
from tests.sim.test_oracle_live import Run
from tests.sim.test_oracle_registry import put


@attrs.define
class Rest(RestChecks):
    """The checks with owners told beforehand: both drives."""

    def owners(self, row: bytes) -> tuple[str, ...]:
        return ("n1", "n2")


def rest(run: Run, **more: Any) -> RestChecks:
    nobody: Any = None
    return Rest(nobody, run.live, nobody, **more)


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
    run.registry.unkeepable.add("w3")
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
    run.registry.lost[run.row()] = [{"n2": 4}]
    assert judge(run, "w1") == ["I3"]
    run.registry.lost[run.row()] = [{"n1": 1}]
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
