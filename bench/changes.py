"""What changing the ring costs, and whether anything is lost by it: real nodes, checking clients.

    python bench/changes.py [join] [leave] [remove] [replace] [--objects 200000] [--page PAGE]

Three nodes on loopback and a strict bucket of objects of 1 KiB and a few of 5 MiB, which 16 clients
read, write, delete and list all the time, checking every answer (`bench/strict.py`). Meanwhile, one
after the other:

- join: two more nodes are started at once;
- leave: one is asked to leave, and stopped when it has;
- remove: one is killed, and removed when the others hold it dead;
- replace: one is killed, and an empty one started under its name.

In the end every key is read and every listing compared, and each node's load is set against its
share. Exit status 1 if anything was wrong, or did not come to an end.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from nodes import Process, free_port, launch, metric, stop_all
from report import publish
from strict import BUCKET, LARGE, Found, Load

N = 3
MORE = "gossip: {profile: local}\nrepair: {interval: 30.0}\n"
READY_S = 60.0
TRANSFERRED = "dynamo_transfer_bytes_total"
PROPERTIES = b'{"n": 3, "r": 2, "w": 2, "quorum": "strict"}'


class Stuck(Exception):
    """Something did not come to an end, or was refused."""


@dataclass
class Change:
    """One change and what it cost. Sizes in bytes; `planned`: what the plan said would move."""

    name: str
    seconds: float = 0.0
    moved: float = 0.0
    ideal: float = 0.0
    planned: int | None = None
    before: Found = field(default_factory=Found)
    during: Found = field(default_factory=Found)
    stuck: str = ""

    @property
    def bad(self) -> bool:
        return bool(self.before.bad or self.during.bad or self.stuck)


class Cluster:
    """The nodes that run now, by name, and the load on them."""

    def __init__(self, folder: Path, load: dict[str, Any], wait: float) -> None:
        self.folder, self.wait = folder, wait
        self.nodes: dict[str, Process] = {}
        self.started: list[Process] = []
        self.members: set[str] = set()
        self.number = 0
        self.seeds = [free_port() for _ in range(N)]
        try:
            for seed in self.seeds:
                self.add(seed)
            self.settled(READY_S)
        except BaseException as error:
            stop_all(self.started)
            raise SystemExit(f"The cluster did not form: {error}") from None
        status, body = self.any.ask("PUT", BUCKET, PROPERTIES)
        assert status == 201, body
        self.load = Load(self.ports, **load)

    @property
    def any(self) -> Process:
        return next(iter(self.nodes.values()))

    @property
    def ports(self) -> list[int]:
        return [node.port for node in self.nodes.values()]

    @property
    def few(self) -> bool:
        """Whether one less would be too few for all copies: the others hold everything already."""
        return len(self.members) <= N

    def add(self, cluster_port: int | None = None, name: str = "") -> Process:
        """Starts a node with an empty disk; a new one, or under a name that was used."""
        if not name:
            self.number += 1
            name = f"n{self.number}"
        ports = (free_port(), cluster_port or free_port())
        # A new folder each time: what was there under the name stays where it was.
        where = self.folder / f"{len(list(self.folder.iterdir()))}-{name}"
        where.mkdir()
        self.nodes[name] = launch(where, name, ports, self.seeds, MORE)
        self.started.append(self.nodes[name])
        self.members.add(name)
        return self.nodes[name]

    def told(self, node: Process) -> dict[str, Any]:
        """What a node says of the cluster; {} if it does not."""
        status, body = node.ask("GET", "/v1/cluster")
        found: dict[str, Any] = json.loads(body) if status == 200 else {}
        return found

    def unsettled(self) -> str:
        """Why the ring is not as it ought to be, by anybody's account; "" if it is."""
        versions = set()
        for node in self.nodes.values():
            if node.ask("GET", "/readyz")[0] != 200:
                return f"{node.name} is not ready"
            told = self.told(node)
            members = {m["name"]: m for m in told.get("members", ())}
            placed = {name for name, m in members.items() if m["partitions"]}
            if placed != self.members:
                return f"{node.name} has {', '.join(sorted(placed))} in its ring"
            if told.get("change"):
                waits = "; ".join(told["change"]["waits_for"]) or "no reason given"
                return f"{node.name} says that it is {told['change']['stage']}: {waits}"
            for name in sorted(self.members & set(self.nodes)):
                if members[name]["liveness"] != "alive" or members[name]["role"] != "active":
                    return f"{node.name} holds {name} {members[name]['liveness']}"
                if members[name]["refill"]:
                    return f"{name} takes back {members[name]['refill']}"
            versions.add(told["ring_version"])
        return "" if len(versions) == 1 else f"{len(versions)} rings are in use"

    def settled(self, seconds: float = 0.0) -> None:
        """Returns when nothing is under way any more."""
        until(lambda: not self.unsettled(), seconds or self.wait, self.unsettled)

    def stored(self) -> int:
        """Bytes on all nodes, every copy counted."""
        return sum(m["bytes"] for m in self.alive().values())

    def alive(self) -> dict[str, dict[str, Any]]:
        members = self.told(self.any).get("members", ())
        return {m["name"]: m for m in members if m["name"] in self.nodes}

    def kill(self, name: str) -> None:
        """No client asks it any more, it is killed, and held dead by all others."""
        victim = self.nodes.pop(name)
        self.load.use(self.ports)
        victim.kill()

        def dead() -> bool:
            told = [self.told(node).get("members", ()) for node in self.nodes.values()]
            return all(m["liveness"] == "dead" for one in told for m in one if m["name"] == name)

        until(dead, READY_S, lambda: f"{name} was killed and is not held dead by all")

    def post(self, node: Process, path: str, body: dict[str, Any]) -> None:
        """Asks for a change; a 503 is asked again."""
        last = ""

        def taken() -> bool:
            nonlocal last
            status, told = node.ask("POST", path, json.dumps(body).encode())
            last = f"POST {path} to {node.name}: {status} {told.decode('utf-8', 'replace')[:500]}"
            if status not in (0, 202, 503):
                raise Stuck(last)
            return status == 202

        until(taken, READY_S, lambda: last)

    def plan(self, query: str) -> int:
        """The bytes a change is said to move; -1 if there is no plan."""
        status, body = self.any.ask("GET", f"/v1/ring/plan?{query}&limit=1")
        return int(json.loads(body)["bytes"]) if status == 200 else -1


def until(holds: Callable[[], bool], seconds: float, why: Callable[[], str]) -> None:
    """Returns when it holds. Raises `Stuck` that says why it does not."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() > began + seconds:
            raise Stuck(f"not within {seconds:.0f} s: {why()}")
        time.sleep(0.25)


def join(cluster: Cluster, change: Change) -> None:
    """Two at once."""
    change.ideal = cluster.stored() * 2 / (len(cluster.members) + 2)
    for node in [cluster.add(), cluster.add()]:
        node.wait("/healthz", [200])
    cluster.settled()
    cluster.load.use(cluster.ports)


def leave(cluster: Cluster, change: Change) -> None:
    """Clients ask the others from when it says that it is not ready, as a balancer has them do."""
    name = list(cluster.nodes)[1]
    change.ideal = 0.0 if cluster.few else _held(cluster, name)
    change.planned = cluster.plan(f"leave={name}")
    cluster.post(cluster.nodes[name], "/v1/cluster/leave", {"force": cluster.few})
    cluster.nodes[name].wait("/readyz", [503])
    cluster.members.remove(name)
    leaver = cluster.nodes.pop(name)
    cluster.load.use(cluster.ports)
    try:
        cluster.settled()
    except Stuck:
        cluster.nodes[name] = leaver
        raise
    leaver.stop()


def remove(cluster: Cluster, change: Change) -> None:
    """By another, as soon as it is held dead."""
    name = list(cluster.nodes)[-1]
    change.ideal = 0.0 if cluster.few else _held(cluster, name)
    cluster.kill(name)
    change.planned = cluster.plan(f"remove={name}")
    cluster.post(cluster.any, "/v1/cluster/remove", {"name": name, "force": cluster.few})
    cluster.members.remove(name)
    cluster.settled()


def replace(cluster: Cluster, change: Change) -> None:
    """By one with an empty disk, at other addresses."""
    name = list(cluster.nodes)[-1]
    change.ideal = _held(cluster, name)
    cluster.kill(name)
    node = cluster.add(name=name)
    node.wait("/healthz", [200])

    def began() -> bool:
        members = cluster.told(node).get("members", ())
        refill = any(m["name"] == name and m["refill"] for m in members)
        return refill or metric([node], TRANSFERRED) > 0

    until(began, READY_S, lambda: f"{name} does not begin to take back what it owned")
    cluster.settled()
    cluster.load.use(cluster.ports)


def _held(cluster: Cluster, name: str) -> float:
    return float(cluster.alive()[name]["bytes"])


CHANGES: dict[str, Callable[[Cluster, Change], None]] = {
    "join": join,
    "leave": leave,
    "remove": remove,
    "replace": replace,
}


def make(cluster: Cluster, name: str, quiet: float) -> Change:
    """One change under load, after a stretch of load without one."""
    change = Change(name)
    cluster.load.begin()
    time.sleep(quiet)
    change.before = cluster.load.lap()
    was = {node.name: (node, metric([node], TRANSFERRED)) for node in cluster.nodes.values()}
    began = time.monotonic()
    try:
        CHANGES[name](cluster, change)
    except (Stuck, SystemExit) as stuck:
        change.stuck = f"{name}: {stuck}"
    change.seconds = time.monotonic() - began
    change.during = cluster.load.lap()
    for node in cluster.nodes.values():
        before = was.get(node.name, (None, 0.0))
        change.moved += metric([node], TRANSFERRED) - (before[1] if before[0] is node else 0.0)
    found = change.during
    print(f"{name}: {change.seconds:.0f} s, {found.bad} bad {change.stuck}", file=sys.stderr)
    for text in (*change.before.told, *found.told):
        print(f"  {text}", file=sys.stderr)
    return change


def loads(cluster: Cluster, seconds: float) -> tuple[str, str]:
    """Each node's objects against its share, once nobody holds what it does not own; and why that
    is not so, "" if it is."""
    expected = cluster.load.expected

    def copies() -> float:
        return sum(m["objects"] for m in cluster.alive().values()) / max(1, expected)

    why = ""
    try:
        until(
            lambda: abs(copies() - N) <= 0.001 * N,
            seconds,
            lambda: f"the nodes hold {copies():.2f} copies of each of {expected} objects, not {N}",
        )
    except Stuck as stuck:
        why = f"clearing: {stuck}"
    members = cluster.alive()
    share = expected * N / len(members)
    rows = ["| node | objects | MB | of its share |", "| --- | ---: | ---: | ---: |"]
    for name, m in members.items():
        size = m["bytes"] / 1e6
        rows.append(f"| {name} | {m['objects']} | {size:.0f} | {m['objects'] / share:.3f} |")
    return "\n".join(rows), why


def table(changes: Sequence[Change]) -> str:
    """What each change cost."""
    rows = [
        "| change | s | moved MB | ideal MB | times | planned MB | requests | failed | wrong "
        "| missing | listings | incomplete | p50 ms | during | p99 ms | during |",
        "| --- |" + " ---: |" * 15,
    ]
    for c in changes:
        d = c.during
        times = f"{c.moved / c.ideal:.2f}" if c.ideal else ""
        planned = "" if c.planned is None else f"{c.planned / 1e6:.0f}"
        rows.append(
            f"| {c.name}{' (stuck)' if c.stuck else ''} | {c.seconds:.0f} | {c.moved / 1e6:.0f} "
            f"| {c.ideal / 1e6:.0f} | {times} | {planned} | {d.requests} "
            f"| {c.before.failed + d.failed} | {c.before.wrong + d.wrong} "
            f"| {c.before.missing + d.missing} | {d.listings} "
            f"| {c.before.incomplete + d.incomplete} "
            f"| {c.before.share(0.5):.1f} | {d.share(0.5):.1f} "
            f"| {c.before.share(0.99):.1f} | {d.share(0.99):.1f} |"
        )
    return "\n".join(rows)


def run(folder: Path, arguments: argparse.Namespace) -> tuple[str, bool]:
    """The findings, and whether anything was wrong."""
    load = {
        "clients": arguments.clients,
        "objects": arguments.objects,
        "large": arguments.large,
        "rate": arguments.rate,
    }
    cluster = Cluster(folder, load, arguments.wait)
    changes: list[Change] = []
    try:
        filled = cluster.load.fill()
        print(f"filled in {filled.seconds:.0f} s, {filled.bad} bad", file=sys.stderr)
        for name in arguments.changes or CHANGES:
            changes.append(make(cluster, name, arguments.quiet))
            if changes[-1].stuck:
                break
        last = cluster.load.stop()
        last.told += filled.told
        verified = cluster.load.verify()
        held, uncleared = loads(cluster, arguments.settle)
    finally:
        stop_all(cluster.started)
    problems = [c.stuck for c in changes if c.stuck] + [uncleared] * bool(uncleared)
    problems += [text for found in (last, verified) for text in found.told]
    bad = filled.bad or last.bad or verified.bad or any(c.bad for c in changes) or bool(problems)
    text = [
        f"{arguments.objects} objects of 1 KiB and {arguments.large} of {LARGE >> 20} MiB, "
        f"{arguments.clients} clients, {arguments.rate:.0f} requests a second at most.",
        table(changes),
        f"At the end {verified.requests} reads of all keys and listings of all groups: "
        f"{verified.failed} failed, {verified.wrong} wrong, {verified.missing} missing, "
        f"{verified.incomplete} of {verified.listings} listings incomplete; {cluster.load.retired} "
        "keys were given up on the way.",
        held,
        *(f"**Not right:** {problem}" for problem in problems),
    ]
    return "\n\n".join(text), bool(bad)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("changes", nargs="*", choices=[*CHANGES, []], help="all, if none is named")
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--large", type=int, default=20, help="objects of 5 MiB")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rate", type=float, default=400.0, help="requests a second, all clients")
    parser.add_argument("--quiet", type=float, default=15.0, help="seconds of load before a change")
    parser.add_argument("--wait", type=float, default=1800.0, help="longest for one change, s")
    parser.add_argument("--settle", type=float, default=300.0, help="longest for clearing, s")
    parser.add_argument("--page", type=Path, help="a page to put the findings into")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="changes-") as folder:
        text, wrong = run(Path(folder), arguments)
    publish(text, arguments.page, "changes")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
