"""One hypothesis profile for all: no wall-clock deadlines, in CI the same examples each time."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("dynamo", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("dynamo")
