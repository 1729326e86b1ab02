"""A bar while seeds run: on a terminal only, and only with tqdm (the extra `sim`)."""

from __future__ import annotations

import sys
from typing import Any

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None


class Bar:
    """Counts seeds, and those that failed. Writes to standard error."""

    def __init__(self, total: int) -> None:
        shown = tqdm is not None and sys.stderr.isatty()
        self._bar: Any = tqdm(total=total, unit="seed", smoothing=0.1) if shown else None
        self._failed = 0

    def step(self, *, failed: bool) -> None:
        """A seed is done."""
        if self._bar is not None:
            self._failed += failed
            if self._failed:
                self._bar.set_postfix(failed=self._failed)
            self._bar.update()

    def close(self) -> None:
        """No more seeds."""
        if self._bar is not None:
            self._bar.close()
