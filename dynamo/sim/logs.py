"""What nodes say in a simulation: into the trace, and what none should ever say is a violation.

A traceback, an error nobody handled and a critical line are defects, unless a node says that way
that it will not start. Nothing of a node's log is printed.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import TYPE_CHECKING

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogBeginner,
    globalLogPublisher,
)
from zope.interface import implementer

from dynamo import log
from dynamo.sim.reactor import current
from dynamo.sim.tally import Tally

if TYPE_CHECKING:
    from dynamo.sim.world import World

INVARIANT = "log"
TRACEBACK_LINES = 6
_REFUSALS = ("cannot start",)
"""What a critical line may say: that of a node whose disk takes nothing."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def silence() -> None:
    """Keeps this process's log off its standard error. Once for each process."""
    globalLogBeginner.beginLoggingTo([_Nobody()], redirectStandardIO=False)


@implementer(ILogObserver)
class _Nobody:
    def __call__(self, event: LogEvent) -> None:
        """Hears nothing."""


@implementer(ILogObserver)
class Listener:
    """Hears every log event of this process while it is entered."""

    def __init__(self, world: World, tally: Tally) -> None:
        self._world = world
        self._tally = tally
        self._level = ""

    def __enter__(self) -> Listener:
        self._level = log.level()
        log.set_level("info")
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        globalLogPublisher.removeObserver(self)
        log.set_level(self._level)

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        ours = str(event.get("log_namespace", "")).startswith("dynamo")
        if level < (LogLevel.info if ours else LogLevel.warn):
            return
        failure = event.get("log_failure")
        who, text = current[0] or "sim", _told(event)
        self._world.trace.add(who, f"log {level.name}: {text}")
        refusal = any(words in text for words in _REFUSALS)
        if failure is not None or (level is LogLevel.critical and not refusal):
            past = self._world.schedule.now - self._world.began
            self._tally.broken(INVARIANT, past, f"{who}: {text}")


def _told(event: LogEvent) -> str:
    """The message, and of a failure its kind and where it came from."""
    text = formatEvent(event)
    failure = event.get("log_failure")
    if failure is not None:
        rows = str(failure.getTraceback()).strip().splitlines()
        where = [row.strip() for row in rows if row.strip().startswith("File ")]
        last = [row.replace('"', "").split("/dynamo/")[-1] for row in where[-TRACEBACK_LINES:]]
        text += f" [{failure.type.__name__}: {failure.getErrorMessage()}] at {'; '.join(last)}"
    return _ADDRESS.sub("", " ".join(text.split()))
