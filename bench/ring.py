"""Measures placement: balance, data moved by a join and by a leave, time to build.

Beside it the three strategies of Dynamo §6.2 (figure 8) at S=30, N=3 and equal metadata size.

    python bench/ring.py [--quick]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dynamo.core.ring import Member, Ring

COPIES = 3
ROWS = [
    (3, 128),
    (3, 1024),
    (5, 256),
    (5, 1024),
    (10, 512),
    (10, 1024),
    (30, 256),
    (30, 1024),
    (30, 2048),
    (30, 4096),
    (100, 1024),
    (100, 4096),
    (100, 8192),
    (100, 16384),
    (300, 4096),
    (300, 16384),
    (300, 32768),
    (1000, 16384),
    (1000, 65536),
]
ZONED = [(6, 512, 3), (9, 1024, 4), (30, 1024, 3), (30, 1024, 4), (30, 1024, 10)]


def efficiency(loads: list[float], whole: float) -> float:
    """Mean load over highest load (the paper's load balancing efficiency)."""
    return whole / len(loads) / max(loads)


def pairs(ring: Ring) -> set[tuple[int, str]]:
    return {(p, name) for p in range(ring.partitions) for name in ring.owners(p, ring.copies)}


def measure(size: int, partitions: int, runs: int, zones: int = 1) -> tuple[list[float], float]:
    """[worst efficiency, mean and worst of join, mean and worst of leave], seconds to build.

    Efficiency is that of the fullest node against its share. A join is of one node to `size`; a
    leave is of one from `size`. Moved data is in units of what the node holds by share.
    """
    joins, leaves, balance, seconds = [], [], [], []
    for run in range(runs):
        members = [Member(f"run{run}-node{i}", f"zone{i % zones}") for i in range(size + 1)]
        started = time.perf_counter()
        ring = Ring(members[:size], partitions, COPIES)
        seconds.append(time.perf_counter() - started)
        balance.append(
            min(ring.share(m.name) / ring.partitions_owned(m.name) for m in ring.members)
        )
        mine = pairs(ring)
        grown = Ring(members, partitions, COPIES)
        joins.append(len(pairs(grown) - mine) / grown.share(members[-1].name))
        if size > COPIES:
            shrunk = Ring(members[: size - 1], partitions, COPIES)
            leaves.append(len(pairs(shrunk) - mine) / ring.share(members[size - 1].name))
    leaves = leaves or [0.0]
    return [
        min(balance),
        sum(joins) / runs,
        max(joins),
        sum(leaves) / len(leaves),
        max(leaves),
    ], sum(seconds) / runs


def table(rows: list[tuple[int, int, int]], runs_of: Callable[[int], int]) -> None:
    print("nodes zones      Q  Q*N/S  efficiency  join mean/worst  leave mean/worst  build, s")
    for size, partitions, zones in rows:
        runs = runs_of(size * partitions)
        (balance, join, join_max, leave, leave_max), seconds = measure(
            size, partitions, runs, zones
        )
        print(
            f"{size:5} {zones:5} {partitions:6} {partitions * COPIES / size:6.0f}  {balance:10.3f}"
            f"  {join:9.2f}/{join_max:.2f}  {leave:11.2f}/{leave_max:.2f}  {seconds:8.3f}",
            flush=True,
        )


def walk(tokens: list[tuple[float, int]], start: int) -> list[int]:
    """The first distinct nodes at and after a place in a sorted list of tokens."""
    found: list[int] = []
    for step in range(len(tokens)):
        node = tokens[(start + step) % len(tokens)][1]
        if node not in found:
            found.append(node)
            if len(found) == COPIES:
                break
    return found


def tokens_of(size: int, each: int, rng: random.Random) -> list[tuple[float, int]]:
    return sorted((rng.random(), node) for node in range(size) for _ in range(each))


def strategy_1(size: int, each: int, rng: random.Random) -> float:
    """Random tokens; the partition between two tokens belongs to the nodes that follow."""
    tokens = tokens_of(size, each, rng)
    loads = [0.0] * size
    for place, (token, _) in enumerate(tokens):
        width = (token - tokens[place - 1][0]) % 1.0
        for node in walk(tokens, place):
            loads[node] += width
    return efficiency(loads, COPIES)


def strategy_2(size: int, each: int, partitions: int, rng: random.Random) -> float:
    """Random tokens, equal partitions; a partition belongs to the nodes after its end."""
    tokens = tokens_of(size, each, rng)
    places = [token for token, _ in tokens]
    loads = [0.0] * size
    for partition in range(partitions):
        for node in walk(tokens, bisect_right(places, (partition + 1) / partitions)):
            loads[node] += 1
    return efficiency(loads, COPIES * partitions)


def strategy_3(size: int, partitions: int, rng: random.Random) -> float:
    """Q/S tokens for each node, equal partitions: each node is first in as many partitions, dealt
    at random; a partition's further copies go to the next distinct nodes."""
    dealt = [partition % size for partition in range(partitions)]
    rng.shuffle(dealt)
    tokens = [(0.0, node) for node in dealt]
    loads = [0.0] * size
    for partition in range(partitions):
        for node in walk(tokens, partition):
            loads[node] += 1
    return efficiency(loads, COPIES * partitions)


def strategies(runs: int) -> None:
    """Metadata per node, in entries: a token with its node is one, and a partition's assignment
    in strategy 3 is one. Strategy 2 keeps as many tokens as strategy 1. Ours keeps one entry
    for each node, and the Q shown."""
    size = 30
    print(f"\nEfficiency at S={size}, N={COPIES}, mean (lowest) of {runs} runs")
    print("entries  strategy 1     strategy 2     strategy 3     ours")
    for entries in (256, 512, 1024, 2048, 4096, 8192):
        columns: list[list[float]] = [[], [], [], []]
        for run in range(runs):
            rng = random.Random(f"{entries}:{run}")
            columns[0].append(strategy_1(size, max(1, entries // size), rng))
            columns[1].append(strategy_2(size, max(1, entries // size), entries, rng))
            columns[2].append(strategy_3(size, entries, rng))
            ring = Ring([Member(f"run{run}-{i}") for i in range(size)], entries, COPIES)
            held = [float(ring.partitions_owned(m.name)) for m in ring.members]
            columns[3].append(efficiency(held, COPIES * entries))
        cells = [f"{sum(c) / runs:.3f} ({min(c):.3f})" for c in columns]
        print(f"{entries:7}  " + "  ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs, no large rings")
    quick = parser.parse_args().quick

    def runs_of(work: int) -> int:
        return 3 if quick else max(2, min(20, 8_000_000 // work))

    rows = [(size, q, 1) for size, q in ROWS if not quick or size * q <= 500_000]
    table(rows, runs_of)
    print()
    table(ZONED, runs_of)
    strategies(3 if quick else 20)


if __name__ == "__main__":
    main()
