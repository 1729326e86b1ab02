"""What is seen while seeds run: those that failed, at once, and on a terminal a bar, with tqdm (the
extra `sim`)."""

from __future__ import annotations

import sys
from typing import Any

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None


class Bar:
    """Counts seeds, and names those that failed. Writes to standard error."""

    def __init__(self, total: int) -> None:
        shown = tqdm is not None and sys.stderr.isatty()
        self._bar: Any = tqdm(total=total, unit="seed", smoothing=0.1) if shown else None
        self._failed = 0

    def step(self, seed: int, *, failed: bool) -> None:
        """A seed is done. Half an hour is long to wait for the number of one that failed."""
        if failed:
            self._failed += 1
            told = f"seed {seed} failed"
            if self._bar is None:
                print(told, file=sys.stderr, flush=True)
            else:
                self._bar.write(told, file=sys.stderr)
                self._bar.set_postfix(failed=self._failed)
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        """No more seeds."""
        if self._bar is not None:
            self._bar.close()
