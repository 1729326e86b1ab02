"""What the oracle says of trees while the records of two owners differ."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest

from dynamo.core.merkle import fingerprint
from dynamo.core.record import Record
from dynamo.sim.oracle.trees import AGAIN_S, TreeChecks
from dynamo.storage import places, rows
from dynamo.storage.memory_engine import MemoryView, Table
from dynamo.storage.places import Placed
from dynamo.storage.trees import Trees
from tests.sim.test_oracle_registry import MADE
from tests.sim.test_oracle_rings import STEADY, Changing


class Compared(Changing):
    """Three owners. Their trees learn of nothing but by `count`."""

    def __init__(self) -> None:
        super().__init__()
        self.adopt(STEADY)
        self.rotten: set[str] = set()
        self.trees = {name: Trees(16, lambda incarnation: 3) for name in self.names}
        for name, host in self.world.hosts.items():
            self.trees[name]._begun, self.trees[name]._cursor = True, None
            host.node.trees = self.trees[name]
            host.machine = SimpleNamespace(paused=False, burden=0.0)
            host.drive = SimpleNamespace(stalled=False, slow=1.0, written=partial(self.disk, name))
            host.starts = 1
        self.checks = TreeChecks(self.rings)

    def count(self, at: str, record: Record) -> None:
        """The tree of a node learns of its record."""
        where = places.place(MADE.incarnation, b"k")
        number = fingerprint(where, record)
        self.trees[at].apply([(where, Placed(MADE.incarnation, b"k", number), number)])

    def disk(self, name: str) -> MemoryView:
        """Of which rows are damaged; of those that are not nothing is said."""
        row = rows.row(MADE.incarnation, b"k")
        data = b"not what was stored" if name in self.rotten else None
        return MemoryView({"records": Table({row: data} if data else {})})

    def look(self) -> list[str]:
        """What is broken after one more look."""
        self.world.schedule.now += AGAIN_S
        self.checks.look()
        return self.broken()


def differing(run: Compared) -> tuple[Record, Record]:
    """What n1 and n2 hold has the same versions, none, and n1 knows more."""
    run.put("n3")  # So that somebody wrote the key.
    less, more = Record({"n1": 1}), Record({"n1": 2})
    run.keep("n1", more)
    run.keep("n2", less)
    return more, less


def test_trees_differ_where_records_do() -> None:
    run = Compared()
    more, less = differing(run)
    run.count("n1", more)
    run.count("n2", less)
    assert run.look() == []
    assert run.look() == []
    assert run.tally.exercised["I6"] == 3


def test_trees_that_call_records_equal_which_are_not_are_told() -> None:
    """Once, and not at the first look, as trees learn of a commit a little later."""
    run = Compared()
    more, less = differing(run)
    for name in ("n1", "n2"):
        run.count(name, less)
    assert run.look() == []
    run.keep("n1", more)
    assert run.look() == [], "they were stored anew"
    assert run.look() == ["I6"]
    told = run.tally.violations[0].text
    assert "n1 and n2 hold the same" in told
    assert "n1 has [] of {n1:2}, n2 [] of {n1:1}" in told
    assert run.look() == ["I6"]


def test_trees_may_call_equal_what_is() -> None:
    run = Compared()
    record = run.put("n1", "n2", "n3")
    for name in ("n1", "n2"):
        run.count(name, record)
    assert [run.look() for _ in range(3)][-1] == []
    assert run.tally.exercised["I6"] == 0


@pytest.mark.parametrize(
    "why", ["paused", "slow", "stalled", "uncounted", "damaged", "rotten", "behind"]
)
def test_of_who_is_not_at_work_nothing_is_said(why: str) -> None:
    """Until it is: then it is looked at twice from there on."""
    run = Compared()
    differing(run)
    host, layout = run.world.hosts["n1"], run.views["n1"].layout
    host.machine.paused = why == "paused"
    host.machine.burden = 0.1 if why == "slow" else 0.0
    host.drive.stalled = why == "stalled"
    if why == "uncounted":
        run.trees["n1"]._cursor = b""
    if why == "damaged":
        run.live.damaged["n1"] = 1
    if why == "rotten":
        run.rotten.add("n1")
    if why == "behind":
        run.views["n1"].layout = None
    run.keep("n3", Record({"n1": 2}), table="held")
    assert [run.look() for _ in range(4)][-1] == ["I6"], "n2 and n3 alone"
    host.machine.paused, host.machine.burden, host.drive.stalled = False, 0.0, False
    run.trees["n1"]._cursor, host.starts = None, 2
    run.views["n1"].layout = layout
    run.rotten.clear()
    before = len(run.broken())
    assert len(run.look()) == before
    assert len(run.look()) > before
