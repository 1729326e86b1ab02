"""The members and the ring, by gossip: the `ClusterView` of a running node.

What gossip says of a member decides who is asked; who owns what follows from the ring alone, in
which every member stays that did not leave for good, whether it is there or not. The rules:

- a node serves when it belongs to a cluster and has an actor: on a new data directory one that no
  member has seen under its name, known once those that are there have answered. Before it begins to
  serve it has asked all of them, and once it has begun, a newcomer makes no difference;
- a member is well when gossip holds it alive, bucket states were exchanged with it since it
  appeared, and no request to it failed a moment ago; suspected or doubted, it is asked but not
  relied on;
- a plain stop is said by gossip, so that nobody takes it for a failure, and changes no ownership.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dynamo.cluster.errands import Errands
from dynamo.cluster.events import Happened, warn
from dynamo.cluster.gossip import Gossip
from dynamo.cluster.owners import Owners, gone
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
from dynamo.core.members import Liveness, Role
from dynamo.core.messages import State
from dynamo.core.probing import Outcome
from dynamo.core.ring import Ring
from dynamo.core.swim import Swim
from dynamo.log import make_logger
from dynamo.ports import Liveness as Word
from dynamo.ports import MemberStatus, Peer, Replica
from dynamo.storage.facts import BucketTable, Identity
from dynamo.wire.datagrams import BadDatagram, Codec, decode_state, encode_state
from dynamo.wire.hello import Hello

EVENTS_KEPT = 100
REFRESH_S = 1.0
SAVE_AGAIN_S = 1.0
APPEARED = frozenset(("joined", "returned", "replaced"))

NOWHERE = "unknown.invalid:1"
"""Stands for an address that cannot be dialled."""

log = make_logger()


class Membership:
    """See the module. `about_me()` makes this node's `Hello`; `swim` is its machine.

    `remote(name, address)` makes a replica to talk to, `copies` is N, `timeout` is for peer HTTP
    among members, in seconds.
    """

    rollback: Rollback | None = None  # the watch over a disk that may have been put back

    def __init__(
        self,
        *,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
        identity: Identity,
        buckets: BucketTable,
        about_me: Callable[[], Hello],
        remote: Callable[[str, str], Peer],
        swim: Swim,
        codec: Codec,
        copies: int,
        timeout: float,
    ) -> None:
        me = about_me()
        self.name = me.name
        self._clock = clock
        self._wall_clock = wall_clock
        self._identity, self._buckets = identity, buckets
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
        self._health: dict[str, tuple[bool, bool]] = {}
        self._saving = False
        self._owners = Owners(me.partitions, copies)
        self.ring: Ring = self._owners.ring
        self._left: Deferred[None] | None = None
        self._awaiting: tuple[str, ...] = ()
        self.epoch = 0
        self.events: deque[Happened] = deque(maxlen=EVENTS_KEPT)
        self.gossip = Gossip(swim, codec, clock, self)
        self._errands = Errands(
            remote=remote, timeout=timeout, cluster=me.cluster_name, dropped=self.gossip.dropped
        )
        self.peers = Peers(
            about_me=about_me,
            clock=clock,
            buckets=buckets,
            remote=self._dial,
            timeout=timeout,
            changed=self._settle,
            settled=self._tell,
        )

    # Life.

    def start(self, local: Replica, seeds: Iterable[str]) -> None:
        """Begins to gossip; the port is open. `local` is this node's own replica."""
        self._local = local
        for member in self._identity.remembered:
            if member.name == self.name or gone(member):
                continue
            if member.liveness is Liveness.LEFT:
                self.peers.take(member, appeared=False)
            else:
                # Alive until shown otherwise: they are asked at once, and gossip corrects it.
                self.peers.take(member.become(Liveness.ALIVE), appeared=True)
        self._rebuild_ring()
        self.gossip.join(list(seeds))
        self._settle()

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
        self.peers.stop()
        self.gossip.stop()

    # ClusterView.

    @property
    def joined(self) -> bool:
        return self._began and not self._trouble

    def why_not_joined(self) -> str:
        if self._trouble:
            return self._trouble
        if self.joined:
            return ""
        if self._contended and not self._swim.joined:
            return self._contended
        problems = [k.problem for k in self.peers.by_name.values() if k.problem]
        if problems and not self._identity.actor:
            return f"A member {problems[0]}."
        if not self._swim.joined and not self.peers.by_name:
            return "No seed has answered yet, and no member known from before."
        return "Asking the other members what this node has to know before it serves."

    def is_healthy(self, name: str) -> bool:
        if name == self.name:
            return True
        known = self.peers.by_name.get(name)
        return (
            known is not None
            and known.settled
            and known.member.liveness is Liveness.ALIVE
            and known.doubted_until <= self._clock.seconds()
        )

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
        return self._awaiting

    def evidence(self, name: str, ok: bool) -> None:
        known = self.peers.by_name.get(name)
        if known is None:
            return
        if not ok:
            now = self._clock.seconds()
            relied_on, known.doubted_until = known.doubted_until <= now, now + DOUBT_S
            if relied_on:
                self._changed_health()
                self._clock.callLater(DOUBT_S, self._doubt_over, known)
                self.gossip.evidence(name, False)
        elif known.member.liveness is Liveness.SUSPECT:
            self.gossip.evidence(name, True)

    def watch(self, changed: Callable[[str, Word], None]) -> None:
        self._watchers.append(changed)

    def members(self) -> list[MemberStatus]:
        now = self._clock.seconds()
        found = [self._my_status()]
        for name, known in self.peers.by_name.items():
            heard = self.gossip.heard.get(name)
            since = None if heard is None else round(now - heard, 3)
            found.append(status_of(known.member, known.hello, since))
        return sorted(found, key=lambda m: m.name)

    async def refresh(self) -> None:
        asked = [self.peers.converse(k) for k in self.peers.by_name.values() if k.running]
        both = DeferredList(asked, consumeErrors=True)
        await both.addTimeout(REFRESH_S, self._clock, lambda result, seconds: None)

    @property
    def health(self) -> int:
        """Gossip's local health score: 0 is well."""
        return self._swim.health

    @property
    def counts(self) -> dict[str, int]:
        """How often something worth a metric happened in gossip."""
        return self._swim.counts

    def suspected(self) -> list[str]:
        """Members under suspicion now."""
        return [n for n, k in self.peers.by_name.items() if k.member.liveness is Liveness.SUSPECT]

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
            if gone(member):
                self.peers.forget(member.name)
            return
        was = self.peers.by_name.get(member.name)
        before = was.member.liveness if was is not None else None
        self.peers.take(member, appeared=effect.event in APPEARED)
        self._rebuild_ring()
        self._changed_health()
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

    def _changed_health(self) -> None:
        self._awaiting = self.peers.awaiting()
        health = {n: (self.is_healthy(n), self.is_doubtful(n)) for n in self.peers.by_name}
        if health != self._health:
            self._health = health
            self.epoch += 1

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
            self._changed_health()

    def _settle(self) -> None:
        """Something was learnt: this node may now be able to take its place."""
        self._changed_health()
        for name, known in self.peers.by_name.items():
            actor = known.hello.actor if known.hello is not None else ""
            if actor and self._identity.actors.get(name) != actor:
                noted = self._identity.note_actor(name, actor)
                noted.addErrback(lambda f: log.error("An actor was not stored: {f}", f=f.value))
        if self._identity.actor:
            if self.rollback and self.rollback.pending(self.peers.hellos(), self._settle):
                return
            somewhere = self._swim.joined or self.peers.by_name
            if somewhere and self._all_running(lambda known: known.asked):
                self._began = True
            if self._swim.me.role is Role.JOINING and self._swim.joined:
                self.gossip.describe(role=Role.ACTIVE)
                self._rebuild_ring()
        elif (
            self._swim.joined
            and not self._saving
            and not self._trouble
            # One that was asked and did not answer may be the one that knows of an actor.
            and self._all_running(lambda known: known.hello is not None and not known.problem)
        ):
            self._save_actor(self._unused_actor())

    def _all_running(self, holds: Callable[[Known], bool]) -> bool:
        return all(holds(known) for known in self.peers.by_name.values() if known.running)

    def _unused_actor(self) -> str:
        """This node's name, or with the next number if members know it under that already."""
        seen = [
            k.hello.actors[self.name]
            for k in self.peers.by_name.values()
            if k.hello is not None and k.hello.actors.get(self.name)
        ]
        return f"{self.name}~{max(_number(a) for a in seen) + 1}" if seen else self.name

    def _save_actor(self, actor: str) -> None:
        me, self._saving = self._about_me(), True
        # By now bucket states were exchanged; where there is no bucket there is nothing to take.
        refill = any(h.joined for h in self.peers.hellos()) and bool(self._buckets.states)
        saved = self._identity.save(actor, f"{me.cluster_name}/{me.partitions}", refill=refill)
        saved.addCallbacks(self._saved, self._not_saved)

    def _saved(self, _: None) -> None:
        self._saving = False
        if not self._stopped:
            self._settle()

    def _not_saved(self, failure: Failure) -> None:
        log.error("What this node is cannot be stored: {why}", why=failure.getErrorMessage())
        self._clock.callLater(SAVE_AGAIN_S, self._saved, None)

    def _rebuild_ring(self) -> None:
        mine = [self._swim.me] if self._identity.actor else []
        if self._owners.update([*mine, *(k.member for k in self.peers.by_name.values())]):
            self.ring = self._owners.ring
            self.epoch += 1

    def _my_status(self) -> MemberStatus:
        return status_of(self._swim.me, self._about_me(), None)


def _number(actor: str) -> int:
    return int(actor.rpartition("~")[2]) if "~" in actor else 1
