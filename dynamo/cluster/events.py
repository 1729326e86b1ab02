"""What happens to members, as people are told of it."""

from __future__ import annotations

import attrs

from dynamo.core.effects import Notice
from dynamo.log import make_logger

log = make_logger()

_SAID = {
    "udp_blocked": "{name} answers over TCP and not over UDP: is the port blocked?",
    "name_contended": "Another live node at {detail} is named {name!r} too; waiting for it to go. "
    "Give each node its own node.name.",
    "other_cluster": "{name} belongs to cluster {detail!r}; take it out of cluster.seeds.",
    "refuted": "This node was held to be {name} ({detail}); it says otherwise.",
    "stalled": "This process did not run for {detail} s.",
}


@attrs.frozen
class Happened:
    """A change of the view, for `/v1/cluster`. `at` is wall-clock seconds."""

    at: float
    member: str
    event: str
    cause: str

    def write(self) -> None:
        """Puts it into the log."""
        level = log.info if self.event != "changed" else log.debug
        level("{name} {event}: {cause}", name=self.member, event=self.event, cause=self.cause)


def warn(notice: Notice) -> None:
    """Puts what an operator should know into the log."""
    log.warn(_SAID[notice.code], name=notice.name, detail=notice.detail)
