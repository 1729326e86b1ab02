"""Our figures and Swift's, taken in turns on one machine with one and the same client.

    python bench/against_swift.py --measure PROGRAM [--rounds 3] [--seconds 20] [--json FILE]

PROGRAM runs one load against one URL and prints JSON; it is called as

    PROGRAM --pids "PID ..." --url URL --method PUT|GET --size BYTES --prefix NAME [--keys N]
            [--hname NAME --hvalue VALUE] -c CLIENTS -d SECONDS --quiet-wait SECONDS

and answers with `good_ops_per_s`, `p50_ms`, `p99_ms`, `errors`, `server_cpu_ms_per_op`,
`other_cpu_s`, `wall_s` and, for PUT, `keys`: how many objects a GET may then ask for. Swift has
to be running: SWIFT_BENCH_URL, SWIFT_PIDS, SWIFT_TOKEN_HEADER and SWIFT_TOKEN say where. Three
nodes are started here; the client talks to the first of them, as it talks to Swift's one proxy.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.nodes import machine, start_nodes, stop_all

LOADS = ((4096, 32), (1 << 20, 8), (4096, 1))
WARM_S = 5


@dataclass
class Store:
    """One of the two, as the measuring program has to be told of it."""

    name: str
    pids: str
    url: str
    header: str = ""
    value: str = ""


def swift() -> Store:
    """The one that is running."""
    try:
        return Store(
            "Swift",
            os.environ["SWIFT_PIDS"],
            os.environ["SWIFT_BENCH_URL"],
            os.environ["SWIFT_TOKEN_HEADER"],
            os.environ["SWIFT_TOKEN"],
        )
    except KeyError as missing:
        raise SystemExit(f"{missing.args[0]} is not set: start Swift first.") from None


class Contest:
    """Runs loads and keeps what was measured: by store, method, size and clients."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._command = shlex.split(arguments.measure)
        self._quiet = arguments.quiet_wait
        self._runs = 0
        self.found: dict[tuple[str, str, int, int], list[dict[str, Any]]] = {}

    def pair(self, store: Store, size: int, clients: int, seconds: int, keep: bool = True) -> None:
        """A PUT run and a GET run over what it stored."""
        self._runs += 1
        prefix = f"{store.name.lower()}{os.getpid()}r{self._runs}"
        put = self._measure(store, "PUT", prefix, size, clients, seconds)
        runs = [put]
        if put.get("keys", 0) > 1:
            keys = str(put["keys"])
            runs.append(self._measure(store, "GET", prefix, size, clients, seconds, keys))
        for run in runs if keep else []:
            self.found.setdefault((store.name, run["method"], size, clients), []).append(run)

    def _measure(
        self,
        store: Store,
        method: str,
        prefix: str,
        size: int,
        clients: int,
        seconds: int,
        keys: str = "0",
    ) -> dict[str, Any]:
        told = {
            "--pids": store.pids,
            "--url": store.url,
            "--method": method,
            "--size": str(size),
            "--prefix": prefix,
            "--keys": keys,
            "-t": str(min(2, clients)),
            "-c": str(clients),
            "-d": str(seconds),
            "--quiet-wait": str(self._quiet),
        }
        if store.header:
            told |= {"--hname": store.header, "--hvalue": store.value}
        words = [word for pair in told.items() for word in pair]
        limit = seconds + self._quiet + 120
        ran = subprocess.run(
            [*self._command, *words], stdout=subprocess.PIPE, timeout=limit, check=True
        )
        run: dict[str, Any] = json.loads(ran.stdout)
        print(
            f"{store.name} {method} {size} B c{clients}: {run['good_ops_per_s']:.1f} ops/s, "
            f"{run['server_cpu_ms_per_op']:.2f} ms CPU, {run['errors']} errors",
            file=sys.stderr,
            flush=True,
        )
        return run


def median(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def print_table(found: dict[tuple[str, str, int, int], list[dict[str, Any]]]) -> None:
    """Medians side by side."""
    print(
        "| load | clients | runs | ops/s | Swift | times | p50 ms | Swift | p99 ms | Swift "
        "| CPU ms/op | Swift | errors | Swift | others |"
    )
    print("| --- |" + " ---: |" * 14)
    for (name, method, size, clients), ours in found.items():
        theirs = found.get(("Swift", method, size, clients))
        if name == "Swift" or not theirs:
            continue
        cells = [f"{method} {size // 1024} KiB", str(clients), str(len(ours))]
        rate, other = median(ours, "good_ops_per_s"), median(theirs, "good_ops_per_s")
        cells += [f"{rate:.0f}", f"{other:.0f}", f"{rate / max(other, 0.1):.1f}"]
        for key in ("p50_ms", "p99_ms", "server_cpu_ms_per_op"):
            cells += [f"{median(runs, key):.3g}" for runs in (ours, theirs)]
        cells += [str(sum(run["errors"] for run in runs)) for runs in (ours, theirs)]
        both = [*ours, *theirs]
        spent = sum(run["other_cpu_s"] for run in both)
        wall = sum(run["wall_s"] for run in both) * (os.cpu_count() or 1)
        cells.append(f"{max(spent, 0) / wall:.0%}")
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", required=True, help="the measuring program, see above")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--seconds", type=int, default=20, help="how long each run takes (20)")
    parser.add_argument("--quiet-wait", type=int, default=60, help="wait so long for others (60)")
    parser.add_argument("--json", type=Path, help="also write every run to this file")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    contest, rival = Contest(arguments), swift()
    with tempfile.TemporaryDirectory(prefix="dynamo-bench-") as folder:
        nodes = start_nodes(Path(folder))
        try:
            nodes[0].ask("PUT", "/v1/buckets/bench")
            pids = " ".join(str(node.pid) for node in nodes)
            url = f"http://127.0.0.1:{nodes[0].port}/v1/buckets/bench/objects"
            ours = Store("dynamo", pids, url)
            for store in (rival, ours):
                contest.pair(store, 4096, 32, WARM_S, keep=False)
            for size, clients in LOADS:
                for _ in range(arguments.rounds):
                    for store in (rival, ours):
                        contest.pair(store, size, clients, arguments.seconds)
        finally:
            stop_all(nodes)
    told = machine()
    print(
        f"{told['cores']} cores ({told['cpu']}), {told['memory_gib']} GiB; medians of "
        f"{arguments.rounds} runs of {arguments.seconds} s each, taken in turns."
    )
    print_table(contest.found)
    if arguments.json:
        runs = [run for found in contest.found.values() for run in found]
        arguments.json.write_text(json.dumps(runs, indent=1))


if __name__ == "__main__":
    main()
