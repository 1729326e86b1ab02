"""What nodes log is in the trace under their names, and what none should log is a violation."""

from __future__ import annotations

import gc

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dynamo.sim.logs import Listener
from dynamo.sim.reactor import Reactor
from dynamo.sim.tally import Tally
from dynamo.sim.tell import stream_text
from dynamo.sim.world import World

log = Logger("dynamo.anything")


class Heard:
    """A world in which something is logged by n1 after a second."""

    def __init__(self, act: object) -> None:
        self.lines: list[str] = []
        self.tally = Tally()
        world = World(1, 2, traced=True, write=self.lines.append)
        with Listener(world, self.tally):
            Reactor(world.hosts["n1"].machine).callLater(1.0, act)  # type: ignore[arg-type]
            world.run_for(2.0)
            gc.collect()
        log.critical("not heard any more")

    @property
    def violations(self) -> list[tuple[str, float]]:
        return [(v.invariant, v.at) for v in self.tally.violations]


def test_an_info_is_told_and_no_violation() -> None:
    heard = Heard(lambda: log.info("{who} appeared", who="n2"))
    assert heard.lines == ["00:01.000000 n1       log info: n2 appeared"]
    assert heard.violations == []


def test_what_libraries_chatter_is_not_told() -> None:
    heard = Heard(lambda: Logger("twisted.web.client").info("Starting factory"))
    assert heard.lines == []


def test_an_error_in_an_event_is_a_violation_that_says_where() -> None:
    heard = Heard(lambda: 1 / 0)
    assert heard.violations == [("log", 1.0)]
    text = heard.tally.violations[0].text
    assert text.startswith("n1: Unhandled error in an event [ZeroDivisionError: division by zero]")
    assert "test_logs.py" in text


def test_an_error_nobody_took_is_a_violation() -> None:
    def fail() -> None:
        Deferred().errback(RuntimeError("nobody takes me"))  # type: ignore[attr-defined]

    heard = Heard(fail)
    assert {invariant for invariant, _ in heard.violations} == {"log"}
    assert "nobody takes me" in heard.tally.violations[-1].text


def test_a_critical_line_is_a_violation_but_not_a_refusal_to_start() -> None:
    assert Heard(lambda: log.critical("I serve no more")).violations == [("log", 1.0)]
    refusal = Heard(lambda: log.critical("n1 cannot start: the disk is full"))
    assert refusal.violations == []
    assert "cannot start" in refusal.lines[0]


def test_no_address_in_memory_is_told() -> None:
    heard = Heard(lambda: log.info("a {what}", what=object()))
    assert heard.lines[0].endswith("a <object object>")


def test_a_segment_that_ends_within_the_end_of_a_line_is_told_in_one_line() -> None:
    """A carriage return would make two of it for whoever reads the trace line by line."""
    assert "\r" not in stream_text(b"GET / HTTP/1.1\r")
