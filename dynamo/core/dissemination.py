"""Sending: every message takes along what news fits into its datagram (SWIM §4.1).

While there is news, rounds of pure gossip carry it too; at rest there are none. A member that is
held to be suspect or dead finds the accusation first in whatever is sent to it, so that it can
refute without waiting for a rumour (Lifeguard §IV-C, the buddy system).
"""

from __future__ import annotations

import msgspec

from dynamo.core.effects import SendDatagram
from dynamo.core.local import Local
from dynamo.core.members import Liveness, Member, Update
from dynamo.core.messages import MESSAGE_BYTES_MAX, Gossip, Message, size
from dynamo.core.rumours import Rumours, retransmit_limit
from dynamo.core.table import Entry, Table

GOSSIP = ("gossip", "")

HEADER_BYTES = 2
"""By how much the array of updates may grow its own header."""


class Post:
    """The outgoing side of one member."""

    def __init__(self, local: Local, table: Table) -> None:
        self._local = local
        self._table = table
        self._last = float("-inf")
        self.rumours = Rumours()

    @property
    def limit(self) -> int:
        """How often this member passes a rumour on at the present size of the cluster."""
        return retransmit_limit(self._local.settings.retransmit_multiplier, self._table.running)

    def spread(self, update: Update, *, first: bool = False) -> None:
        """News: it goes with everything that is sent, and in a round of its own at once, or as
        soon as the last round is one interval ago."""
        self.rumours.add(update, first=first)
        earliest = self._last + self._local.settings.gossip_interval
        self._local.timers.hasten(GOSSIP, max(self._local.now, earliest))

    def spread_self(self) -> None:
        """This member's own record is news, and goes before any other."""
        self.spread(Update(self._local.me), first=True)

    def gossip(self) -> None:
        """One round to a few random members, and the next one if there is still news."""
        local = self._local
        self._last = local.now
        if not len(self.rumours):
            return
        targets = self._table.sample(local.settings.gossip_fanout, self._listens)
        if not targets:
            self.rumours.clear()
            return
        for entry in targets:
            self.tell(entry)
        if len(self.rumours):
            local.timers.set(GOSSIP, local.now + local.settings.gossip_interval)

    def tell(self, entry: Entry) -> None:
        """Sends a member the news, beginning with what it is accused of."""
        entry.told = self._local.now
        self.send(entry.member.address, Gossip(self._local.origin), entry)

    def tell_at(self, address: str, member: Member) -> None:
        """Sends one record to an address, whoever is there."""
        self._put(address, Gossip(self._local.origin, (Update(member),)))

    def send(self, address: str, message: Message, to: Entry | None = None) -> None:
        """Sends a message with the news that fits; `to` is who is meant to read it."""
        updates: list[Update] = []
        if to is not None and self._accused(to):
            updates.append(Update(to.member, to.accuser))
        if len(self.rumours):
            room = MESSAGE_BYTES_MAX - HEADER_BYTES - size(message) - sum(map(size, updates))
            subject = to.member.name if updates and to is not None else ""
            taken = self.rumours.take(room, self.limit)
            updates += [update for update in taken if update.member.name != subject]
        if updates:
            message = msgspec.structs.replace(message, updates=tuple(updates))
        self._put(address, message)

    def _put(self, address: str, message: Message) -> None:
        self._local.effects.append(SendDatagram(address, message))

    def _accused(self, entry: Entry) -> bool:
        if entry.member.liveness is Liveness.SUSPECT:
            return self._local.settings.lifeguard
        return not entry.member.running

    def _listens(self, entry: Entry) -> bool:
        recent = self._local.now - entry.since <= self._local.settings.gossip_to_dead
        return entry.member.running or (entry.member.liveness is Liveness.DEAD and recent)
