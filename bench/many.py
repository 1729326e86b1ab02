"""What one more node costs a cluster of many, in the simulator: the nodes are those of production.

    python bench/many.py                                10, 30 and 100 members
    python bench/many.py --members 100 --members 1000   so many; --cpu SECONDS to give up after

So many nodes found a cluster, with one bucket and a few objects; then another one joins. A cluster
of more than --founded begins from disks on which it is founded, each member knowing the others:
its members' first conversations, N² of them, pass in memory and without HTTP. All else is as it is
in production, anti-entropy and the other work in the background too.

It tells the simulated seconds until all have the new steady ring, real CPU per member and simulated
minute (of one core, and of the simulator too), and what gossip sends. Rings are built once and
shared, for here all nodes have one memory; what building one costs, each real node pays. Partitions
are few, so that time goes into the members and not into them: docs/RING.md says how many to have.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import attrs
import msgspec
from twisted.internet.defer import Deferred, succeed

import dynamo.cluster.layouts
from dynamo.api.vitals import why_not_ready
from dynamo.config import Config
from dynamo.core.buckets import Properties
from dynamo.core.layout import Layout
from dynamo.core.members import Origin
from dynamo.core.messages import State
from dynamo.core.ring import Member as Placed
from dynamo.core.ring import Ring
from dynamo.replica.remote import RemoteReplica
from dynamo.sim import wording
from dynamo.sim.client import Answer, Caller, request_bytes
from dynamo.sim.datagrams import DatagramPort
from dynamo.sim.disk import Snapshot
from dynamo.sim.logs import silence
from dynamo.sim.reactor import Reactor, current
from dynamo.sim.tell import CLUSTER
from dynamo.sim.world import API_PORT, World
from dynamo.storage.agreed import LayoutBook
from dynamo.storage.committer import Committer
from dynamo.storage.facts import Identity
from dynamo.storage.memory_engine import MemoryEngine
from dynamo.wire.codec import LAYOUT
from dynamo.wire.hello import Hello

OBJECTS = 20
SEEDS = 3
"""How many members' addresses a node is given."""
FOUND_S, JOIN_S, CALM_S, REST_S = 900.0, 900.0, 20.0, 20.0
HEADER_BYTES = 28
"""Of IP and UDP."""


Row = dict[str, float]
"""What was measured of one size, by what it is."""


class OutOfTime(Exception):
    """More CPU was used than allowed."""


@attrs.define
class Meter:
    """Counts datagrams and CPU from `reset` on."""

    world: World
    sent: Counter[str] = attrs.field(factory=Counter)
    _cpu: float = 0.0
    _at: float = 0.0

    def reset(self) -> None:
        self.sent.clear()
        self._cpu, self._at = time.process_time(), self.world.schedule.now

    @property
    def cpu(self) -> float:
        return time.process_time() - self._cpu

    @property
    def seconds(self) -> float:
        return self.world.schedule.now - self._at

    def note(self, row: Row, when: str, members: int) -> None:
        """Puts into the row what it came to, and says it."""
        each = members * max(self.seconds, 0.001)
        row[f"CPU {when}, ms a member and minute"] = round(self.cpu / each * 60000, 1)
        row[f"gossip {when}, B a member and s"] = round(self.sent["bytes"] / each, 1)
        row[f"packets {when}, a member and s"] = round(self.sent["packets"] / each, 2)
        print(self.line("at rest" if when == "at rest" else "one joins, until all", members))

    def line(self, what: str, members: int) -> str:
        """What it came to, each member and second, and each member and simulated minute."""
        each = members * max(self.seconds, 0.001)
        return (
            f"  {what:<22}{self.seconds:9.1f} s   CPU {self.cpu:8.1f} s, "
            f"{self.cpu / each * 60000:8.1f} ms a member and minute   gossip "
            f"{self.sent['bytes'] / each:8.0f} B, {self.sent['packets'] / each:5.2f} packets "
            "a member and second"
        )


class Many:
    """A cluster of so many, and one machine more."""

    def __init__(
        self, members: int, partitions: int, cpu_max: float, founded_max: int = 100
    ) -> None:
        self.members = members
        self.founded_max = founded_max
        settings = {"cluster": {"partitions": partitions}, "gossip": {"profile": "lan"}}
        self.world = World(1, members + 1, founders=members, settings=settings)
        self.world.members = self.world.members[:SEEDS]
        self.meter = Meter(self.world)
        self._until = time.process_time() + cpu_max
        self._caller = Caller(Reactor(self.world.client_machine("operator", 200)))

    def begin(self) -> None:
        """All run, on disks on which they are the members of a steady ring, and know each other:
        the conversations in which they would learn that pass in memory. (So many at once would ask
        each other a million questions; each member asks all others, whichever way they start.)"""
        world = self.world
        names = world.present()
        nodes = [world.hosts[name].config.node for name in sorted(names)]
        layout = Layout(1, 1, tuple(Placed(node.name, node.zone, node.weight) for node in nodes))
        for number, name in enumerate(names, 1):
            host = world.hosts[name]
            cluster = msgspec.structs.replace(host.config.cluster, seeds=())
            host.config = msgspec.structs.replace(host.config, cluster=cluster)
            host.drive.roll_back(Snapshot(tables_of(host.config, number, layout), {}, 1))
            world.start(name)
        self.rest(0.1)
        asked = RemoteReplica.hello
        RemoteReplica.hello = said_in_memory(world)  # type: ignore[method-assign]
        swims = [world.node(name).view for name in names]
        records = tuple(view._swim.me for view in swims)
        for view, me in zip(swims, records, strict=True):
            other = records[0] if me is not records[0] else records[-1]
            origin = Origin(other.name, other.identity, other.incarnation)
            current[0] = view.name
            view.gossip.exchanged(State(CLUSTER, origin, records), None)
            view._swim._post.rumours.clear()
        current[0] = ""
        self.rest(0.1)
        RemoteReplica.hello = asked  # type: ignore[method-assign]
        self.wait(lambda: self._steady(self.members), FOUND_S)

    def found(self) -> None:
        for name in self.world.present():
            self.world.start(name)
        self.wait(lambda: self._steady(self.members), FOUND_S)

    def fill(self) -> None:
        """One bucket, a few objects."""
        body = b"x" * 200
        self._ask(self._put_bucket())
        for number in range(OBJECTS):
            self._ask(wording.on_object(b"PUT", "b", f"k{number}", {}, [], body))

    def join(self) -> None:
        joiner = self.world.names[-1]
        self.world.absent.clear()
        self.world.start(joiner)
        self.wait(lambda: self._steady(self.members + 1), JOIN_S)

    def state_bytes(self) -> tuple[int, int]:
        """Of a layout as it is stored and sent: while a ring is coming, and steady."""
        layout = self.world.node("n1").view.layout
        coming = Layout(layout.version, layout.birth, layout.members, layout.members, True)
        return len(LAYOUT.encode(coming)), len(LAYOUT.encode(layout))

    def wait(self, until: Callable[[], bool], seconds: float) -> None:
        """Raises `OutOfTime`."""
        end = self.world.schedule.now + seconds
        while not until():
            if self.world.schedule.now >= end:
                raise OutOfTime(f"not after {seconds:g} simulated seconds")
            self.rest(0.25)

    def rest(self, seconds: float) -> None:
        """Lets time pass. Raises `OutOfTime`."""
        schedule = self.world.schedule
        end = schedule.now + seconds
        while schedule.now < end:
            schedule.run_until(min(end, schedule.now + 0.01))
            if time.process_time() > self._until:
                at = self.meter.seconds
                raise OutOfTime(f"out of CPU {at:.1f} simulated seconds after its begin")

    def _steady(self, members: int) -> bool:
        layouts = [self.world.node(name).view for name in self.world.present()]
        first = layouts[0].layout
        return (
            first.stage == "steady"
            and len(first.members) == members
            and all(view.layout == first and view.joined for view in layouts)
        )

    def _put_bucket(self) -> bytes:
        return wording.put_bucket("b", Properties())

    def _ask(self, request: bytes) -> Answer:
        got: list[Any] = []
        place = (self.world.hosts["n1"].machine.ip, API_PORT)
        self._caller.ask(place, request, seconds=30.0).addCallback(got.append)
        schedule = self.world.schedule
        schedule.run_while(lambda: not got, schedule.now + 40.0)
        answer: Answer = got[0]
        if answer.status not in (200, 201, 204):
            raise OutOfTime(f"a request is answered {answer.status} {answer.failed}")
        return answer

    def status_bytes(self) -> int:
        """Of what `/v1/cluster` answers."""
        return len(self._ask(request_bytes(b"GET", b"/v1/cluster", [])).body)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--members", type=int, action="append", help="how many; may be repeated")
    parser.add_argument("--partitions", type=int, default=1024)
    parser.add_argument("--founded", type=int, default=100, help="larger ones begin from disks")
    parser.add_argument("--cpu", type=float, default=1800.0, help="seconds for each size")
    parser.add_argument("--row", action="store_true", help="the last line is the row, as JSON")
    asked = parser.parse_args()
    sizes = asked.members or [10, 30, 100]
    if len(sizes) == 1:
        row = measure(sizes[0], asked)
        if asked.row:
            print(json.dumps(row))
        return 0 if "settled, s" in row else 1
    print(table([(members, in_its_own_process(members, asked)) for members in sizes]))
    return 0


def in_its_own_process(members: int, asked: argparse.Namespace) -> Row:
    """Of one size, in memory that no other has used."""
    arguments = [f"--partitions={asked.partitions}", f"--founded={asked.founded}"]
    arguments += [f"--cpu={asked.cpu}", f"--members={members}", "--row"]
    with subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        last = "{}"
        for line in process.stdout or ():
            last = line
            if not line.startswith("{"):
                print(line, end="", flush=True)
    row: Row = json.loads(last)
    return row


def table(rows: list[tuple[int, Row]]) -> str:
    """A column for each size, and the power of their number by which each thing grows: the slope
    of a line through the logarithms, by least squares."""
    lines = [["", *(str(members) for members, _ in rows), "grows as"]]
    lines.append(["---", *("---:" for _ in rows), "---:"])
    for what in rows[0][1]:
        given = [(members, row[what]) for members, row in rows if what in row]
        told = [f"{row[what]:,.6g}" if what in row else "" for _, row in rows]
        lines.append([what, *told, f"n^{slope(given):.2f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def slope(points: list[tuple[int, float]]) -> float:
    xs = [math.log(x) for x, y in points if y > 0]
    ys = [math.log(y) for x, y in points if y > 0]
    if len(xs) < 2:
        return math.nan
    return statistics.linear_regression(xs, ys).slope


def measure(members: int, asked: argparse.Namespace) -> Row:
    """One size; without what came after it gave up."""
    silence()
    rings = share_rings()
    gc.collect()
    before, row = memory(), Row()
    print(f"{members} members, {asked.partitions} partitions", flush=True)
    many = Many(members, asked.partitions, asked.cpu, asked.founded)
    count_datagrams(many.meter)
    try:
        run(many, before, row)
    except OutOfTime as why:
        print(f"  given up: {why}; memory {(memory() - before) / members:.2f} MiB a member")
    built = max(rings["built"], 1)
    row["a ring is built in, ms"] = rings["ms"] / built
    print(f"  {rings['built']} rings built, {rings['ms'] / built:.0f} ms each", flush=True)
    return row


def run(many: Many, before: float, row: Row) -> None:
    """One size. Raises `OutOfTime`."""
    members, meter = many.members, many.meter
    founds = members <= many.founded_max
    first = ("founding", many.found) if founds else ("beginning from disks", many.begin)
    for what, act in (first, ("objects", many.fill)):
        meter.reset()
        act()
        print(meter.line(what, members), flush=True)
    why = why_not_ready(many.world.node("n1").view, many.world.node("n1").defaults)
    assert not why, why
    many.rest(CALM_S)
    meter.reset()
    many.rest(REST_S)
    meter.note(row, "at rest", members)
    meter.reset()
    many.join()
    meter.note(row, "joining", members)
    row["settled, s"] = meter.seconds
    row["CPU of the join, ms a member"] = round(meter.cpu / members * 1000, 1)
    row["gossip of the join, B a member"] = meter.sent["bytes"] // members
    row["layout while changing, B"], row["layout, B"] = many.state_bytes()
    gc.collect()
    row["/v1/cluster, B"] = many.status_bytes()
    row["memory, MiB a member"] = round((memory() - before) / members, 2)
    for what in ("layout, B", "layout while changing, B", "/v1/cluster, B", "memory, MiB a member"):
        print(f"  {what:<30}{row[what]:12,.6g}", flush=True)


def tables_of(config: Config, number: int, layout: Layout) -> dict[str, Any]:
    """What is on the disk of a member that ran before."""

    def at_once(call: Callable[[], Any]) -> Deferred[Any]:
        return succeed(call())

    engine = MemoryEngine()
    identity = Identity(engine, Committer(engine, at_once))
    book = LayoutBook(engine, identity.committer, identity)
    cluster = f"{config.cluster.name}/{config.cluster.partitions}"
    identity.save(config.node.name, cluster)
    identity.save_incarnation(number, 1)
    book.adopt(layout)
    return dict(engine.tables)


def said_in_memory(world: World) -> Any:
    """For `RemoteReplica.hello`."""

    async def hello(self: RemoteReplica, timeout: float, *, asker: str = "") -> Hello:
        return world.node(self.name).voice.hello(asker)

    return hello


def memory() -> float:
    """What this process has resident, in MiB."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20


def count_datagrams(meter: Meter) -> None:
    """Every datagram that is sent counts, with its headers."""
    write = DatagramPort.write

    def counted(port: DatagramPort, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        meter.sent["packets"] += 1
        meter.sent["bytes"] += len(packet) + HEADER_BYTES
        write(port, packet, addr)

    original = getattr(write, "plain", write)
    write = original
    counted.plain = original  # type: ignore[attr-defined]
    DatagramPort.write = counted  # type: ignore[method-assign]


def share_rings() -> Counter[str]:
    """Equal rings are one object; gives how many were built, in how many milliseconds."""
    counts: Counter[str] = Counter()
    known: dict[Any, Ring] = {}

    def shared(members: Any, partitions: int, copies: int) -> Ring:
        place = (tuple(members), partitions, copies)
        if place not in known:
            began = time.process_time()
            known[place] = Ring(*place)
            counts["built"] += 1
            counts["ms"] += int((time.process_time() - began) * 1000)
        return known[place]

    dynamo.cluster.layouts.Ring = shared  # type: ignore[misc, assignment, attr-defined]
    return counts


if __name__ == "__main__":
    sys.exit(main())
