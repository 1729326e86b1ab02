"""Logging: the one place that chooses txaio's framework, and how events are written.

Modules say `from dynamo.log import make_logger` and `log = make_logger()`; `dynamo.tap` calls
`observer` once. Text: one line per event, "time level message", with control characters
escaped, so that what a client sends cannot forge a line; a traceback follows indented. JSON: one
object per line. Times are UTC.
"""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any, Literal, cast

import txaio
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)
from twisted.python.logfile import LogFile

txaio.use_twisted()
make_logger: Callable[..., Any] = vars(txaio)["make_logger"]
"""txaio's own, so a logger is named after the module that asks for it."""

ROTATE_BYTES = 10_000_000
ROTATED_FILES_MAX = 9
Format = Literal["text", "json"]

_PER_REQUEST = ("twisted.python.log", "twisted.web.client", "twisted.web.http")
"""Namespaces that Twisted writes a line in for each request or connection."""
_LEGACY_KEYS = frozenset({"format", "isError", "message", "system", "time", "why", "failure"})
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def level() -> str:
    """The level that `set_level` set last."""
    return str(vars(txaio)["get_global_log_level"]())


def set_level(name: str) -> None:
    """From which level on `make_logger`'s loggers emit at all."""
    vars(txaio)["set_global_log_level"](name)


def observer(out: IO[Any], format: Format, level: str) -> ILogObserver:
    """Writes events of `level` and above to `out`; also tells txaio, which then drops early.

    Twisted's own line per request or connection is shown from level debug on.
    """
    set_level(level)
    least = LogLevel.debug if level == "trace" else LogLevel.lookupByName(level)
    predicate = LogLevelFilterPredicate(defaultLogLevel=least)
    if least == LogLevel.info:
        for namespace in _PER_REQUEST:
            predicate.setLogLevelForNamespace(namespace, LogLevel.warn)
    write = as_json if format == "json" else as_text
    return cast(ILogObserver, FilteringLogObserver(FileLogObserver(out, write), [predicate]))


def open_file(path: str, call_from_signal: Callable[[Callable[[], None]], object]) -> IO[Any]:
    """The log file at `path`, bounded by rotation; SIGUSR1 rotates it, as it does for twistd."""
    file = LogFile.fromFullPath(path, ROTATE_BYTES, maxRotatedFiles=ROTATED_FILES_MAX)
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: call_from_signal(file.rotate))
    return cast(IO[Any], file)


def as_text(event: LogEvent) -> str:
    """One event as a line of text, the traceback under it."""
    line = f"{_time(event)} {_level(event):<8} {_message(event).translate(_ESCAPES)}\n"
    trace = "".join(f"    {row.translate(_ESCAPES)}\n" for row in _traceback(event).splitlines())
    return (line + trace).encode("utf-8", "backslashreplace").decode("utf-8")


def as_json(event: LogEvent) -> str:
    """One event as an object on a line; `fields` are the plain values it was logged with."""
    record: dict[str, Any] = {
        "time": _time(event),
        "level": _level(event),
        "logger": str(event.get("log_namespace", "")),
        "message": _message(event),
    }
    fields = {
        key: value
        for key, value in sorted(event.items())
        if not key.startswith("log_") and key not in _LEGACY_KEYS and _is_plain(value)
    }
    if fields:
        record["fields"] = fields
    if trace := _traceback(event):
        record["traceback"] = trace
    return json.dumps(record) + "\n"


def _time(event: LogEvent) -> str:
    moment = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _level(event: LogEvent) -> str:
    return str(event.get("log_level", LogLevel.info).name)


def _message(event: LogEvent) -> str:
    message = formatEvent(event)
    if "log_failure" in event and not message:
        failure = event["log_failure"]
        return f"{failure.type.__name__}: {failure.getErrorMessage()}"
    return message


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure")
    if failure is None:
        return ""
    try:
        return str(failure.getTraceback()).rstrip()
    except Exception:
        return "(the traceback cannot be shown)"


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)
