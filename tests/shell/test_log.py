"""What the log looks like: one line per event, filtered by level, never forged by a client."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from dynamo import log

NOON = 1_700_000_000.25


@pytest.fixture(autouse=True)
def _level_of_others() -> Iterator[None]:
    """The level is one for the process: put back what the other tests had."""
    before = log.level()
    yield
    log.set_level(before)


def event(text: str, level: str = "info", **more: Any) -> dict[str, Any]:
    return {
        "log_time": NOON,
        "log_level": LogLevel.lookupByName(level),
        "log_namespace": "dynamo.cluster",
        "log_format": text,
        **more,
    }


def failure() -> Failure:
    try:
        raise ValueError("too\nbad")
    except ValueError:
        return Failure()


def test_text_is_time_level_message() -> None:
    """UTC to the millisecond, the level padded, the message formatted."""
    line = log.as_text(event("{peer} is suspect", "warn", peer="n2"))
    assert line == "2023-11-14T22:13:20.250Z warn     n2 is suspect\n"


def test_text_cannot_be_forged() -> None:
    """Line ends, control characters and lone surrogates in what clients send are escaped."""
    line = log.as_text(event("no file {key}", key="a\nb\r\x1b[31m\u2028\x85\udcff\x00"))
    assert line.endswith(r" no file a\nb\r\x1b[31m\u2028\x85\udcff\x00" + "\n")
    assert len(line.splitlines()) == 1


def test_text_shows_a_failure_indented() -> None:
    """The traceback follows its line and cannot be taken for another event."""
    first, *rest = log.as_text(event("it broke", "critical", log_failure=failure())).splitlines()
    assert first.endswith("critical it broke")
    assert rest
    assert all(row.startswith("    ") for row in rest)
    assert "ValueError: too" in "".join(rest)
    bare = log.as_text(event("", "critical", log_failure=failure()))
    assert bare.splitlines()[0].endswith(r"critical ValueError: too\nbad")


def test_json_is_one_object_per_line() -> None:
    """Plain values that an event was logged with are fields; others stay in the message."""
    line = log.as_json(
        event("{peer} is {thing}", "error", peer="n2", thing=object, wait=0.5, odd=float("nan"))
    )
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "error",
        "logger": "dynamo.cluster",
        "message": "n2 is <class 'object'>",
        "fields": {"peer": "n2", "wait": 0.5},
    }


def test_json_holds_anything() -> None:
    """Line ends, surrogates and tracebacks fit in an object on one line."""
    line = log.as_json(event("{key}", key="a\n\u2028\udcff", log_failure=failure()))
    assert len(line.splitlines()) == 1
    record = json.loads(line)
    assert record["message"] == "a\n\u2028\udcff"
    assert "ValueError: too" in record["traceback"]


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("critical", "critical"),
        ("error", "critical error"),
        ("warn", "critical error warn"),
        ("info", "critical error warn info"),
        ("debug", "critical error warn info debug"),
        ("trace", "critical error warn info debug"),
    ],
)
def test_the_level_filters(level: str, seen: str) -> None:
    """Twisted's own loggers are held to the level too."""
    out = io.StringIO()
    publisher = LogPublisher(log.observer(out, "text", level))
    logger = Logger("anything", observer=publisher)
    for name in ("critical", "error", "warn", "info", "debug"):
        logger.emit(LogLevel.lookupByName(name), "said")
    assert [line.split()[1] for line in out.getvalue().splitlines()] == seen.split()


def test_the_level_filters_our_loggers() -> None:
    """Loggers made by `make_logger`, before or after the level is set."""
    out = io.StringIO()
    early = log.make_logger(observer=LogPublisher(log.observer(out, "text", "warn")))
    early.info("dropped")
    early.warn("kept {n}", n=1)
    log.set_level("debug")
    early.debug("dropped by the observer")
    assert [line.split(" ", 1)[1] for line in out.getvalue().splitlines()] == ["warn     kept 1"]


@pytest.mark.parametrize(("level", "lines"), [("info", 0), ("debug", 1)])
def test_there_is_no_access_log_at_info(level: str, lines: int) -> None:
    """Twisted's line per request appears from debug on."""
    out = io.StringIO()
    publisher = LogPublisher(log.observer(out, "text", level))
    Logger("twisted.python.log", observer=publisher).info("GET / HTTP/1.1")
    assert len(out.getvalue().splitlines()) == lines


def test_a_log_file_rotates_at_a_signal(tmp_path: Path) -> None:
    """SIGUSR1 starts a new file, by way of the reactor; a handler that is there stays."""
    calls: list[Any] = []
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        file = log.open_file(str(tmp_path / "n.log"), calls.append)
        log.as_text(event("x"))
        log.observer(file, "text", "info")(event("first"))
        signal.raise_signal(signal.SIGUSR1)
        calls[0]()
        mine = signal.getsignal(signal.SIGUSR1)
        log.open_file(str(tmp_path / "m.log"), calls.append)
        assert signal.getsignal(signal.SIGUSR1) is mine
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "first" in (tmp_path / "n.log.1").read_text()
    assert (tmp_path / "n.log").read_text() == ""
