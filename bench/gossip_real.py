"""How fast and how quietly real nodes learn of each other: processes on loopback, real UDP.

    python bench/gossip_real.py [--nodes N] [--profiles lan,local] [--kills N] [--page FILE]

It starts the nodes in a temporary folder, stops them again, and prints Markdown. Times are those
of the nodes' own log lines, in milliseconds; a start counts from the exec of the process, a death
or a stop from the signal. Traffic at rest is the difference of the nodes' own counters, with the
28 bytes of IP and UDP for each packet; TCP (a full exchange now and then) is not in it.
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.nodes import TWISTD, Process, free_port, machine, stop_all
from bench.report import publish

UDP_HEADER_BYTES = 28
PATIENCE_S = 60.0
LINE = re.compile(r"^(\S+Z) \w+ +(\S+) (\w+): (.*)$")
EVENTS = frozenset(("joined", "returned", "replaced", "suspected", "cleared", "failed", "left"))
MARKS = {
    "kill, all know": {"lan": 4.0, "local": 1.5},
    "start, all know": {"lan": 0.44, "local": 0.44},
    "leave, all know": {"lan": 0.69, "local": 0.69},
    "packets": {"lan": 2.0},
    "bytes": {"lan": 270.0},
}


@dataclass
class Node:
    """One member: where it is, its process, and how much of its log was read."""

    name: str
    folder: Path
    api: int
    conf: Path
    process: Process | None = None
    began: float = 0.0
    events: list[tuple[float, str, str]] = field(default_factory=list)
    _read: int = 0

    def start(self) -> None:
        self.began = time.time()
        command = [*TWISTD, "-n", "--pidfile=", "dynamo", "--conf", str(self.conf)]
        self.process = Process(self.name, command, self.api, self.folder)

    def kill(self) -> float:
        """kill -9; when."""
        at = time.time()
        assert self.process is not None
        self.process._popen.send_signal(signal.SIGKILL)
        self.process._popen.wait()
        self.process = None
        return at

    def seen(self) -> list[tuple[float, str, str]]:
        """All events its log tells of: when, what, about whom."""
        text = (self.folder / f"{self.name}.log").read_text("utf-8", "replace")
        end = text.rfind("\n") + 1
        for line in text[self._read : end].splitlines():
            found = LINE.match(line)
            if found and found[3] in EVENTS:
                at = datetime.fromisoformat(found[1].replace("Z", "+00:00")).timestamp()
                self.events.append((at, found[3], found[2]))
        self._read = end
        return self.events


class Cluster:
    """`count` nodes of one profile; n1 is the seed of all."""

    def __init__(self, folder: Path, count: int, profile: str) -> None:
        ports = [(free_port(), free_port()) for _ in range(count)]
        self.nodes = []
        for number, (api, cluster) in enumerate(ports, 1):
            conf = folder / f"n{number}.yaml"
            conf.write_text(
                f"node: {{name: n{number}, data_dir: n{number}, zone: z{number}}}\n"
                f"listen: {{api: 127.0.0.1:{api}, cluster: 127.0.0.1:{cluster}}}\n"
                f"cluster: {{name: bench, seeds: [127.0.0.1:{ports[0][1]}], partitions: 64}}\n"
                f"gossip: {{profile: {profile}}}\n"
            )
            self.nodes.append(Node(f"n{number}", folder, api, conf))

    @property
    def up(self) -> list[Node]:
        return [node for node in self.nodes if node.process is not None]

    def wait(
        self, observers: Iterable[Node], events: Sequence[str], name: str, since: float
    ) -> list[float]:
        """Until all observers have logged one of these events of `name`; seconds from `since`."""
        left, found = {node.name: node for node in observers}, []
        deadline = time.monotonic() + PATIENCE_S
        while left:
            for node in list(left.values()):
                at = [t for t, event, who in node.seen() if who == name and event in events]
                if at and at[-1] >= since - 0.001:
                    found.append(min(t for t in at if t >= since - 0.001) - since)
                    del left[node.name]
            if time.monotonic() > deadline:
                raise SystemExit(f"{', '.join(left)} did not see {name} {events}")
            time.sleep(0.02)
        return sorted(found)

    def counters(self) -> dict[str, tuple[float, float]]:
        """Datagrams and their bytes that each node has sent."""
        found = {}
        for node in self.up:
            assert node.process is not None
            text = node.process.ask("GET", "/metrics")[1].decode()
            packets = re.findall(
                r'^dynamo_gossip_packets_total\{direction="out".*\} (\S+)', text, re.M
            )
            size = re.findall(r'^dynamo_gossip_bytes_total\{direction="out"\} (\S+)', text, re.M)
            found[node.name] = (sum(map(float, packets)), sum(map(float, size)))
        return found


@dataclass
class Figures:
    """What was measured of one profile, in seconds unless the name says otherwise."""

    profile: str
    times: dict[str, list[float]] = field(default_factory=dict)
    packets: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)
    cpu: float = 0.0
    rss: float = 0.0
    victims: set[str] = field(default_factory=set)
    false: list[str] = field(default_factory=list)

    def add(self, what: str, seconds: float) -> None:
        self.times.setdefault(what, []).append(seconds)


def join(cluster: Cluster, figures: Figures) -> None:
    """Brings all up; the last one three times, leaving in between."""
    first, *middle, last = cluster.nodes
    first.start()
    assert first.process is not None
    first.process.wait("/readyz", [200])
    for node in middle:
        node.start()
        cluster.wait([first], ("joined",), node.name, node.began)
    for node in middle:
        assert node.process is not None
        node.process.wait("/readyz", [200])
    time.sleep(5)
    for turn in range(3):
        last.start()
        assert last.process is not None
        events = ("joined", "returned", "replaced")
        seen = cluster.wait([first, *middle], events, last.name, last.began)
        figures.add("start, all know", seen[-1])
        figures.add("start, first to all", seen[-1] - seen[0])
        last.process.wait("/readyz", [200])
        time.sleep(4)
        if turn < 2:
            leave(cluster, last, figures)
            time.sleep(2)


def leave(cluster: Cluster, node: Node, figures: Figures) -> None:
    """SIGTERM."""
    assert node.process is not None
    at = time.time()
    node.process._popen.send_signal(signal.SIGTERM)
    others = [other for other in cluster.up if other is not node]
    figures.add("leave, all know", cluster.wait(others, ("left",), node.name, at)[-1])
    node.process._popen.wait()
    node.process = None


def rest(cluster: Cluster, figures: Figures, seconds: float) -> None:
    """Traffic, CPU and memory while nothing happens."""
    time.sleep(8)
    processes = [node.process for node in cluster.up if node.process is not None]
    cpu, began, before = [p.cpu() for p in processes], time.monotonic(), cluster.counters()
    time.sleep(seconds)
    after, took = cluster.counters(), time.monotonic() - began
    used = [p.cpu() - was for p, was in zip(processes, cpu, strict=True)]
    figures.cpu = sum(used) / took / len(used)
    figures.rss = statistics.median(p.memory()["VmRSS"] for p in processes) / 2**20
    for name, (packets, size) in before.items():
        sent = after[name][0] - packets
        figures.packets.append(sent / took)
        figures.bytes.append((after[name][1] - size + UDP_HEADER_BYTES * sent) / took)


def kills(cluster: Cluster, figures: Figures, count: int) -> None:
    """kill -9, and a restart under the same name and port."""
    for turn in range(count):
        victim = cluster.nodes[1 + turn % (len(cluster.nodes) - 1)]
        figures.victims.add(victim.name)
        at = victim.kill()
        others = cluster.up
        seen = cluster.wait(others, ("failed",), victim.name, at)
        suspected = [
            t - at
            for node in others
            for t, event, who in node.events
            if event == "suspected" and who == victim.name and t >= at
        ]
        if suspected:
            figures.add("kill, first suspects", min(suspected))
        figures.add("kill, all know", seen[-1])
        time.sleep(2)
        victim.start()
        assert victim.process is not None
        back = cluster.wait(others, ("returned",), victim.name, victim.began)
        figures.add("restart, all know", back[-1])
        figures.add("restart, first to all", back[-1] - back[0])
        victim.process.wait("/readyz", [200])
        time.sleep(3)


def measure(profile: str, count: int, runs: int, seconds: float) -> Figures:
    """Everything of one profile."""
    say(f"{count} nodes with profile {profile}")
    figures = Figures(profile)
    with tempfile.TemporaryDirectory(prefix="gossip-") as folder:
        cluster = Cluster(Path(folder), count, profile)
        try:
            join(cluster, figures)
            say(f"  {seconds:g} s at rest")
            rest(cluster, figures, seconds)
            say(f"  {runs} times kill -9")
            kills(cluster, figures, runs)
            leave(cluster, cluster.nodes[-2], figures)
            figures.false = [
                f"{event} {who} at {node.name}"
                for node in cluster.nodes
                for _, event, who in node.seen()
                if event in ("suspected", "failed") and who not in figures.victims
            ]
        finally:
            stop_all([node.process for node in cluster.up if node.process is not None])
    return figures


# What is printed.


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def three(values: Sequence[float], digits: int = 2) -> str:
    """Least, median and most."""
    if not values:
        return ""
    shown = (min(values), statistics.median(values), max(values))
    return " / ".join(f"{value:.{digits}f}" for value in shown)


def mark(what: str, profile: str, value: float) -> str:
    limit = MARKS.get(what, {}).get(profile)
    if limit is None:
        return ""
    return f" (≤ {limit:g}: {'ok' if value <= limit else 'MISSED'})"


def table(all_figures: Sequence[Figures], count: int) -> str:
    """The figures of all profiles, side by side."""
    about = machine()
    rows = [
        f"{count} nodes on {about['cores']} cores ({about['cpu']}), Python {about['python']}. "
        "Seconds, least / median / most; marks hold for medians.",
        "",
        "| | " + " | ".join(f.profile for f in all_figures) + " |",
        "| --- |" + " ---: |" * len(all_figures),
    ]
    for what in all_figures[0].times:
        cells = [
            three(f.times[what]) + mark(what, f.profile, statistics.median(f.times[what]))
            for f in all_figures
        ]
        rows.append(f"| {what} | " + " | ".join(cells) + " |")
    for what, digits in (("packets", 1), ("bytes", 0)):
        cells = []
        for f in all_figures:
            values = f.packets if what == "packets" else f.bytes
            cells.append(three(values, digits) + mark(what, f.profile, statistics.median(values)))
        rows.append(f"| UDP at rest, {what}/s sent per member | " + " | ".join(cells) + " |")
    cells = [f"{f.cpu:.2%}, {f.rss:.0f} MiB" for f in all_figures]
    rows.append("| CPU per member at rest, resident | " + " | ".join(cells) + " |")
    cells = [", ".join(f.false) or "none" for f in all_figures]
    rows.append("| suspected or failed without cause | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=15)
    parser.add_argument("--profiles", default="lan,local")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rest", type=float, default=30.0)
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    try:
        figures = [
            measure(profile, args.nodes, args.kills, args.rest)
            for profile in args.profiles.split(",")
        ]
    except subprocess.TimeoutExpired as error:
        raise SystemExit(str(error)) from None
    publish(table(figures, args.nodes), args.page, "gossip")


if __name__ == "__main__":
    main()
