"""Membership by asking: every known address is asked who it is, once per probe interval.

The list starts with the seeds; each answer names further addresses, and whoever asks says where
it can be asked back, so that one common seed is enough for all to meet. The rules:

- a node serves when it knows its cluster: from its data directory, or because every seed has
  answered, or most of them after `FORM_AFTER_S`;
- a new data directory takes an actor that no member has seen under its name;
- a member that was away (or that this node was away from) counts as alive only after bucket
  states were exchanged with it, so nobody serves what was deleted meanwhile;
- a member that refuses connections is dead at once, one that is silent is suspect, then dead.

Liveness picks who is asked first; it never moves ownership.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from dynamo import ports
from dynamo.cluster.facts import by_facts, placed, status
from dynamo.core.ring import Member, Ring
from dynamo.errors import DynamoError, PeerFault, PeerUnreachable
from dynamo.log import make_logger
from dynamo.ports import Liveness, MemberStatus, Replica
from dynamo.storage.facts import BucketTable, Identity
from dynamo.wire import messages
from dynamo.wire.codec import MemberFacts
from dynamo.wire.messages import Hello

FORM_AFTER_S = 5.0
DEAD_AFTER_MISSES = 2
MEMBERS_MAX = 1000

log = make_logger()


@attrs.define(eq=False)
class Peer:
    """Another node, by the address it was found under; `facts` once it has said who it is."""

    address: str
    replica: ports.Peer
    facts: MemberFacts | None = None
    hello: Hello | None = None
    liveness: Liveness = "dead"
    asked: bool = False
    asking: bool = False
    misses: int = 0
    restarts: int = 0


class SeedList:
    """The `ClusterView` of the static list.

    `about_me()` makes this node's own `Hello`. `remote(name, address)` makes a replica to talk
    to. `copies` is N, `interval` and `timeout` are the probe's, in seconds.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        identity: Identity,
        buckets: BucketTable,
        about_me: Callable[[], Hello],
        remote: Callable[[str, str], ports.Peer],
        seeds: Iterable[str],
        copies: int,
        interval: float,
        timeout: float,
    ) -> None:
        self._clock = clock
        self._identity = identity
        self._buckets = buckets
        self._about_me = about_me
        self._remote = remote
        self._copies = copies
        self._interval = interval
        self._timeout = timeout
        me = about_me()
        self.name = me.name
        self._address = me.cluster
        self._seeds = [s for s in dict.fromkeys(seeds) if s != me.cluster]
        self._peers: dict[str, Peer] = {}
        self._by_name: dict[str, Peer] = {}
        self._local: Replica | None = None
        self._watchers: list[Callable[[str, Liveness], None]] = []
        self._timer: IDelayedCall | None = None
        self._started_at = 0.0
        self._trouble = ""
        self._awaiting: tuple[str, ...] = ()
        self._saving = False
        self.joined = False
        self.epoch = 0
        self.ring = Ring((), me.partitions, copies)

    # Life.

    def start(self, local: Replica) -> None:
        """Begins asking. `local` is this node's own replica."""
        self._local = local
        self._started_at = self._clock.seconds()
        for facts in self._identity.members.values():
            if facts.name != self.name:
                self._peer(facts.cluster).facts = facts
                self._by_name[facts.name] = self._peers[facts.cluster]
        for address in self._seeds:
            self._peer(address)
        if self._identity.actor:
            self._rebuild_ring()
        self._refresh()
        self._round()

    def stop(self) -> None:
        """Asks no more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def met(self, address: str) -> None:
        """Somebody asked us and says it can be asked at `address`."""
        known = address == self._address or address in self._peers
        if not known and len(self._peers) < MEMBERS_MAX:
            self._ask(self._peer(address))

    # ClusterView.

    def why_not_joined(self) -> str:
        if self._trouble:
            return self._trouble
        silent = [a for a in self._seeds if self._peers[a].hello is None]
        if silent and not self.joined:
            return f"Waiting for the seeds {', '.join(silent)} to answer."
        return "" if self.joined else "Exchanging bucket lists with the other members."

    def is_healthy(self, name: str) -> bool:
        if name == self.name:
            return True
        peer = self._by_name.get(name)
        return peer is not None and peer.liveness == "alive"

    def replica(self, name: str) -> Replica:
        if name == self.name:
            assert self._local is not None, "start() comes first"
            return self._local
        return self._by_name[name].replica

    def awaiting(self) -> tuple[str, ...]:
        return self._awaiting

    def evidence(self, name: str, ok: bool) -> None:
        peer = self._by_name.get(name)
        if peer is None or ok or peer.liveness != "alive" or peer.asking:
            return
        self._turn(peer, "suspect")
        self._ask(peer)

    def watch(self, changed: Callable[[str, Liveness], None]) -> None:
        self._watchers.append(changed)

    def members(self) -> list[MemberStatus]:
        me = self._about_me()
        found = [status(me, "alive", 0)]
        for name in sorted(self._by_name):
            peer = self._by_name[name]
            if peer.hello is not None:
                found.append(status(peer.hello, peer.liveness, peer.restarts))
            elif peer.facts is not None:
                found.append(status(by_facts(peer.facts), peer.liveness, peer.restarts))
        return sorted(found, key=lambda m: m.name)

    # Asking.

    def _round(self) -> None:
        self._timer = self._clock.callLater(self._interval, self._round)
        for address in sorted(self._peers):
            self._ask(self._peers[address])
        self._form()

    def _peer(self, address: str) -> Peer:
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = Peer(address, self._remote("", address))
        return peer

    def _ask(self, peer: Peer) -> None:
        if not peer.asking:
            peer.asking = True
            asked = Deferred.fromCoroutine(self._converse(peer))
            asked.addErrback(lambda f: log.failure("Asking {a} failed", failure=f, a=peer.address))

    async def _converse(self, peer: Peer) -> None:
        try:
            hello = await peer.replica.hello(self._address, self._timeout)
            if self._accept(peer, hello):
                if peer.liveness != "alive":
                    await self._exchange_buckets(peer, hello)
                self._heard(peer, hello)
        except PeerFault as error:
            self._missed(peer, error)
        finally:
            peer.asking = False
            peer.asked = True
            self._refresh()
        self._form()

    def _accept(self, peer: Peer, hello: Hello) -> bool:
        """Whether the node that answered belongs to this cluster; says why not, once."""
        me = self._about_me()
        if hello.boot == me.boot:
            self._forget(peer)
            return False
        trouble = ""
        if hello.cluster_name != me.cluster_name:
            trouble = (
                f"The node at {peer.address} belongs to cluster {hello.cluster_name!r}, "
                f"not to {me.cluster_name!r}; take it out of cluster.seeds."
            )
        elif hello.partitions != me.partitions or hello.format != me.format:
            trouble = (
                f"The node {hello.name} has cluster.partitions {hello.partitions} and this one "
                f"{me.partitions}; they must be equal on all nodes."
            )
        elif hello.name == self.name:
            trouble = (
                f"Another node, at {peer.address}, is named {hello.name!r} too; "
                f"give each node its own node.name."
            )
        if trouble:
            if trouble != self._trouble:
                log.error("{trouble}", trouble=trouble)
            self._trouble = trouble
            self._missed(peer, PeerUnreachable(hello.name, "is no member of this cluster"))
            return False
        if self._trouble and peer.hello is None:
            self._trouble = ""
        return True

    async def _exchange_buckets(self, peer: Peer, hello: Hello) -> None:
        """Makes both know all that either knows of buckets."""
        if hello.buckets == self._buckets.digest():
            return
        after, done = "", False
        while not done:
            reply = await peer.replica.call(messages.BucketList(after))
            assert isinstance(reply, messages.BucketsReply)
            if reply.buckets:
                await self._buckets.merge(reply.buckets)
                after = reply.buckets[-1].name
            done = reply.done
        ours = [self._buckets.states[name] for name in sorted(self._buckets.states)]
        for i in range(0, len(ours), 500):
            await peer.replica.call(messages.BucketMerge(tuple(ours[i : i + 500])))

    def _heard(self, peer: Peer, hello: Hello) -> None:
        peer.misses = 0
        if peer.hello is not None and peer.hello.boot != hello.boot:
            peer.restarts += 1
        elder = self._by_name.get(hello.name)
        if elder is not None and elder is not peer:
            if elder.liveness == "alive":
                return
            self._peers.pop(elder.address, None)
        peer.hello = hello
        peer.replica.name = hello.name
        before = peer.facts
        actor = hello.actor or (before.actor if before is not None else "")
        peer.facts = MemberFacts(
            hello.name, actor, hello.cluster, hello.api, hello.zone, hello.weight
        )
        self._by_name[hello.name] = peer
        for address in hello.peers:
            self.met(address)
        if before != peer.facts and self._identity.actor:
            self._save()
        if before is None or placed(before) != placed(peer.facts):
            self._rebuild_ring()
        self._turn(peer, "alive")

    def _missed(self, peer: Peer, error: PeerFault) -> None:
        peer.misses += 1
        refused = isinstance(error, PeerUnreachable) and not error.sent
        if refused or peer.misses >= DEAD_AFTER_MISSES:
            self._turn(peer, "dead")
        elif peer.liveness == "alive":
            self._turn(peer, "suspect")

    def _turn(self, peer: Peer, liveness: Liveness) -> None:
        if peer.liveness == liveness or peer.facts is None:
            return
        log.info(
            "{name} is {now} (was {was})", name=peer.facts.name, now=liveness, was=peer.liveness
        )
        peer.liveness = liveness
        self.epoch += 1
        self._refresh()
        for changed in self._watchers:
            changed(peer.facts.name, liveness)

    def _forget(self, peer: Peer) -> None:
        """The address turned out to be this node's own."""
        self._peers.pop(peer.address, None)
        self._seeds = [s for s in self._seeds if s != peer.address]

    # What follows from the answers.

    def _refresh(self) -> None:
        """Whom this node awaits hints from, and whether it may serve."""
        waiting = []
        for name, peer in self._by_name.items():
            if not peer.asked:
                waiting.append(name)
            elif peer.hello is None or peer.liveness == "dead":
                continue
            elif peer.hello.hints.get(self.name, 0):
                waiting.append(name)
        self._awaiting = tuple(sorted(waiting))
        if not self.joined and self._identity.actor and not self._trouble:
            self.joined = all(peer.asked for peer in self._by_name.values())

    def _form(self) -> None:
        """Takes an actor and a place in the cluster, once enough seeds have answered."""
        if self._identity.actor or self._saving or self._trouble:
            return
        answered = [a for a in self._seeds if a in self._peers and self._peers[a].hello]
        waited = self._clock.seconds() - self._started_at >= FORM_AFTER_S
        most = 2 * (len(answered) + 1) > len(self._seeds) + 1
        if len(answered) < len(self._seeds) and not (answered and most and waited):
            return
        self._save(self._unused_actor())

    def _unused_actor(self) -> str:
        """This node's name, or with the next number if members know it under that already."""
        seen = [
            p.hello.actors[self.name]
            for p in self._peers.values()
            if p.hello is not None and p.hello.actors.get(self.name)
        ]
        if not seen:
            return self.name
        highest = max(int(a.rpartition("~")[2]) if "~" in a else 1 for a in seen)
        return f"{self.name}~{highest + 1}"

    def _save(self, actor: str = "") -> None:
        if self._saving:
            return
        self._saving = True
        me = self._about_me()
        known = [p.facts for p in self._by_name.values() if p.facts is not None]
        known.append(
            MemberFacts(
                me.name, actor or self._identity.actor, me.cluster, me.api, me.zone, me.weight
            )
        )
        cluster = f"{me.cluster_name}/{me.partitions}"
        saved = self._identity.save(actor or self._identity.actor, cluster, known)
        saved.addCallbacks(self._saved, self._not_saved)

    def _saved(self, _: None) -> None:
        self._saving = False
        self._trouble = ""
        self._rebuild_ring()
        self._refresh()

    def _not_saved(self, failure: Failure) -> None:
        self._saving = False
        error = failure.value
        self._trouble = str(error) if isinstance(error, DynamoError) else repr(error)
        log.error("The list of members could not be stored: {why}", why=self._trouble)

    def _rebuild_ring(self) -> None:
        if not self._identity.actor:
            return
        me = self._about_me()
        members = [Member(name=me.name, zone=me.zone, weight=me.weight)]
        for peer in self._by_name.values():
            if peer.facts is not None:
                f = peer.facts
                members.append(Member(name=f.name, zone=f.zone, weight=f.weight))
        ring = Ring(members, me.partitions, self._copies)
        if ring.version != self.ring.version:
            self.ring = ring
            self.epoch += 1
            names = ", ".join(sorted(m.name for m in members))
            log.info("The ring has {n} members: {names}", n=len(members), names=names)
