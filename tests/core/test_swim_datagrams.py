"""Bytes on the wire: size, checks, sealing, and what hostile bytes can do (nothing)."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.core.members import (
    ADDRESS_BYTES_MAX,
    MEMBER_BYTES_MAX,
    NAME_BYTES_MAX,
    Liveness,
    Member,
    Origin,
    Role,
    Update,
    flaw,
)
from dynamo.core.messages import (
    DATAGRAM_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    Ack,
    Gossip,
    Message,
    Nack,
    Ping,
    PingRequest,
    State,
    size,
)
from dynamo.wire.datagrams import (
    STATE_BYTES_MAX,
    BadDatagram,
    Codec,
    decode_state,
    encode_state,
)
from tests.support.swim_machine import Bed, origin, record, sent

OF = origin(record("b", 3))
MESSAGES: list[Message] = [
    Ping(OF, 1, "c", 5),
    PingRequest(OF, 2**32 - 1, "c", 5, "c:7000", 400, (Update(record("d"), "e"),)),
    Ack(OF, 0, (Update(record("d", 2, Liveness.LEFT)),)),
    Nack(OF, 7),
    Gossip(OF, tuple(Update(record(f"m{i}")) for i in range(9))),
]


def codec(*secrets: str, cluster: str = "test") -> Codec:
    """A codec whose nonces count."""
    numbers = itertools.count()
    return Codec(cluster, secrets, lambda: next(numbers).to_bytes(12, "big"))


def reason(decoder: Codec, data: bytes) -> str:
    """Why the bytes were refused."""
    with pytest.raises(BadDatagram) as caught:
        decoder.decode(data)
    return caught.value.reason


@pytest.mark.parametrize("secrets", [(), ("s",), ("new", "old")])
@pytest.mark.parametrize("message", MESSAGES)
def test_there_and_back(message: Message, secrets: tuple[str, ...]) -> None:
    """Every kind of message, with what it piggybacks."""
    assert codec(*secrets).decode(codec(*secrets).encode(message)) == message


def test_checksum() -> None:
    """memberlist checks only some packets; here damage anywhere is found in all of them."""
    data = codec().encode(MESSAGES[1])
    for place in range(1, len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        assert reason(codec(), bytes(damaged)) == "checksum"


def test_empty_short_long_and_unknown() -> None:
    """Each has its word."""
    data = codec().encode(MESSAGES[0])
    assert reason(codec(), b"") == "empty"
    assert reason(codec(), data[:6]) == "truncated"
    assert reason(codec(), data + b"\0" * DATAGRAM_BYTES_MAX) == "too_long"
    assert reason(codec(), b"\x02" + data[1:]) == "version"
    assert reason(codec("s"), codec("s").encode(MESSAGES[0])[:20]) == "truncated"


def test_truncated_anywhere() -> None:
    """No prefix of a datagram is a datagram."""
    for one in (codec(), codec("s")):
        data = one.encode(MESSAGES[4])
        for length in range(len(data)):
            reason(one, data[:length])


def test_row_12_another_cluster_is_refused_in_every_message() -> None:
    """alertmanager 2250, consul 4074: a reused address does not merge two clusters."""
    for message in MESSAGES:
        assert reason(codec(), codec(cluster="other").encode(message)) == "other_cluster"
        assert reason(codec("s"), codec("s", cluster="other").encode(message)) == "key"
    state = encode_state(State("other", OF, (record("b"),)))
    with pytest.raises(BadDatagram) as caught:
        decode_state(state, "test")
    assert caught.value.reason == "other_cluster"


def test_sealed_hides_and_authenticates() -> None:
    """No name in the clear, any change is found, and each packet looks different."""
    one = codec("s")
    first, second = one.encode(MESSAGES[1]), one.encode(MESSAGES[1])
    assert b"c:7000" not in first
    assert first[13:] != second[13:]
    for place in range(1, len(first)):
        damaged = bytearray(first)
        damaged[place] ^= 1
        assert reason(codec("s"), bytes(damaged)) == "key"


def test_row_23_keys_rotate_one_node_at_a_time() -> None:
    """serf 579, consul 719: every order of changing keys keeps all packets readable, and a node
    that missed the rotation is refused loudly."""
    stages = [codec("old"), codec("old", "new"), codec("new", "old"), codec("new")]
    for a, b in itertools.pairwise(stages):
        assert b.decode(a.encode(MESSAGES[0])) == MESSAGES[0]
        assert a.decode(b.encode(MESSAGES[0])) == MESSAGES[0]
    assert reason(stages[3], stages[0].encode(MESSAGES[0])) == "key"


def test_mismatched_keys_and_no_keys() -> None:
    """A secret on one side only is refused on both."""
    assert reason(codec("a"), codec("b").encode(MESSAGES[0])) == "key"
    assert reason(codec("a"), codec().encode(MESSAGES[0])) == "not_sealed"
    assert reason(codec(), codec("a").encode(MESSAGES[0])) == "sealed"


def test_replay_is_harmless() -> None:
    """Every packet of a life story, sent again later in any order, changes nothing."""
    bed = Bed().know(record("c"))
    story = [
        Gossip(OF, (Update(record("b", 1)),)),
        Gossip(OF, (Update(record("b", 1, Liveness.SUSPECT), "c"),)),
        Gossip(OF, (Update(record("b", 2)),)),
        Gossip(OF, (Update(record("b", 3)), Update(record("me", 1, Liveness.SUSPECT), "c"))),
    ]
    for message in story:
        bed.receive(message)
    ping = bed.until_ping("b")
    bed.receive(Ack(OF, ping.number))
    story.append(Ack(OF, ping.number))
    before = bed.swim.members()
    for message in [*reversed(story), *story]:
        bed.receive(message)
    assert bed.swim.members() == before


names = st.text(min_size=1, max_size=NAME_BYTES_MAX // 4)
addresses = st.text(min_size=1, max_size=ADDRESS_BYTES_MAX // 4)
members = st.builds(
    Member,
    name=names,
    identity=st.integers(0, 2**32 - 1),
    address=addresses,
    incarnation=st.integers(1, 2**40),
    liveness=st.sampled_from([Liveness.ALIVE, Liveness.SUSPECT]),
    role=st.sampled_from(Role),
    api=addresses,
    zone=st.text(max_size=30),
    weight=st.floats(0, 1e9),
    meta=st.binary(max_size=128),
).filter(lambda member: not flaw(member))


@settings(max_examples=60, deadline=None)
@given(st.lists(members, min_size=1, max_size=40), members, st.booleans())
def test_row_16_every_packet_fits_for_every_mix(
    crowd: list[Member], asker: Member, sealed: bool
) -> None:
    """alertmanager 1412, libnetwork 2247, memberlist 348: no mix of ping, accusation, rumours
    and envelope goes above the limit, and every rumour gets out in the end."""
    one = codec("s") if sealed else codec()
    bed = Bed()
    crowd = [member for member in crowd if member.name != "me"]
    sender = Origin(asker.name, asker.identity, asker.incarnation)
    effects = bed.hear(*(Update(m.become(Liveness.ALIVE)) for m in crowd))
    effects += bed.hear(*(Update(m, asker.name) for m in crowd))
    waiting = {member.name for member in crowd}
    for member in crowd:
        effects += bed.receive(Ping(sender, 1, member.name, member.identity))
        target = (member.name, member.identity, member.address)
        effects += bed.receive(PingRequest(sender, 1, *target, 400), asker.address[:64])
    effects += bed.run(3)
    for _, message in sent(effects):
        data = one.encode(message)
        assert len(data) <= DATAGRAM_BYTES_MAX
        assert one.decode(data) == message
        waiting -= {update.member.name for update in message.updates}
    assert not waiting


def test_the_largest_message_leaves_room_for_the_largest_record() -> None:
    """A record at its limit with an accuser fits into a request at its limit."""
    big = record("n" * NAME_BYTES_MAX, 2**52, address="a" * ADDRESS_BYTES_MAX)
    request = PingRequest(origin(big), 2**32 - 1, big.name, 2**32 - 1, big.address, 30_000, ())
    assert size(request) + MEMBER_BYTES_MAX + NAME_BYTES_MAX + 8 <= MESSAGE_BYTES_MAX


@pytest.mark.parametrize("count", [15, 16, 17, 254, 255, 256, 257, 65535, 65536, 65537])
def test_row_17_framing_at_its_edges(count: int) -> None:
    """cortex 4326, mimir 551: counts and lengths around the edges of the encoding."""
    state = State("test", OF, (record("b"),) * count)
    assert len(decode_state(encode_state(state), "test").members) == count


def test_state_is_checked_like_a_datagram() -> None:
    """Any body gives a state of this cluster or `BadDatagram`."""
    good = encode_state(State("test", OF, (record("b"),)))
    assert decode_state(good, "test").members == (record("b"),)
    bad_member = encode_state(State("test", OF, (record("b", weight=-1.0),)))
    bad_origin = encode_state(State("test", Origin("", 1, 1), ()))
    for data in (
        b"",
        b"\x07" + good[1:],
        good[:-1],
        good + b"\0",
        b"\0" * (STATE_BYTES_MAX + 1),
        bad_member,
        bad_origin,
    ):
        with pytest.raises(BadDatagram):
            decode_state(data, "test")


@pytest.mark.parametrize(
    "message",
    [
        Ping(Origin("", 1, 1), 1, "c", 5),
        Ping(OF, -1, "c", 5),
        Ping(OF, 2**32, "c", 5),
        Ping(OF, 1, "c" * 200, 5),
        PingRequest(OF, 1, "c", 5, "a" * 300, 1),
        Gossip(OF, (Update(record("b", weight=-1.0)),)),
        Gossip(OF, (Update(record("b"), "s" * 200),)),
        Gossip(Origin("b", 2**40, 1)),
    ],
)
def test_what_was_never_promised_is_refused(message: Message) -> None:
    """Well-formed, yet something in it could not be sent on."""
    data = codec().encode(message)
    assert reason(codec(), data) in ("malformed", "bad_member")


def test_packets_at_rest_are_small() -> None:
    """A ping and an ack without news, sealed and not: at most 100 bytes."""
    me = Origin("node-17.example", 2**32 - 1, 100_000)
    for message in (Ping(me, 2**32 - 1, "node-18.example", 2**32 - 1), Ack(me, 2**32 - 1)):
        assert len(codec().encode(message)) <= 75
        assert len(codec("s").encode(message)) <= 100


def _mutated(rnd: random.Random, data: bytes) -> bytes:
    """The bytes with a few changes: flips, cuts, insertions, runs."""
    changed = bytearray(data)
    for _ in range(rnd.randint(1, 4)):
        place = rnd.randrange(len(changed) + 1)
        kind = rnd.randrange(4)
        if kind == 0 and place < len(changed):
            changed[place] = rnd.randrange(256)
        elif kind == 1:
            del changed[place : place + rnd.randint(1, 9)]
        elif kind == 2:
            changed[place:place] = rnd.randbytes(rnd.randint(1, 9))
        else:
            changed[place:place] = bytes([rnd.randrange(256)]) * rnd.randint(1, 40)
    return bytes(changed)


def test_row_29_ten_thousand_hostile_datagrams() -> None:
    """memberlist 368, 369, 357, 361, 363: nothing but `BadDatagram` leaves the decoder, and what
    passes the checks leaves the machine unharmed."""
    rnd = random.Random(29)
    plain, sealing = codec(), codec("s")
    bed = Bed().know(record("b"), record("c"))
    seen = Counter[str]()
    for i in range(10_000):
        if i % 4 == 0:
            data, one = rnd.randbytes(rnd.randrange(200)), rnd.choice([plain, sealing])
        elif i % 4 == 1:
            one = rnd.choice([plain, sealing])
            data = _mutated(rnd, one.encode(rnd.choice(MESSAGES)))
        else:
            # Valid checks around a damaged message: what a member with a bug could send.
            inner = msgspec.msgpack.encode(rnd.choice(MESSAGES))
            data, one = _framed(plain, _mutated(rnd, inner)), plain
        try:
            message = one.decode(data)
        except BadDatagram as bad:
            seen[bad.reason] += 1
        else:
            seen["accepted"] += 1
            for _, answer in sent(bed.receive(message)):
                plain.encode(answer)
            bed.now += 0.001
    assert {"checksum", "key", "malformed", "version", "accepted"} <= set(seen)
    assert len(bed.swim.members()) < 2000


def _framed(one: Codec, message: bytes) -> bytes:
    """A datagram with a right checksum around any bytes."""
    import zlib

    inner = one._cluster + message
    return b"\x01" + zlib.crc32(inner).to_bytes(4) + inner


def test_row_16_a_long_header_leaves_less_room() -> None:
    """memberlist 348: the rest of the packet counts, not only what is piggybacked."""
    bed = Bed().know(*[record(f"m{i:02}") for i in range(60)])
    target = "t" * NAME_BYTES_MAX
    request = PingRequest(OF, 1, target, 5, "a" * ADDRESS_BYTES_MAX, 400)
    ((_, ping),) = sent(bed.receive(request), Ping)
    assert 1200 < len(codec("s").encode(ping)) <= DATAGRAM_BYTES_MAX
