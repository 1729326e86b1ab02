"""What will be done in a run: the clients' operations and the faults, all of it drawn beforehand.

A plan is a value, so that a failing one can be made smaller (`dynamo.sim.shrink`) and run again.
The network, the disks and the nodes draw from the seed as they go; the plan does not change with
what happens.
"""

from __future__ import annotations

import attrs

LASTING_S = 100.0
"""What goes wrong for so long is over only when everything is mended."""


@attrs.frozen(kw_only=True)
class Operation:
    """One thing a client does, `at` seconds after the cluster is ready.

    `number` is unique in the plan. `kind`: one of `dynamo.sim.workload.KINDS`. `entry`: the node it
    is sent to. `seen`: whether a write carries the context its client last read of the key.
    `size`: bytes of a body. `options`: the query's n, r, w, quorum, timeout.
    """

    number: int
    at: float
    client: int
    kind: str
    entry: str
    bucket: str
    key: str = ""
    seen: bool = False
    size: int = 0
    options: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Fault:
    """One thing that goes wrong, `at` seconds after the cluster is ready, for `seconds` (0: once).

    `kind`: one of `dynamo.sim.faults.KINDS`. `targets`: machines. `amount`: what the kind makes of
    it (a share, a factor, seconds).
    """

    at: float
    kind: str
    targets: tuple[str, ...]
    seconds: float = 0.0
    amount: float = 0.0


@attrs.frozen(kw_only=True)
class Plan:
    """A whole run: `size` nodes, `clients` clients, and for `seconds` what they go through.

    `founders`: how many of the nodes found the cluster, where the ring changes; 0 where not."""

    seed: int
    size: int
    clients: int
    seconds: float
    operations: tuple[Operation, ...]
    faults: tuple[Fault, ...]
    founders: int = 0
