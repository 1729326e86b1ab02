"""How fast and how quietly the membership protocol works.

    python bench/gossip.py --virtual            all tables, about twenty minutes
    python bench/gossip.py --virtual --quick    the same on fewer members and fewer seeds

The figures are of virtual time: the real machines and the real encoding on a simulated network
with latencies of 0.2 to 1 ms, so they do not depend on the machine that computes them, and the
same seeds give the same figures. Three tables:

1. Crashes in clusters of several sizes: first suspicion, first verdict and verdict at all, and
   the traffic at rest (bytes with the 28 of IP and UDP).
2. Slow members, as in the Lifeguard paper: failure events about live members, while some have
   their messages held over and over, or are stopped altogether. "slow": about the slow ones;
   "healthy": about healthy ones, by anyone; "h.at h.": about healthy ones at healthy observers.
   Against plain SWIM, at our own suspicion multiplier and at the 5 of the paper's baseline.
3. The same trade by suspicion multiplier (the paper's alpha).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dynamo.core.members import Origin
from dynamo.core.messages import State
from dynamo.core.profiles import LAN, PROFILES, Settings
from tests.support.swim_network import SwimNetwork

PLAIN = attrs.evolve(LAN, lifeguard=False)
PLAIN_5 = attrs.evolve(LAN, lifeguard=False, suspicion_multiplier=5.0)
CYCLE_SECONDS = 60.0
RUN_SECONDS = 0.064


def grown(seed: int, count: int, settings: Settings) -> tuple[SwimNetwork, list[str]]:
    """A cluster of `count` in which all know all, a few probes after that."""
    net = SwimNetwork(seed, settings, check=False)
    names = [f"n{i}" for i in range(count)]
    for name in names:
        net.add(name)
    members = tuple(net.nodes[name].swim.me for name in names)
    for name in names:
        node = net.nodes[name]
        others = tuple(m for m in members if m.name != name)
        sender = Origin(others[0].name, others[0].identity, others[0].incarnation)
        node.swim.exchange(0.0, State("test", sender, others))
        node.swim._post.rumours.clear()
        net._arm(node)
    net.run(2 * settings.probe_interval)
    net.seen.clear()
    return net, names


def spread_of(values: Sequence[float]) -> str:
    """Median and 95 % of some seconds."""
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"{statistics.median(ordered):6.2f} {high:6.2f}"


@attrs.frozen
class Crashes:
    """What a number of kills gave, as the columns of the first table."""

    kills: int
    suspected: str
    first: str
    everywhere: str
    packets: float
    bytes: float

    def line(self, profile: str, count: int) -> str:
        """The row of the table."""
        return (
            f"{profile:>6} {count:6d} {self.kills:6d}   {self.suspected}   {self.first}   "
            f"{self.everywhere}   {self.packets:8.2f} {self.bytes:8.0f}"
        )


def crashes(settings: Settings, count: int, kills: int, per_cluster: int) -> Crashes:
    """Kills members of clusters of `count`, a few in each, one after another."""
    suspected, first, everywhere = [], [], []
    packets = size = 0.0
    for seed in range(kills // per_cluster):
        net, names = grown(seed, count, settings)
        if seed == 0:
            net.reset_counts()
            net.run(10 * settings.probe_interval)
            seconds = 10 * settings.probe_interval * count
            packets, size = sum(net.packets.values()) / seconds, sum(net.bytes.values()) / seconds
        for victim in net.rng.sample(names, per_cluster):
            net.run(settings.probe_interval * net.rng.random())
            start = net.now
            net.kill(victim)
            left = {node.name for node in net.up}
            mark = len(net.seen)

            def done(net: SwimNetwork = net, victim: str = victim, left: set[str] = left) -> bool:
                if net.seen and net.seen[-1].name == victim and net.seen[-1].event == "failed":
                    left.discard(net.seen[-1].observer)
                return not left

            assert net.run_until(start + 300, done)
            events = [s for s in net.seen[mark:] if s.name == victim]
            suspected.append(next(s.at for s in events if s.event == "suspected") - start)
            first.append(next(s.at for s in events if s.event == "failed") - start)
            everywhere.append(net.now - start)
            net.run(5 * settings.gossip_interval)
    return Crashes(
        len(first), spread_of(suspected), spread_of(first), spread_of(everywhere), packets, size
    )


Counts = tuple[int, int, int]


def stalls(settings: Settings, count: int, slow: int, pause: float, *, clock: bool) -> Counts:
    """Failure events about live members, while `slow` of them do nothing in cycles; with
    `clock`, nothing but watch their clock."""
    net, names = grown(slow, count, settings)
    ill = set(names[:slow])
    start = net.now
    while net.now < start + CYCLE_SECONDS:
        for name in names[:slow]:
            (net.hold if clock else net.pause)(name, pause)
        net.run(pause + RUN_SECONDS)
    failed = net.events("failed")
    healthy = [s for s in failed if s.name not in ill]
    return len(failed) - len(healthy), len(healthy), sum(s.observer not in ill for s in healthy)


def table_of_crashes(quick: bool) -> None:
    """The first table."""
    print("\n1. Crashes: seconds to first suspicion, first verdict, verdict at all members")
    print("              n  kills     suspected   first verdict          at all   per member, s")
    print("                        median  95 %    median  95 %    median  95 %   packets   bytes")
    plan = [(10, 60, 2), (15, 100, 2), (100, 40, 4), (1000, 10, 10)]
    for profile in ("lan", "local"):
        for count, kills, per_cluster in plan[: 2 if quick else 4]:
            found = crashes(PROFILES[profile], count, kills, per_cluster)
            print(found.line(profile, count), flush=True)
    if not quick:
        print(crashes(PROFILES["wan"], 100, 20, 4).line("wan", 100), flush=True)


def table_of_stalls(quick: bool) -> None:
    """The second table."""
    plans = [
        (32 if quick else 128, (1, 4) if quick else (1, 2, 4, 8, 16, 32), (2.048, 8.192), True),
        (16, (3, 4), (2.048, 8.192), False),
    ]
    for count, numbers, pauses, clock in plans:
        what = "messages held for D s" if clock else "stopped for D s"
        print(f"\n2. {count} members, C of them {what}, then running for {RUN_SECONDS} s,")
        print(f"   in cycles for {CYCLE_SECONDS:.0f} s: failure events about live members")
        print("               plain SWIM, 1.6           plain SWIM, 5          with Lifeguard, 1.6")
        print(
            "   C      D    slow healthy h.at h.     slow healthy h.at h.     slow healthy h.at h."
        )
        for pause in pauses:
            for slow in numbers:
                cells = [stalls(s, count, slow, pause, clock=clock) for s in (PLAIN, PLAIN_5, LAN)]
                line = "  ".join(f"{a:7d} {b:7d} {c:7d}" for a, b, c in cells)
                print(f"{slow:4d} {pause:6.3f} {line}", flush=True)


def table_of_multipliers(quick: bool) -> None:
    """The third table."""
    count = 32 if quick else 128
    slow = count // 16
    print(
        f"\n3. {count} members by suspicion multiplier; beside it messages held: C {slow}, D 8.192"
    )
    print("  mult   verdict at all: median   95 %     slow healthy h.at h.")
    for multiplier in (1.0, 1.6, 2.0, 3.0, 4.0, 5.0):
        settings = attrs.evolve(LAN, suspicion_multiplier=multiplier)
        median, high = crashes(settings, count, 20, 4).everywhere.split()
        a, b, c = stalls(settings, count, slow, 8.192, clock=True)
        print(f"{multiplier:6.1f}   {median:>22} {high:>6}   {a:6d} {b:7d} {c:7d}", flush=True)


def main() -> None:
    """Prints what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--virtual", action="store_true", help="on the simulated network")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer")
    parser.add_argument("--table", type=int, choices=(1, 2, 3), help="only this one")
    chosen = parser.parse_args()
    if not chosen.virtual:
        parser.error("say --virtual")
    tables = {1: table_of_crashes, 2: table_of_stalls, 3: table_of_multipliers}
    for number, table in tables.items():
        if chosen.table in (None, number):
            table(chosen.quick)


if __name__ == "__main__":
    main()
