"""The members and the ring, by gossip: the `ClusterView` of a running node.

What gossip says of a member decides who is asked; who owns what follows from the layout alone, on
which the members agree (`dynamo.cluster.layouts`). The rules:

- a node serves when it knows the layout and has an actor: on a new data directory one that no
  member has seen under its name, known once those that are there have answered. Before it begins to
  serve it has asked all of them, and once it has begun, a newcomer makes no difference;
- a member is well when gossip holds it alive, bucket states were exchanged with it since it
  appeared, and no request to it failed a moment ago; suspected or doubted, it is asked but not
  relied on;
- a plain stop is said by gossip, so that nobody takes it for a failure, and changes no ownership.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from dynamo.cluster.errands import Errands
from dynamo.cluster.events import Happened, warn
from dynamo.cluster.gossip import Gossip
from dynamo.cluster.health import Health
from dynamo.cluster.layouts import Layouts
from dynamo.cluster.naming import Naming
from dynamo.cluster.peers import DOUBT_S, Known, Peers, status_of
from dynamo.cluster.rollback import Rollback
from dynamo.core.effects import (
    ExchangeState,
    MemberChanged,
    Notice,
    PersistMembers,
    ProbeByStream,
    Stopped,
)
from dynamo.core.grace import Grace
from dynamo.core.layout import Layout
from dynamo.core.members import Liveness, Member
from dynamo.core.messages import State
from dynamo.core.probing import Outcome
from dynamo.core.ring import Member as Placed
from dynamo.core.ring import Ring
from dynamo.core.swim import Swim
from dynamo.log import make_logger
from dynamo.ports import Liveness as Word
from dynamo.ports import MemberStatus, Peer, Replica
from dynamo.storage.agreed import LayoutBook
from dynamo.storage.facts import BucketTable, Identity
from dynamo.wire.datagrams import BadDatagram, Codec, decode_state, encode_state
from dynamo.wire.hello import Hello

EVENTS_KEPT = 100
REFRESH_S = 1.0
APPEARED = frozenset(("joined", "returned", "replaced"))
NOWHERE = "unknown.invalid:1"
"""Stands for an address that cannot be dialled."""

log = make_logger()


class Membership:
    """See the module. `about_me()` makes this node's `Hello`; `swim` is its machine.

    `remote(name, address)` makes a replica to talk to, `copies` is N, `timeout` is for peer HTTP
    among members, in seconds. `grace` knows what is under way here, `rng` is for the layouts.
    """

    rollback: Rollback | None = None  # the watch over a disk that may have been put back
    on_change: Callable[[], object] = staticmethod(lambda: None)  # of the layout, or who goes by it
    on_left: Callable[[], object] = staticmethod(lambda: None)  # it has left the ring for good

    def __init__(
        self,
        *,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
        identity: Identity,
        buckets: BucketTable,
        book: LayoutBook,
        about_me: Callable[[], Hello],
        remote: Callable[[str, str], Peer],
        swim: Swim,
        codec: Codec,
        copies: int,
        timeout: float,
        grace: Grace,
        rng: Random,
    ) -> None:
        me = about_me()
        self.name = me.name
        self._clock, self._wall_clock = clock, wall_clock
        self._identity, self._buckets = identity, buckets
        self._book = book
        self._about_me = about_me
        self._remote = remote
        self._swim = swim
        self._cluster = me.cluster_name
        self._local: Replica | None = None
        self._watchers: list[Callable[[str, Word], None]] = []
        self._trouble = ""
        self._contended = ""
        self._began = False
        self._stopped = False
        placed = Placed(me.name, me.zone, me.weight)
        none = Ring((), me.partitions, copies)
        self.layouts = Layouts(placed, none, book, grace, rng, clock, self)
        self.ring: Ring = self.layouts.ring
        self.beside: Ring | None = self.layouts.beside
        self._naming = Naming(identity, about_me, clock, self._named, rng)
        self._left: Deferred[None] | None = None
        self.epoch = 0
        self.events: deque[Happened] = deque(maxlen=EVENTS_KEPT)
        self.gossip = Gossip(swim, codec, clock, self)
        self._errands = Errands(
            remote=remote, timeout=timeout, cluster=me.cluster_name, dropped=self.gossip.dropped
        )
        self.peers = self._make_peers(timeout)
        self._health = Health(self.peers)

    def _make_peers(self, timeout: float) -> Peers:
        return Peers(
            about_me=self._about_me,
            clock=self._clock,
            buckets=self._buckets,
            remote=self._dial,
            timeout=timeout,
            changed=self._settle,
            settled=self._tell,
            learn=self.layouts.learn,
        )

    # Life.

    def start(self, local: Replica, seeds: Iterable[str]) -> None:
        """Begins to gossip; the port is open. `local` is this node's own replica."""
        self._local = local
        for member in self._identity.remembered:
            if member.name == self.name or member.gone:
                continue
            if member.liveness is Liveness.LEFT:
                self.peers.take(member, appeared=False)
            else:
                # Alive until shown otherwise: they are asked at once, and gossip corrects it.
                self.peers.take(member.become(Liveness.ALIVE), appeared=True)
        self.gossip.join(list(seeds))
        self._settle()
        self.layouts.start()

    def leave(self) -> Deferred[None]:
        """Says by gossip that this process stops; fires when it was said."""
        if self._left is None:
            self._left = Deferred()
            self.gossip.leave()
            if self._swim.wake_at == float("inf") and not self._left.called:
                self._left.callback(None)
        return self._left

    def stop(self) -> None:
        """Ends everything."""
        self._stopped = True
        self.layouts.stop()
        self.peers.stop()
        self.gossip.stop()

    # ClusterView.

    @property
    def layout(self) -> Layout:
        return self.layouts.layout

    @property
    def joined(self) -> bool:
        return self._began and not self._trouble and self.layout.version > 0

    def why_not_joined(self) -> str:
        if self._trouble:
            return self._trouble
        if self.joined:
            return ""
        if self._contended and not self._swim.joined:
            return self._contended
        if self._began and not self.layout.version:
            return "No cluster is founded yet: the first by name of those that are there does it."
        return self.peers.why_waiting(named=bool(self._identity.actor), joined=self._swim.joined)

    def is_healthy(self, name: str) -> bool:
        if name == self.name:
            return True
        known = self.peers.by_name.get(name)
        return known is not None and known.well(self._clock.seconds())

    def is_doubtful(self, name: str) -> bool:
        known = self.peers.by_name.get(name)
        return known is not None and known.running and not self.is_healthy(name)

    def replica(self, name: str) -> Replica:
        if name == self.name:
            assert self._local is not None, "start() comes first"
            return self._local
        known = self.peers.by_name.get(name)
        return known.replica if known is not None else self._dial(name, NOWHERE)

    def awaiting(self) -> tuple[str, ...]:
        return self._health.awaiting()

    def evidence(self, name: str, ok: bool) -> None:
        known = self.peers.by_name.get(name)
        if known is None:
            return
        if not ok:
            now = self._clock.seconds()
            relied_on, known.doubted_until = known.doubted_until <= now, now + DOUBT_S
            if relied_on:
                self._look(known)
                self._clock.callLater(DOUBT_S, self._doubt_over, known)
                self.gossip.evidence(name, False)
        elif known.member.liveness is Liveness.SUSPECT:
            self.gossip.evidence(name, True)

    def watch(self, changed: Callable[[str, Word], None]) -> None:
        self._watchers.append(changed)

    def members(self) -> list[MemberStatus]:
        mine = status_of(self._swim.me, self._about_me(), None, self.layout)
        others = self.peers.statuses(self.layout, self.gossip.heard)
        return sorted([mine, *others], key=lambda m: m.name)

    async def refresh(self) -> None:
        asked = [self.peers.converse(k) for k in self.peers.by_name.values() if k.running]
        both = DeferredList(asked, consumeErrors=True)
        await both.addTimeout(REFRESH_S, self._clock, lambda result, seconds: None)

    def suspected(self) -> list[str]:
        """Members under suspicion now."""
        return self.peers.suspected()

    # Surroundings of the gossip machine.

    def save_incarnation(self, incarnation: int) -> Deferred[None]:
        return self._identity.save_incarnation(self._swim.me.identity, incarnation)

    def save_members(self, effect: PersistMembers) -> None:
        saved = self._identity.save_remembered(effect.members)
        saved.addErrback(lambda f: log.error("Members not stored: {f}", f=f.value))

    def probe(self, effect: ProbeByStream) -> Deferred[Outcome]:
        return self._errands.probe(effect.member)

    def exchange(self, effect: ExchangeState, state: State) -> Deferred[State]:
        return self._errands.exchange(effect, state).addCallback(self._met)

    def answer_exchange(self, body: bytes) -> bytes:
        """Takes another's full state and gives this node's. Raises `BadDatagram`."""
        try:
            remote = decode_state(body, self._cluster)
        except BadDatagram as bad:
            self.gossip.dropped[bad.reason] += 1
            raise
        self.gossip.exchanged(remote, None)
        return encode_state(self.gossip.state())

    def changed(self, effect: MemberChanged) -> None:
        member = effect.member
        happened = Happened(self._wall_clock(), member.name, effect.event, effect.cause)
        happened.write()
        self.events.append(happened)
        if effect.event == "reaped":
            if member.gone:
                self.peers.forget(member.name)
                self.epoch += self._health.forget(member.name)
            return
        was = self.peers.by_name.get(member.name)
        before = was.member.liveness if was is not None else None
        self._look(self.peers.take(member, appeared=effect.event in APPEARED))
        self.layouts.heard(member.name, member.layout)
        self.layouts.poke()
        self.on_change()
        if before is not member.liveness:
            self._tell(member.name)

    def noticed(self, effect: Notice) -> None:
        warn(effect)
        if effect.code == "refuted":
            self.peers.was_away()
        if effect.code == "name_contended":
            self._contended = f"Another live node at {effect.detail} is named {effect.name!r} too."

    def stopped(self, effect: Stopped) -> None:
        if effect.cause == "name_taken":
            where = f" at {effect.winner.address}" if effect.winner is not None else ""
            self._trouble = f"The name {self.name!r} belongs to another node{where}."
            log.critical("{why} This node serves no more.", why=self._trouble)
        elif self._left is not None and not self._left.called:
            self._left.callback(None)

    # What follows.

    def _dial(self, name: str, address: str) -> Peer:
        try:
            return self._remote(name, address)
        except ValueError as error:
            log.warn("{name} has no address to dial: {why}", name=name, why=error)
            return self._remote(name, NOWHERE)

    def _look(self, known: Known | None) -> None:
        """What follows from a member may differ now; None: from any of them."""
        now = self._clock.seconds()
        if known is None:
            self.epoch += self._health.look_at_all(self.layout, now)
        else:
            self.epoch += self._health.look(known, now)

    def _met(self, remote: State) -> State:
        """A full exchange is a chance to find bucket states that were missed."""
        known = self.peers.by_name.get(remote.origin.name)
        if known is not None and known.settled:
            self.peers.converse(known)
        return remote

    def _tell(self, name: str) -> None:
        known = self.peers.by_name.get(name)
        for watcher in self._watchers if known is not None else ():
            watcher(name, known.member.liveness.word)  # type: ignore[union-attr, arg-type]

    def _doubt_over(self, known: Known) -> None:
        left = known.doubted_until - self._clock.seconds()
        if left > 0:
            self._clock.callLater(left, self._doubt_over, known)
        else:
            self._look(known)

    def _settle(self, one: Known | None = None) -> None:
        """Something was learnt, of `one` or of any: this node may be able to take its place."""
        self._look(one)
        learnt = [one] if one is not None else self.peers.by_name.values()
        for hello in (hellos := [known.hello for known in learnt if known.hello is not None]):
            self._naming.note(hello.name, hello.actor)
        if self._identity.actor:
            somewhere, began = self._swim.joined or self.peers.by_name, self._began
            ready = began or (somewhere and self.peers.all_running(lambda known: known.asked))
            silent = ready and not began and not self.peers.all_running(lambda k: not k.silent)
            if self.rollback and self.rollback.pending(hellos, self._settle, silent=bool(silent)):
                return
            if ready:
                self._began = True
                if not began or not self.layout.version:
                    self.layouts.poke()
        elif (
            self._swim.joined
            and not self._trouble
            # One that was asked and did not answer may be the one that knows of an actor.
            and self.peers.all_running(lambda known: known.hello is not None and not known.problem)
        ):
            # By now bucket states and the layout are known; where there is no bucket there is
            # nothing to take back, and a newcomer takes what it needs before it owns it.
            lost = self.layout.knows(self.name) and bool(self.classes())
            self._naming.draw(self.peers.hellos(), self.layout.names(), refill=lost)

    def _named(self) -> None:
        if not self._stopped:
            self._settle()

    # Surroundings of the layouts.

    def record(self, name: str) -> Member | None:
        return self.peers.record(name)

    def may_take_part(self) -> bool:
        return self._began and not self._trouble and self._swim.joined

    def classes(self) -> frozenset[int]:
        return self._buckets.classes(self.ring.copies) if self._buckets.states else frozenset()

    def founders(self) -> Sequence[Placed]:
        return self.peers.founders(self.layouts.me)

    def joiners(self, layout: Layout) -> dict[Placed, bool]:
        return self.peers.joiners(layout)

    def describe(self, **changes: Any) -> None:
        if not self._stopped and self._left is None:
            self.gossip.describe(**changes)

    def layout_changed(self, out: bool) -> None:
        self.ring, self.beside = self.layouts.ring, self.layouts.beside
        self._look(None)
        self.epoch += 1
        self.on_change()
        if out:
            self._trouble = (
                f"{self.name} is not in the ring any more, for it left or was removed; others hold "
                "its data, and with an empty data_dir it can join anew."
            )
            log.info("{why}", why=self._trouble)
            self.on_left()
