"""Membership machines joined by a network that exists only in memory, driven by one seed.

Time is virtual. Datagrams are encoded and decoded by the real codec; full exchanges and stream
probes go over links of their own, which can be cut separately. Nodes can be killed, restarted
(with or without their disk, at another address), paused like a process under SIGSTOP, and left.
After every call on a machine the invariants of the protocol are checked.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from dynamo.core.effects import (
    Effect,
    ExchangeState,
    MemberChanged,
    Notice,
    PersistIncarnation,
    PersistMembers,
    ProbeByStream,
    SendDatagram,
    Stopped,
)
from dynamo.core.members import Liveness, Member
from dynamo.core.messages import DATAGRAM_BYTES_MAX, KINDS, State
from dynamo.core.profiles import LAN, Settings
from dynamo.core.swim import Swim
from dynamo.wire.datagrams import BadDatagram, Codec, encode_state
from tests.support.agenda import Agenda
from tests.support.swim_node import Node, Seen, check_invariants, check_verdict

INBOX_MAX = 256
"""Datagrams that a paused process finds when it runs again: about what a socket buffers."""

UDP_HEADER_BYTES = 28


class SwimNetwork(Agenda):
    """A cluster under one seed. `seen` holds every event, `notices` every notice."""

    def __init__(
        self,
        seed: int = 0,
        settings: Settings = LAN,
        *,
        latency: tuple[float, float] = (0.0002, 0.001),
        loss: float = 0.0,
        secrets: tuple[str, ...] = (),
        check: bool = True,
    ) -> None:
        self.rng = random.Random(f"{seed}:network")
        self.seed = seed
        self.settings = settings
        self.latency = latency
        self.loss = loss
        self.secrets = secrets
        self.check = check
        super().__init__()
        self.nodes: dict[str, Node] = {}
        self.hosts: dict[str, Node] = {}
        self.seen: list[Seen] = []
        self.notices: list[tuple[float, str, Notice]] = []
        self.packets: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.streams: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.cut: Callable[[str, str], bool] = lambda a, b: False
        self.cut_streams: Callable[[str, str], bool] | None = None
        self.lossy: Callable[[str, str], float] | None = None
        self.duplicate = 0.0
        self._starts = 0

    # Building and breaking.

    def add(
        self,
        name: str,
        seeds: Iterable[str] = (),
        *,
        address: str = "",
        cluster: str = "test",
        disk: dict[str, Any] | None = None,
        settings: Settings | None = None,
    ) -> Node:
        """Starts a node now. An empty disk makes a new identity."""
        self._starts += 1
        disk = {} if disk is None else disk
        disk.setdefault("identity", self.rng.getrandbits(32))
        address = address or f"{name}:7000"
        swim = Swim(
            settings or self.settings,
            Member(name, disk["identity"], address, disk.get("incarnation", 0), zone="z1"),
            cluster,
            random.Random(f"{self.seed}:{name}:{self._starts}"),
            remembered=disk.get("members", ()),
        )
        counter = iter(range(2**60))
        start = self._starts
        codec = Codec(
            cluster, self.secrets, lambda: (start << 64 | next(counter)).to_bytes(12, "big")
        )
        key = (
            name if name not in self.nodes or not self.nodes[name].running else f"{name}@{address}"
        )
        node = Node(key, address, swim, codec, disk)
        self.nodes[key] = node
        self.hosts[address] = node
        self._obey(node, swim.join(self.now, list(seeds)))
        return node

    def cluster(self, count: int, *, settle: float = 15.0, spread: float = 1.0) -> list[str]:
        """`count` nodes n0, n1, ... that know n0 as their seed, joined and quiet."""
        names = [f"n{i}" for i in range(count)]
        for name in names:
            self.add(name, ["n0:7000"])
            self.run(spread / count)
        self.run(settle)
        return names

    def kill(self, name: str) -> None:
        """The process is gone without a word."""
        self.nodes[name].running = False

    def restart(self, name: str, *, address: str = "", wipe: bool = False) -> Node:
        """The process starts again, with its disk or an empty one."""
        old = self.nodes[name]
        old.running = False
        disk = {} if wipe else dict(old.disk)
        return self.add(name, ["n0:7000"], address=address or old.address, disk=disk)

    def leave(self, name: str) -> None:
        """The process says goodbye and ends when its machine is done."""
        node = self.nodes[name]
        self._obey(node, node.swim.leave(self.now))

    def pause(self, name: str, seconds: float) -> None:
        """The process stands still."""
        node = self.nodes[name]
        node.paused_until = max(node.paused_until, self.now + seconds)
        self._at(node.paused_until, lambda: self._release(node))

    def hold(self, name: str, seconds: float) -> None:
        """The process runs, its clock goes on, but it sends and receives nothing for so long:
        the slow message processing of the Lifeguard paper."""
        node = self.nodes[name]
        node.held_until = max(node.held_until, self.now + seconds)
        self._at(node.held_until, lambda: self._flush(node))

    def split(self, *groups: Iterable[str]) -> None:
        """Only nodes of one group hear each other; those of no group are a group."""
        group_of = {name: i for i, group in enumerate(groups) for name in group}
        self.cut = lambda a, b: group_of.get(a, -1) != group_of.get(b, -1)

    def heal(self) -> None:
        """All links work."""
        self.cut = lambda a, b: False
        self.cut_streams = None
        self.lossy = None
        self.loss = 0.0
        self.duplicate = 0.0

    # Looking.

    @property
    def up(self) -> list[Node]:
        """The nodes whose process runs and has not stopped."""
        return [node for node in self.nodes.values() if node.running]

    def view(self, name: str) -> dict[str, str]:
        """What one node believes of all, without those that left."""
        members = self.nodes[name].swim.members()
        return {m.name: m.liveness.word for m in members if m.liveness is not Liveness.LEFT}

    def agreed(self) -> bool:
        """Whether all running nodes hold the same records of those that did not leave, and
        exactly the running ones to be alive."""
        views = [
            sorted(
                (m.name, m.order, m.address)
                for m in node.swim.members()
                if m.liveness is not Liveness.LEFT
            )
            for node in self.up
        ]
        alive = {node.swim.me.name for node in self.up}
        first = {name for name, order, _ in views[0] if order[2] == Liveness.ALIVE}
        return first == alive and all(view == views[0] for view in views)

    def all_say(self, name: str, word: str) -> bool:
        """Whether every other running node believes this of `name`."""
        return all(
            (m := node.swim.member(name)) is not None and m.liveness.word == word
            for node in self.up
            if node.swim.me.name != name
        )

    def events(self, event: str, name: str | None = None, since: float = 0.0) -> list[Seen]:
        """Events of one kind, about one member or all."""
        return [
            s
            for s in self.seen
            if s.event == event and s.at >= since and (name is None or s.name == name)
        ]

    def reset_counts(self) -> None:
        """Begins to count traffic anew."""
        for counter in (self.packets, self.bytes, self.kinds, self.streams):
            counter.clear()

    # Obeying effects.

    def call(self, node: Node, act: Callable[[Swim], list[Effect]]) -> None:
        """Does something to a machine and obeys what follows."""
        if node.running:
            self._obey(node, act(node.swim))

    def _obey(self, node: Node, effects: list[Effect]) -> None:
        for effect in effects:
            self._do(node, effect)
        if self.check:
            check_invariants(node, self.now)
        self._arm(node)

    def _do(self, node: Node, effect: Effect) -> None:
        match effect:
            case SendDatagram():
                self._send(node, effect)
            case ExchangeState():
                self._exchange(node, effect.address)
            case ProbeByStream():
                self._stream_probe(node, effect)
            case PersistIncarnation():
                assert effect.incarnation > node.disk.get("incarnation", -1)
                node.disk["incarnation"] = effect.incarnation
            case PersistMembers():
                node.disk["members"] = effect.members
            case MemberChanged():
                self._note(node, effect)
            case Notice():
                self.notices.append((self.now, node.name, effect))
                if effect.code == "stalled":
                    node.stalled += float(effect.detail)
            case Stopped():
                node.stopped = effect.cause
                node.running = False

    def _send(self, node: Node, effect: SendDatagram) -> None:
        assert node.disk.get("incarnation", 0) >= effect.message.origin.incarnation
        data = node.codec.encode(effect.message)
        assert len(data) <= DATAGRAM_BYTES_MAX
        self.packets[node.name] += 1
        self.bytes[node.name] += len(data) + UDP_HEADER_BYTES
        self.kinds[KINDS[type(effect.message)]] += 1
        if self.now < node.held_until:
            node.outbox.append(lambda: self._transmit(node, effect.address, data))
        else:
            self._transmit(node, effect.address, data)

    def _transmit(self, node: Node, address: str, data: bytes) -> None:
        host = self.hosts.get(address)
        if host is None or self.cut(node.name, host.name):
            return
        loss = self.lossy(node.name, host.name) if self.lossy else self.loss
        copies = 2 if self.duplicate and self.rng.random() < self.duplicate else 1
        for _ in range(copies):
            if not loss or self.rng.random() >= loss:
                self._after(lambda: self._deliver(address, node.address, data))

    def _deliver(self, address: str, sender: str, data: bytes) -> None:
        node = self.hosts[address]
        if not node.running:
            return
        if self.now < max(node.paused_until, node.held_until):
            if len(node.inbox) < INBOX_MAX:
                node.inbox.append((sender, data))
            return
        try:
            message = node.codec.decode(data)
        except BadDatagram as bad:
            self.dropped[bad.reason] += 1
            return
        self._obey(node, node.swim.receive(self.now, sender, message))

    def _exchange(self, node: Node, address: str) -> None:
        state = node.swim.state()
        self.streams[node.name] += len(encode_state(state)) if self.check else 1

        def ask() -> None:
            host = self.hosts.get(address)
            if host is not None and host.running and host.swim.state().cluster == state.cluster:
                self._obey(host, host.swim.exchange(self.now, state))
                if host.running:
                    answer = host.swim.state()
                    self._by_stream(host, node, lambda: take(answer))

        def take(answer: State) -> None:
            self.call(node, lambda swim: swim.exchange(self.now, answer, address))

        self._by_stream(node, self.hosts.get(address), ask)

    def _stream_probe(self, node: Node, effect: ProbeByStream) -> None:
        host = self.hosts.get(effect.member.address)

        def ask() -> None:
            assert host is not None
            if not host.running:
                outcome = "refused"
            elif host.swim.me.identity != effect.member.identity:
                outcome = "other"
            else:
                outcome = "answered"
            self._by_stream(host, node, lambda: answer(outcome))

        def answer(outcome: Any) -> None:
            if outcome == "refused":
                node.refused.add(effect.member.name)
            self.call(node, lambda swim: swim.streamed(self.now, effect.number, outcome))

        self._by_stream(node, host, ask)

    def _by_stream(self, a: Node, b: Node | None, action: Callable[[], None]) -> None:
        """Over TCP: nothing is lost, a paused process answers when it runs again."""
        cut = self.cut_streams or self.cut
        if b is None or cut(a.name, b.name) or cut(b.name, a.name):
            return

        def arrive() -> None:
            if b.running and self.now < max(b.paused_until, b.held_until):
                b.late.append(action)
            elif a.running and self.now < a.held_until:
                a.late.append(action)
            elif b.running or a.running:
                action()

        self._after(arrive)

    def _note(self, node: Node, effect: MemberChanged) -> None:
        name = effect.member.name
        self.seen.append(Seen(self.now, node.name, effect.event, name, effect.cause))
        if self.check and effect.event == "failed" and effect.before is not None:
            check_verdict(node, effect, self.now)
        if effect.event == "suspected":
            running = node.swim.members()
            count = sum(m.running for m in running)
            node.suspected[name] = (self.now - node.stalled, count)
        elif effect.member.running:
            node.suspected.pop(name, None)

    # Waking.

    def _after(self, action: Callable[[], None]) -> None:
        self._at(self.now + self.rng.uniform(*self.latency), action)

    def _arm(self, node: Node) -> None:
        wake_at = node.swim.wake_at
        if node.running and wake_at != node.woken and wake_at != float("inf"):
            node.woken = wake_at
            self._at(max(wake_at, self.now), lambda: self._tick(node, wake_at))

    def _tick(self, node: Node, planned: float) -> None:
        if not node.running or node.woken != planned:
            return
        if self.now < node.paused_until:
            return
        node.woken = -1.0
        self._obey(node, node.swim.tick(self.now))

    def _release(self, node: Node) -> None:
        """A paused process runs again: first its overdue timer, then what came in."""
        if not node.running or self.now < node.paused_until:
            return
        self._obey(node, node.swim.tick(self.now))
        self._catch_up(node)

    def _flush(self, node: Node) -> None:
        """A process whose messages were held: out goes what waited, then in."""
        if node.running and self.now >= node.held_until:
            outbox, node.outbox = node.outbox, []
            for transmit in outbox:
                transmit()
            self._catch_up(node)

    def _catch_up(self, node: Node) -> None:
        while node.inbox and node.running:
            sender, data = node.inbox.popleft()
            self._deliver(node.address, sender, data)
        late, node.late = node.late, []
        for action in late:
            if node.running:
                action()
