"""Runs the demo on fake nodes: `run_demo.py CONF ...`."""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet.task import react

from dynamo.demo.__main__ import main

FAKE = Path(__file__).with_name("fake_node.py")

if __name__ == "__main__":
    react(main, (sys.argv[1:], [sys.executable, str(FAKE)]))
