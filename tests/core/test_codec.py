"""What is stored and what travels: it comes back as it was, and noise is noticed as noise."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.core.buckets import Bucket, Properties
from dynamo.core.record import Draft, Record, Version
from dynamo.core.sightings import Origin
from dynamo.errors import (
    BucketExists,
    Corrupt,
    MissingChunks,
    NoSuchBucket,
    NotReady,
    Overloaded,
    PeerBroke,
    QuorumNotMet,
    StorageFault,
    StorageFull,
)
from dynamo.wire import faults, hello, messages
from dynamo.wire.codec import (
    BREAKING,
    BUCKET,
    FORMAT,
    HINT,
    KEEPING,
    STATE,
    Broken,
    Codec,
    Hint,
    RowCodec,
    seal,
)
from dynamo.wire.signing import FRESH_S, Signer

TEXT = st.text(max_size=8)
SMALL = st.binary(max_size=8)
COUNTS = st.integers(0, 2**63)
VERSIONS = st.builds(
    Version, TEXT, COUNTS, COUNTS, SMALL, COUNTS, TEXT, TEXT, st.dictionaries(TEXT, TEXT), SMALL
)
CONTEXTS = st.dictionaries(TEXT, COUNTS, max_size=4)
RECORDS = st.builds(Record, CONTEXTS, st.lists(VERSIONS, max_size=3).map(tuple))
PROPERTIES = st.builds(
    Properties,
    n=st.one_of(st.none(), st.integers(1, 9)),
    r=st.sampled_from([None, 1, "quorum"]),
    conflicts=st.sampled_from(["siblings", "latest"]),
    quorum=st.sampled_from([None, "sloppy", "strict"]),
)
BUCKETS = st.builds(Bucket, TEXT, COUNTS, st.booleans(), COUNTS, COUNTS, PROPERTIES)
HINTS = st.builds(Hint, COUNTS, SMALL, SMALL)
DRAFTS = st.builds(
    Draft, write=SMALL, size=COUNTS, etag=TEXT, chunks=st.lists(SMALL, max_size=3).map(tuple)
)
RECORD = Codec(Record)
KINDS: list[tuple[Codec[Any], st.SearchStrategy[Any]]] = [(RECORD, RECORDS), (BUCKET, BUCKETS)]
ROWS: list[tuple[RowCodec[Any], st.SearchStrategy[Any]]] = [
    (KEEPING["records"], RECORDS),
    (KEEPING["held"], RECORDS),
    (BREAKING["held"], st.builds(Broken, RECORDS, SMALL)),
    (HINT, HINTS),
    (STATE, BUCKETS),
]
OPS = st.one_of(
    st.builds(messages.Read, SMALL, SMALL, st.booleans()),
    st.builds(messages.Merge, SMALL, SMALL, RECORDS, st.booleans(), TEXT),
    st.builds(
        messages.Coordinate,
        SMALL,
        SMALL,
        st.one_of(st.none(), DRAFTS),
        st.one_of(st.none(), CONTEXTS),
        st.integers(1, 9),
        st.integers(1, 9),
        st.booleans(),
        st.booleans(),
        st.floats(0, 99),
    ),
    st.builds(messages.Scan, SMALL, SMALL, SMALL, st.integers(1, 9)),
    st.builds(messages.BucketMerge, st.lists(BUCKETS, max_size=2).map(tuple)),
    st.builds(messages.BucketMake, TEXT, st.sampled_from(["create", "put", "delete"])),
    st.builds(messages.ChunksDiscard, st.lists(SMALL, max_size=3).map(tuple)),
)
REPLIES = st.one_of(
    st.builds(messages.ReadReply, RECORDS, st.lists(TEXT, max_size=2).map(tuple)),
    st.builds(messages.MergeReply, CONTEXTS),
    st.builds(
        messages.ScanReply,
        st.lists(st.tuples(SMALL, RECORDS), max_size=2).map(tuple),
        st.booleans(),
    ),
    st.builds(messages.BucketMade, TEXT, BUCKETS, st.booleans()),
    st.builds(messages.Fault, TEXT, TEXT),
)
NESTED = b"\x91" * 100_000


@pytest.mark.parametrize(("codec", "values"), KINDS)
def test_what_is_stored_comes_back(codec: Codec[Any], values: st.SearchStrategy[Any]) -> None:
    """Equal, and with a format byte in front."""

    @given(values)
    def check(value: Any) -> None:
        data = codec.encode(value)
        assert data[:1] == FORMAT
        assert codec.decode(data) == value

    check()


@pytest.mark.parametrize(("codec", "values"), KINDS)
def test_noise_is_corrupt_and_nothing_else(
    codec: Codec[Any], values: st.SearchStrategy[Any]
) -> None:
    """Cut, lengthened, of another format or made up: `Corrupt`, never another exception."""

    @given(values, st.binary(max_size=20), st.integers(0, 200))
    def check(value: Any, noise: bytes, at: int) -> None:
        data = codec.encode(value)
        for bad in (data[: at % len(data)], data + b"\0", b"\x02" + data[1:], b""):
            with pytest.raises(Corrupt):
                codec.decode(bad)
        for maybe in (
            noise,
            FORMAT + noise,
            data[:at] + noise + data[at:],
        ):
            with suppress(Corrupt):
                codec.decode(maybe)

    check()


@pytest.mark.parametrize(
    ("codec", "head"),
    [
        (RECORD, b"\x93\x80\x90"),
        (BUCKET, b"\x97\xa0\x00\xc2\x00\x00\x90"),
    ],
)
def test_deep_nesting_is_corrupt_too(codec: Codec[Any], head: bytes) -> None:
    """Where a field of a later version may stand, a decoder passes over anything; however deep."""
    with pytest.raises(Corrupt):
        codec.decode(FORMAT + head + NESTED)


@pytest.mark.parametrize(("codec", "values"), ROWS)
def test_a_row_comes_back_from_where_it_was_put(
    codec: RowCodec[Any], values: st.SearchStrategy[Any]
) -> None:
    """Equal under its own key, and `Corrupt` under any other."""

    @given(values, st.binary(max_size=20), st.binary(max_size=20))
    def check(value: Any, row: bytes, other: bytes) -> None:
        data = codec.encode(row, value)
        assert codec.decode(row, data) == value
        if other != row:
            with pytest.raises(Corrupt):
                codec.decode(other, data)

    check()


@pytest.mark.parametrize(("codec", "values"), ROWS)
def test_a_row_with_any_other_bit_is_corrupt(
    codec: RowCodec[Any], values: st.SearchStrategy[Any]
) -> None:
    """One bit flipped anywhere, bytes cut off or added, another table: never a value."""

    @given(values, st.data(), st.binary(min_size=1, max_size=20))
    def check(value: Any, draws: st.DataObject, noise: bytes) -> None:
        data = codec.encode(b"row", value)
        at = draws.draw(st.integers(0, 8 * len(data) - 1))
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        said = msgspec.msgpack.encode(value)
        moved = seal("elsewhere", b"row", said, data[:1])
        for bad in (bytes(flipped), data[: at // 8], data + noise, moved, FORMAT + said, b""):
            with pytest.raises(Corrupt):
                codec.decode(b"row", bad)

    check()


@pytest.mark.parametrize("head", [b"\x94\x00\xc4\x00\xc4\x00", b"", b"\x93\x00"])
def test_a_sealed_row_of_another_shape_is_corrupt(head: bytes) -> None:
    """Also one that nests deeper than a decoder can follow."""
    with pytest.raises(Corrupt):
        HINT.decode(b"row", seal("hints", b"row", head + NESTED))


@settings(max_examples=200)
@given(st.lists(OPS, max_size=4), st.lists(REPLIES, max_size=4))
def test_batches_come_back(ops: list[Any], replies: list[Any]) -> None:
    """Operations and replies of all kinds, in order."""
    assert messages.decode_ops(messages.encode(ops)) == ops
    assert messages.decode_replies(messages.encode(replies)) == replies


@given(st.lists(OPS, max_size=2), st.lists(REPLIES, max_size=2), TEXT, st.integers(0, 1 << 62))
def test_an_envelope_says_who_speaks(
    ops: list[Any], replies: list[Any], name: str, commit: int
) -> None:
    """And what is in it reads as it does without one."""
    origin = Origin(name, 7, "boot", commit)
    assert messages.open_ops(messages.encode(ops, origin)) == (origin, ops)
    assert messages.open_replies(messages.encode(replies, origin)) == (origin, replies)
    assert messages.open_ops(messages.encode(ops)) == (None, ops)
    assert messages.decode_ops(messages.encode(ops, origin)) == ops


@pytest.mark.parametrize("decode", [messages.decode_ops, messages.decode_replies])
def test_a_batch_that_is_none_is_the_peers_fault(decode: Any) -> None:
    """`PeerBroke`, whatever the bytes."""

    @given(st.lists(OPS, min_size=1, max_size=2), st.binary(max_size=20), st.integers(0, 200))
    def check(ops: list[Any], noise: bytes, at: int) -> None:
        data = messages.encode(ops)
        for bad in (data[: at % len(data)], data + b"\0", b"\x02" + data[1:], b""):
            with pytest.raises(PeerBroke):
                decode(bad)
        for maybe in (
            noise,
            messages.ENVELOPE + noise,
            messages.FORMAT + noise,
            data[:at] + noise + data[at:],
        ):
            with suppress(PeerBroke):
                decode(maybe)

    check()
    for head in (b"", b"\x91\x93\x05\xa0", b"\x91\x94\x02\x80\x90", b"\x91\x93\x02\x80"):
        with pytest.raises(PeerBroke):
            decode(messages.FORMAT + head + NESTED)


@given(st.binary(max_size=30))
def test_a_hello_that_is_none_is_the_peers_fault(noise: bytes) -> None:
    """JSON of another shape, or none."""
    for bad in (noise, b"[" * 100_000, b'{"name": "n1"}', b'{"x":' * 100_000):
        with pytest.raises(PeerBroke):
            hello.decode_hello(bad)


ERRORS = [
    MissingChunks((b"a" * 32, b"b" * 32)),
    QuorumNotMet("write", 1, 2, "n2: no answer"),
    Overloaded("queue"),
    StorageFull(),
    StorageFault("broken"),
    Corrupt("bad"),
    NotReady("stopping"),
    BucketExists("b"),
    NoSuchBucket("b"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_crosses_the_wire_with_its_kind_and_data(error: Any) -> None:
    """What a peer's refusal means to the coordinator does not depend on where it was raised."""
    fault = messages.decode_replies(messages.encode([faults.fault(error)]))[0]
    assert isinstance(fault, messages.Fault)
    again = faults.raised("n2", fault)
    assert type(again) is type(error)
    for name in ("digests", "answered", "needed", "why", "operation", "bucket"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_an_unknown_fault_is_the_peers_fault() -> None:
    """A newer node may name errors that this one does not know."""
    error = faults.raised("n2", messages.Fault("new_kind", "something"))
    assert isinstance(error, PeerBroke)
    assert error.peer == "n2"


SIGNER = Signer(["secret"])
NOW = 1_700_000_000.0
REQUEST = (b"POST", b"/peer/ops?a=b", b"body")


def test_a_signed_request_is_known() -> None:
    """By everyone who has the secret, if only as the second of two, for a while; by nobody else."""
    header = SIGNER.sign(NOW, *REQUEST)
    for now in (NOW, NOW + FRESH_S - 1, NOW - FRESH_S + 1):
        assert Signer(["other", "secret"]).verify(now, header, *REQUEST)
    for now in (NOW + FRESH_S + 1, NOW - FRESH_S - 1):
        assert not SIGNER.verify(now, header, *REQUEST)
    assert not Signer(["Secret"]).verify(NOW, header, *REQUEST)
    assert SIGNER.required
    assert not Signer([]).required
    assert Signer([]).verify(NOW, b"", *REQUEST)


@given(st.sampled_from([0, 1, 2]), st.binary(max_size=5), st.integers(0, 12))
def test_an_altered_request_is_refused(part: int, inserted: bytes, at: int) -> None:
    """Method, path or body: any byte more, less or other."""
    header = SIGNER.sign(NOW, *REQUEST)
    altered = list(REQUEST)
    altered[part] = altered[part][:at] + inserted + altered[part][at + 1 :]
    assert SIGNER.verify(NOW, header, *altered) is (tuple(altered) == REQUEST)


@given(st.binary(max_size=90))
def test_a_made_up_signature_is_refused(noise: bytes) -> None:
    """Also one whose time is no number, no time, or another than was signed."""
    stamp, _, mac = SIGNER.sign(NOW, *REQUEST).partition(b":")
    bad = [noise, b"", b":", stamp, stamp + b":", b"nan:" + mac, b"inf:" + mac, b":" + mac]
    bad += [b"%.3f:" % (NOW + 1) + mac, stamp + b":" + mac[:-1], stamp + b":" + mac.upper()]
    bad += [stamp + b":" + mac + b"\xff", noise + b":" + mac]
    for header in bad:
        assert not SIGNER.verify(NOW, header, *REQUEST)


def test_parts_cannot_be_moved_between_method_path_and_body() -> None:
    """Each is measured before it is hashed."""
    header = SIGNER.sign(NOW, b"GET", b"/ab", b"c")
    assert not SIGNER.verify(NOW, header, b"GET", b"/a", b"bc")
    assert not SIGNER.verify(NOW, header, b"GET/", b"ab", b"c")


def test_newer_nodes_may_add_fields() -> None:
    """I17: what this version does not know at the end of a structure is passed over."""
    data = msgspec.msgpack.encode([7, b"i", b"k", "new field"])
    assert HINT.decode(b"row", seal("hints", b"row", data)) == Hint(7, b"i", b"k")
