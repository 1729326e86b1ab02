"""One membership machine on a UDP port.

This shell decides nothing about the protocol: it decodes what comes, hands it to the machine with
the time, obeys the effects in their order, and wakes the machine when it wants. An incarnation is
on disk before anything after it is sent: datagrams wait for it, and a full exchange tells of this
node what is on disk. While they wait the machine is not woken, so that it accuses nobody for not
answering questions that never left; it notices that it stood still.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from dynamo.cluster.resolve import Resolver
from dynamo.core.effects import (
    Effect,
    ExchangeState,
    MemberChanged,
    Notice,
    PersistIncarnation,
    PersistMembers,
    ProbeByStream,
    SendDatagram,
    Stopped,
)
from dynamo.core.members import Origin
from dynamo.core.messages import KINDS, State
from dynamo.core.probing import Outcome
from dynamo.core.swim import Swim
from dynamo.core.timers import NEVER
from dynamo.log import make_logger
from dynamo.wire.datagrams import BadDatagram, Codec

PENDING_MAX = 1000
"""Effects that wait for the disk; past it those that may be lost are dropped."""

PERSIST_AGAIN_S = 1.0

log = make_logger()


class Surroundings(Protocol):
    """What the machine's effects need besides a socket."""

    def save_incarnation(self, incarnation: int) -> Deferred[None]:
        """Makes it durable."""

    def save_members(self, effect: PersistMembers) -> None:
        """Stores it some time soon."""

    def probe(self, effect: ProbeByStream) -> Deferred[Outcome]:
        """Asks over peer HTTP."""

    def exchange(self, effect: ExchangeState, state: State) -> Deferred[State]:
        """Sends a full state over peer HTTP; fires with the answer."""

    def changed(self, effect: MemberChanged) -> None:
        """The view changed."""

    def noticed(self, effect: Notice) -> None:
        """Something for the log."""

    def stopped(self, effect: Stopped) -> None:
        """The machine has ended."""


class Gossip(DatagramProtocol):
    """Drives `swim` over UDP. `clock` is the reactor: monotonic time, timers, name look-ups.

    `packets` counts datagrams by (direction, kind), `bytes` by direction, `dropped` by reason;
    `heard` has the time each member last wrote.
    """

    noisy = False

    def __init__(self, swim: Swim, codec: Codec, clock: Any, around: Surroundings) -> None:
        self._swim = swim
        self._codec = codec
        self._clock = clock
        self._around = around
        self._resolver = Resolver(clock)
        self._pending: deque[Effect] = deque()
        self._persisting = False
        self._stopped = False
        self._durable = swim.me
        self._timer: IDelayedCall | None = None
        self.packets: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.heard: dict[str, float] = {}

    @property
    def health(self) -> int:
        """The local health score: 0 is well."""
        return self._swim.health

    @property
    def counts(self) -> dict[str, int]:
        """How often something worth a metric happened."""
        return self._swim.counts

    # What happens.

    def join(self, seeds: list[str]) -> None:
        """Starts the machine; the port is open."""
        self._obey(self._swim.join(self._clock.seconds(), seeds))

    def leave(self) -> None:
        """Says goodbye; `Surroundings.stopped` hears when that is done."""
        self._obey(self._swim.leave(self._clock.seconds()))

    def stop(self) -> None:
        """Does nothing any more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._pending.clear()
        self._stopped = True

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.bytes["in"] += len(datagram)
        try:
            message = self._codec.decode(datagram)
        except BadDatagram as bad:
            self.dropped[bad.reason] += 1
            return
        self.packets["in", KINDS[type(message)]] += 1
        if self._stopped:
            return
        now = self._clock.seconds()
        host, port = addr[0], addr[1]
        sender = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._obey(self._swim.receive(now, sender, message))
        self._note(message.origin, now)

    def exchanged(self, remote: State, asked: str | None) -> None:
        """A full state came over peer HTTP."""
        now = self._clock.seconds()
        self._obey(self._swim.exchange(now, remote, asked))
        self._note(remote.origin, now)

    def state(self) -> State:
        """All that this node knows; of itself, what is on disk."""
        state, said = self._swim.state(), self._durable
        if state.origin.incarnation == said.incarnation:
            return state
        origin = Origin(said.name, said.identity, said.incarnation)
        return msgspec.structs.replace(state, origin=origin, members=(said, *state.members[1:]))

    def evidence(self, name: str, ok: bool) -> None:
        """A request of the store's own went well, or did not."""
        self._obey(self._swim.evidence(self._clock.seconds(), name, ok))

    def describe(self, **changes: Any) -> None:
        """This member has something new to say of itself."""
        self._obey(self._swim.describe(self._clock.seconds(), **changes))

    # Obeying.

    def _note(self, origin: Origin, now: float) -> None:
        if self._swim.member(origin.name) is not None:
            self.heard[origin.name] = now

    def _obey(self, effects: list[Effect]) -> None:
        if self._stopped:
            return
        for effect in effects:
            kept = isinstance(effect, PersistIncarnation | MemberChanged | Stopped)
            if kept or len(self._pending) < PENDING_MAX:
                self._pending.append(effect)
            else:
                self.dropped["unsendable"] += 1
        self._pump()

    def _pump(self) -> None:
        while self._pending and not self._persisting:
            effect = self._pending.popleft()
            try:
                self._do(effect)
            except Exception:
                log.failure("An effect of gossip failed")
        self._arm()

    def _do(self, effect: Effect) -> None:
        match effect:
            case SendDatagram():
                self._send(effect)
            case PersistIncarnation():
                self._persisting = True
                saved = self._around.save_incarnation(effect.incarnation)
                saved.addCallbacks(
                    self._persisted,
                    self._not_persisted,
                    callbackArgs=(effect.incarnation,),
                    errbackArgs=(effect,),
                )
            case PersistMembers():
                self._around.save_members(effect)
            case ProbeByStream():
                asked = self._around.probe(effect)
                asked.addCallback(self._streamed, effect.number)
                asked.addErrback(_unforeseen)
            case ExchangeState():
                answered = self._around.exchange(effect, self.state())
                answered.addCallbacks(
                    self.exchanged, lambda _: None, callbackArgs=(effect.address,)
                )
                answered.addErrback(_unforeseen)
            case MemberChanged():
                self._around.changed(effect)
            case Notice():
                self._around.noticed(effect)
            case Stopped():
                self._around.stopped(effect)

    def _send(self, effect: SendDatagram) -> None:
        where = self._resolver.now(effect.address)
        if where is None:
            return  # being looked up; a datagram may be lost
        data = self._codec.encode(effect.message)
        self.packets["out", KINDS[type(effect.message)]] += 1
        self.bytes["out"] += len(data)
        transport: Any = self.transport
        try:
            transport.write(data, where)
        except (OSError, ValueError, OverflowError) as error:
            # A port that is none, an address of the other family: as good as lost.
            self.dropped["unsendable"] += 1
            log.debug("No datagram to {where}: {error}", where=effect.address, error=error)

    def _streamed(self, outcome: Outcome, number: int) -> None:
        self._obey(self._swim.streamed(self._clock.seconds(), number, outcome))

    def _persisted(self, _: None, incarnation: int) -> None:
        if self._swim.me.incarnation == incarnation:
            self._durable = self._swim.me
        self._go_on()

    def _go_on(self) -> None:
        self._persisting = False
        if not self._stopped:
            self._pump()

    def _not_persisted(self, failure: Failure, effect: PersistIncarnation) -> None:
        """Nothing may follow an incarnation that is not on disk; it is tried again."""
        if self._stopped:
            return
        log.error(
            "The incarnation cannot be stored, so this node stays silent: {why}",
            why=failure.getErrorMessage(),
        )
        self._pending.appendleft(effect)
        self._clock.callLater(PERSIST_AGAIN_S, self._go_on)

    def _arm(self) -> None:
        wake_at = NEVER if self._persisting else self._swim.wake_at
        if self._timer is not None and self._timer.active():
            if wake_at == NEVER:
                self._timer.cancel()
                return
            delay = max(wake_at - self._clock.seconds(), 0)
            if abs(self._timer.getTime() - (self._clock.seconds() + delay)) > 0.001:
                self._timer.reset(delay)
        elif wake_at != NEVER:
            delay = max(wake_at - self._clock.seconds(), 0)
            self._timer = self._clock.callLater(delay, self._tick)

    def _tick(self) -> None:
        self._obey(self._swim.tick(self._clock.seconds()))


def _unforeseen(failure: Failure) -> None:
    log.failure("An effect of gossip failed", failure=failure)
