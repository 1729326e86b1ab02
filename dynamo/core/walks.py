"""In which order each partition walks past the nodes.

Rendezvous hashing (Thaler and Ravishankar 1998) with exponential scores: node i scores E / rate
for each partition, E being exponentially distributed by hash, and the walk goes by rising score.
A rate of twice as much is first twice as often. A joining or leaving node does not change the
order of the others unless it changes their rates.

Two things differ from the textbook. A node's hashes are a permutation of the partitions, and E
is the mean of the r-th lowest of Q exponential variates (Rényi 1953), where r is the partition's
rank in it: each node has the same hashes in another order, which nearly halves the deviation of
the loads. And no library logarithm decides an order, as the last digit of those differs between
machines.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import compress
from math import frexp, inf
from typing import NamedTuple

from dynamo.core.shares import Zoning

LN_2 = 0.6931471805599453
_ALMOST_ONE = 1 - 1e-9

Scored = tuple[float, int]
"""(score, node number)."""


class Rate(NamedTuple):
    """`sure`: the node goes before all that are not, as it is needed in every partition (or its
    zone is); among alike nodes those with the higher `rate` go earlier more often."""

    sure: bool
    rate: float


def rates(wanted: Sequence[float], spread: Zoning, partitions: int) -> list[Rate]:
    """The rates with which nodes come to hold about `wanted` copies each.

    Of independent clocks that ring at rates -ln(1 - p), the first few to ring contain each with
    a probability close to p. The rates are the nodes' own, not raised or lowered with their
    zones': a zone's loads would follow its share closer, but whoever joined a zone would draw
    partitions to its neighbours too.
    """
    parts = [share / partitions for share in wanted]
    of_zones = [0.0] * len(spread.sizes)
    for zone, part in zip(spread.zone_of, parts, strict=True):
        of_zones[zone] += part
    result: list[Rate] = []
    for zone, part in zip(spread.zone_of, parts, strict=True):
        zone_sure = spread.high[zone] == 1 and of_zones[zone] >= _ALMOST_ONE
        if zone_sure or part >= _ALMOST_ONE:
            result.append(Rate(True, part))
        else:
            result.append(Rate(False, minus_ln(1 - part)))
    return result


def minus_ln(x: float) -> float:
    """-ln(x) for 0 < x <= 1, the same digits on every machine."""
    mantissa, exponent = frexp(x)
    ratio = (1 - mantissa) / (1 + mantissa)
    square = ratio * ratio
    total = 0.0
    for odd in range(61, 0, -2):
        total = total * square + 1 / odd
    return 2 * ratio * total - exponent * LN_2


def walks(
    names: Sequence[str], node_rates: Sequence[Rate], partitions: int, limit: float
) -> list[list[Scored]]:
    """For each partition the nodes whose E / rate is below `limit`, by rising score."""
    result: list[list[Scored]] = [[] for _ in range(partitions)]
    exponential = [0.0]
    for rank in range(partitions):
        exponential.append(exponential[-1] + 1 / (partitions - rank))
    for node, (name, (sure, rate)) in enumerate(zip(names, node_rates, strict=True)):
        row = array(
            "I", hashlib.shake_128(b"dynamo ring 1:" + name.encode()).digest(4 * partitions)
        )
        if sys.byteorder == "big":
            row.byteswap()
        count = partitions
        if limit < inf:
            count = min(partitions, bisect_left(exponential, limit * rate) + 1)
        for rank, partition in enumerate(_lowest(row, count)):
            # The place within the step from one rank to the next breaks ties between nodes.
            low = exponential[rank]
            step = (exponential[rank + 1] - low) * (row[partition] & 0xFFFF) / 65536
            score = (low + step) / rate
            result[partition].append((-1 / (1 + score) if sure else score, node))
    for walk in result:
        walk.sort()
    return result


def _lowest(row: array[int], count: int) -> list[int]:
    """The positions of the `count` lowest numbers in a row of 32-bit hashes, ascending."""
    size = len(row)
    part = count / size
    found: list[int] = []
    while len(found) < count:
        part = part * 1.1 + 16 / size
        if part >= 1:
            found = list(range(size))
        else:
            found = list(compress(range(size), map(int(part * 2**32).__gt__, row)))
    found.sort(key=row.__getitem__)
    return found[:count]
