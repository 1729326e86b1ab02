"""What a node's clients and its operator meet, put together."""

from __future__ import annotations

from collections.abc import Callable
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
from dynamo.node.work import Work
from dynamo.ports import Changing, Underway
from dynamo.storage.threads import Run


def build_faces(
    *,
    config: Config,
    defaults: Defaults,
    view: Membership,
    door: Door,
    metrics: Metrics,
    work: Work,
    aside: Run,
    changing: Changing | None = None,
    underway: Callable[[], Underway] = Underway,
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
