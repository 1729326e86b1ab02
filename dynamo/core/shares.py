"""How many partition copies each member ought to hold.

A share is in proportion to the member's weight, as far as two rules allow it: a node holds a
partition at most once, and the copies of a partition are spread over the zones as evenly as the
zones' sizes allow. What a zone or node cannot take is shared among the others by weight.
Only exactly rounded float operations are used, so all machines compute the same shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_HALVINGS = 100


class Zoning(NamedTuple):
    """`zone_of[i]`: the zone number of member i; `sizes[z]`: its members; `low[z]`, `high[z]`:
    the fewest and the most copies of one partition that belong in zone z."""

    zone_of: list[int]
    sizes: list[int]
    low: list[int]
    high: list[int]


def zoning(zones: Sequence[str], copies: int) -> Zoning:
    """The spread over zones that `copies` copies of a partition must have.

    `zones`: the zone of each member; `copies`: at most as many as there are members. Zones are
    filled in rounds, one copy each, a zone dropping out when it has no more nodes: `low` is
    what the complete rounds give, and the last round, if incomplete, reaches `high` in some.
    """
    numbers = {zone: number for number, zone in enumerate(sorted(set(zones)))}
    zone_of = [numbers[zone] for zone in zones]
    sizes = [zone_of.count(number) for number in range(len(numbers))]
    rounds = 0
    while rounds < copies and sum(min(size, rounds + 1) for size in sizes) <= copies:
        rounds += 1
    low = [min(size, rounds) for size in sizes]
    high = [min(size, rounds + 1) for size in sizes]
    return Zoning(zone_of, sizes, low, high)


def shares(weights: Sequence[float], spread: Zoning, partitions: int, copies: int) -> list[float]:
    """The copies each member should hold; they add up to `partitions * copies`.

    `weights`: positive, one for each member; `spread`: from `zoning` with the same `copies`.
    """
    zones = range(len(spread.sizes))
    members: list[list[int]] = [[] for _ in zones]
    for index, zone in enumerate(spread.zone_of):
        members[zone].append(index)
    of_zones = fill(
        partitions * copies,
        [sum(weights[index] for index in members[zone]) for zone in zones],
        [partitions * low for low in spread.low],
        [partitions * high for high in spread.high],
    )
    result = [0.0] * len(weights)
    for zone in zones:
        inside = members[zone]
        of_nodes = fill(
            of_zones[zone],
            [weights[index] for index in inside],
            [0] * len(inside),
            [partitions] * len(inside),
        )
        for index, share in zip(inside, of_nodes, strict=True):
            result[index] = share
    return result


def fill(
    amount: float, weights: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> list[float]:
    """`amount` split in proportion to `weights`, each part held between its low and its high.

    `amount` lies between the sum of `lows` and the sum of `highs`. All in copies.
    """
    bounds = list(zip(weights, lows, highs, strict=True))

    def parts(level: float) -> list[float]:
        return [min(max(level * weight, low), high) for weight, low, high in bounds]

    below, above = 0.0, max(high / weight for weight, _, high in bounds)
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if sum(parts(middle)) < amount:
            below = middle
        else:
            above = middle
    # The bisection settles who is at a bound; the rest share exactly what is left.
    level = above
    free = sum(weight for weight, low, high in bounds if low < level * weight < high)
    if free:
        bound = [(w, lo, hi) for w, lo, hi in bounds if not lo < level * w < hi]
        level = (amount - sum(min(max(above * w, lo), hi) for w, lo, hi in bound)) / free
    return [
        level * weight if low < above * weight < high else min(max(above * weight, low), high)
        for weight, low, high in bounds
    ]
