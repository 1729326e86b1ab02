"""What a PUT and a GET cost: three nodes on loopback under load, beside a bare Klein route.

    python bench/load.py [--quick] [--seconds S] [--objects N] [--json FILE]

It starts everything it measures in a temporary folder, stops it again, and prints Markdown.
docs/BENCHMARKS.md says what the numbers mean. CPU is user and system time of all nodes together,
per answered request; a unit is what the bare route uses for one request, measured in the same
run, before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import large
from bench.clients import Result, Spec
from bench.nodes import (
    ROOT,
    Process,
    busy_seconds,
    machine,
    metric,
    start_nodes,
    start_unit,
    stop_all,
)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
OBJECTS = "/v1/buckets/bench/objects/"
SETTLE_S = 1.0
PUT_UNITS, GET_UNITS = 5.0, 2.5
REST_CORE, REST_BYTES = 0.01, 80 * MIB
GROWTH_BYTES = 64 * MIB
KEPT = 0.8


@dataclass
class Row:
    """One load and what it cost. `others`: share of the machine that other programs used."""

    name: str
    size: int
    clients: int
    result: Result
    cpu_us: float
    commits: float
    batch: float
    others: float

    @property
    def rate(self) -> float:
        return self.result.operations / max(self.result.seconds, 1e-9)


def load(spec: Spec, measured: Sequence[Process], *, name: str = "", count: bool = True) -> Row:
    """Runs the clients against `measured` and reads the kernel's figures around it."""

    def counts() -> list[float]:
        if not count:
            return [0.0, 0.0, 0.0]
        batch = "dynamo_commit_batch_size"
        names = ("dynamo_commits_total", f"{batch}_sum", f"{batch}_count")
        return [metric(measured, each) for each in names]

    name = name or spec.method
    say(f"{name} {size_text(spec.size)}, {spec.clients} clients")
    counted, busy, began = counts(), busy_seconds(), time.monotonic()
    cpu, own = sum(p.cpu() for p in measured), os.times()
    command = [sys.executable, str(ROOT / "bench" / "clients.py"), json.dumps(asdict(spec))]
    limit = 120 + (6 * 3600 if spec.requests else spec.seconds)
    ran = subprocess.run(command, stdout=subprocess.PIPE, timeout=limit, check=True)
    result = Result(**json.loads(ran.stdout))
    time.sleep(SETTLE_S / 4)
    cpu = sum(p.cpu() for p in measured) - cpu
    mine = os.times()
    generator = sum(mine[:4]) - sum(own[:4])
    others = busy_seconds() - busy - cpu - generator
    share = others / (time.monotonic() - began) / (os.cpu_count() or 1)
    commits, batch_sum, batch_count = (b - a for a, b in zip(counted, counts(), strict=True))
    done = max(result.operations, 1)
    if result.errors:
        say(f"  {result.errors} errors, the first: {result.first_error}")
    return Row(
        name,
        spec.size,
        spec.clients,
        result,
        cpu_us=cpu / done * 1e6,
        commits=commits / done,
        batch=batch_sum / batch_count if batch_count else 0.0,
        others=max(share, 0.0),
    )


def unit_cost(folder: Path, seconds: float) -> Row:
    """The bare route under 32 clients, in a fresh process."""
    unit = start_unit(folder)
    try:
        spec = Spec([unit.port], "POST", "/", 32, 4 * KIB, seconds)
        load(Spec([unit.port], "POST", "/", 32, 4 * KIB, 1.0), [unit], name="warm-up", count=False)
        return load(spec, [unit], name="unit", count=False)
    finally:
        unit.stop()


def at_rest(nodes: Sequence[Process], seconds: float) -> tuple[float, int]:
    """The highest share of a core that a node uses while nobody asks, and its resident bytes."""
    say(f"{seconds:g} s at rest")
    time.sleep(3 * SETTLE_S)
    before = [node.cpu() for node in nodes]
    time.sleep(seconds)
    used = max(node.cpu() - cpu for node, cpu in zip(nodes, before, strict=True))
    return used / seconds, max(node.memory()["VmRSS"] for node in nodes)


def loads(nodes: Sequence[Process], seconds: float) -> list[Row]:
    """PUT and GET of both sizes with 1 and 32 clients; a GET reads what its PUT has stored."""
    ports = [node.port for node in nodes]
    warm = Spec(ports, "PUT", OBJECTS, 32, 4 * KIB, min(seconds, 3.0), "warm")
    load(warm, nodes, name="warm-up")
    rows = []
    for size in (4 * KIB, MIB):
        for clients in (32, 1):
            prefix = f"{size}-{clients}"
            put = load(Spec(ports, "PUT", OBJECTS, clients, size, seconds, prefix), nodes)
            rows.append(put)
            stored = [(prefix, clients, put.result.each)]
            if put.result.each:
                get = Spec(ports, "GET", OBJECTS, clients, size, seconds, stored=stored)
                rows.append(load(get, nodes))
            os.sync()
    return rows


def fill(nodes: Sequence[Process], objects: int, size: int, seconds: float) -> list[Row]:
    """PUT and GET among `objects` more objects."""
    ports = [node.port for node in nodes]
    spec = Spec(ports, "PUT", OBJECTS, 32, size, 0, f"fill{size}", requests=objects)
    filled = load(spec, nodes, name=f"fill with {objects} objects")
    os.sync()
    put = Spec(ports, "PUT", OBJECTS, 32, 4 * KIB, seconds, "full")
    stored = [(f"fill{size}", 32, filled.result.each)]
    get = Spec(ports, "GET", OBJECTS, 32, size, seconds, stored=stored)
    return [load(put, nodes), load(get, nodes)]


# What is printed.


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def size_text(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} B"


def mib(size: float) -> str:
    return f"{size / MIB:.1f} MiB"


def mark(good: bool) -> str:
    return "ok" if good else "MISSED"


def print_loads(rows: Sequence[Row], unit_us: float) -> None:
    """The table of loads, with the marks of the budgets."""
    print(
        "| load | clients | ops/s | p50 ms | p99 ms | p99.9 ms | CPU µs/op | units | mark "
        "| commits/op | batch | errors | verified | others |"
    )
    print("| --- |" + " ---: |" * 13)
    for row in rows:
        r = row.result
        units = row.cpu_us / unit_us
        allowed = {"PUT": PUT_UNITS, "GET": GET_UNITS}.get(row.name)
        told = ""
        if allowed and (row.size, row.clients) == (4 * KIB, 32):
            told = f"≤ {allowed:g} {mark(units <= allowed)}"
        print(
            f"| {row.name} {size_text(row.size)} | {row.clients} | {row.rate:.1f} | {r.p50:.1f} "
            f"| {r.p99:.1f} | {r.p999:.1f} | {row.cpu_us:.0f} | {units:.2f} | {told} "
            f"| {row.commits:.2f} | {row.batch:.1f} | {r.errors} | {r.verified} "
            f"| {row.others:.0%} |"
        )


def print_memory(rest: tuple[float, int], moves: Sequence[large.Move]) -> None:
    """Rest and the large object."""
    core, resident = rest
    print("\n| what (the node with most) | measured | mark |\n| --- | ---: | --- |")
    print(f"| CPU at rest | {core:.2%} of a core | ≤ 1 % {mark(core <= REST_CORE)} |")
    print(f"| resident at rest | {mib(resident)} | ≤ 80 MiB {mark(resident <= REST_BYTES)} |")
    for move in moves:
        what = f"{move.name} of {size_text(move.size)}"
        growth = move.growth["VmRSS"]
        print(f"| {what}: resident grows by | {mib(growth)} | {growth_mark(growth)} |")
        print(f"| {what}: of it RssAnon | {mib(move.growth['RssAnon'])} | |")
        print(f"| {what}: of it RssFile | {mib(move.growth['RssFile'])} | |")
        print(f"| {what}: MiB/s | {move.size / MIB / move.seconds:.0f} | {mark(move.right)} |")
        if move.name == "download":
            early = move.first_byte_s < move.seconds / 4
            print(
                f"| {what}: first byte after | {move.first_byte_s * 1000:.1f} ms "
                f"of {move.seconds:.1f} s | {mark(early)} |"
            )


def growth_mark(growth: float) -> str:
    return f"≤ 64 MiB {mark(growth <= GROWTH_BYTES)}"


def print_full(small: Sequence[Row], full: Sequence[Row], objects: int) -> None:
    """Throughput on a full store against that on a small one."""
    print(f"\n| 4 KiB, 32 clients | small store | {objects} objects | kept | mark |")
    print("| --- |" + " ---: |" * 3 + " --- |")
    for row in full:
        (before,) = (r for r in small if (r.name, r.size, r.clients) == (row.name, 4 * KIB, 32))
        kept = row.rate / before.rate
        print(
            f"| {row.name} | {before.rate:.1f} | {row.rate:.1f} | {kept:.0%} "
            f"| ≥ 80 % {mark(kept >= KEPT)} |"
        )


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything, in order; what was found, for a program."""
    seconds = arguments.seconds or (2.0 if arguments.quick else 10.0)
    before = unit_cost(folder, seconds)
    nodes = start_nodes(folder)
    try:
        nodes[0].ask("PUT", "/v1/buckets/bench")
        rest = at_rest(nodes, 3.0 if arguments.quick else 10.0)
        moves = large.move(nodes, 128 * MIB if arguments.quick else GIB, say)
        rows = loads(nodes, seconds)
        full = []
        if arguments.objects:
            full = fill(nodes, arguments.objects, arguments.object_bytes, seconds)
    finally:
        stop_all(nodes)
    after = unit_cost(folder, seconds)
    unit_us = (before.cpu_us + after.cpu_us) / 2

    told = machine()
    print(
        f"{told['cores']} cores ({told['cpu']}), {told['memory_gib']} GiB, Python "
        f"{told['python']}; three nodes and the clients on this one machine; {seconds:g} s a load."
    )
    print(
        f"Unit: {unit_us:.0f} µs ({before.cpu_us:.0f} before, {after.cpu_us:.0f} after; "
        f"{before.rate:.0f} and {after.rate:.0f} requests a second).\n"
    )
    print_loads(rows, unit_us)
    print_memory(rest, moves)
    if full:
        print_full(rows, full, arguments.objects)
    return {
        "machine": told,
        "unit_us": [before.cpu_us, after.cpu_us],
        "rest": rest,
        "large": [asdict(move) for move in moves],
        "loads": [asdict(row) for row in rows],
        "full": [asdict(row) for row in full],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 s a load, 128 MiB for 1 GiB")
    parser.add_argument("--seconds", type=float, help="how long each load runs (10)")
    parser.add_argument("--objects", type=int, default=0, help="also fill the store with so many")
    parser.add_argument("--object-bytes", type=int, default=4 * KIB, help="of each of those (4096)")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory(prefix="dynamo-bench-") as name:
        found = run(arguments, Path(name))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
