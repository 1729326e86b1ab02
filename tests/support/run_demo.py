"""Runs the demo on fake nodes: `python -m tests.support.run_demo CONF ...`."""

from __future__ import annotations

import sys

from twisted.internet.task import react

from dynamo.demo.__main__ import main

FAKE_NODE = [sys.executable, "-m", "tests.support.fake_node"]

if __name__ == "__main__":
    react(main, (sys.argv[1:], FAKE_NODE))
