"""The layout this node goes by, its vote on the next one, and the steps it takes by itself.

By itself a node founds a cluster with the others that have none, asks to be in the ring, and has a
change of its zone or weight made known. The first member of the ring that is there takes a change
from one layout to the next as soon as everybody is ready for it; if it does not, the second does
(`dynamo.core.layout` says what each step needs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater

from dynamo.cluster.ballots import BACKOFF_S, Ballots
from dynamo.cluster.followers import Followers, Known, Standing
from dynamo.core.agreement import Promise
from dynamo.core.grace import Grace
from dynamo.core.layout import NONE, Layout, with_member
from dynamo.core.members import Role
from dynamo.core.ring import Member as Placed
from dynamo.core.ring import Ring
from dynamo.errors import DynamoError, NotReady
from dynamo.log import make_logger
from dynamo.ports import Replica
from dynamo.storage.agreed import LayoutBook
from dynamo.wire import agreeing
from dynamo.wire.hello import Hello
from dynamo.wire.messages import Op, Reply

TICK_S = 0.5
TRY_S = 3.0
"""How long a node tries to get a layout decided that nobody has asked it for."""
ASK_S, ASK_MAX_S = 1.0, 10.0
"""Seconds a node that joins gives each one before it by name to ask for both; at most."""
YIELD_S = 3.0
"""Seconds each member waits for the ones before it to take the next step."""

Make = Callable[[Layout], Layout | None]

log = make_logger()


class Around(Known, Protocol):
    """What the layouts need to know of the members."""

    def replica(self, name: str) -> Replica:
        """A member's copies, this node's own for its own name."""

    def may_take_part(self) -> bool:
        """Whether this node knows who it is and has spoken with all that are there."""

    def founders(self) -> Sequence[Placed]:
        """Those who found a cluster together if this node begins it; () if it must not."""

    def joiners(self, layout: Layout) -> dict[Placed, bool]:
        """The others that join, and whether they may be asked for."""

    def describe(self, **changes: Any) -> None:
        """Tells by gossip."""

    def layout_changed(self, out: bool) -> None:
        """This node goes by another layout now; `out`: it has no part in it any more."""


class Layouts:
    """See the module. `me` is this node as its configuration places it, `none` an empty ring; `rng`
    draws the birth and the waits.

    `ring`, `beside`: the rings of the layout. `used`: the version by which all that is under way
    here goes; `synced`: the last for which this node holds what it ought to; `floor`: the last that
    all who were there went by at some moment: who goes by less was not seen then, and must not
    write to some of the owners only.
    """

    def __init__(
        self,
        me: Placed,
        none: Ring,
        book: LayoutBook,
        grace: Grace,
        rng: Random,
        clock: IReactorTime,
        around: Around,
    ) -> None:
        self.me = me
        self._book = book
        self._grace = grace
        self._rng = rng
        self._clock = clock
        self._around = around
        self.followers = Followers(me.name, around, self._standing)
        self._ballots = Ballots(me.name, around.replica, clock)
        self._none = none
        self._birth = rng.getrandbits(48)
        self._synced_for: tuple[Placed, ...] = ()
        self._ready_since: tuple[int, float] = (0, 0.0)
        self._asks_since: tuple[int, float] = (0, 0.0)
        self._timer: IDelayedCall | None = None
        self._busy = self._fetching = self._stopped = self._poked = False
        self.layout = NONE
        self.ring = self._none
        self.beside: Ring | None = None
        self.synced = 0
        self._take(book.layout)
        self.used = book.layout.version
        self.floor = 0

    # Life.

    def start(self) -> None:
        """Begins to look what there is to do, now and then."""
        self._tick()

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def poke(self) -> None:
        """Something has changed: looks at once."""
        if self._timer is not None and self._timer.active() and not self._poked:
            self._poked = True
            self._timer.reset(0)

    # What others ask and tell.

    def handlers(self) -> dict[type[Op], Callable[..., Reply | Deferred[Reply]]]:
        """For `dynamo.replica.local.LocalReplica.handlers`."""
        return {
            agreeing.LayoutRead: lambda op: agreeing.LayoutReply(self.layout),
            agreeing.LayoutPrepare: lambda op: self._vote(
                op.version, lambda p: p.prepare(op.ballot)
            ),
            agreeing.LayoutAccept: lambda op: self._vote(
                op.value.version, lambda p: p.accept(op.ballot, op.value)
            ),
            agreeing.LayoutLearn: self._learn,
        }

    def _vote(self, version: int, change: Callable[[Promise], Promise | None]) -> Deferred[Reply]:
        if not self._book.identity.actor:
            # It is not known yet whether what was promised was lost with a disk.
            return succeed(agreeing.LayoutReply(self.layout, yes=False))
        voted = self._book.vote(version, change)
        return voted.addCallback(lambda said: agreeing.vote(self.layout, *said))

    def _learn(self, op: agreeing.LayoutLearn) -> Deferred[Reply]:
        adopted = Deferred.fromCoroutine(self.adopt(op.layout))
        return adopted.addCallback(lambda _: agreeing.LayoutReply(self.layout))

    def heard(self, name: str, version: int) -> None:
        """A member goes by this version: if it is later than the one here, it is fetched."""
        if version > self.layout.version and not self._fetching and not self._stopped:
            self._fetching = True
            fetched = Deferred.fromCoroutine(self.fetch(self._around.replica(name)))
            fetched.addErrback(lambda f: log.debug("No layout from {n}: {f}", n=name, f=f.value))
            fetched.addBoth(self._fetched)

    def _fetched(self, _: object) -> None:
        self._fetching = False

    async def learn(self, replica: Replica, hello: Hello) -> None:
        """Takes over a member's layout, if by what it says of itself it is the later one."""
        if (hello.layout, hello.birth) > self.layout.order:
            await self.fetch(replica)

    async def fetch(self, replica: Replica) -> None:
        """Takes over a member's layout, if it is the later one. Raises what asking it does."""
        reply = await replica.call(agreeing.LayoutRead())
        if isinstance(reply, agreeing.LayoutReply):
            await self.adopt(reply.layout)

    async def adopt(self, layout: Layout) -> None:
        """Goes by a decided layout from now on, if it is later than the present one. Raises
        `NotReady` if it cannot be stored.

        Whoever waits may go away, as a client does that asked for a change: what is on its way to
        the disk gets there, and this node would never go by what it holds there already.
        """
        done: Deferred[None] = Deferred()
        Deferred.fromCoroutine(self._adopt(layout)).chainDeferred(done)
        await done

    async def _adopt(self, layout: Layout) -> None:
        old, me = self.layout, self.me.name
        if layout.order <= old.order or self._stopped:
            return
        same = old.birth == layout.birth
        gains = (
            bool(old.version)
            and bool(self._around.classes())
            and layout.in_ring(me)
            and layout.members != (old.members if same else ())
            and layout.members != self._synced_for
        )
        out = same and old.knows(me) and not layout.knows(me)
        try:
            forgot = not self._book.identity.actor and layout.knows(me)
            news = await self._book.adopt(layout, refill=gains, out=out, forgot=forgot)
        except Exception as error:
            raise NotReady(f"{me} cannot store a layout of the ring: {error}") from error
        if news and not self._stopped:
            self._take(layout)
            self.say()
            self._around.layout_changed(self._book.out)
            self.poke()

    # What this node says.

    def sync_done(self, version: int) -> None:
        """This node holds what it needs for the coming ring of this layout."""
        if version == self.layout.version and self.layout.stage == "coming":
            self.synced, self._synced_for = version, self.layout.beside
            self.poke()

    def _standing(self) -> Standing:
        used = 0 if self._book.identity.refilling else self.used
        return Standing(used, self.synced, self.ring, self.beside)

    def uses(self, name: str) -> int:
        """The version by which a member says it goes, 0 if it is not known."""
        return self.followers.uses(name)

    def has_synced(self, name: str) -> int:
        """The version for which a member says it holds what it ought to."""
        return self.followers.has_synced(name)

    def waits_for(self) -> list[str]:
        """Why the next step of a change is not taken yet, in sentences."""
        return self.followers.waits_for(self.layout)

    async def propose(self, make: Make, patience: float) -> Layout:
        """Has the layout that `make` gives for the present one decided; returns the one in force.

        `make` gives None where there is nothing to do, and may raise. Raises `NotReady` if too few
        members agree within `patience` seconds, or some that are there go by an earlier one still.
        """
        until, tries = self._clock.seconds() + patience, 0
        while True:
            if self._book.out:
                # What it believes of the others is from when it was one of them.
                raise NotReady(f"{self.me.name} is not in the ring any more.")
            base = self.layout
            value = make(base)
            if value is None:
                return base
            late = self.followers.late(base)
            decided = None if late else await self._ballots.hold(base, value)
            if decided is not None:
                await self.adopt(decided)
                self._tell(base, decided)
            if decided == value:
                return value
            if self._clock.seconds() >= until or self._stopped:
                if late:
                    why = f"layout {base.version} of the ring"
                    raise NotReady(f"{', '.join(late)} must go by {why} first; try again soon.")
                raise NotReady(
                    "Most members of the ring have to agree to change it, and too few did: "
                    f"{self._ballots.why}."
                )
            tries += 1
            if decided is None:
                wait = self._rng.uniform(0.5, 1) * min(tries, 5) * BACKOFF_S
                await deferLater(self._clock, wait)  # type: ignore[arg-type]

    # What it does by itself.

    def _take(self, layout: Layout) -> None:
        self.layout = layout
        known = {self.ring.members: self.ring}
        if self.beside is not None:
            known[self.beside.members] = self.beside
        before = self.ring
        self.ring = self._ring(layout.members, known)
        self.beside = self._ring(layout.beside, known) if layout.beside else None
        self._mark = self._grace.mark()
        if self.ring.members != before.members:
            names = ", ".join(m.name for m in self.ring.members)
            log.info("The ring has {n} members: {names}", n=len(self.ring.members), names=names)
        if layout.stage == "coming":
            names = ", ".join(m.name for m in layout.beside)
            log.info("The ring is to have {n}: {names}", n=len(layout.beside), names=names)

    def _ring(self, members: tuple[Placed, ...], known: dict[tuple[Placed, ...], Ring]) -> Ring:
        ring = known.get(members)
        return ring or Ring(members, self._none.partitions, self._none.copies)

    def _tick(self) -> None:
        if self._stopped or self._book.out:
            return
        self._poked = False
        self._timer = self._clock.callLater(TICK_S, self._tick)
        self.say()
        self.followers.tell(self.layout, self._clock.seconds())
        make = None if self._busy or not self._around.may_take_part() else self._wanted()
        if make is not None:
            self._busy = True
            proposed = Deferred.fromCoroutine(self.propose(make, TRY_S))
            proposed.addErrback(self._not_decided)
            proposed.addBoth(self._proposed)

    def say(self) -> None:
        """Tells by gossip where this node stands."""
        layout = self.layout
        # Who has no part in it any more does not go by it: what it still sends, a hint from before
        # it was removed say, others have to refuse, for they may have buried what it knows.
        if not self._book.out and self.used < layout.version and self._grace.passed(self._mark):
            self.used = layout.version
        if self.floor < layout.version and self.followers.all_use(layout):
            self.floor = layout.version
        named = self._book.identity.actor != ""
        role = Role.ACTIVE if named and layout.in_ring(self.me.name) else Role.JOINING
        role = Role.LEAVING if self._book.out else role  # or others might ask for it as a joiner
        self._around.describe(layout=self.uses(self.me.name), synced=self.synced, role=role)

    def _wanted(self) -> Make | None:
        """The next layout, if it is this node's to propose."""
        layout, me = self.layout, self.me
        if not layout.version:
            founders = self._around.founders()
            return (lambda base: _found(base, founders, self._birth)) if founders else None
        mine = [m for m in layout.next_members if m.name == me.name]
        leaving = layout.in_ring(me.name) and not mine
        if layout.stage != "going" and not leaving and mine != [me]:
            may = self._may_ask_now(layout)
            return (lambda base: self._place(base, layout.version)) if may else None
        if layout.stage == "steady" and not self._book.identity.refilling:
            forgot = self._book.forgot_until > layout.version
            return (lambda base: _renew(base, layout.version)) if forgot else None
        ready = layout.stage != "steady" and self.followers.all_ready(layout)
        if not ready or not self._is_my_turn():
            return None
        return lambda base: _step(base, layout.version)

    def _place(self, base: Layout, version: int) -> Layout | None:
        """This node where its configuration puts it, and those with it that join as well."""
        if base.version != version:
            return None
        members = with_member(base.next_members, self.me)
        for joiner, ready in self._around.joiners(base).items():
            members = with_member(members, joiner) if ready else members
        return base.change(members)

    def _may_ask_now(self, layout: Layout) -> bool:
        """Of many that join the first by name asks for all, when it had time to hear of them, and
        the next one some time later."""
        now, turns = self._clock.seconds(), 0
        joiners = {} if layout.knows(self.me.name) else self._around.joiners(layout)
        if joiners:
            turns = 1 + sum(m.name < self.me.name for m, ready in joiners.items() if ready)
        if self._asks_since[0] != layout.version:
            self._asks_since = (layout.version, now)
        return now >= self._asks_since[1] + min(ASK_S * turns, ASK_MAX_S)

    def _is_my_turn(self) -> bool:
        """The first member that is there takes the step; the others give it time."""
        now, version = self._clock.seconds(), self.layout.version
        if self._ready_since[0] != version:
            self._ready_since = (version, now)
        there = [m.name for m in self.layout.members if self.followers.is_there(m.name)]
        if self.me.name not in there:
            return False
        return now >= self._ready_since[1] + YIELD_S * there.index(self.me.name)

    def _tell(self, base: Layout, layout: Layout) -> None:
        """Whoever does not hear it now hears it by gossip."""
        for name in sorted({*base.names(), *layout.names()} - {self.me.name}):
            if self.followers.is_there(name):
                told = self._around.replica(name).call(agreeing.LayoutLearn(layout))
                told.addErrback(lambda f: f.trap(DynamoError) and None)

    def _not_decided(self, failure: Any) -> None:
        failure.trap(DynamoError)
        log.info("The ring is not changed for now: {why}", why=failure.getErrorMessage())

    def _proposed(self, result: Any) -> Any:
        self._busy = False
        self.poke()
        return result


def _found(base: Layout, founders: Sequence[Placed], birth: int) -> Layout | None:
    return None if base.version else base.found(founders, birth)


def _renew(base: Layout, version: int) -> Layout | None:
    return base.renew() if base.version == version else None


def _step(base: Layout, version: int) -> Layout | None:
    if base.version != version:
        return None
    return base.switch() if base.stage == "coming" else base.end()
