"""What a node's clients and its operator meet, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from klein import Klein

from dynamo.api.changes import ChangesFace
from dynamo.api.documented import DocumentedFace
from dynamo.api.metrics import Metrics
from dynamo.api.operating import OperatingFace
from dynamo.api.resource import ResourceFace
from dynamo.api.vitals import status, why_not_ready
from dynamo.cluster.membership import Membership
from dynamo.config import Config
from dynamo.coordinator.door import Door
from dynamo.coordinator.terms import Defaults
from dynamo.core.transfers import Moved
from dynamo.node.work import Work
from dynamo.ports import Changing, Underway
from dynamo.storage.threads import Run
from dynamo.wire.hello import Hello


def underway(mine: Moved, hellos: Iterable[Hello]) -> Underway:
    """How far a change of the ring is, by what each member says of itself."""
    all_moved = [mine, *(hello.moved for hello in hellos)]
    known = [moved.progress for moved in all_moved if moved.progress is not None]
    seconds = [p.seconds_left for p in known if p.seconds_left is not None]
    return Underway(
        waits_for=tuple(moved.why for moved in all_moved if moved.why),
        transfers=tuple(move for moved in all_moved for move in moved.moves),
        partitions_left=sum(progress.partitions_left for progress in known),
        bytes=sum(progress.bytes for progress in known),
        seconds_left=max(seconds) if seconds else None,
    )


def build_faces(
    *,
    config: Config,
    defaults: Defaults,
    view: Membership,
    door: Door,
    metrics: Metrics,
    work: Work,
    aside: Run,
    changing: Changing,
    underway: Callable[[], Underway],
) -> tuple[Klein, ...]:
    """All of the API port's. `aside` runs a computation that takes long; `changing` and `underway`
    are as in `dynamo.api.changes`."""
    operating = OperatingFace(
        cluster_name=config.cluster.name,
        view=view,
        door=door,
        metrics=metrics,
        why_not_ready=lambda: why_not_ready(view, defaults),
        runner=work.runner,
        repair=work.antientropy.partitions,
        changing=changing,
        underway=underway,
    )
    return (
        DocumentedFace(door, partial(status, view)).app,
        ResourceFace(door).app,
        operating.app,
        ChangesFace(view, changing, underway, aside, config.replication.n).app,
    )
