"""A fixed set of seeds: two simulated hours, every kind of fault, nothing violated."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEEDS = 64


def test_two_simulated_hours_violate_nothing_and_leave_nothing_out() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dynamo.sim", "--seeds", str(SEEDS)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    never = re.findall(r"^(I\d+) exercised=0 |^fault (\w+) injected=0$", done.stdout, re.MULTILINE)
    assert never == []
    hours = re.search(r"([0-9.]+) simulated hours \(([0-9.]+) of nodes\)", done.stdout)
    assert hours is not None
    assert float(hours[1]) >= 2.0
    assert float(hours[2]) >= 2.0 * 4.5
