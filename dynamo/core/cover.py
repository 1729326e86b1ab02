"""Which nodes to ask so that every partition is heard R times.

A bucket's keys lie on all partitions, so a listing asks nodes rather than keys. This picks few of
them, greedily: the node that fills most of what is lacking comes next. It is a pure function of
the ring, who is healthy, and n and r; the caller may keep the result as long as those hold.

Owners are what counts: a stand-in has nothing of what was written before its owner went away. Where
fewer than R owners are there, all of them are asked, and every stand-in, as for a single read.
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
    lacking = [0] * len(rankings)
    serves: dict[str, list[int]] = {}
    chosen: set[str] = set()
    for partition, ranking in enumerate(rankings):
        targets = prefer(ranking, n, healthy, strict).targets
        owners = [t.name for t in targets if not t.stand_in_for]
        if len(owners) < r:
            if len(targets) < r:
                return None
            chosen.update(t.name for t in targets)
            continue
        lacking[partition] = r
        for name in owners:
            serves.setdefault(name, []).append(partition)
    for name in sorted(chosen):
        for partition in serves.pop(name, ()):
            lacking[partition] -= 1
    _choose(lacking, serves, chosen, first)
    return tuple(sorted(chosen, key=lambda name: (name != first, name)))


def _choose(lacking: list[int], serves: dict[str, list[int]], chosen: set[str], first: str) -> None:
    """Adds nodes to `chosen` until no partition lacks any; there are enough for each."""
    while any(left > 0 for left in lacking):
        gains = {
            name: sum(1 for p in partitions if lacking[p] > 0)
            for name, partitions in serves.items()
        }
        best = max(gains, key=lambda name: (gains[name] > 0 and name == first, gains[name], name))
        chosen.add(best)
        for partition in serves.pop(best):
            lacking[partition] -= 1
