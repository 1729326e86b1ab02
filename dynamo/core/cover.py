"""Which nodes to ask so that every partition is heard R times.

A bucket's keys lie on all partitions, so a listing asks nodes rather than keys. This picks few of
them, greedily: the node that fills most of what is lacking comes next. It is a pure function of
the ring, who is healthy, and n and r; the caller may keep the result as long as those hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dynamo.core.preference import prefer


def cover(
    rankings: Sequence[Sequence[str]],
    n: int,
    r: int,
    healthy: Callable[[str], bool],
    strict: bool,
    first: str,
) -> tuple[str, ...] | None:
    """Nodes that together answer for each partition `r` times; None if the healthy cannot.

    `rankings`: each partition's ranking, by partition. `first` is asked in any case if it is
    healthy: its answer is free (this node itself).
    """
    lacking = [r] * len(rankings)
    serves: dict[str, list[int]] = {}
    for partition, ranking in enumerate(rankings):
        for target in prefer(ranking, n, healthy, strict).targets:
            serves.setdefault(target.name, []).append(partition)
    chosen = []
    while any(left > 0 for left in lacking):
        gains = {
            name: sum(1 for p in partitions if lacking[p] > 0)
            for name, partitions in serves.items()
        }
        best = max(
            gains,
            key=lambda name: (gains[name] > 0 and name == first, gains[name], name),
            default="",
        )
        if not best or not gains[best]:
            return None
        chosen.append(best)
        for partition in serves.pop(best):
            lacking[partition] -= 1
    return tuple(chosen)
