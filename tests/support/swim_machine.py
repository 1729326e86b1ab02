"""One membership machine under a test's hands, and short words for evidence about others."""

from __future__ import annotations

import random

import msgspec

from dynamo.core.effects import Effect, MemberChanged, SendDatagram
from dynamo.core.members import Liveness, Member, Origin, Update
from dynamo.core.messages import Ack, Gossip, Message, Ping, State
from dynamo.core.profiles import LAN, Settings
from dynamo.core.swim import Swim

CLUSTER = "test"


def record(
    name: str,
    incarnation: int = 1,
    liveness: Liveness = Liveness.ALIVE,
    *,
    identity: int = 0,
    address: str = "",
    **more: object,
) -> Member:
    """A member's record; the identity follows from the name unless given."""
    identity = identity or sum(name.encode())
    address = address or f"{name}:7000"
    return msgspec.structs.replace(
        Member(name, identity, address, incarnation, liveness),
        **more,  # type: ignore[arg-type]
    )


def origin(member: Member) -> Origin:
    """How that member signs."""
    return Origin(member.name, member.identity, member.incarnation)


class Bed:
    """A machine named "me" that founded its cluster, and its virtual time.

    All members answer its own probes, but the `silent` ones.
    """

    def __init__(self, settings: Settings = LAN, *, incarnation: int = 0, seed: int = 0) -> None:
        self.settings = settings
        self.now = 100.0
        self.silent: set[str] = set()
        self.swim = Swim(settings, record("me", incarnation), CLUSTER, random.Random(seed))
        self.effects: list[Effect] = self.swim.join(self.now, [])

    def know(self, *members: Member) -> Bed:
        """Members that the machine has heard to be alive, each by itself."""
        for member in members:
            self.hear(Update(member.become(Liveness.ALIVE)), by=member)
            if member.liveness is not Liveness.ALIVE:
                self.hear(Update(member, "someone"))
        return self

    def hear(self, *updates: Update, by: Member | None = None) -> list[Effect]:
        """Gossip; returns what the machine does."""
        sender = by or record("herald")
        return self.receive(Gossip(origin(sender), tuple(updates)), sender.address)

    def receive(self, message: Message, sender: str = "herald:7000") -> list[Effect]:
        """Any message."""
        return self._keep(self.swim.receive(self.now, sender, message))

    def exchange(
        self, *members: Member, by: str = "herald", asked: str | None = None
    ) -> list[Effect]:
        """The whole state of another."""
        state = State(CLUSTER, origin(record(by)), members)
        return self._keep(self.swim.exchange(self.now, state, asked))

    def run(self, seconds: float) -> list[Effect]:
        """Ticks whenever the machine wants it; returns all that it does."""
        end, done = self.now + seconds, list[Effect]()
        while self.swim.wake_at <= end:
            self.now = max(self.now, self.swim.wake_at)
            done += self._tick()
        self.now = end
        return done

    def until_ping(self, name: str, seconds: float = 60.0) -> Ping:
        """Runs to the next ping of that member, which stays silent from now on."""
        self.silent.add(name)
        end = self.now + seconds
        while self.now < end:
            self.now = self.swim.wake_at
            for _, message in sent(self._tick(), Ping):
                if isinstance(message, Ping) and message.target == name:
                    return message
        raise AssertionError(f"{name} was not probed")

    def _tick(self) -> list[Effect]:
        effects = self._keep(self.swim.tick(self.now))
        for address, message in sent(effects, Ping):
            if isinstance(message, Ping) and message.target not in self.silent:
                member = self.swim.member(message.target)
                if member is not None and member.liveness is Liveness.ALIVE:
                    self.receive(Ack(origin(member), message.number), address)
        return effects

    def liveness(self, name: str) -> str:
        """What the machine believes of a member; "unknown" if it never heard of it."""
        member = self.swim.member(name)
        return "unknown" if member is None else member.liveness.word

    def _keep(self, effects: list[Effect]) -> list[Effect]:
        self.effects += effects
        return effects


def sent(effects: list[Effect], *kinds: type) -> list[tuple[str, Message]]:
    """Datagrams among the effects, with their addresses."""
    return [
        (e.address, e.message)
        for e in effects
        if isinstance(e, SendDatagram) and (not kinds or isinstance(e.message, kinds))
    ]


def told(effects: list[Effect]) -> list[Member]:
    """Records that go out with the datagrams among the effects."""
    return [update.member for _, message in sent(effects) for update in message.updates]


def events(effects: list[Effect]) -> list[tuple[str, str]]:
    """Changes of the view among the effects."""
    return [(e.event, e.member.name) for e in effects if isinstance(e, MemberChanged)]
