"""What the simulated network and schedule keep, whatever the die says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from dynamo.sim.schedule import START_S, Schedule
from tests.support.sim_probe import Bench, Lines

# The schedule.


@given(st.lists(st.integers(0, 10)))
def test_events_happen_in_order_of_time_and_then_of_asking(delays: list[int]) -> None:
    schedule, done = Schedule(), []
    for number, delay in enumerate(delays):
        schedule.callLater(delay, lambda n=number, d=delay: done.append((d, n)))  # type: ignore[misc]
    schedule.run_until(START_S + 20.0)
    assert done == sorted((delay, number) for number, delay in enumerate(delays))


@given(st.lists(st.tuples(st.sampled_from(["cancel", "reset", "delay"]), st.integers(0, 9))))
def test_a_call_happens_once_at_its_last_time_or_never(acts: list[tuple[str, int]]) -> None:
    schedule = Schedule()
    times: dict[int, float] = {}
    due: dict[int, float | None] = {n: START_S + n for n in range(10)}
    calls = [schedule.callLater(n, lambda n=n: times.update({n: schedule.now})) for n in range(10)]  # type: ignore[misc]
    for act, number in acts:
        at = due[number]
        if at is None:
            continue
        if act == "cancel":
            calls[number].cancel()
            due[number] = None
        elif act == "reset":
            calls[number].reset(3.5)
            due[number] = START_S + 3.5
        else:
            calls[number].delay(1.0)
            due[number] = at + 1.0
    schedule.run_until(START_S + 1e4)
    assert times == {n: pytest.approx(at) for n, at in due.items() if at is not None}


def test_a_call_that_is_over_cannot_be_moved() -> None:
    schedule = Schedule()
    done, cancelled = schedule.callLater(1, list), schedule.callLater(1, list)
    cancelled.cancel()
    schedule.run_until(START_S + 2)
    assert not done.active()
    with pytest.raises(AlreadyCalled):
        done.reset(1)
    with pytest.raises(AlreadyCancelled):
        cancelled.delay(1)


def test_cancelled_calls_do_not_pile_up() -> None:
    schedule = Schedule()
    for _ in range(50_000):
        schedule.callLater(100.0, list).cancel()
    assert len(schedule._heap) < 25_000


# Streams.


def bench() -> Bench:
    return Bench(2, nodes=False)


def path(b: Bench, here: str, there: str) -> Any:
    return b.world.network.path(b.ip(here), b.ip(there))


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=30), st.floats(0.0, 2.0))
def test_a_stream_is_whole_and_in_order_under_jitter(parts: list[bytes], jitter: float) -> None:
    b = bench()
    near, far = b.connect("n1", "n2")
    path(b, "n1", "n2").jitter = jitter
    for part in parts:
        near.transport.write(part)
        b.world.run_for(0.01)
    b.world.run_for(10.0)
    assert far.got == b"".join(parts)


def test_a_closed_stream_delivers_what_was_written_before() -> None:
    b = bench()
    near, far = b.connect("n1", "n2")
    near.transport.write(b"x" * 300_000)
    near.transport.loseConnection()
    b.world.run_for(5.0)
    assert len(far.got) == 300_000
    assert (near.ended, far.ended) == ("ConnectionDone", "ConnectionDone")


def test_an_aborted_stream_is_lost_for_the_other_side() -> None:
    b = bench()
    near, far = b.connect("n1", "n2")
    near.transport.abortConnection()
    b.world.run_for(1.0)
    assert (near.ended, far.ended) == ("ConnectionAborted", "ConnectionLost")


def test_nobody_listens_nobody_is_there_and_a_path_is_cut() -> None:
    b = bench()

    def attempt(ip: str, port: int) -> str:
        factory = Lines(b.world)
        b.reactors["n1"].connectTCP(ip, port, factory, timeout=5)
        b.world.run_for(10.0)
        return factory.failed

    assert attempt(b.ip("n2"), 9) == "ConnectionRefusedError"
    assert attempt("10.9.9.9", 9002) == "TimeoutError"
    path(b, "n1", "n2").cut = True
    assert attempt(b.ip("n2"), 9002) == "TimeoutError"
    path(b, "n1", "n2").cut, path(b, "n2", "n1").cut = False, True
    assert attempt(b.ip("n2"), 9002) == "TimeoutError"


@pytest.mark.parametrize("way", [("n1", "n2"), ("n2", "n1")])
def test_a_greeting_that_met_silence_is_sent_again(way: tuple[str, str]) -> None:
    b = bench()
    path(b, *way).cut = True
    b.world.schedule.callLater(0.5, b.world.network.open, path(b, *way))
    near, far = b.connect("n1", "n2", within=2.0)
    near.transport.write(b"hello")
    b.world.run_for(1.0)
    assert far.got == b"hello"


def test_what_was_sent_to_a_dark_machine_meets_a_reset_when_it_is_back() -> None:
    b = Bench(2)
    near, _ = b.connect("n1", "n2")
    b.world.cut_power("n2")
    near.transport.write(b"hello?")
    b.world.run_for(5.0)
    assert near.ended == ""
    b.world.start("n2")
    b.world.run_for(1.0)
    assert near.ended == "ConnectionLost"


def test_a_killed_process_closes_its_streams_and_a_dark_machine_leaves_them_half_open() -> None:
    for end, told in ((lambda b: b.world.kill("n2"), "ConnectionDone"), (cut, "")):
        b = Bench(2)
        near, _ = b.connect("n1", "n2")
        end(b)
        b.world.run_for(2.0)
        assert near.ended == told
        near.transport.write(b"hello?")
        b.world.run_for(60.0)
        assert near.ended


def cut(b: Bench) -> None:
    b.world.cut_power("n2")


@implementer(IPushProducer)
class Source:
    """Writes 10 kB whenever it may."""

    def __init__(self, b: Bench, transport: Any) -> None:
        self.paused, self.pauses, self.written = False, 0, 0
        self._bench, self._transport = b, transport
        transport.registerProducer(self, True)
        self._go()

    def _go(self) -> None:
        if not self.paused and self.written < 5_000_000:
            self._transport.write(b"x" * 10_000)
            self.written += 10_000
            self._bench.world.schedule.callLater(0.0001, self._go)

    def pauseProducing(self) -> None:
        self.paused, self.pauses = True, self.pauses + 1

    def resumeProducing(self) -> None:
        self.paused = False
        self._go()

    def stopProducing(self) -> None:
        self.paused = True


def test_a_producer_pauses_while_its_reader_does_and_goes_on_after() -> None:
    b = bench()
    near, far = b.connect("n1", "n2")
    far.transport.pauseProducing()
    source = Source(b, near.transport)
    b.world.run_for(5.0)
    assert source.paused
    assert source.written < 400_000
    assert far.got == b""
    far.transport.resumeProducing()
    b.world.run_for(60.0)
    assert len(far.got) == source.written == 5_000_000


def test_a_producer_pauses_while_its_path_is_cut() -> None:
    b = bench()
    near, far = b.connect("n1", "n2")
    for one in b.world.network.paths([b.ip("n1")], [b.ip("n2")]):
        one.cut = True
    source = Source(b, near.transport)
    b.world.run_for(5.0)
    assert source.paused
    assert source.written < 400_000
    for one in b.world.network.paths([b.ip("n1")], [b.ip("n2")]):
        b.world.network.open(one)
    b.world.run_for(60.0)
    assert len(far.got) == 5_000_000


# Processes.


def test_what_is_due_in_a_pause_happens_in_order_after_it_and_cancelled_calls_never() -> None:
    b = bench()
    done: list[int] = []
    reactor = b.reactors["n1"]
    calls = [reactor.callLater(n * 0.1, done.append, n) for n in range(5)]
    reactor.machine.pause()
    b.world.run_for(2.0)
    assert done == []
    calls[3].cancel()
    calls[1].reset(1.0)
    reactor.machine.resume()
    b.world.run_for(0.5)
    assert done == [0, 2, 4]
    b.world.run_for(1.0)
    assert done == [0, 2, 4, 1]


def test_a_pause_within_a_pause_puts_off_once_more() -> None:
    b = bench()
    done: list[float] = []
    reactor = b.reactors["n1"]
    reactor.callLater(0.1, lambda: done.append(reactor.seconds()))
    reactor.machine.pause()
    b.world.run_for(1.0)
    reactor.machine.resume()
    reactor.machine.pause()
    b.world.run_for(1.0)
    assert done == []
    reactor.machine.resume()
    b.world.run_for(0.0)
    assert len(done) == 1


def test_nothing_a_dead_process_asked_for_happens() -> None:
    b = bench()
    done: list[int] = []
    reactor = b.reactors["n1"]
    near, far = b.connect("n1", "n2")
    reactor.callLater(1.0, done.append, 1)
    reactor.end()
    near.transport.write(b"from beyond")
    b.world.run_for(2.0)
    assert done == []
    assert far.got == b""


def test_an_error_in_an_event_is_logged_and_time_goes_on(
    logged: Callable[[], list[str]],
) -> None:
    b = bench()
    b.reactors["n1"].callLater(1.0, lambda: 1 / 0)
    b.world.run_for(2.0)
    assert logged() == ["ZeroDivisionError"]


@pytest.fixture
def logged() -> Any:
    """The types of the failures that were logged."""
    from twisted.logger import globalLogPublisher

    kinds: list[str] = []

    def hear(event: Any) -> None:
        if event.get("log_failure") is not None:
            kinds.append(event["log_failure"].type.__name__)

    globalLogPublisher.addObserver(hear)
    yield lambda: kinds
    globalLogPublisher.removeObserver(hear)
