"""A cluster in one process on one `Clock`: real storage, coordinator and handoff, made-up links.

Each node knows all others from the start and believes what it is told of their health
(`believe`). Time moves only in `run` and `pass_time`, from one thing due to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from dynamo.background.antientropy import AntiEntropy
from dynamo.background.census import Census
from dynamo.background.clearing import Clearing
from dynamo.background.divergence import Surroundings
from dynamo.background.handoff import Handoff
from dynamo.background.passing import Passing
from dynamo.background.pulling import Pulling
from dynamo.background.refill import Refill
from dynamo.background.tombstones import TombstoneReaper
from dynamo.background.transfer import Transfer
from dynamo.background.upkeep import Upkeep
from dynamo.coordinator.bodies import Bodies
from dynamo.coordinator.buckets import Buckets
from dynamo.coordinator.door import Door
from dynamo.coordinator.listing import Lister
from dynamo.coordinator.preferences import Preferences
from dynamo.coordinator.reads import Reader
from dynamo.coordinator.repair import Repairer
from dynamo.coordinator.requests import Options, Upload
from dynamo.coordinator.terms import Defaults
from dynamo.coordinator.writes import Writer
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.clock import HybridClock
from dynamo.core.grace import Grace
from dynamo.core.layout import Layout
from dynamo.core.record import Record
from dynamo.core.refilling import Refilling
from dynamo.core.ring import Member, Ring
from dynamo.core.sightings import Origin
from dynamo.errors import BadRequest
from dynamo.ports import Liveness, MemberStatus, Replica
from dynamo.replica.graves import GraveKeeper
from dynamo.replica.local import LocalReplica
from dynamo.replica.trees import TreeKeeper
from dynamo.replica.wholeness import Wholeness
from dynamo.storage import rows
from dynamo.storage.chunks import MemoryChunks
from dynamo.storage.committer import Committer
from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable, Identity
from dynamo.storage.hints import HintBook
from dynamo.storage.memory_engine import MemoryEngine
from dynamo.storage.places import PlaceBook
from dynamo.storage.trees import Trees
from dynamo.wire.messages import BucketMake, Coordinate
from tests.support.links import FarReplica, Link, Network

T = TypeVar("T")
COMMIT_S = 0.002
SCRUB_BYTES_PER_S = 1024 * 1024
SCRUB_INTERVAL_S = 3600.0
START_S = 1_700_000_000.0


class Body:
    """A `ByteSource` of these bytes; with `breaks_at` the client is gone after so many."""

    def __init__(
        self, data: bytes, *, breaks_at: int | None = None, announced: bool = True
    ) -> None:
        self._data = data
        self._at = 0
        self._breaks_at = breaks_at
        self.length = len(data) if announced else None

    async def read(self, size: int) -> bytes:
        end = self._at + size
        if self._breaks_at is not None and end > self._breaks_at:
            raise BadRequest("incomplete_body", "The client went away.")
        piece = self._data[self._at : end]
        self._at += len(piece)
        return piece


class BelievingView:
    """A `ClusterView` whose knowledge of others is set by hand."""

    def __init__(self, cluster: TestCluster, name: str) -> None:
        self._cluster = cluster
        self.name = name
        self.ring = cluster.ring
        self.beside: Ring | None = None
        self.layout = Layout()
        self.epoch = 0
        self.joined = True
        self.believed: dict[str, Liveness] = {}
        self.knows_hints = True
        self.watchers: list[Callable[[str, Liveness], None]] = []
        self._far = {
            other: FarReplica(cluster.network, name, other, cluster.local_of(other))
            for other in cluster.names
        }

    def why_not_joined(self) -> str:
        return "" if self.joined else "Waiting for the seeds."

    def is_healthy(self, name: str) -> bool:
        return self.believed.get(name, "alive") == "alive"

    def is_doubtful(self, name: str) -> bool:
        return self.believed.get(name, "alive") == "suspect"

    async def refresh(self) -> None: ...

    def replica(self, name: str) -> Replica:
        return self._cluster.nodes[name].local if name == self.name else self._far[name]

    def members(self) -> list[MemberStatus]:
        return [self._status(name) for name in self._cluster.names]

    def awaiting(self) -> tuple[str, ...]:
        """As an attentive gossip would know it: who can be reached and keeps hints for us."""
        nodes = self._cluster.nodes
        return tuple(
            other
            for other in sorted(nodes)
            if self.knows_hints
            and other != self.name
            and self.is_healthy(other)
            and nodes[other].copies.hints.counts.get(self.name)
        )

    def evidence(self, name: str, ok: bool) -> None: ...

    def watch(self, changed: Callable[[str, Liveness], None]) -> None:
        self.watchers.append(changed)

    def _status(self, name: str) -> MemberStatus:
        return MemberStatus(
            name=name,
            api="",
            cluster="",
            zone="",
            weight=1.0,
            liveness=self.believed.get(name, "alive"),
            role="active",
            incarnation=0,
            objects=0,
            bytes=0,
            hints=0,
        )


class HeardChanging:
    """A `Changing` that knows at once what every other node has said, by name.

    `used`: the version a node says it goes by, instead of its layout's. `said`: what this one did.
    """

    def __init__(self, cluster: TestCluster, name: str) -> None:
        self._cluster = cluster
        self._name = name
        self.used: int | None = None
        self.said: list[int] = []

    def uses(self, name: str) -> int:
        node = self._cluster.nodes[name]
        return node.view.layout.version if node.changing.used is None else node.changing.used

    def has_synced(self, name: str) -> int:
        return max(self._cluster.nodes[name].changing.said, default=0)

    def sync_done(self, version: int) -> None:
        self.said.append(version)

    async def leave(self, *, force: bool = False) -> Layout:
        raise NotImplementedError

    async def stay(self) -> Layout:
        raise NotImplementedError

    async def remove(self, name: str, *, force: bool = False) -> Layout:
        raise NotImplementedError


class TestNode:
    """One node's parts, put together as `dynamo.node` does. Disks outlive it in `restart`."""

    __test__ = False

    def __init__(self, cluster: TestCluster, name: str, before: TestNode | None = None) -> None:
        self.name, self.cluster, self.alive = name, cluster, True
        self.actor = name if before is None else before.actor
        self.view = BelievingView(cluster, name)
        old = None if before is None else before.engine
        self.engine = MemoryEngine(None if old is None else old.tables)
        self.chunks = MemoryChunks(
            self._run, stored=None if before is None else before.chunks.stored
        )
        self.committer = Committer(self.engine, self._run)
        self.hybrid = HybridClock()
        self.copies = Copies(
            engine=self.engine,
            committer=self.committer,
            chunks=self.chunks,
            alone=self._run,
            observe=lambda stamp: self.hybrid.observe(cluster.wall_ms(), stamp),
            hints=HintBook(self.engine.view()),
            places=PlaceBook(self.engine.view()),
        )
        self.copies.sweep()
        self.table = BucketTable(self.engine, self.committer)
        self.table.load()
        self.copies.gone = self.table.gone
        self.grace = Grace()
        self.local = LocalReplica(name, self.copies, self.chunks, self.table, self.view)
        self.handoff = Handoff(
            view=self.view,
            copies=self.copies,
            buckets=self.table,
            actor=lambda: self.actor,
            grace=self.grace,
        )
        self.corrupt: list[str] = []
        self.upkeep = Upkeep(
            self.view,
            self.copies,
            self.table,
            self.local,
            cluster.clock,
            n=cluster.defaults.n,
            w=cluster.defaults.w,
            bytes_per_second=SCRUB_BYTES_PER_S,
            interval=SCRUB_INTERVAL_S,
            corrupt=self.corrupt.append,
        )
        self.trees = Trees(
            cluster.ring.partitions,
            lambda incarnation: self.table.copies_of(incarnation, cluster.ring.copies),
        )
        self.copies.moved = self.trees.apply
        self.census = Census(trees=self.trees, copies=self.copies, buckets=self.table)
        self.keeper = TreeKeeper(self.copies, self.trees, self.table, cluster.wall_s)
        self.local.handlers.update(self.keeper.handlers())
        self.local.exchanged = self.keeper.exchanged
        self.identity = Identity(self.engine, self.committer)
        self.identity.load()
        self.identity.actor = self.actor
        self.refilling = Refilling(name)
        self.whole = Wholeness(self.view, self.trees, self.identity, self.refilling)
        self.local.awaits, self.local.awaits_listed = self.whole.awaits, self.whole.awaits_listed
        self.keeper.lacking = self.whole.pair_lacks
        around = Surroundings(self.view, self.keeper, self.grace)
        pulling = Pulling(around, self.refilling, cluster.clock)
        self.refill = Refill(pulling, self.identity)
        self.changing = HeardChanging(cluster, name)
        self.transfer = Transfer(
            Pulling(around, Refilling(name), cluster.clock, moves=True),
            Passing(around, cluster.clock),
            self.changing,
        )
        self.clearing = Clearing(around, lambda: self.actor, cluster.clock)
        self.repair = AntiEntropy(
            around=around,
            interval=cluster.interval,
            seconds=cluster.clock.seconds,
            rng=Random(cluster.rng.random()),
        )
        self.graves = GraveKeeper(
            self.copies,
            self.view,
            lambda: self.actor,
            cluster.wall_ms,
            self._origin,
            self.grace,
        )
        self.local.handlers.update(self.graves.handlers())
        self.tombstones = TombstoneReaper(
            view=self.view,
            copies=self.copies,
            buckets=self.table,
            copies_of=self.trees.copies_of,
            clock=cluster.clock,
            rng=Random(cluster.rng.random()),
        )
        self.counts: list[tuple[str, str]] = []
        self.door = self._door(cluster)

    def _door(self, cluster: TestCluster) -> Door:
        view, clock, preferences = self.view, cluster.clock, Preferences(self.view)
        writer = Writer(
            view=view,
            preferences=preferences,
            copies=self.copies,
            clock=clock,
            hybrid=self.hybrid,
            wall_ms=cluster.wall_ms,
            actor=lambda: self.actor,
            counted=lambda *what: self.counts.append(what),
            lacks=self.whole.lacks,
            grace=self.grace,
        )
        buckets = Buckets(
            view=view,
            table=self.table,
            clock=clock,
            hybrid=self.hybrid,
            wall_ms=cluster.wall_ms,
            defaults=cluster.defaults,
        )
        self.local.handlers[Coordinate] = lambda op: Deferred.fromCoroutine(writer.coordinate(op))
        self.local.handlers[BucketMake] = lambda op: Deferred.fromCoroutine(buckets.make(op))
        return Door(
            name=self.name,
            view=view,
            preferences=preferences,
            defaults=cluster.defaults,
            buckets=buckets,
            writer=writer,
            reader=Reader(
                view=view,
                preferences=preferences,
                local_read=self.copies.read,
                awaits=self.whole.awaits,
                clock=clock,
                counted=lambda *what: self.counts.append(what),
            ),
            repairer=Repairer(
                view=view,
                preferences=preferences,
                clock=clock,
                counted=lambda *what: self.counts.append(what),
                grace=self.grace,
            ),
            bodies=Bodies(
                view=view,
                clock=clock,
                rng=Random(cluster.rng.random()),
                max_bytes=64 * 1024 * 1024,
                timeout=cluster.defaults.timeout,
            ),
            lister=Lister(view=view, clock=clock),
        )

    def _origin(self) -> Origin:
        return Origin(self.name, 1, self.name, self.engine.number(), 1, 1)

    def _run(self, call: Callable[[], T]) -> Deferred[T]:
        """Runs it a moment later, unless the node has crashed by then."""
        done: Deferred[T] = Deferred()

        def now() -> None:
            if not self.alive:
                return
            try:
                result = call()
            except Exception:
                done.errback(Failure())
            else:
                done.callback(result)

        self.cluster.clock.callLater(COMMIT_S, now)
        return done

    def held(self, key: str, bucket: str = "b") -> Record:
        """What this node knows of a key."""
        return self.copies.read(self.table.get(bucket).incarnation, key.encode())

    def damage(self, key: str, table: str = "records", at: int = -1, bucket: str = "b") -> None:
        """Flips a bit of a key's row, behind everybody's back."""
        rows_of = self.engine.tables[table]
        row = rows.row(self.table.get(bucket).incarnation, key.encode())
        rotten = bytearray(rows_of.values[row])
        rotten[at] ^= 4
        rows_of.set(row, bytes(rotten))

    def rot(self, digest: bytes, at: int = 0) -> None:
        """Flips a bit of a chunk."""
        rotten = bytearray(self.chunks.stored[digest])
        rotten[at] ^= 4
        self.chunks.stored[digest] = bytes(rotten)

    def owned(self, key: str, bucket: str = "b") -> Record:
        return self.copies.apart(self.table.get(bucket).incarnation, key.encode())[0]


class TestCluster:
    """N nodes named n1, n2, ... and the bucket "b" known to all of them."""

    __test__ = False

    def __init__(
        self, size: int = 3, *, n: int = 3, seed: int = 0, partitions: int = 64, **properties: Any
    ) -> None:
        self.clock = Clock()
        self.rng = Random(seed)
        self.network = Network(self.clock, self.rng)
        self.names = [f"n{i}" for i in range(1, size + 1)]
        self.ring = Ring([Member(name) for name in self.names], partitions, n)
        self.interval = 600.0
        self.defaults = Defaults(n=n)
        self.nodes: dict[str, TestNode] = {}
        for name in self.names:
            self.nodes[name] = TestNode(self, name)
        made = Bucket("b").create(1, 1, Properties(**properties))
        for node in self.nodes.values():
            self.wait(node.table.merge([made]))

    def wall_s(self) -> float:
        return START_S + self.clock.seconds()

    def wall_ms(self) -> int:
        return int(self.wall_s() * 1000)

    def local_of(self, name: str) -> Callable[[], Replica | None]:
        def local() -> Replica | None:
            node = self.nodes[name]
            return node.local if node.alive else None

        return local

    # Time.

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 60.0) -> T:
        """Runs a coroutine to its end in virtual time."""
        return self.wait(Deferred.fromCoroutine(work), seconds)

    def wait(self, done: Deferred[T], seconds: float = 60.0) -> T:
        outcome: list[Any] = []
        done.addBoth(outcome.append)
        deadline = self.clock.seconds() + seconds
        while not outcome and self.clock.seconds() < deadline:
            calls = self.clock.getDelayedCalls()
            assert calls, "nothing is due and the work is not done: it would wait for ever"
            due = min(call.getTime() for call in calls)
            self.clock.advance(max(0.0, min(due, deadline) - self.clock.seconds()))
        assert outcome, f"not done within {seconds} s"
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]  # type: ignore[no-any-return]

    def start(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Begins a coroutine; time does not move."""
        return Deferred.fromCoroutine(work)

    def pass_time(self, seconds: float) -> None:
        deadline = self.clock.seconds() + seconds
        while self.clock.seconds() < deadline:
            due = [c.getTime() for c in self.clock.getDelayedCalls()]
            step = min([deadline, *due]) - self.clock.seconds()
            self.clock.advance(max(0.0, step))

    # The ring.

    def found(self, *names: str) -> None:
        """These are the ring of the first layout; the others are strangers to it."""
        self._adopt(Layout().found([Member(name) for name in names], 1))

    def change(self, *names: str) -> None:
        """These are to be the ring: all nodes hear of the layout that says so."""
        changed = self._layout().change([Member(name) for name in names])
        assert changed is not None
        self._adopt(changed)

    def switch(self) -> None:
        """Reads go over to the coming ring."""
        self._adopt(self._layout().switch())

    def end(self) -> None:
        """The old ring is dropped."""
        self._adopt(self._layout().end())

    def _layout(self) -> Layout:
        return next(iter(self.nodes.values())).view.layout

    def _adopt(self, layout: Layout) -> None:
        partitions, copies = self.ring.partitions, self.ring.copies
        self.ring = Ring(layout.members, partitions, copies)
        beside = Ring(layout.beside, partitions, copies) if layout.beside else None
        for node in self.nodes.values():
            view = node.view
            view.layout, view.ring, view.beside = layout, self.ring, beside
            view.epoch += 1

    # Faults.

    def link(self, here: str, there: str) -> Link:
        return self.network.link(here, there)

    def around(self, name: str) -> list[Link]:
        return self.network.around(name, self.names)

    def cut(self, name: str, *, known: bool = True) -> None:
        """No link from or to the node works; `known`: and everybody believes it dead."""
        for link in self.around(name):
            link.down = True
        if known:
            self.believe(name, "dead")

    def heal(self, name: str) -> None:
        for link in self.around(name):
            link.down = link.hang = link.deaf = False
        self.believe(name, "alive")

    def believe(self, name: str, liveness: Liveness) -> None:
        """All others hold this of the node."""
        for other in self.names:
            if other != name:
                self.told(other, name, liveness)

    def told(self, who: str, name: str, liveness: Liveness) -> None:
        view = self.nodes[who].view
        view.believed[name] = liveness
        view.epoch += 1

    def restart(self, name: str) -> TestNode:
        """The process dies now and another begins on its disk; what was not committed is lost."""
        old = self.nodes[name]
        old.alive = False
        node = self.nodes[name] = TestNode(self, name, old)
        view, before = node.view, old.view
        view.believed = dict(before.believed)
        view.layout, view.beside = before.layout, before.beside
        return node

    def wipe(self, name: str) -> TestNode:
        """The node's disk is lost; it comes back empty, knows of that, and of all buckets."""
        old = self.nodes[name]
        old.alive = False
        node = self.nodes[name] = TestNode(self, name)
        node.view.believed = dict(old.view.believed)
        node.actor = f"{old.actor}~2"
        self.wait(node.identity.save(node.actor, "c/64", refill=True))
        self.wait(node.table.merge(list(old.table.states.values())))
        return node

    # Work.

    def ranking(self, key: str, bucket: str = "b") -> tuple[str, ...]:
        incarnation = next(iter(self.nodes.values())).table.get(bucket).incarnation
        return self.ring.ranking(self.ring.partition(incarnation, key.encode()))

    def put(self, at: str, key: str, body: bytes = b"x", **more: Any) -> Any:
        return self.run(self.put_later(at, key, body, **more))

    def put_later(self, at: str, key: str, body: bytes = b"x", **more: Any) -> Any:
        options = Options(**more.pop("options", {}))
        upload = Upload(body=Body(body), **more.pop("upload", {}))
        return self.nodes[at].door.put("b", key, upload, options=options, **more)

    def delete(self, at: str, key: str, **more: Any) -> Any:
        options = Options(**more.pop("options", {}))
        return self.run(self.nodes[at].door.delete("b", key, options=options, **more))

    def get(self, at: str, key: str, **options: Any) -> Any:
        return self.run(self.nodes[at].door.get("b", key, options=Options(**options)))

    def bodies(self, at: str, key: str, **options: Any) -> list[bytes]:
        """The versions a client of a node sees, newest first."""
        count = len(self.live(at, key, **options))
        return [self.stream(at, key, n, **options) for n in range(count)]

    def live(self, at: str, key: str, **options: Any) -> Any:
        return self.get(at, key, **options).record.live()

    def stream(self, at: str, key: str, version: int = 0, **options: Any) -> bytes:
        async def read() -> bytes:
            door = self.nodes[at].door
            found = await door.get("b", key, options=Options(**options))
            shown = found.record.live()[version]
            return b"".join([p async for p in door.stream(found, shown, 0, shown.size)])

        return self.run(read())

    def hand_off(self) -> None:
        """Runs every node's handoff until none makes progress."""
        for _ in range(1000):
            steps = [self.run(node.handoff.step()) for node in self.nodes.values() if node.alive]
            if not any(steps):
                return
        raise AssertionError("handoff does not come to an end")

    def mend(self, *names: str) -> None:
        """Has these nodes (all, if none is named) mend until none makes progress."""
        for _ in range(1000):
            steps = [
                self.run(self.nodes[name].upkeep.mender.step())
                for name in names or self.names
                if self.nodes[name].alive
            ]
            if not any(steps):
                return
        raise AssertionError("mending does not come to an end")

    def scrub(self, name: str, passes: int = 1) -> None:
        """Has a node scrub until so many more passes are complete; mends meanwhile."""
        scrub = self.nodes[name].upkeep.scrub
        goal = scrub.passes + passes
        for _ in range(100_000):
            if scrub.passes >= goal:
                return
            more = self.run(scrub.step())
            self.mend(name)
            self.pass_time(0.1 if more else 60.0)
        raise AssertionError("no pass comes to an end")

    def compare_all(self) -> None:
        """Has every pair of owners that can reach each other compare and mend all it shares."""
        up = [node for node in self.nodes.values() if node.alive]
        for node in up:
            while self.run(node.census.step()):
                pass
            for peer in self.names:
                node.repair.appeared(peer)
        for _ in range(1000):
            busy = [self.run(node.repair.step()) for node in up]
            if not any(busy):
                if not any(node.repair.mending for node in up):
                    return
                self.pass_time(1.0)
        raise AssertionError("anti-entropy does not come to an end")

    def reap(self) -> int:
        """Has every node try to reap until none can; how many tombstones are left, in all."""
        up = [node for node in self.nodes.values() if node.alive]
        for _ in range(100):
            busy = [self.run(node.tombstones.step()) for node in up]
            if not any(busy):
                return sum(node.tombstones.pending() for node in up)
        raise AssertionError("reaping does not come to an end")

    def hints(self) -> dict[str, dict[str, int]]:
        """The hints every node keeps, by target; only nodes that keep any."""
        counts = {name: node.copies.hints.counts for name, node in self.nodes.items()}
        return {name: dict(kept) for name, kept in counts.items() if kept}
