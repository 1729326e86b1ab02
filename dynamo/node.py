"""The composition root: builds, joins, starts and stops every part of a node."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.application.service import IService, MultiService

from dynamo.config import Config


def makeNode(
    config: Config, *, reactor: Any, rng: random.Random, wall_clock: Callable[[], float]
) -> IService:
    """A node that has not been started."""
    return MultiService()
