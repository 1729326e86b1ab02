"""What this node knows of each other member, and the conversation it has with one that appears.

Gossip says that a member is there; before the store relies on it, the two have to know the same of
buckets, and this node has to know whether the other keeps hints for it. So a member that appears,
or comes back, is asked once over peer HTTP, bucket states are exchanged, and only then is it well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IReactorTime

from dynamo.core.layout import Layout
from dynamo.core.members import Liveness, Member, Role
from dynamo.core.ring import Member as Placed
from dynamo.errors import DynamoError, PeerBroke, PeerUnreachable
from dynamo.log import make_logger
from dynamo.ports import MemberStatus, Peer
from dynamo.storage.facts import BucketTable
from dynamo.wire import messages
from dynamo.wire.hello import Hello

BUCKETS_AT_ONCE = 500
RETRY_S = 0.5
REASK_S = 0.25
DOUBT_S = 1.0
AT_ONCE = 64
"""Conversations begun at a time: each takes a connection, and in a large cluster a node that starts
has one with each of very many."""

log = make_logger()


@attrs.define(eq=False)
class Known:
    """One other member. `settled`: bucket states were exchanged since it appeared; `asked`: that
    was tried at least once, and since this node was held to be away. `appeared` counts how often
    it did, `missed` how often this node was held to be away.

    `silent`: it was asked the last time, and did not answer. `doubted_until`: a request to it just
    failed; until then it is not relied on. `problem`: why it cannot be a member of this cluster,
    whatever it says by gossip.
    """

    member: Member
    replica: Peer
    hello: Hello | None = None
    settled: bool = False
    asked: bool = False
    silent: bool = False
    asking: Deferred[None] | None = None
    appeared: int = 0
    missed: int = 0
    doubted_until: float = 0.0
    problem: str = ""

    @property
    def running(self) -> bool:
        """Whether gossip believes it to be there."""
        return self.member.running

    def well(self, now: float) -> bool:
        """Whether it may be relied on."""
        alive = self.member.liveness is Liveness.ALIVE
        return self.settled and alive and self.doubted_until <= now

    @property
    def unnamed(self) -> bool:
        """Whether it has not been heard to say under which actor it writes."""
        return self.hello is None or not self.hello.actor


class Peers:
    """All other members by name. `changed(known)` is called when what follows from a member may
    differ, None standing for all of them, `settled(name)` when one that appeared may be relied on.
    `learn(peer, hello)` takes over its layout, if that is later.

    `about_me()` is what this node says of itself, `timeout` for a question in seconds.
    """

    def __init__(
        self,
        *,
        about_me: Callable[[], Hello],
        clock: IReactorTime,
        buckets: BucketTable,
        remote: Callable[[str, str], Peer],
        timeout: float,
        changed: Callable[[Known | None], None],
        settled: Callable[[str], None],
        learn: Callable[[Peer, Hello], Awaitable[None]],
    ) -> None:
        self._learn = learn
        self._mine = about_me()
        self._me = self._mine.name
        self._clock = clock
        self._buckets = buckets
        self._remote = remote
        self._timeout = timeout
        self._changed = changed
        self._settled = settled
        self._stopped = False
        self._turns = DeferredSemaphore(AT_ONCE)
        self.by_name: dict[str, Known] = {}

    def stop(self) -> None:
        """Begins no more conversations."""
        self._stopped = True

    def take(self, member: Member, *, appeared: bool) -> Known:
        """Notes what gossip says of a member; one that `appeared` has to be talked to first."""
        known = self.by_name.get(member.name)
        if known is None or known.member.address != member.address:
            known = Known(member, self._remote(member.name, member.address))
            self.by_name[member.name] = known
        known.member = member
        if appeared:
            known.appeared += 1
            known.settled = False
            known.doubted_until = 0.0
        if member.running and (not known.settled or known.unnamed):
            self.converse(known)
        return known

    def was_away(self) -> None:
        """Others held this node to be away, so any of them may keep hints for it, also those that
        it never missed itself: none counts as asked until it has been asked again."""
        for known in self.by_name.values():
            known.missed += 1
            known.asked = False
            if known.running:
                self.converse(known)
        self._changed(None)

    def forget(self, name: str) -> None:
        """The member is gone for good."""
        self.by_name.pop(name, None)

    def record(self, name: str) -> Member | None:
        """What gossip says of a member."""
        known = self.by_name.get(name)
        return known.member if known is not None else None

    def all_running(self, holds: Callable[[Known], bool]) -> bool:
        """Whether it holds for all that are there."""
        return all(holds(known) for known in self.by_name.values() if known.running)

    def suspected(self) -> list[str]:
        """Members under suspicion now."""
        return [n for n, k in self.by_name.items() if k.member.liveness is Liveness.SUSPECT]

    def why_waiting(self, *, named: bool, joined: bool) -> str:
        """Why this node does not serve yet, in a sentence; it is `named` if it has an actor, and
        `joined` if gossip knows of a cluster."""
        problems = [known.problem for known in self.by_name.values() if known.problem]
        if problems and not named:
            return f"A member {problems[0]}."
        if not joined and not self.by_name:
            return "No seed has answered yet, and no member known from before."
        return "Asking the other members what this node has to know before it serves."

    def founders(self, me: Placed) -> list[Placed]:
        """This node and all that are there, if it is the first of them by name and the others have
        an actor and no layout; else nobody."""
        found = [me]
        for known in self.by_name.values():
            member, said = known.member, known.hello
            if not known.running:
                continue
            if said is None or not said.actor or known.problem or said.layout:
                return []
            if member.name < me.name:
                return []
            found.append(Placed(member.name, member.zone, member.weight))
        return found

    def joiners(self, layout: Layout) -> dict[Placed, bool]:
        """Those that are there and have no part in the layout yet; whether they may be asked for:
        they know who they are and go by this very layout. One that was taken out says so in the
        same breath as that it has heard of it."""
        return {
            Placed(member.name, member.zone, member.weight): (
                not known.unnamed and member.layout == layout.version
            )
            for known in self.by_name.values()
            if (member := known.member).running
            and member.role is Role.JOINING
            and not known.problem
            and not layout.knows(member.name)
        }

    def statuses(self, layout: Layout, heard: Mapping[str, float]) -> list[MemberStatus]:
        """Those that are there or have a part in the layout; `heard`: when each last wrote."""
        now, found = self._clock.seconds(), []
        for name, known in self.by_name.items():
            if known.running or layout.knows(name) or not layout.version:
                since = round(now - heard[name], 3) if name in heard else None
                found.append(status_of(known.member, known.hello, since, layout))
        return found

    def hellos(self) -> list[Hello]:
        """What the others last said of themselves."""
        return [known.hello for known in self.by_name.values() if known.hello is not None]

    def awaiting(self, layout: Layout) -> tuple[str, ...]:
        """Members that keep hints for this node, or may: not asked since they appeared. One that
        is gone cannot be waited for, and one that has no part in the ring keeps none."""
        return tuple(
            sorted(name for name, known in self.by_name.items() if self.awaits(known, layout))
        )

    def awaits(self, known: Known, layout: Layout) -> bool:
        """Whether this member is one of those `awaiting` gives."""
        return (
            known.running
            and layout.knows(known.member.name)
            and (
                (not known.settled and known.member.role is not Role.JOINING)
                or not known.asked
                or bool(known.hello is not None and known.hello.hints.get(self._me, 0))
            )
        )

    def converse(self, known: Known) -> Deferred[None]:
        """Asks a member how it is, and settles bucket states if they differ."""
        if known.asking is None and not self._stopped:
            asking: Deferred[None] = Deferred()
            talked = self._turns.run(self._conversing, known)
            talked.addErrback(lambda f: log.failure("Talking to a member failed", failure=f))
            talked.addCallback(asking.callback)
            known.asking = None if asking.called else asking
        done: Deferred[None] = Deferred()
        if known.asking is None:
            done.callback(None)
        else:
            known.asking.addCallback(lambda _: done.callback(None))
        return done

    def _conversing(self, known: Known) -> Deferred[None]:
        if self._stopped:  # while it waited for its turn
            return succeed(None)
        return Deferred.fromCoroutine(self._converse(known))

    async def _converse(self, known: Known) -> None:
        again, news, appeared, missed = None, False, known.appeared, known.missed
        try:
            hello = await known.replica.hello(self._timeout, asker=self._me)
            known.problem = self._problem(known, hello)
            if known.problem:
                raise PeerBroke(known.member.name, known.problem)
            await self._learn(known.replica, hello)
            if hello.buckets != self._buckets.digest():
                await self._exchange_buckets(known.replica)
            known.hello, known.silent = hello, False
            if known.appeared == appeared:
                news, known.settled = not known.settled, True
                again = REASK_S if hello.hints.get(self._me, 0) or known.unnamed else None
            else:
                again = 0.0  # it went and came back meanwhile
        except DynamoError as error:
            log.debug("{name} was not asked: {why}", name=known.member.name, why=error)
            known.silent = isinstance(error, PeerUnreachable) and error.sent
            again = RETRY_S if known.running else None
        finally:
            known.asking = None
            known.asked = known.missed == missed
            again = again if known.asked or not known.running else 0.0
        self._changed(known)
        if news:
            self._settled(known.member.name)
        if again is not None and not self._stopped:
            self._clock.callLater(again, self._again, known)

    def _problem(self, known: Known, hello: Hello) -> str:
        mine = self._mine
        if hello.name != known.member.name:
            return f"answers as {hello.name!r}"
        if hello.cluster_name != mine.cluster_name:
            return f"belongs to cluster {hello.cluster_name!r}, not to {mine.cluster_name!r}"
        if hello.partitions != mine.partitions:
            return (
                f"has cluster.partitions {hello.partitions} and this node {mine.partitions}; "
                "they must be equal on all nodes"
            )
        if hello.format != mine.format:
            return f"speaks format {hello.format} and this node {mine.format}"
        return ""

    def _again(self, known: Known) -> None:
        here = self.by_name.get(known.member.name) is known
        if here and known.member.liveness <= Liveness.SUSPECT:
            self.converse(known)

    async def _exchange_buckets(self, replica: Peer) -> None:
        """Makes both know all that either knows of buckets."""
        after, done = "", False
        while not done:
            reply = await replica.call(messages.BucketList(after))
            if not isinstance(reply, messages.BucketsReply):
                raise PeerBroke(replica.name, "answered something else to a list of buckets")
            if reply.buckets:
                if reply.buckets[-1].name <= after:
                    raise PeerBroke(replica.name, "lists its buckets in circles")
                await self._buckets.merge(reply.buckets)
                after = reply.buckets[-1].name
            done = reply.done or not reply.buckets
        ours = [self._buckets.states[name] for name in sorted(self._buckets.states)]
        for i in range(0, len(ours), BUCKETS_AT_ONCE):
            await replica.call(messages.BucketMerge(tuple(ours[i : i + BUCKETS_AT_ONCE])))


def status_of(
    member: Member, said: Hello | None, seconds_since: float | None, layout: Layout
) -> MemberStatus:
    """A member's line in `/v1/cluster`, by its record, the layout, and what it last said itself."""
    return MemberStatus(
        name=member.name,
        api=member.api,
        cluster=member.address,
        zone=member.zone,
        weight=member.weight,
        liveness=member.liveness.word,  # type: ignore[arg-type]
        role=layout.role(member.name),
        incarnation=member.incarnation,
        objects=said.objects if said else 0,
        bytes=said.bytes if said else 0,
        hints=sum(said.hints.values()) if said else 0,
        last_heard=seconds_since,
        refill=said.refill if said else None,
    )
