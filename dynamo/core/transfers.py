"""What a node has to pull, and from whom, before the ring changes; and whether enough are there.

A node that owns a partition in the coming ring and not in the present one takes what every present
owner that is there holds of it. The next reads will ask the new owners, so among those it pulled
from must be one of any W that acknowledged a write: most of the owners do, as they do for a read
(Gifford, "Weighted voting for replicated data", 1979). Owners that are taken out because they are
gone for good are not counted: nobody can wait for them.

The coming owners of a partition may all be away, most easily where there is one copy. Reads must
not go over to those who know nothing, and the present owners must not drop what nobody has taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import attrs
import msgspec

from dynamo.core.exchanges import Pair
from dynamo.core.quorum import majority
from dynamo.core.refilling import Progress
from dynamo.core.ring import Ring

MOVING_MAX = 32
"""Transfers shown at most."""


class Moving(msgspec.Struct, frozen=True, rename={"source": "from", "target": "to"}):
    """One partition on its way. `bytes` so far, over all of a second; `seconds_left` is None while
    nothing can be said of it."""

    source: str
    target: str
    partition: int
    bytes: int
    bytes_per_second: float
    seconds_left: float | None


class Moved(msgspec.Struct, frozen=True):
    """How far a node is with taking over what it will own: `moves` under way, all in all
    `progress` (None if it gains nothing), and `why` it waits, "" if it does not."""

    moves: tuple[Moving, ...] = ()
    progress: Progress | None = None
    why: str = ""


@attrs.frozen
class Needs:
    """What has to be pulled before a node has all it ought to, pair by pair in the order of the
    partitions, and which partitions have too few owners there, with those that are missed."""

    pairs: tuple[Pair, ...]
    waiting: dict[int, tuple[str, ...]]


def gained(ring: Ring, coming: Ring, me: str, classes: Iterable[int]) -> list[tuple[int, int]]:
    """The partitions of which `me` has to pull something, each with the number of copies of which
    that is so. It owns them in the coming ring and not in the present one; or they are to have
    fewer owners, and those that lacked an acknowledged write might be most of those left."""
    classes = sorted(set(classes))
    return [
        (partition, copies)
        for partition in range(ring.partitions)
        for copies in classes
        if me in (new := coming.owners(partition, copies))
        and (me not in (old := ring.owners(partition, copies)) or len(new) < len(old))
    ]


def untaken(
    ring: Ring,
    coming: Ring,
    classes: Iterable[int],
    *,
    there: Callable[[str], bool],
    synced: Callable[[str], bool],
) -> tuple[str, ...]:
    """The coming owners of a partition that none of them has taken over, () if there is none such.
    `there(name)`: the member is not known to be gone; `synced(name)`: it has all it needs for the
    coming ring. A partition whose present owners are all gone for good is not waited for."""
    staying = {member.name for member in coming.members}
    for partition, copies in itertools.product(range(ring.partitions), sorted(set(classes))):
        old, new = ring.owners(partition, copies), coming.owners(partition, copies)
        if set(new) == set(old) or any(synced(name) for name in new):
            continue
        if any(name in staying or there(name) for name in old):
            return new
    return ()


def needs(
    ring: Ring,
    coming: Ring,
    me: str,
    classes: Iterable[int],
    *,
    there: Callable[[str], bool],
    taken: Callable[[Pair], bool],
) -> Needs:
    """What `me` has to pull. `there(name)`: the member is not known to be gone; `taken(pair)`: all
    that it held has been pulled already, so that it does not matter whether it still is.

    Where too few owners are there, those that are missed are in the pairs too.
    """
    staying = {member.name for member in coming.members}
    pairs: list[Pair] = []
    waiting: dict[int, set[str]] = {}
    for partition, copies in gained(ring, coming, me, classes):
        owners = ring.owners(partition, copies)
        sources = [o for o in owners if o == me or there(o) or taken((partition, o, copies))]
        absent = [o for o in owners if o not in sources and o in staying]
        counted = len(sources) + len(absent)
        short = counted > 0 and len(sources) < majority(counted)
        if short:
            waiting.setdefault(partition, set()).update(absent)
        wanted = [o for o in owners if o in sources or (short and o in absent)]
        pairs.extend([(partition, owner, copies) for owner in wanted if owner != me])
    return Needs(tuple(pairs), {p: tuple(sorted(names)) for p, names in waiting.items()})
