"""What the demo prints: steps with the time since the start, in colour on a terminal only."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

GREEN, RED, DIM, BOLD = "32", "31", "2", "1"


class Screen:
    """Writes lines to `out`; `seconds` is a monotonic clock."""

    def __init__(self, out: TextIO, seconds: Callable[[], float]) -> None:
        self._out, self._seconds, self._start = out, seconds, seconds()
        self._colours = out.isatty() and "NO_COLOR" not in os.environ

    def step(self, text: str) -> None:
        """Something happened that was to happen."""
        self._timed(text, GREEN)

    def note(self, text: str) -> None:
        """Something to know that is neither good nor bad."""
        self._timed(text, DIM)

    def fault(self, text: str) -> None:
        """Something went wrong; `text` is a sentence."""
        self._timed(text, RED)

    def plain(self, text: str = "", *, heading: bool = False) -> None:
        """A line without a time."""
        self._write(self._paint(text, BOLD) if heading else text)

    def _timed(self, text: str, colour: str) -> None:
        elapsed = f"[{self._seconds() - self._start:5.1f} s]"
        self._write(f"{self._paint(elapsed, DIM)} {self._paint(text, colour)}")

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text

    def _write(self, text: str) -> None:
        with suppress(OSError):  # nobody may read any more; the nodes still have to be stopped
            print(text, file=self._out, flush=True)
