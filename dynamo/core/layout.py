"""Which ring reads go by, which one writes reach as well, and how one layout becomes the next.

A layout is what all members agree on, one decided after the other (`dynamo.core.agreement`). A
change of the ring takes three: reads keep to the ring that is complete while writes reach both,
then reads go over while writes still reach both, then the old ring is dropped.

    steady A  ──begin──▶  A, coming B  ──switch──▶  B, going A  ──end──▶  steady B
                │   ▲                   every owner in B
                └───┘                   has what it needs
              join in, cancel

Any two neighbours may be in use at the same time: whatever one of them reads from, the other
writes to. So the next one is decided only when every live member has said that it uses the last
one, and a message from two or more layouts ago is refused (joint consensus, Ongaro 2014 §4.3;
layout trackers, Auvolat, Garage 0.9).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Literal

import msgspec

from dynamo.core.ring import Member

Stage = Literal["steady", "coming", "going"]


class Layout(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """A decided layout. `version` counts them from 1 on; 0 is none. `birth` tells a cluster's
    layouts from those of one that was founded apart from it.

    `members`: the ring that reads go by. `beside`: another one that writes reach as well, () while
    steady; `coming` says whether it is the next or the last.
    """

    version: int = 0
    birth: int = 0
    members: tuple[Member, ...] = ()
    beside: tuple[Member, ...] = ()
    coming: bool = False

    @property
    def stage(self) -> Stage:
        if not self.beside:
            return "steady"
        return "coming" if self.coming else "going"

    @property
    def order(self) -> tuple[int, int]:
        """Of two layouts the one with the higher order counts."""
        return (self.version, self.birth)

    @property
    def next_members(self) -> tuple[Member, ...]:
        """The ring there will be when all that was begun has ended."""
        return self.beside if self.stage == "coming" else self.members

    def in_ring(self, name: str) -> bool:
        """Whether reads go by a ring with this member."""
        return name in self._names[0]

    def knows(self, name: str) -> bool:
        """Whether the member has a part in it."""
        now, beside = self._names
        return name in now or name in beside

    def role(self, name: str) -> Literal["joining", "active", "leaving"]:
        """A member's part in the ring; who has none yet is about to join."""
        now, beside = self._names
        if name in (beside if self.stage == "coming" else now):
            return "active" if name in now else "joining"
        return "leaving" if self.knows(name) else "joining"

    def names(self) -> tuple[str, ...]:
        """All members of both rings, sorted."""
        return self._sorted_names

    def found(self, members: Iterable[Member], birth: int) -> Layout:
        """The first layout of a cluster."""
        assert self.version == 0, "a cluster is founded once"
        return Layout(1, birth, _sorted(members))

    def change(self, members: Iterable[Member]) -> Layout | None:
        """The layout that makes `members` the next ring; None if there is nothing to change.

        What was begun and not completed is replaced; back to where it began means that it is
        cancelled. Not while the last ring is being dropped: that ends by itself, soon.
        """
        wanted = _sorted(members)
        assert self.stage != "going", "a change that is nearly through is not changed"
        if wanted == self.next_members:
            return None
        if wanted == self.members:
            return self._then(members=wanted)
        return self._then(members=self.members, beside=wanted, coming=True)

    def renew(self) -> Layout:
        """The same ring by another version, on which members may vote that forgot what they had
        promised of this one's successor."""
        assert self.stage == "steady", "a change renews the layout anyway"
        return self._then(members=self.members)

    def switch(self) -> Layout:
        """Reads go over to the coming ring."""
        assert self.stage == "coming", "nothing is coming"
        return self._then(members=self.beside, beside=self.members)

    def end(self) -> Layout:
        """Nobody reads by the old ring any more: writes need not reach it."""
        assert self.stage == "going", "nothing is going"
        return self._then(members=self.members)

    @cached_property
    def _names(self) -> tuple[frozenset[str], frozenset[str]]:
        """Of `members` and `beside`: a cluster of many asks of each member at any news."""
        return frozenset(m.name for m in self.members), frozenset(m.name for m in self.beside)

    @cached_property
    def _sorted_names(self) -> tuple[str, ...]:
        return tuple(sorted(self._names[0] | self._names[1]))

    def _then(
        self, *, members: tuple[Member, ...], beside: tuple[Member, ...] = (), coming: bool = False
    ) -> Layout:
        return Layout(self.version + 1, self.birth, members, beside, coming)


NONE = Layout()
"""Before a cluster is founded or found."""


def compatible(mine: int, theirs: int, floor: int = 0) -> bool:
    """Whether a request may pass from a node that goes by `theirs` to one that goes by `mine`; by
    less than `floor` nobody goes any more who was seen."""
    return not mine or not theirs or (theirs >= floor and abs(mine - theirs) <= 1)


def keeps_majorities(before: int, after: int) -> bool:
    """Whether from so many owners of a key one may go to so many of the same at once.

    Of those before, all but a majority may lack a write that was acknowledged; they must be no
    majority of those after. Where a key is to have fewer owners those that stay pull as well
    (`dynamo.core.transfers`), but only from members that are there.
    """
    return (before - 1) // 2 <= after // 2


def with_member(members: Iterable[Member], member: Member) -> tuple[Member, ...]:
    """The ring with this member, in place of one of its name."""
    return (*(m for m in members if m.name != member.name), member)


def without(members: Iterable[Member], name: str) -> tuple[Member, ...]:
    """The ring without this member."""
    return tuple(m for m in members if m.name != name)


def _sorted(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda m: m.name))
