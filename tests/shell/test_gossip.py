"""One membership machine on a UDP port: effects in order, the disk first, and nothing that comes in
can stop it."""

from __future__ import annotations

import random
import zlib
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock

from dynamo.cluster.gossip import PENDING_MAX, Gossip
from dynamo.core.effects import MemberChanged, Notice, PersistMembers, ProbeByStream, Stopped
from dynamo.core.members import Liveness, Member, Update
from dynamo.core.messages import Ack, Ping, PingRequest, State
from dynamo.core.messages import Gossip as News
from dynamo.core.profiles import LAN
from dynamo.core.swim import Swim
from dynamo.wire.datagrams import VERSION, Codec
from tests.support.shells import Wire
from tests.support.swim_machine import CLUSTER, origin, record

HERE = "10.0.0.1:7000"
THERE = ("10.0.0.2", 7000)


class NoNames(Clock):
    """A reactor on which no name resolves until the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, str] = {}

    def resolve(self, name: str) -> Deferred[str]:
        answer: Deferred[str] = Deferred()
        known = self.names.get(name)
        answer.errback(DNSLookupError()) if known is None else answer.callback(known)
        return answer


class Around:
    """Surroundings that note all they are asked in `bench.done`; the test answers."""

    def __init__(self, bench: Bench) -> None:
        self._done = bench.done
        self.saving: list[tuple[int, Deferred[None]]] = []
        self.asked: list[tuple[State, Deferred[State]]] = []
        self.probed: list[Deferred[Any]] = []
        self.broken = False

    def save_incarnation(self, incarnation: int) -> Deferred[None]:
        self._done.append(("save", incarnation))
        self.saving.append((incarnation, Deferred()))
        return self.saving[-1][1]

    def save_members(self, effect: PersistMembers) -> None:
        self._done.append(("members", len(effect.members)))

    def probe(self, effect: ProbeByStream) -> Deferred[Any]:
        self.probed.append(Deferred())
        return self.probed[-1]

    def exchange(self, effect: Any, state: State) -> Deferred[State]:
        self._done.append(("exchange", state.origin.incarnation))
        self.asked.append((state, Deferred()))
        return self.asked[-1][1]

    def changed(self, effect: MemberChanged) -> None:
        self._done.append((effect.event, effect.member.name))
        if self.broken:
            raise RuntimeError("somebody's callback is wrong")

    def noticed(self, effect: Notice) -> None:
        self._done.append(("notice", effect.code))

    def stopped(self, effect: Stopped) -> None:
        self._done.append(("stopped", effect.cause))


class Bench:
    """A shell whose network, disk and time are the test's. `done` has all it did, in order."""

    def __init__(self, incarnation: int = 0) -> None:
        self.done: list[tuple[str, Any]] = []
        self.clock = NoNames()
        self.codec = Codec(CLUSTER)
        me = Member("me", 7, HERE, incarnation)
        self.swim = Swim(LAN, me, CLUSTER, random.Random(1))
        self.around = Around(self)
        self.shell = Gossip(self.swim, self.codec, self.clock, self.around)
        self.shell.transport = Wire(self._sent)

    def _sent(self, data: bytes, where: tuple[str, int]) -> None:
        message = self.codec.decode(data)
        self.done.append((type(message).__name__, message.origin.incarnation))

    def founded(self) -> Bench:
        """Alone in a cluster of its own, on disk."""
        self.shell.join([])
        self.saved()
        return self

    def know(self, *members: Member) -> Bench:
        for member in members:
            self.hear(News(origin(member), (Update(member),)))
        self.done.clear()
        return self

    def hear(self, message: Any, sender: tuple[str, int] = THERE) -> None:
        self.shell.datagramReceived(self.codec.encode(message), sender)

    def accuse(self) -> None:
        """Somebody says that this node is suspect, in its present incarnation."""
        me = self.swim.me.become(Liveness.SUSPECT)
        self.hear(News(origin(record("b")), (Update(me, "b"),)))

    def saved(self) -> None:
        """The disk has done what it was asked last."""
        self.around.saving[-1][1].callback(None)

    def sent(self) -> list[tuple[str, Any]]:
        words = ("Ping", "Ack", "Nack", "PingRequest", "Gossip", "exchange")
        return [what for what in self.done if what[0] in words]


B = record("b", address="10.0.0.2:7000")


def test_nothing_is_sent_before_the_incarnation_is_on_disk() -> None:
    """A refutation waits for a slow disk, and everything asked meanwhile waits behind it."""
    bench = Bench().founded().know(B)
    bench.accuse()
    bench.hear(Ping(origin(B), 5, "me", 7))
    bench.clock.advance(0.1)
    assert bench.done[0] == ("save", 2)
    assert bench.sent() == []
    bench.saved()
    assert {incarnation for _, incarnation in bench.sent()} == {2}
    assert "Ack" in dict(bench.sent())


def test_a_full_exchange_tells_what_is_on_disk() -> None:
    """Also one that others begin, whose answer cannot wait."""
    bench = Bench().founded().know(B)
    before = bench.shell.state()
    bench.accuse()
    said = bench.shell.state()
    assert said.origin.incarnation == before.origin.incarnation == 1
    assert [m.incarnation for m in said.members if m.name == "me"] == [1]
    bench.saved()
    assert bench.shell.state() == bench.swim.state()
    assert bench.shell.state().origin.incarnation == 2


def test_an_exchange_waiting_for_the_disk_does_not_tell_of_a_later_rise() -> None:
    """Two rises in a row: what waits behind the first goes out with the first."""
    bench = Bench(incarnation=4)
    bench.shell.join(["10.0.0.2:7000"])
    bench.accuse()
    assert bench.done[0] == ("save", 5)
    bench.saved()
    assert ("exchange", 6) not in bench.done[: bench.done.index(("save", 6))]
    bench.saved()
    assert bench.swim.me.incarnation == 6


def test_a_failing_disk_keeps_the_node_silent_until_it_works() -> None:
    """The same number is tried again each second; then all goes on by itself, and what waited is
    bounded."""
    bench = Bench().founded().know(B)
    bench.accuse()
    for turn in range(1, 30):
        bench.around.saving[-1][1].errback(OSError("no space left"))
        for number in range(100):
            bench.hear(Ping(origin(B), number, "me", 7))
        assert bench.sent() == []
        bench.clock.advance(1.0)
        assert bench.done.count(("save", 2)) == turn + 1
    assert len(bench.shell._pending) <= PENDING_MAX
    assert bench.shell.dropped["unsendable"] > 1000
    bench.saved()
    assert {incarnation for _, incarnation in bench.sent()} == {2}
    assert bench.shell._pending == type(bench.shell._pending)()


def test_a_slow_disk_accuses_nobody() -> None:
    """Questions that could not be sent are no evidence."""
    bench = Bench().founded().know(B, record("c", address="10.0.0.3:7000"))
    bench.accuse()
    bench.clock.pump([0.05] * 600)
    bench.saved()
    assert ("suspected", "b") not in bench.done
    bench.clock.advance(0.0)
    assert bench.swim.member("b") == B
    bench.clock.pump([0.05] * 60)
    assert ("suspected", "b") in bench.done  # now it was asked, and says nothing


def test_the_machine_is_woken_when_it_wants() -> None:
    """One timer, moved by whatever happens, never missed and never doubled."""
    bench = Bench().founded().know(B)
    for _ in range(2000):
        bench.clock.advance(0.01)
        calls = bench.clock.getDelayedCalls()
        assert len(calls) == 1
        assert calls[0].getTime() == pytest.approx(bench.swim.wake_at, abs=0.002)
    assert ("suspected", "b") in bench.done
    assert ("failed", "b") in bench.done


def test_no_name_resolves_yet() -> None:
    """Members known by name are lost to datagrams until they resolve; nothing else suffers."""
    named = record("b", address="b.lan:7000")
    bench = Bench().founded().know(named)
    bench.clock.pump([0.1] * 20)
    assert bench.sent() == []
    bench.clock.names["b.lan"] = "10.0.0.2"
    bench.clock.pump([0.1] * 20)
    assert bench.sent() != []


@pytest.mark.parametrize(
    "error", [OSError(101, "unreachable"), ValueError("family"), OverflowError]
)
def test_what_the_socket_refuses_is_lost(error: Any) -> None:
    """An unreachable network, an address of the other family, a port that is none."""

    def refuse(data: bytes, where: Any) -> None:
        raise error

    bench = Bench().founded().know(B)
    bench.shell.transport = Wire(refuse)
    bench.clock.pump([0.1] * 20)
    assert bench.shell.dropped["unsendable"] > 0
    assert bench.clock.getDelayedCalls() != []


def test_a_callback_that_raises_does_not_stop_gossip() -> None:
    """What follows it is done, and the machine is woken again."""
    bench = Bench().founded()
    bench.around.broken = True
    bench.hear(News(origin(B), (Update(B), Update(record("c", address="10.0.0.3:7000")))))
    assert ("joined", "c") in bench.done
    bench.clock.pump([0.1] * 20)
    assert ("Ping", 1) in bench.done


def test_a_stop_is_the_end() -> None:
    """No timer, no datagram, nothing kept, whatever still comes back: from the disk, a probe, an
    exchange, the network."""
    bench = Bench().founded().know(B)
    bench.shell._obey([ProbeByStream(B, 1)])
    bench.hear(Ping(origin(record("x", 9, address="10.0.0.9:1")), 1, "me", 7))
    bench.accuse()
    bench.shell.stop()
    bench.done.clear()
    bench.saved()
    bench.around.probed[0].callback("answered")
    for state, asked in bench.around.asked:
        asked.callback(State(CLUSTER, origin(B), state.members))
    bench.hear(Ping(origin(B), 5, "me", 7))
    bench.clock.advance(60)
    assert (bench.done, list(bench.shell._pending)) == ([], [])
    assert bench.clock.getDelayedCalls() == []


def test_a_stop_while_the_disk_fails() -> None:
    """It is not tried again."""
    bench = Bench().founded().know(B)
    bench.accuse()
    bench.shell.stop()
    bench.around.saving[-1][1].errback(OSError("closed"))
    bench.clock.advance(60)
    assert len(bench.around.saving) == 2


def test_a_leave_is_said_and_then_it_is_over() -> None:
    """On disk, to all, and after the linger `Stopped`."""
    bench = Bench().founded().know(B, record("c", address="10.0.0.3:7000"))
    bench.shell.leave()
    assert bench.done == [("save", 2)]
    bench.saved()
    assert len(bench.sent()) >= 2
    bench.clock.pump([0.1] * 20)
    assert bench.done[-1] == ("stopped", "left")
    assert bench.clock.getDelayedCalls() == []


def sealed(inner: bytes) -> bytes:
    """Bytes as the inside of a datagram that passes the checksum and is of this cluster."""
    inner = Codec(CLUSTER)._cluster + inner
    return bytes([VERSION]) + zlib.crc32(inner).to_bytes(4) + inner


def good_datagrams(rng: random.Random) -> list[bytes]:
    """One of each kind, to be damaged."""
    codec = Codec(CLUSTER)
    b = origin(B)
    messages: list[Any] = [
        Ping(b, 1, "me", 7, (Update(record("c", address="10.0.0.3:7000")),)),
        PingRequest(b, 2, "c", 1, "10.0.0.3:7000", 400),
        Ack(b, rng.getrandbits(32)),
        News(b, tuple(Update(record(f"m{i}")) for i in range(5))),
    ]
    return [codec.encode(message) for message in messages]


def hostile(rng: random.Random, good: list[bytes]) -> bytes:
    """Noise, a good datagram damaged or cut or too long, or damage under a good checksum."""
    case, data = rng.randrange(6), bytearray(rng.choice(good))
    if case == 0:
        return rng.randbytes(rng.randrange(1, 1500))
    if case == 1:
        return bytes(data[: rng.randrange(len(data))])
    if case == 2:
        return bytes(data) + rng.randbytes(rng.randrange(1400, 60_000))
    if case == 3:
        return sealed(rng.randbytes(rng.randrange(0, 200)))
    if case == 4:
        return Codec("other").encode(Ack(origin(B), 1))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def test_hostile_datagrams_are_counted_and_change_nothing() -> None:
    """10,000 of noise, damage, truncation, excess, another cluster: no exception, no change of the
    view or of anything sent, each counted under its reason."""
    rng = random.Random(1)
    bench = Bench().founded().know(B)
    good = good_datagrams(rng)
    before = bench.swim.state(), bench.swim.wake_at, dict(bench.swim.counts)
    for _ in range(10_000):
        bench.shell.datagramReceived(hostile(rng, good), THERE)
    assert (bench.swim.state(), bench.swim.wake_at, bench.swim.counts) == before
    assert bench.done == []
    assert bench.shell.heard.keys() == {"b"}
    assert sum(bench.shell.dropped.values()) == 10_000
    assert set(bench.shell.dropped) >= {"too_long", "truncated", "checksum", "other_cluster"}


def scrambled(rng: random.Random, value: Any) -> Any:
    """A message with one of its values replaced by a strange one, somewhere inside."""
    if not isinstance(value, list) or not value or rng.random() < 0.2:
        odd = [None, -1, 0, 2**32 - 1, 2**63, 1e308, "", "x", "x:y", ":", "a..b:70000", "\x00:1"]
        return rng.choice([*odd, b"", [], {}, True, "z" * 300, "[::1]:1", "10.0.0.9:0"])
    at = rng.randrange(len(value))
    return [*value[:at], scrambled(rng, value[at]), *value[at + 1 :]]


def test_well_formed_nonsense_does_not_stop_the_machine() -> None:
    """10,000 messages that pass the checksum with strange values inside: whatever is believed of
    it, no exception, bounded growth, and the machine goes on by itself."""
    rng = random.Random(2)
    bench = Bench().founded().know(B)
    inners = [msgspec.msgpack.decode(data[9:]) for data in good_datagrams(rng)]
    for turn in range(10_000):
        inner = msgspec.msgpack.encode(scrambled(rng, rng.choice(inners)))
        bench.shell.datagramReceived(sealed(inner), THERE)
        if turn % 100 == 0:
            for _, saving in bench.around.saving:
                saving.called or saving.callback(None)
            bench.clock.advance(0.05)
    assert bench.shell.dropped["malformed"] > 1000
    assert len(bench.shell.heard) <= len(bench.swim.members())
    bench.saved() if not bench.around.saving[-1][1].called else None
    bench.done.clear()
    bench.clock.pump([0.1] * 300)
    assert any(kind == "Ping" for kind, _ in bench.done)


def test_a_replayed_datagram_changes_nothing() -> None:
    """Old news, and answers to questions that are over, 1000 times each."""
    bench = Bench().founded().know(B, record("b", 5, address="10.0.0.2:7000"))
    members = bench.swim.members()
    for data in good_datagrams(random.Random(3))[2:3] * 1000:
        bench.shell.datagramReceived(data, THERE)
    for _ in range(1000):
        bench.hear(News(origin(record("b", 5)), (Update(B), Update(B.become(Liveness.DEAD)))))
    assert bench.swim.members() == members
    assert bench.sent() == []
