"""What a killed node costs clients: five nodes, two of them killed under load and brought back.

    python bench/failover.py [--seconds 10] [--page docs/BENCHMARKS.md]

16 clients, half of them putting 4 KiB objects and half getting them, talk to three nodes (N=3,
R=2, W=2, profile lan). First all five nodes run; then, under the same load, one is killed (SIGKILL)
and a third of the time later another. Afterwards both are started again, and what they missed has
to reach them: until no node holds a hint, and a sample of the objects put meanwhile is on all its
owners.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from clients import Spec
from nodes import Process, start_nodes, stop_all
from report import publish

CLIENTS = 8
SIZE = 4096
SAMPLE = 200
HANDOFF_S = 300.0
PATH = "/v1/buckets/failover/objects/"
CLIENTS_FILE = Path(__file__).resolve().parent / "clients.py"


def start_load(nodes: Sequence[Process], method: str, seconds: float, **more: Any) -> Any:
    """Clients in a process of their own, against the nodes that stay."""
    spec = Spec(
        ports=[n.port for n in nodes],
        method=method,
        path=PATH,
        clients=CLIENTS,
        size=SIZE,
        seconds=seconds,
        **more,
    )
    command = [sys.executable, str(CLIENTS_FILE), json.dumps(asdict(spec))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(load: Any) -> dict[str, Any]:
    """What the clients saw."""
    found: dict[str, Any] = json.loads(load.communicate()[0])
    return found


def phase(
    nodes: Sequence[Process], name: str, stored: list[Any], seconds: float, kills: Sequence[Process]
) -> dict[str, dict[str, Any]]:
    """One stretch of load, during which `kills` are killed one after the other."""
    loads = {
        "PUT": start_load(nodes, "PUT", seconds, prefix=name),
        "GET": start_load(nodes, "GET", seconds, stored=stored),
    }
    for victim in kills:
        time.sleep(seconds / 3)
        victim.kill()
    return {method: result(load) for method, load in loads.items()}


def hints(nodes: Sequence[Process]) -> int:
    """How many hints the nodes hold together."""
    members = json.loads(nodes[0].ask("GET", "/v1/cluster")[1])["members"]
    return sum(m["hints"] for m in members if m["liveness"] == "alive")


def wait_for_handoff(nodes: Sequence[Process], count: int) -> float:
    """Seconds until all members are alive and nobody holds a hint."""
    began = time.monotonic()
    while time.monotonic() < began + HANDOFF_S:
        members = json.loads(nodes[0].ask("GET", "/v1/cluster")[1])["members"]
        if sum(m["liveness"] == "alive" for m in members) == count and not hints(nodes):
            return time.monotonic() - began
        time.sleep(0.2)
    raise SystemExit(f"There are still {hints(nodes)} hints after {HANDOFF_S:.0f} s.")


def on_all_owners(nodes: Sequence[Process], each: int) -> int:
    """Of a sample of the objects put during the kills: how many are on every owner."""
    rng = random.Random(1)
    whole = 0
    for _ in range(SAMPLE):
        key = f"during/{rng.randrange(CLIENTS)}-{rng.randrange(each)}"
        told = json.loads(nodes[0].ask("GET", f"/v1/ring/failover/{key}")[1])
        held = [r["versions"] for r in told["replicas"] if r["name"] in told["preference"]]
        whole += len(held) == 3 and all(len(v) == 1 for v in held) and held[0] == held[1] == held[2]
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each phase")
    parser.add_argument("--page", type=Path, help="a page to put the table into")
    arguments = parser.parse_args()
    seconds = arguments.seconds
    with tempfile.TemporaryDirectory(prefix="failover-") as folder:
        nodes = start_nodes(Path(folder), 5)
        stay, victims = nodes[:3], nodes[3:]
        try:
            nodes[0].ask("PUT", "/v1/buckets/failover")
            warm = result(start_load(stay, "PUT", seconds / 2, prefix="warm"))
            stored = [("warm", CLIENTS, warm["each"])]
            before = phase(stay, "before", stored, seconds, ())
            during = phase(stay, "during", stored, seconds, victims)
            left = hints(nodes)
            for victim in victims:
                victim.restart()
            took = wait_for_handoff(nodes, 5)
            whole = on_all_owners(nodes, during["PUT"]["each"])
        finally:
            stop_all(nodes)
    rest = (
        f"{left} hints were handed off within {took:.1f} s of the restart; of {SAMPLE} objects\n"
        f"put meanwhile, {whole} are on all three owners, equal."
    )
    publish(f"{table(before, during)}\n\n{rest}", arguments.page, "failover")


def table(before: dict[str, Any], during: dict[str, Any]) -> str:
    """What the clients saw, phase by phase."""
    rows = [
        "| load, 8 clients | | ops/s | p50 ms | p99 ms | longest ms | errors | p99 to before |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in ("PUT", "GET"):
        for name, found in (("all alive", before[method]), ("two killed", during[method])):
            ratio = found["p99"] / before[method]["p99"]
            if found["errors"]:
                print(
                    f"{found['errors']} errors, the first: {found['first_error']}", file=sys.stderr
                )
            rows.append(
                f"| {method} 4 KiB | {name} | {found['operations'] / found['seconds']:.0f} "
                f"| {found['p50']:.1f} | {found['p99']:.1f} | {found['longest']:.0f} "
                f"| {found['errors']} | {ratio:.1f} |"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
