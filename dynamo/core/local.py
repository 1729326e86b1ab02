"""What the parts of one membership machine share: its own record, the time of the present call,
its alarms, its chance, and the effects gathered so far."""

from __future__ import annotations

import random

import attrs

from dynamo.core.awareness import Awareness
from dynamo.core.effects import Effect, Event, MemberChanged, PersistIncarnation
from dynamo.core.members import Liveness, Member, Origin
from dynamo.core.profiles import Settings
from dynamo.core.timers import Timers

PERSIST = ("persist", "")


@attrs.define
class Local:
    """`now` is the caller's time at the present call, in seconds on a line that never steps."""

    settings: Settings
    me: Member
    cluster: str
    rng: random.Random
    awareness: Awareness
    timers: Timers = attrs.field(factory=Timers)
    now: float = 0.0
    effects: list[Effect] = attrs.field(factory=list)
    counts: dict[str, int] = attrs.field(factory=dict)
    stopped: bool = False

    @property
    def origin(self) -> Origin:
        """How this member signs its messages."""
        return Origin(self.me.name, self.me.identity, self.me.incarnation)

    @property
    def claimed(self) -> bool:
        """Whether this member holds its name under an incarnation of its own."""
        return self.me.incarnation > 0

    @property
    def leaving(self) -> bool:
        """Whether this member has said that it leaves."""
        return self.me.liveness is Liveness.LEFT

    def rise(self, incarnation: int, liveness: Liveness | None = None) -> None:
        """Takes a higher incarnation; it is on disk before anyone hears of it."""
        assert incarnation > self.me.incarnation, "the own incarnation only rises"
        self.me = self.me.rise(incarnation, self.me.liveness if liveness is None else liveness)
        self.effects.append(PersistIncarnation(incarnation))

    def changed(self, event: Event, member: Member, before: Member | None, cause: str) -> None:
        """Tells the caller and has the view stored soon."""
        self.effects.append(MemberChanged(event, member, before, cause))
        self.timers.hasten(PERSIST, self.now + self.settings.persist_delay)

    def count(self, what: str) -> None:
        """One more of something worth a metric."""
        self.counts[what] = self.counts.get(what, 0) + 1
