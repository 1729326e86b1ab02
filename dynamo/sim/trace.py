"""What happened, line by line, and the one hash that says whether two runs were the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable


class Trace:
    """Takes lines while it is on. `write` is given each, if anyone wants to read them."""

    def __init__(
        self, seconds: Callable[[], float], write: Callable[[str], object] | None, *, on: bool
    ) -> None:
        self.on = on
        self._seconds = seconds
        self._began = seconds()
        self._write = write
        self._hash = hashlib.sha256()
        self.lines = 0

    def add(self, who: str, what: str) -> None:
        """One event; `who` is a machine, or the simulator itself. Ask `on` before making it."""
        if not self.on:
            return
        past = self._seconds() - self._began
        line = f"{int(past // 60):02d}:{past % 60:09.6f} {who:<8} {what}"
        self._hash.update(line.encode() + b"\n")
        self.lines += 1
        if self._write is not None:
            self._write(line)

    def digest(self) -> str:
        """The hash of all lines so far, in hex."""
        return self._hash.hexdigest()
