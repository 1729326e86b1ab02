"""Membership shells joined in memory: one `Clock`, made-up UDP and peer HTTP, disks in memory.

Nothing crosses by reference: datagrams, states and buckets are encoded and decoded by the real
code. A process can be killed, told to leave, and started again with its disk or without.
`World.cut` says who does not reach whom; a disk can be slow, hang or fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from dynamo.cluster.membership import Membership
from dynamo.core.grace import Grace
from dynamo.core.members import IDENTITY_MAX, Liveness, Member, Role
from dynamo.core.profiles import LAN, Settings
from dynamo.core.swim import Swim
from dynamo.errors import DynamoError, PeerUnreachable
from dynamo.storage.agreed import LayoutBook
from dynamo.storage.committer import Committer
from dynamo.storage.facts import BucketTable, Identity
from dynamo.storage.memory_engine import MemoryEngine
from dynamo.wire import hello, messages
from dynamo.wire.datagrams import BadDatagram, Codec
from dynamo.wire.hello import Hello
from dynamo.wire.messages import Op, Reply

T = TypeVar("T")
CLUSTER = "test"
WALL_S = 1_700_000_000.0


@attrs.define
class Disk:
    """What outlives a process. `delay` in seconds; `hangs`: nothing is ever done; `fault`: what
    every commit raises."""

    tables: Any = None
    delay: float = 0.002
    hangs: bool = False
    fault: Exception | None = None
    waiting: deque[Callable[[], None]] = attrs.field(factory=deque)


class Wire:
    """The transport of a `DatagramProtocol`: what is written goes to `send`."""

    def __init__(self, send: Callable[[bytes, tuple[str, int]], None]) -> None:
        self.write = send


class Far:
    """A peer of one shell, across the world's links."""

    gathering = False

    def __init__(self, world: World, here: Shell, name: str, address: str) -> None:
        self.name = name
        self._world, self._here, self._address = world, here, address

    async def hello(self, timeout: float, *, asker: str = "") -> Hello:
        def do(there: Shell) -> bytes:
            return hello.encode_hello(there.hello())

        return hello.decode_hello(await self._ask(do, timeout))

    async def exchange_state(self, state: bytes, timeout: float) -> bytes:
        def do(there: Shell) -> bytes:
            try:
                return there.view.answer_exchange(state)
            except BadDatagram:
                raise PeerUnreachable(self.name, "answered 400 to a state") from None

        return await self._ask(do, timeout)

    def call(self, op: Op) -> Deferred[Reply]:
        return Deferred.fromCoroutine(self._call(op))

    async def _call(self, op: Op) -> Reply:
        def do(there: Shell) -> Any:
            return there.answer(messages.decode_ops(messages.encode([op]))[0])

        return await self._ask(do, 10.0)

    def read_chunk(self, digest: bytes) -> Deferred[bytes]:
        return fail(PeerUnreachable(self.name, "keeps no chunks"))

    def write_chunk(self, digest: bytes, data: bytes) -> Deferred[None]:
        return fail(PeerUnreachable(self.name, "keeps no chunks"))

    async def _ask(self, do: Callable[[Shell], Any], timeout: float) -> Any:
        """Refused where no process is; lost where a link is cut, one way or the other."""
        world = self._world
        await deferLater(world.clock, world.latency())
        there = world.hosts.get(self._address)
        if there is not None and not there.up:
            raise PeerUnreachable(self.name, "refused the connection", sent=False)
        if there is None or world.split(self._here, there) or there.mute:
            await deferLater(world.clock, timeout)
            raise PeerUnreachable(self.name, f"said nothing for {timeout:g} s")
        answer = do(there)
        if isinstance(answer, Deferred):
            answer = await answer
        await deferLater(world.clock, world.latency())
        return answer


class Near:
    """A shell's own copies: it has none, and votes."""

    gathering = False

    def __init__(self, shell: Shell) -> None:
        self.name, self._shell = shell.name, shell

    def call(self, op: Op) -> Deferred[Reply]:
        return maybeDeferred(self._shell.answer, op)

    def read_chunk(self, digest: bytes) -> Deferred[bytes]:
        return fail(PeerUnreachable(self.name, "keeps no chunks"))

    def write_chunk(self, digest: bytes, data: bytes) -> Deferred[None]:
        return fail(PeerUnreachable(self.name, "keeps no chunks"))


class Shell:
    """One process. `hints` is what it says to hold for others, `mute`: its peer HTTP hangs."""

    def __init__(
        self,
        world: World,
        name: str,
        address: str,
        seeds: Iterable[str],
        disk: Disk,
        *,
        cluster: str = CLUSTER,
        partitions: int = 8,
        settings: Settings = LAN,
        zone: str = "z1",
        weight: float = 1.0,
    ) -> None:
        self.zone, self.weight = zone, weight
        self.world, self.name, self.address, self.disk = world, name, address, disk
        self.cluster, self.partitions = cluster, partitions
        self.up, self.mute = True, False
        self.hints: dict[str, int] = {}
        self.told: list[tuple[str, str]] = []
        self.boot = world.rng.randbytes(4).hex()
        self.engine = MemoryEngine(disk.tables)
        disk.tables = self.engine.tables
        committer = Committer(self.engine, self._run)
        self.identity = Identity(self.engine, committer)
        self.identity.load()
        self.buckets = BucketTable(self.engine, committer)
        self.buckets.load()
        self.book = LayoutBook(self.engine, committer, self.identity)
        self.book.load()
        if self.book.out:
            self.up = False
            raise DynamoError(f"the disk of {name} is of a member that left")
        me = Member(
            name,
            self.identity.number or world.rng.randrange(1, IDENTITY_MAX),
            address,
            self.identity.incarnation,
            role=Role.ACTIVE
            if self.identity.actor and self.book.layout.in_ring(name)
            else Role.JOINING,
            zone=zone,
            weight=weight,
            layout=self.book.layout.version,
        )
        self.swim = Swim(
            settings,
            me,
            cluster,
            Random(world.rng.random()),
            remembered=self.identity.remembered,
        )
        self.view = Membership(
            clock=world.clock,
            wall_clock=lambda: world.wall + world.clock.seconds(),
            identity=self.identity,
            buckets=self.buckets,
            about_me=self.hello,
            remote=lambda who, where: Far(world, self, who, where),
            swim=self.swim,
            codec=Codec(cluster),
            copies=3,
            timeout=1.0,
            book=self.book,
            grace=Grace(),
            rng=Random(world.rng.random()),
        )
        self.view.watch(lambda who, now: self.told.append((who, now)))
        self.view.gossip.transport = Wire(self._send)
        world.hosts[address] = self
        self.view.start(Near(self), seeds)
        self.syncs = self.refills = True
        world.clock.callLater(0.1, self._sync)

    def hello(self) -> Hello:
        return Hello(
            name=self.name,
            cluster_name=self.cluster,
            partitions=self.partitions,
            zone=self.zone,
            weight=self.weight,
            api="",
            cluster=self.address,
            actor=self.identity.actor,
            boot=self.boot,
            joined=bool(self.identity.actor),
            actors=dict(self.identity.actors),
            hints=dict(self.hints),
            buckets=self.buckets.digest(),
            objects=0,
            bytes=0,
            layout=self.book.layout.version,
            birth=self.book.layout.birth,
        )

    def answer(self, op: Op) -> Any:
        """The operations members need of each other."""
        agree = self.view.layouts.handlers().get(type(op))
        if agree is not None:
            return agree(op)
        if isinstance(op, messages.BucketList):
            names = sorted(n for n in self.buckets.states if n > op.after)
            return messages.BucketsReply(tuple(self.buckets.states[n] for n in names), True)
        assert isinstance(op, messages.BucketMerge)
        merged = self.buckets.merge(op.buckets)
        return merged.addCallback(lambda held: messages.BucketsReply(tuple(held)))

    def _sync(self) -> None:
        """There is no data: whoever is to take over or to take back something has it, unless its
        `syncs` or `refills` is off."""
        if self.up:
            if self.refills and self.identity.refilling and self.view.joined:
                self.identity.end_refill().addErrback(lambda f: None)
            if self.syncs:
                self.view.layouts.sync_done(self.view.layout.version)
            self.world.clock.callLater(0.1, self._sync)

    def kill(self) -> None:
        """The process is gone without a word."""
        self.up = False
        self.view.stop()

    def leave(self) -> Deferred[None]:
        """A plain stop."""
        return self.view.leave().addCallback(lambda _: self.kill())

    def liveness(self) -> dict[str, str]:
        """What this node believes of the others."""
        return {m.name: m.liveness for m in self.view.members() if m.name != self.name}

    def happened(self, event: str) -> list[str]:
        """Whom that happened to, in this node's eyes."""
        return [e.member for e in self.view.events if e.event == event]

    def ring(self) -> set[str]:
        return {member.name for member in self.view.ring.members}

    def _send(self, data: bytes, where: tuple[str, int]) -> None:
        there = self.world.hosts.get(f"{where[0]}:{where[1]}")
        host, port = self.address.rsplit(":", 1)
        if self.up and there is not None and not self.world.split(self, there):
            self.world.clock.callLater(self.world.latency(), there.receive, data, (host, int(port)))

    def receive(self, data: bytes, sender: tuple[str, int]) -> None:
        if self.up:
            self.view.gossip.datagramReceived(data, sender)

    def _run(self, call: Callable[[], T]) -> Deferred[T]:
        done: Deferred[T] = Deferred()

        def now() -> None:
            if not self.up:
                return
            if self.disk.hangs:
                self.disk.waiting.append(now)
                return
            try:
                if self.disk.fault is not None:
                    raise self.disk.fault
                result = call()
            except Exception:
                done.errback(Failure())
            else:
                done.callback(result)

        self.world.clock.callLater(self.disk.delay, now)
        return done


class World:
    """All processes by name and by address, and the time. `wall` is the wall clock at time 0."""

    def __init__(self, seed: int = 0) -> None:
        self.clock = Clock()
        self.rng = Random(seed)
        self.wall = WALL_S
        self.hosts: dict[str, Shell] = {}
        self.nodes: dict[str, Shell] = {}
        self.cut: Callable[[str, str], bool] = lambda a, b: False

    def address(self, name: str) -> str:
        return f"10.0.0.{int(name[1:])}:7000"

    def start(
        self,
        name: str,
        *seeds: str,
        address: str = "",
        disk: Disk | None = None,
        wipe: bool = False,
        **more: Any,
    ) -> Shell:
        """Starts "n7" with these nodes as seeds, on the disk it had unless told otherwise."""
        before = self.nodes.get(name)
        if before is not None and before.up and not address:
            before.kill()
        if disk is None:
            disk = before.disk if before is not None and not wipe else Disk()
        where = [self.address(seed) for seed in seeds]
        shell = Shell(self, name, address or self.address(name), where, disk, **more)
        self.nodes[name] = shell
        return shell

    def form(self, *names: str, **more: Any) -> list[Shell]:
        """A cluster of these, all active and known to each other."""
        shells = [self.start(name, *names[:1], **more) for name in names]
        self.until(self.whole, "the cluster has formed")
        self.run(0.1)
        return shells

    def split(self, a: Shell, b: Shell) -> bool:
        return self.cut(a.name, b.name) or self.cut(b.name, a.name)

    def apart(self, *group: str) -> None:
        """These do not reach the others from now on."""
        self.cut = lambda a, b: (a in group) != (b in group)

    def heal(self) -> None:
        self.cut = lambda a, b: False

    def latency(self) -> float:
        return self.rng.uniform(0.0002, 0.001)

    @property
    def up(self) -> list[Shell]:
        return [shell for shell in self.nodes.values() if shell.up]

    def whole(self) -> bool:
        """Whether every running node serves, holds all running ones and no other to be well, and
        all have one ring."""
        names = {shell.name for shell in self.up}
        return all(
            shell.view.joined
            and shell.swim.joined
            and {n for n in self.nodes if shell.view.is_healthy(n)} == names
            and {n for n, word in shell.liveness().items() if word == "alive"} | {shell.name}
            == names
            and shell.view.ring.version == self.up[0].view.ring.version
            and names <= shell.ring()
            for shell in self.up
        )

    def records(self) -> list[list[tuple[str, int, Liveness, str]]]:
        """Every running node's view of everybody."""
        return [
            sorted((m.name, m.incarnation, m.liveness, m.address) for m in shell.swim.members())
            for shell in self.up
        ]

    def run(self, seconds: float) -> None:
        """Lets time pass, from one thing due to the next."""
        self.until(None, "", seconds)

    def until(self, done: Callable[[], bool] | None, what: str, seconds: float = 60.0) -> float:
        """Lets time pass until `done` holds; how long it took."""
        clock, began = self.clock, self.clock.seconds()
        while clock.seconds() < began + seconds:
            if done is not None and done():
                return clock.seconds() - began
            due = [call.getTime() for call in clock.getDelayedCalls()[:1]]
            clock.advance(max(0.0, min([began + seconds, *due]) - clock.seconds()))
        told = [(s.name, s.liveness(), s.view.why_not_joined()) for s in self.up]
        assert done is None or done(), f"{what}: not within {seconds:g} s; {told}"
        return seconds
