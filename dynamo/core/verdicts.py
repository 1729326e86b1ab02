"""What this member believes of the others, and how evidence changes it (SWIM §4.2).

A record of higher order than the one held replaces it, and nothing else does. Only a record that
says "alive" adds a member; in a full exchange (where the whole view of another is taken over)
also a suspect, dead or stopped one, and there a "dead" about a member believed to run is taken as
a mere suspicion, so that it can refute. A verdict of death by this member follows a suspicion that
ran out, with one exception: the member's address answered as somebody else.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dynamo.core import suspicion
from dynamo.core.dissemination import Post
from dynamo.core.effects import Event
from dynamo.core.local import Local
from dynamo.core.members import Liveness, Member, Role, Update
from dynamo.core.suspicion import Suspicion
from dynamo.core.table import Entry, Table

SUSPICION = "suspicion"

MEMBERS_MAX = 10_000
"""Records held; beyond it newcomers are not taken in."""


class Verdicts:
    """Applies evidence about others to the table. `on_suspected` is told of each member that
    becomes suspect by the word of others."""

    def __init__(self, local: Local, table: Table, post: Post) -> None:
        self._local = local
        self._table = table
        self._post = post
        self._suspicions: dict[str, Suspicion] = {}
        self.on_suspected: Callable[[Entry], None] = lambda entry: None

    def learn(self, update: Update, cause: str, *, exchange: bool = False) -> None:
        """Evidence from outside about another member."""
        heard = update.member
        entry = self._table.get(heard.name)
        if entry is None:
            self._meet(update, cause, exchange)
            return
        if exchange and heard.liveness is Liveness.DEAD and entry.member.running:
            heard = heard.become(Liveness.SUSPECT)
        if heard.order > entry.member.order:
            self._accept(entry, heard, update.source, cause)
            if heard.liveness is Liveness.SUSPECT:
                self.on_suspected(entry)
        elif heard.order == entry.member.order:
            self._confirm(entry, update.source)
        elif heard.liveness is Liveness.ALIVE:
            self._answer_stale(entry)

    def suspect(self, entry: Entry, *, refused: bool) -> None:
        """This member's own probe found nobody, or a port that `refused`."""
        me, name = self._local.me.name, entry.member.name
        if entry.member.liveness is Liveness.ALIVE:
            cause = "its port refuses" if refused else "no answer"
            self._accept(entry, entry.member.become(Liveness.SUSPECT), me, cause)
        else:
            self._confirm(entry, me)
        running = self._suspicions.get(name)
        if refused and running is not None:
            running.refuse(self._local.settings.refused_share)
            self._time(name, running)

    def bury(self, entry: Entry, cause: str) -> None:
        """Somebody else answers at the member's address: this incarnation is over."""
        if entry.member.running:
            me = self._local.me.name
            self._accept(entry, entry.member.become(Liveness.DEAD), me, cause)

    def remove(self, entry: Entry, cause: str) -> None:
        """An operator takes a dead member out for good."""
        if entry.member.liveness is Liveness.DEAD:
            me = self._local.me.name
            left = msgspec.structs.replace(entry.member, liveness=Liveness.LEFT, role=Role.LEAVING)
            self._accept(entry, left, me, cause)

    def remember(self, member: Member) -> None:
        """A record from this node's own disk. What was left or dead is so still; what ran is
        suspected, without a word to others, until it is heard of or the suspicion runs out."""
        cause = "known from before the start"
        if not member.running:
            self._table.put(member, self._local.now)
            if member.liveness is Liveness.DEAD:
                self._local.changed("failed", member, None, cause)
            return
        alive, suspected = member.become(Liveness.ALIVE), member.become(Liveness.SUSPECT)
        self._table.put(alive, self._local.now)
        self._local.changed("joined", alive, None, cause)
        self._begin(self._table.put(suspected, self._local.now))
        self._local.changed("suspected", suspected, alive, "not heard of since the start")

    def expire(self, name: str) -> None:
        """A suspicion ran out. If the member answered this node meanwhile, the refutation is
        still on its way: it has until the shortest time-out after that answer."""
        entry, running = self._table.get(name), self._suspicions.get(name)
        assert entry is not None, "who is suspected is known"
        assert running is not None, "who is timed is suspected"
        again = min(entry.vouched + running.low, running.start + running.high)
        answered = self._local.settings.lifeguard and entry.vouched > running.start
        if answered and again > self._local.now:
            self._local.timers.set((SUSPICION, name), again)
            self.on_suspected(entry)
            return
        count = len(running.confirmers)
        seconds = self._local.now - running.start
        dead = entry.member.become(Liveness.DEAD)
        cause = f"suspected for {seconds:.2f} s, confirmed by {count}"
        self._accept(entry, dead, self._local.me.name, cause)

    def shift(self, seconds: float) -> None:
        """This process did not run for so long; suspicions do not count the time."""
        for running in self._suspicions.values():
            running.shift(seconds)

    def reap(self) -> None:
        """Forgets those that left long ago, and the oldest of too many left or dead. One that was
        only stopped owns data as before, and is not forgotten for the time it is away."""
        settings, now = self._local.settings, self._local.now
        for liveness in (Liveness.LEFT, Liveness.DEAD):
            ended = [e for e in self._table if e.member.liveness is liveness]
            ended.sort(key=lambda e: (_stopped(e.member), e.since, e.member.name))
            surplus = len(ended) - settings.tombstone_max
            for place, entry in enumerate(ended):
                old = liveness is Liveness.LEFT and now - entry.since > settings.tombstone_seconds
                if place < surplus or (old and not _stopped(entry.member)):
                    self._table.remove(entry.member.name)
                    self._post.rumours.forget(entry.member.name)
                    self._local.changed("reaped", entry.member, entry.member, "forgotten")

    def _meet(self, update: Update, cause: str, exchange: bool) -> None:
        heard = update.member
        if len(self._table) >= MEMBERS_MAX:
            self._local.count("members_full")
            return
        if exchange and (heard.liveness is Liveness.DEAD or _stopped(heard)):
            self._table.put(heard, self._local.now)
            self._local.changed(_EVENTS[heard.liveness], heard, None, cause)
            self._bound(heard)
        elif heard.liveness is Liveness.ALIVE or (heard.running and exchange):
            entry = self._table.put(heard.become(Liveness.ALIVE), self._local.now)
            self._post.spread(Update(entry.member))
            self._local.changed("joined", entry.member, None, cause)
            if heard.liveness is Liveness.SUSPECT:
                self._accept(entry, heard, update.source, cause)

    def _accept(self, entry: Entry, heard: Member, source: str, cause: str) -> None:
        """The only place where what is held about a known member changes."""
        before = entry.member
        self._local.timers.cancel((SUSPICION, before.name))
        self._suspicions.pop(before.name, None)
        self._table.put(heard, self._local.now)
        entry.accuser = "" if heard.liveness is Liveness.ALIVE else source
        if heard.liveness is Liveness.SUSPECT:
            self._begin(entry)
        self._post.spread(Update(heard, entry.accuser))
        event = _event(before, heard)
        if event is not None:
            self._local.changed(event, heard, before, cause)
        self._bound(heard)

    def _bound(self, member: Member) -> None:
        if not member.running:
            most = self._local.settings.tombstone_max
            if self._table.count(member.liveness) > most + most // 4:
                self.reap()

    def _begin(self, entry: Entry) -> None:
        local = self._local
        running = suspicion.suspect(
            local.settings, local.now, self._table.running, entry.accuser or local.me.name
        )
        self._suspicions[entry.member.name] = running
        self._time(entry.member.name, running)

    def _time(self, name: str, running: Suspicion) -> None:
        """A suspicion that was shortened into the past ends now."""
        self._local.timers.set((SUSPICION, name), max(running.ends, self._local.now))

    def _confirm(self, entry: Entry, source: str) -> None:
        running = self._suspicions.get(entry.member.name)
        if running is not None and running.confirm(source):
            self._time(entry.member.name, running)
            self._post.spread(Update(entry.member, source))

    def _answer_stale(self, entry: Entry) -> None:
        """Old news that a member is well, after it was accused: whoever sends that needs the
        accusation, and the member itself must hear it to refute it."""
        patience = self._local.settings.probe_interval
        quiet = self._local.now - entry.told >= patience
        if (
            entry.member.liveness is not Liveness.ALIVE
            and quiet
            and entry.member.name not in self._post.rumours
        ):
            entry.told = self._local.now
            self._post.spread(Update(entry.member, entry.accuser))


def _stopped(member: Member) -> bool:
    """Whether a member said that it stops, and not that it goes: it will be back."""
    return member.liveness is Liveness.LEFT and member.role is Role.ACTIVE


def _event(before: Member, after: Member) -> Event | None:
    """What the change of one record is called; None if nobody needs to hear of it."""
    if after.liveness is Liveness.ALIVE and before.identity != after.identity:
        return "replaced"
    if before.liveness is after.liveness:
        changed = after.liveness is Liveness.ALIVE and not after.same_description(before)
        return "changed" if changed else None
    if after.liveness is Liveness.ALIVE:
        return "cleared" if before.running else "returned"
    return _EVENTS[after.liveness]


_EVENTS: dict[Liveness, Event] = {
    Liveness.SUSPECT: "suspected",
    Liveness.DEAD: "failed",
    Liveness.LEFT: "left",
}
