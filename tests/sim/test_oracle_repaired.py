"""What the oracle says of reads that find owners which differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from dynamo.coordinator.repair import Repairer
from dynamo.core.record import Record
from dynamo.sim.client import Answer
from dynamo.sim.oracle import Oracle
from dynamo.sim.oracle.repaired import TASKS, RepairChecks
from dynamo.sim.world import World
from tests.sim.test_oracle import Run as WholeRun
from tests.sim.test_oracle_live import Run
from tests.sim.test_oracle_registry import put
from tests.sim.test_oracle_rest import Rest, StubNode, unchanged


class Asking(StubNode):
    """Two nodes that answer at once, and one with no part in it. `reads()` happens at each read,
    and what it gives is who answered; `refuses` is a node that pauses nothing."""

    stalled = False

    def __init__(self, reads: Callable[[], str], refuses: str = "") -> None:
        super().__init__()
        self.reads, self.refuses = reads, refuses
        self.asked: list[str] = []
        self.later: list[Callable[[], None]] = []

    def running(self) -> list[str]:
        return ["n1", "n2", "n3"]

    def present(self) -> list[str]:
        return ["n1", "n2"]

    def run_while(self, wanted: Callable[[], bool], end: float) -> bool:
        assert not wanted()
        return True

    def run_for(self, seconds: float) -> None:
        while self.later:
            self.later.pop()()

    def ask(self, node: str, request: bytes) -> Deferred[Answer]:
        line = request.split(b" HTTP")[0].decode()
        self.asked.append(f"{node} {line}")
        if line.startswith("POST"):
            return succeed(Answer(503 if node == self.refuses else 200, {}, b""))
        return succeed(Answer(200, {b"x-dynamo-replicas": self.reads().encode()}, b""))


class Stale(Run):
    """n1 has a write that n2 lacks. `answered`: who answers reads, and `mends` happens then."""

    def __init__(self, answered: str = "n1, n2", refuses: str = "") -> None:
        super().__init__()
        self.record = put(Record(), self.write("w2"))
        self.keep("n1", self.record)
        self.mends: Callable[[], None] = lambda: None
        there: Any = Asking(lambda: self.read_now(answered), refuses)
        self.there = there
        self.checks = RepairChecks(Rest(there, self.live, there, rings=unchanged(self)))

    def read_now(self, answered: str) -> str:
        self.there.later.append(self.mends)
        return answered

    def judge(self) -> list[str]:
        """What is broken when a read was tried."""
        self.checks.pause()
        self.checks.mended([self.row()])
        self.checks.resume()
        return self.broken()

    def reads(self) -> list[str]:
        return [asked for asked in self.there.asked if " GET " in asked]


def test_who_is_stale_knows_all_after_a_read() -> None:
    """While nothing else mends: that is paused before, and goes on afterwards, at each node."""
    run = Stale()
    run.mends = lambda: run.keep("n2", run.record)
    assert run.judge() == []
    assert run.tally.exercised["I6"] == 2
    words = [asked.rsplit("/", 1)[1] for asked in run.there.asked if "POST" in asked]
    assert words == ["pause"] * 2 * len(TASKS) + ["resume"] * 2 * len(TASKS)
    assert [asked.split(" ")[:2] for asked in run.reads()] == [["n1", "GET"]]
    assert run.reads()[0].endswith("?r=2")


def test_who_is_stale_after_a_read_is_told() -> None:
    run = Stale()
    assert run.judge() == ["I6"]
    assert "n2 still has [] of {}" in run.tally.violations[0].text


def test_who_knows_some_or_something_later_after_a_read() -> None:
    """The one is not enough, the other is."""
    some = Stale()
    second = put(some.record, some.write("w3"))
    some.keep("n1", second)
    some.mends = lambda: some.keep("n2", some.record)
    assert some.judge() == ["I6"]
    later = Stale()
    later.mends = lambda: later.keep("n2", Record({"n1": 1}))
    assert later.judge() == []


@pytest.mark.parametrize("why", ["late", "held", "stalled", "equal", "not paused"])
def test_what_a_read_need_not_mend_is_let_pass(why: str) -> None:
    """An owner that did not answer, or did with more than it owns, or whose disk stands still."""
    run = Stale("n1" if why == "late" else "n1, n2", "n2" if why == "not paused" else "")
    if why == "held":
        run.keep("n2", run.record, table="held")
    if why == "equal":
        run.keep("n2", run.record)
    run.there.stalled = why == "stalled"
    if why == "not paused":
        assert run.judge() == ["I15"], "nor does it let go on"
    else:
        assert run.judge() == []
    assert bool(run.reads()) == (why == "late")


def cut(world: World, oracle: Oracle) -> None:
    """A node is cut off from the others until no client does anything any more."""
    here = [world.hosts["n3"].machine.ip]
    there = [host.machine.ip for host in world.hosts.values()]
    for path in (*world.network.paths(here, there), *world.network.paths(there, here)):
        world.schedule.callLater(1.0, setattr, path, "cut", True)
        world.schedule.callLater(8.0, world.network.open, path)


def test_reads_that_mend_nothing_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On nodes, though hints and anti-entropy come to it later."""
    assert WholeRun(3, cut).broken() == set()
    monkeypatch.setattr(Repairer, "mend", lambda *read: None)
    assert WholeRun(3, cut).broken() == {"I6"}
