"""What holds for one request: its options over its bucket's properties over the defaults.

`n` is what is wanted; what holds is the smaller of it and the members of the ring. `r` and `w`
of a bucket or of the defaults are cut to that as well; a request that itself asks for more than
there are members cannot be served.
"""

from __future__ import annotations

from typing import Literal

import attrs

from dynamo.coordinator.requests import Options
from dynamo.core.buckets import Properties
from dynamo.core.quorum import majority
from dynamo.errors import QuorumNotMet

Count = int | Literal["quorum"]


@attrs.frozen(kw_only=True)
class Terms:
    """Numbers that hold: copies, answers needed to read and write. `timeout` is in seconds."""

    n: int
    r: int
    w: int
    strict: bool
    latest: bool
    timeout: float


@attrs.frozen(kw_only=True)
class Defaults:
    """The cluster's replication defaults (`replication` and `limits` of the configuration)."""

    n: int = 3
    r: Count = "quorum"
    w: Count = "quorum"
    quorum: Literal["sloppy", "strict"] = "sloppy"
    timeout: float = 10.0


def settle(
    options: Options, properties: Properties, defaults: Defaults, members: int, operation: str
) -> Terms:
    """The terms of one request; raises `QuorumNotMet` for more nodes than there are."""
    for asked in (options.n, options.r, options.w):
        if isinstance(asked, int) and asked > members:
            raise QuorumNotMet(operation, 0, asked, f"the ring has {members} members")
    n = min(options.n or properties.n or defaults.n, members)
    for asked in (options.r, options.w):
        if isinstance(asked, int) and asked > n:
            raise QuorumNotMet(operation, 0, asked, f"there are {n} copies")
    quorum = options.quorum or properties.quorum or defaults.quorum
    return Terms(
        n=n,
        r=_count(options.r, properties.r, defaults.r, n),
        w=_count(options.w, properties.w, defaults.w, n),
        strict=quorum == "strict",
        latest=properties.conflicts == "latest",
        timeout=min(options.timeout or defaults.timeout, defaults.timeout),
    )


def _count(asked: Count | None, bucket: Count | None, default: Count, n: int) -> int:
    if isinstance(asked, int):
        return asked
    chosen = asked or bucket or default
    return majority(n) if chosen == "quorum" else min(chosen, n)
