"""Which nodes hold which partitions.

`place` is a pure function of the members' (name, zone, weight), the number of partitions and the
number of copies. Its rules, the earlier over the later:

1. the copies of a partition lie on `copies` distinct nodes, or on all if there are fewer;
2. they are spread over the zones as evenly as the zones' sizes allow;
3. no node holds more than its cap: `CAP` times its share (`dynamo.core.shares`), or somewhat
   more where a share is so small that chance rules it. The cap gives way only where no single
   exchange of two copies can keep rules 1 and 2 without it;
4. a partition takes the first nodes of its walk that rules 2 and 3 allow, so that a node that
   comes or goes moves little else than what it holds itself.

The walk is rendezvous hashing (`dynamo.core.walks`). Caps: Mirrokni, Thorup and Zadimoghaddam,
"Consistent hashing with bounded loads" (2016). Preference lists and partitions: Dynamo §4.2,
§4.3 and §6.2, strategy 3. Only integers and exactly rounded float operations are used, so all
machines agree.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import ceil, floor, inf, sqrt
from operator import itemgetter
from typing import NamedTuple

from dynamo.core.shares import Zoning, shares, zoning
from dynamo.core.walks import Scored, rates, walks

CAP = 1.05
"""The fullest a node may be, times its share, where the mean share is 100 copies or more."""

_WALK_PER_COPY = 16
"""In larger rings only about this many nodes per copy are ranked for each partition."""

_EXCHANGES_FAILED_MAX = 64


class Placed(NamedTuple):
    """`owners[p]`: node numbers, best first; `walks[p]`: nodes by score, best first (in a large
    ring only the best); `shares[i]`: the copies node i should hold; `held[i]`: those it does."""

    owners: list[tuple[int, ...]]
    walks: list[array[int]]
    shares: list[float]
    held: list[int]


def place(
    names: Sequence[str],
    zones: Sequence[str],
    weights: Sequence[float],
    partitions: int,
    copies: int,
) -> Placed:
    """Where each partition's copies belong.

    `names`, `zones`, `weights`: of the members, sorted by name; `partitions`, `copies`: at
    least 1. Rules and sources: the module's head.
    """
    if not names:
        return Placed([()] * partitions, [array("I")] * partitions, [], [])
    copies = min(copies, len(names))
    spread = zoning(zones, copies)
    wanted = shares(weights, spread, partitions, copies)
    node_rates = rates(wanted, spread, partitions)
    per_copy = _WALK_PER_COPY
    while True:
        limit = inf if len(names) <= per_copy * copies else float(per_copy)
        layout = _Layout(walks(names, node_rates, partitions, limit), wanted, spread, copies)
        if layout.settle():
            owners = _arrange(layout)
            orders = [array("I", map(itemgetter(1), walk)) for walk in layout.walks]
            return Placed(owners, orders, wanted, layout.load)
        per_copy *= 2


def _cap(share: float, mean: float, partitions: int) -> int:
    """The most copies a node may hold."""
    if mean >= 100:
        return min(partitions, floor(share * CAP + 1e-9))
    # Loads deviate with the square root of the mean; this meets `CAP` at a mean of 100.
    return min(partitions, max(ceil(share - 1e-9), floor(share * (1 + 0.5 / sqrt(mean)))))


class _Layout:
    """The owners while they are being settled.

    First every partition takes the first nodes of its walk. Then nodes above their cap give up
    the copies they rank worst, and each of those goes to the first node in its partition's walk
    that has room, the copies closest to a node's heart first.
    """

    def __init__(
        self, walks: list[list[Scored]], wanted: list[float], spread: Zoning, copies: int
    ) -> None:
        self.walks = walks
        self.wanted = wanted
        self.spread = spread
        self.copies = copies
        self.zoned = 1 < len(spread.sizes) < len(wanted)
        self.owners: list[list[int]] = []
        self.load = [0] * len(wanted)
        mean = copies * len(walks) / len(wanted)
        self.caps = [_cap(share, mean, len(walks)) for share in wanted]

    def settle(self) -> bool:
        """Fills `owners`; False if the walks are too short to tell."""
        holds: list[list[tuple[float, int]]] = [[] for _ in self.load]
        for partition, walk in enumerate(self.walks):
            first = self._first(walk)
            if first is None:
                return False
            self.owners.append([node for _, node in first])
            for score, node in first:
                holds[node].append((score, partition))
        short: list[int] = []
        for node, held in enumerate(holds):
            held.sort()
            for _, partition in held[self.caps[node] :]:
                self.owners[partition].remove(node)
                short.append(partition)
            self.load[node] = min(len(held), self.caps[node])
        return self._refill(sorted(set(short)))

    def _first(self, walk: list[Scored]) -> list[Scored] | None:
        """The owners by walk and zones alone; None if the walk is too short to tell."""
        if len(walk) < self.copies:
            return None
        if not self.zoned:
            return walk[: self.copies]
        zone_of, sizes = self.spread.zone_of, self.spread.sizes
        seen = [0] * len(sizes)
        rounds: list[tuple[int, Scored]] = []
        for scored in walk:
            zone = zone_of[scored[1]]
            rounds.append((seen[zone], scored))
            seen[zone] += 1
        rounds.sort()
        last = rounds[self.copies - 1][0]
        if any(found < min(last, size) for found, size in zip(seen, sizes, strict=True)):
            return None
        return [scored for _, scored in rounds[: self.copies]]

    def _refill(self, short: list[int]) -> bool:
        """Gives the partitions that lack owners new ones; False if the walks are too short."""
        offers = [
            (score, partition, node) for partition in short for score, node in self.walks[partition]
        ]
        offers.sort()
        for _, partition, node in offers:
            if self.load[node] < self.caps[node] and self._allowed(partition, node):
                self._give(partition, node)
        failed = 0
        for partition in short:
            while len(self.owners[partition]) < self.copies:
                if failed < _EXCHANGES_FAILED_MAX and self._exchange(partition):
                    continue
                failed += 1
                # Past every cap: then the node that is least over its share.
                allowed = [n for _, n in self.walks[partition] if self._allowed(partition, n)]
                if not allowed:
                    return False
                self._give(partition, min(allowed, key=self._fullness))
        return True

    def _fullness(self, node: int) -> float:
        return (self.load[node] + 1) / self.wanted[node]

    def _give(self, partition: int, node: int) -> None:
        self.owners[partition].append(node)
        self.load[node] += 1

    def _allowed(self, partition: int, node: int) -> bool:
        """Whether a partition that lacks owners may take this one, caps aside."""
        owners = self.owners[partition]
        lacking = self.copies - len(owners)
        if not lacking or node in owners:
            return False
        if not self.zoned:
            return True
        zone_of, _, low, high = self.spread
        counts = [0] * len(low)
        for owner in owners:
            counts[zone_of[owner]] += 1
        zone = zone_of[node]
        if counts[zone] < low[zone]:
            return True
        owed = sum(max(0, least - count) for least, count in zip(low, counts, strict=True))
        return counts[zone] < high[zone] and lacking > owed

    def _exchange(self, partition: int) -> bool:
        """Finds a full node that may take the partition and can pass on another one for it."""
        for _, node in self.walks[partition]:
            if not self._allowed(partition, node):
                continue
            for other, owners in enumerate(self.owners):
                if node not in owners or len(owners) < self.copies:
                    continue
                heir = self._heir(other, node)
                if heir is not None:
                    self._give(other, heir)
                    self.load[node] -= 1
                    self._give(partition, node)
                    return True
        return False

    def _heir(self, partition: int, node: int) -> int | None:
        """Takes the node from the partition's owners if another has room for it; else None."""
        owners = self.owners[partition]
        place = owners.index(node)
        del owners[place]
        for _, heir in self.walks[partition]:
            room = self.load[heir] < self.caps[heir]
            if room and heir != node and self._allowed(partition, heir):
                return heir
        owners.insert(place, node)
        return None


def _arrange(layout: _Layout) -> list[tuple[int, ...]]:
    """Orders each partition's owners: zones first, then by walk, but so that for every k each
    node is among the first k owners of a fair part of the partitions it holds."""
    copies, zone_of = layout.copies, layout.spread.zone_of
    among = [[0] * len(layout.load) for _ in range(copies)]
    fair = [[(k + 1) * CAP * held / copies for held in layout.load] for k in range(copies)]
    result: list[tuple[int, ...]] = []
    for owners, walk in zip(layout.owners, layout.walks, strict=True):
        left = [node for _, node in walk if node in owners]
        chosen: list[int] = []
        while len(left) > 1:
            k = len(chosen)
            choice = _fresh_zones(left, chosen, zone_of) if layout.zoned and chosen else left
            node = _least_used(choice, among[k], fair[k])
            chosen.append(node)
            left.remove(node)
            for counts in among[k:]:
                counts[node] += 1
        result.append((*chosen, *left))
    return result


def _least_used(choice: Sequence[int], counts: Sequence[int], fair: Sequence[float]) -> int:
    """The first that is below its fair count, or else the one least above it."""
    for node in choice:
        if counts[node] + 1 <= fair[node]:
            return node
    return min(choice, key=lambda node: (counts[node] + 1) / fair[node])


def _fresh_zones(left: Sequence[int], chosen: Sequence[int], zone_of: Sequence[int]) -> list[int]:
    """Those of `left` whose zone has been chosen least."""
    counts = [sum(zone_of[c] == zone_of[node] for c in chosen) for node in left]
    least = min(counts)
    return [node for node, count in zip(left, counts, strict=True) if count == least]
