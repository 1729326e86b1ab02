"""Membership and failure detection of one node: SWIM (Das, Gupta, Motivala: DSN 2002) with
Lifeguard (Dadgar, Phillips, Currey: 2017), as a machine that takes facts and returns effects.

The caller's duties, in order:

1. Make it with the member's own record (its `incarnation` read from disk, 0 if there is none),
   the members last stored, and a `random.Random` of its own.
2. Call `join` with the seeds' addresses. Nothing works before that.
3. After every call obey the effects in order: what `PersistIncarnation` says is on disk before
   anything after it is sent (`dynamo.core.effects`).
4. Call `tick` at `wake_at`, which may have moved after any call. Late is harmless.
5. Decode datagrams, and hand in each with the "host:port" it came from, which is where answers go.
6. Serve full exchanges: decode the state, call `exchange`, answer with `state()`; and for an
   `ExchangeState` send `state()` and hand the answer to `exchange` with the address asked.
7. Tell `evidence` how the node's own requests to others fare.
8. Before stopping call `leave`, and go on until `Stopped`.

`now` is in seconds on a monotonic line. Nothing here reads a clock, so a wall clock that is wrong
or steps changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, assert_never

import msgspec

from dynamo.core import claims, dissemination, joining, probing, relaying, verdicts
from dynamo.core.awareness import Awareness
from dynamo.core.dissemination import Post
from dynamo.core.effects import Effect, Notice, PersistMembers, Stopped
from dynamo.core.joining import Joiner
from dynamo.core.local import PERSIST, Local
from dynamo.core.members import Liveness, Member, Origin, Role, Update, check, flaw
from dynamo.core.messages import Ack, Gossip, Message, Nack, Ping, PingRequest, State
from dynamo.core.probing import Outcome, Prober
from dynamo.core.profiles import Settings
from dynamo.core.relaying import Relays
from dynamo.core.table import Entry, Table
from dynamo.core.timers import NEVER
from dynamo.core.verdicts import Verdicts

LINGER = ("linger", "")
REAP = ("reap", "")


class Swim:
    """The machine. `counts`: how often something worth a metric happened."""

    def __init__(
        self,
        settings: Settings,
        me: Member,
        cluster: str,
        rng: random.Random,
        *,
        remembered: Iterable[Member] = (),
    ) -> None:
        check(me)
        limit = settings.awareness_max if settings.lifeguard else 1
        me = me.rise(me.incarnation, Liveness.ALIVE)
        self._local = Local(settings, me, cluster, rng, Awareness(limit))
        self._table = Table(rng)
        self._post = Post(self._local, self._table)
        self._verdicts = Verdicts(self._local, self._table, self._post)
        self._prober = Prober(self._local, self._table, self._post, self._verdicts)
        self._relays = Relays(self._local, self._table, self._post)
        self._joiner = Joiner(self._local, self._table, self._post, self._verdicts, self._prober)
        self._remembered = tuple(remembered)
        self._started = False
        self._handlers = self._timer_table()

    # What there is to see.

    @property
    def me(self) -> Member:
        """This member's own record."""
        return self._local.me

    @property
    def joined(self) -> bool:
        """Whether this node belongs to a cluster, if only one it founded."""
        return self._joiner.joined and not self._local.stopped

    @property
    def wake_at(self) -> float:
        """When `tick` is due next; infinity if it is not."""
        return NEVER if self._local.stopped else self._local.timers.next_at

    @property
    def health(self) -> int:
        """The local health score: 0 is well."""
        return self._local.awareness.score

    @property
    def pending(self) -> int:
        """Rumours waiting to be passed on."""
        return len(self._post.rumours)

    @property
    def counts(self) -> dict[str, int]:
        """Counters by name."""
        return {**self._local.counts, "rumours_dropped": self._post.rumours.dropped}

    def member(self, name: str) -> Member | None:
        """The record of one member, this one included."""
        if name == self._local.me.name:
            return self._local.me
        entry = self._table.get(name)
        return None if entry is None else entry.member

    def members(self) -> tuple[Member, ...]:
        """All that are known, this one first, those that left included."""
        return (self._local.me, *(entry.member for entry in self._table))

    def state(self) -> State:
        """What a full exchange sends."""
        return State(self._local.cluster, self._local.origin, self.members())

    # What happens to it.

    def join(self, now: float, seeds: Iterable[str]) -> list[Effect]:
        """Starts: looks for the cluster at `seeds` and among the members remembered."""
        assert not self._started, "join is called once"
        self._local.now = now
        self._started = True
        self._prober.start()
        self._local.timers.set(REAP, now + self._local.settings.tombstone_seconds / 8)
        self._joiner.start(seeds, self._remembered)
        self._remembered = ()
        return self._leave_call()

    def receive(self, now: float, sender: str, message: Message) -> list[Effect]:
        """A datagram from the address `sender`."""
        if not self._enter_call(now):
            return []
        origin = message.origin
        self._local.count("received")
        for update in message.updates:
            self._learn(update, origin)
        if not self._local.stopped:
            self._answer(sender, message)
        return self._leave_call()

    def tick(self, now: float) -> list[Effect]:
        """Does what is due."""
        if not self._enter_call(now):
            return []
        while not self._local.stopped and (key := self._local.timers.pop_due(now)):
            self._handlers[key[0]](key[1])
        return self._leave_call()

    def exchange(self, now: float, remote: State, asked: str | None = None) -> list[Effect]:
        """Another's whole state; `asked` is the address we had sent ours to, None if they
        began."""
        if self._enter_call(now):
            self._joiner.exchanged(remote, asked)
        return self._leave_call()

    def streamed(self, now: float, number: int, outcome: Outcome) -> list[Effect]:
        """The outcome of a `ProbeByStream`."""
        if self._enter_call(now):
            self._prober.streamed(number, outcome)
        return self._leave_call()

    def evidence(self, now: float, name: str, ok: bool) -> list[Effect]:
        """A request of this node to `name` was answered, or was not.

        An answer speaks for the member as an ack does. Silence only brings the next probe
        forward: a request may fail for reasons of its own.
        """
        entry = self._table.get(name)
        if self._enter_call(now) and entry is not None and not self._local.leaving:
            if ok:
                self._prober.trust(entry)
            elif entry.member.running:
                self._prober.doubt(entry)
        return self._leave_call()

    def describe(
        self,
        now: float,
        *,
        role: Role | None = None,
        weight: float | None = None,
        meta: bytes | None = None,
        layout: int | None = None,
        synced: int | None = None,
    ) -> list[Effect]:
        """Changes what this member says of itself. Raises `TooLarge`, `BadRequest`."""
        wanted: dict[str, Any] = {
            "role": role,
            "weight": weight,
            "meta": meta,
            "layout": layout,
            "synced": synced,
        }
        given = {field: value for field, value in wanted.items() if value is not None}
        described = check(msgspec.structs.replace(self._local.me, **given))
        if self._enter_call(now) and described != self._local.me:
            self._local.me = described
            if self._local.claimed:
                self._joiner.claims.claim()
        return self._leave_call()

    def leave(self, now: float) -> list[Effect]:
        """Says goodbye: nobody takes the end of this process for a failure. `Stopped` follows."""
        if not self._enter_call(now) or self._local.leaving:
            return self._leave_call()
        local = self._local
        local.rise(local.me.incarnation + 1, Liveness.LEFT)
        for key in (probing.ROUND, joining.SEEK, joining.EXCHANGE, joining.RECONNECT):
            local.timers.cancel(key)
        self._post.spread_self()
        for entry in self._table.sample(self._post.limit, lambda e: e.member.running):
            self._post.tell_at(entry.member.address, local.me)
        alone = self._table.running == 1
        local.timers.set(LINGER, now if alone else now + local.settings.leave_linger)
        return self._leave_call()

    def remove(self, now: float, name: str) -> list[Effect]:
        """Takes a dead member out for good, as an operator's decision; others do not change."""
        entry = self._table.get(name)
        if self._enter_call(now) and entry is not None:
            self._verdicts.remove(entry, "removed")
        return self._leave_call()

    # How.

    def _enter_call(self, now: float) -> bool:
        """Notes the time; False if nothing may happen. A wake-up that was missed by more than
        `stall_min` means that this process stood still, and then no deadline has passed."""
        local = self._local
        if local.stopped or not self._started:
            return False
        late = now - local.timers.next_at
        local.now = max(now, local.now)
        if local.settings.lifeguard and late > local.settings.stall_min:
            local.timers.shift(late)
            self._verdicts.shift(late)
            local.count("stalls")
            if late > local.settings.probe_timeout:
                local.awareness.add(1)
                local.effects.append(Notice("stalled", local.me.name, f"{late:.3f}"))
        return True

    def _leave_call(self) -> list[Effect]:
        local = self._local
        assert local.me.liveness in (Liveness.ALIVE, Liveness.LEFT), "nobody believes itself dead"
        effects, local.effects = local.effects, []
        return effects

    def _learn(self, update: Update, origin: Origin) -> None:
        member = update.member
        if flaw(member):
            self._local.count("bad_member")
        elif self._local.stopped:
            return
        elif member.name == self._local.me.name:
            self._joiner.claims.hear(member, f"rumour from {origin.name}")
        else:
            self._verdicts.learn(update, f"rumour from {origin.name}")

    def _answer(self, sender: str, message: Message) -> None:
        origin = message.origin
        entry = self._table.get(origin.name)
        same = entry is not None and entry.member.identity == origin.identity
        reader = entry if same else None
        match message:
            case Ping():
                self._post.send(sender, Ack(self._local.origin, message.number), reader)
            case PingRequest():
                self._relays.request(sender, message)
            case Ack():
                if not self._prober.ack(origin, message.number):
                    self._relays.ack(origin, message.number)
            case Nack():
                self._prober.nack(origin, message.number)
            case Gossip():
                pass
            case _:
                assert_never(message)
        self._recognise(sender, origin, entry, answered=isinstance(message, Ping))

    def _recognise(self, sender: str, origin: Origin, entry: Entry | None, answered: bool) -> None:
        """Sees to it that a sender whose view of itself differs from ours learns ours, or we
        its."""
        local = self._local
        if origin.name == local.me.name:
            if origin.identity != local.me.identity and local.claimed:
                self._post.tell_at(sender, local.me)
        elif local.leaving:
            return
        elif entry is None or (origin.incarnation, origin.identity) > entry.member.claim:
            self._joiner.meet(origin, sender)
        elif local.now - entry.told >= local.settings.gossip_interval and (
            entry.member.identity != origin.identity or not (entry.member.running or answered)
        ):
            entry.told = local.now
            self._post.tell_at(sender, entry.member)

    def _timer_table(self) -> dict[str, Callable[[str], None]]:
        return {
            probing.ROUND[0]: lambda _: self._prober.round(),
            probing.TIMEOUT: lambda number: self._prober.ask_helpers(int(number)),
            probing.DEADLINE: lambda number: self._prober.fail(int(number)),
            relaying.NACK: lambda number: self._relays.nack(int(number)),
            relaying.RELAY: lambda number: self._relays.expire(int(number)),
            verdicts.SUSPICION: self._verdicts.expire,
            dissemination.GOSSIP[0]: lambda _: self._post.gossip(),
            joining.SEEK[0]: lambda _: self._joiner.seek(),
            joining.EXCHANGE[0]: lambda _: self._joiner.exchange(),
            joining.RECONNECT[0]: lambda _: self._joiner.reconnect(),
            joining.REMEMBER[0]: lambda _: self._joiner.overdue(),
            claims.CONTEST[0]: lambda _: self._joiner.claims.give_up(),
            PERSIST[0]: lambda _: self._persist(),
            REAP[0]: lambda _: self._reap(),
            LINGER[0]: lambda _: self._end(),
        }

    def _persist(self) -> None:
        known = tuple(entry.member for entry in self._table)
        self._local.effects.append(PersistMembers(known))

    def _reap(self) -> None:
        local = self._local
        local.timers.set(REAP, local.now + local.settings.tombstone_seconds / 8)
        self._verdicts.reap()

    def _end(self) -> None:
        self._local.stopped = True
        self._local.timers.clear()
        self._local.effects.append(Stopped("left"))
