"""Whether a PUT and a GET cost more than at another commit: both measured in turn, in one run.

    python bench/against.py COMMIT [--rounds 5] [--seconds 5]

In each round three nodes of that commit and three of this tree are started anew, one after the
other, and get the same load of 4 KiB objects from the same clients; the next round goes the other
way round. A machine that is slower for a minute is so for both, which two runs of `bench/load.py`
cannot say of themselves. CPU and units as there; what counts is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import io
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.clients import Spec
from bench.load import KIB, OBJECTS, load, say, unit_cost
from bench.nodes import ROOT, start_nodes, stop_all

WARM_S = 2.0
UNIT_S = 2.0
CLIENTS = 32


@dataclass
class Side:
    """One of the two. CPU in microseconds a request, of all nodes together."""

    name: str
    tree: Path
    unit: list[float] = field(default_factory=list)
    cost: dict[str, list[float]] = field(default_factory=lambda: {"PUT": [], "GET": []})

    def units(self, method: str) -> float:
        """The median over the rounds."""
        pairs = zip(self.cost[method], self.unit, strict=True)
        return statistics.median(cost / unit for cost, unit in pairs)


def export(commit: str, folder: Path) -> Path:
    """The tree of a commit, in `folder`."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit], stdout=subprocess.PIPE, check=False
    )
    if packed.returncode:
        raise SystemExit(f"git knows no commit {commit}.")
    tree = folder / "tree"
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(tree)
    return tree


def measure(side: Side, folder: Path, seconds: float) -> None:
    """One round of one side."""
    say(f"{side.name}:")
    nodes = start_nodes(folder, tree=side.tree)
    ports = [node.port for node in nodes]
    try:
        nodes[0].ask("PUT", "/v1/buckets/bench")
        warm = Spec(ports, "PUT", OBJECTS, CLIENTS, 4 * KIB, WARM_S, "warm")
        load(warm, nodes, name="warm-up")
        side.unit.append(unit_cost(folder, UNIT_S).cpu_us)
        put = load(Spec(ports, "PUT", OBJECTS, CLIENTS, 4 * KIB, seconds, "put"), nodes)
        stored = [("put", CLIENTS, put.result.each)]
        get = Spec(ports, "GET", OBJECTS, CLIENTS, 4 * KIB, seconds, stored=stored)
        side.cost["PUT"].append(put.cpu_us)
        side.cost["GET"].append(load(get, nodes).cpu_us)
    finally:
        stop_all(nodes)


def table(old: Side, new: Side) -> str:
    """The medians and their ratios, and what they are the medians of."""
    rows = [
        f"| 4 KiB, {CLIENTS} clients | {old.name}, µs | here, µs | ratio | units | here | ratio |",
        "| --- |" + " ---: |" * 6,
    ]
    for method in ("PUT", "GET"):
        before, after = (statistics.median(side.cost[method]) for side in (old, new))
        was, now = old.units(method), new.units(method)
        rows.append(
            f"| {method} | {before:.0f} | {after:.0f} | {after / before:.3f} "
            f"| {was:.2f} | {now:.2f} | {now / was:.3f} |"
        )
    rows.append("")
    for method in ("PUT", "GET"):
        for side in (old, new):
            each = " ".join(f"{cost:.0f}" for cost in side.cost[method])
            rows.append(f"{method}, {side.name}: {each} µs in {len(side.unit)} rounds.")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit", help="what to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each load runs")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory(prefix="against-") as name:
        folder = Path(name)
        old = Side(arguments.commit, export(arguments.commit, folder))
        new = Side("here", ROOT)
        for number in range(arguments.rounds):
            for side in (old, new) if number % 2 == 0 else (new, old):
                where = folder / f"{number}-{len(side.unit)}-{side is new}"
                where.mkdir()
                measure(side, where, arguments.seconds)
        print(table(old, new))


if __name__ == "__main__":
    main()
