"""The composition root: builds, joins, starts and stops every part of a node.

Everything a part must not choose for itself comes in here: the reactor (time and network), dice,
the wall clock, the disk. `service` builds the parts in the order of the data (disk, copies,
members) and stops them the other way round; `coordination` puts the coordinator together,
`faces` what clients meet, `work` what goes on in the background.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.application.service import IService

from dynamo.config import Config
from dynamo.node.service import Node
from dynamo.storage.disk import OpenDisk
from dynamo.storage.threads import Run, run_here

__all__ = ["Node", "makeNode"]


def makeNode(
    config: Config,
    *,
    reactor: Any,
    rng: random.Random,
    wall_clock: Callable[[], float],
    open_disk: OpenDisk | None = None,
    aside: Run = run_here,
) -> IService:
    """A node that has not been started. `wall_clock` reads seconds since the epoch; without
    `open_disk` the data directory is a folder of this machine's; `aside` runs computations that
    take seconds, in another thread if it can."""
    return Node(config, reactor, rng, wall_clock, open_disk, aside)
