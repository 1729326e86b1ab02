"""What others say of this member itself: accusations, and other claims to its name.

An accusation is refuted by a higher incarnation (SWIM §4.2), on disk before it is sent. Of two
processes under one name the one with the higher (incarnation, identity) stays and the other
stops: claims only rise, so both cannot see the other above themselves, and exactly one survives.
A newcomer, without an incarnation yet, never takes a name from a member that runs; it takes it
from a dead one, far above its last number, so that the dead one loses if it comes back.
"""

from __future__ import annotations

from dynamo.core.dissemination import Post
from dynamo.core.effects import Notice, Stopped
from dynamo.core.local import Local
from dynamo.core.members import INCARNATION_MAX, Member
from dynamo.core.timers import NEVER

CONTEST = ("contest", "")

TAKEOVER_LEAP = 1024
"""How far above a dead holder's incarnation a newcomer claims its name."""


class Claims:
    """This member's hold on its name. `contested`: a live member holds it and we wait."""

    def __init__(self, local: Local, post: Post) -> None:
        self._local = local
        self._post = post
        self.contested = False
        self._objected = float("-inf")

    def claim(self) -> None:
        """Takes the name under a new incarnation, and says so."""
        self._local.rise(self._local.me.incarnation + 1)
        self._settle()

    def hear(self, heard: Member, cause: str) -> None:
        """Evidence about this member's own name."""
        if heard.incarnation >= INCARNATION_MAX - TAKEOVER_LEAP:
            self._local.count("bad_member")
        elif heard.identity == self._local.me.identity:
            self._hear_of_me(heard, cause)
        elif heard.claim > self._local.me.claim:
            self._yield_to(heard)
        elif self._local.claimed:
            self._local.count("name_conflicts")
            self._object_to(heard)

    def give_up(self) -> None:
        """The holder of the name outlived this newcomer's patience."""
        if not self._local.claimed:
            self._stop(None)

    def _object_to(self, rival: Member) -> None:
        """Another process claims the name under a lower claim: it must hear of ours."""
        local = self._local
        if local.now - self._objected >= local.settings.gossip_interval:
            self._objected = local.now
            self._post.spread_self()
            if rival.address != local.me.address:
                self._post.tell_at(rival.address, local.me)

    def _hear_of_me(self, heard: Member, cause: str) -> None:
        local = self._local
        if heard.incarnation < local.me.incarnation or not heard.incarnation:
            return
        if heard.incarnation == local.me.incarnation and heard.liveness <= local.me.liveness:
            return
        local.rise(heard.incarnation + 1)
        self._post.spread_self()
        if not local.leaving:
            if local.settings.lifeguard:
                local.awareness.add(1)
            local.count("refutations")
            local.effects.append(Notice("refuted", heard.liveness.word, cause))

    def _yield_to(self, heard: Member) -> None:
        local = self._local
        ended = not heard.running or heard.address == local.me.address
        if ended and not local.leaving:
            local.rise(heard.incarnation + TAKEOVER_LEAP)
            self._settle()
        elif local.claimed:
            self._stop(heard)
        else:
            self.contested = True
            if local.timers.at(CONTEST) == NEVER:
                local.effects.append(Notice("name_contended", heard.name, heard.address))
                local.timers.set(CONTEST, local.now + local.settings.name_patience)

    def _settle(self) -> None:
        self.contested = False
        self._local.timers.cancel(CONTEST)
        self._post.spread_self()

    def _stop(self, winner: Member | None) -> None:
        self._local.stopped = True
        self._local.timers.clear()
        self._local.effects.append(Stopped("name_taken", winner))
