"""A replica across peer HTTP: the real client against the real peer face, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, DeferredList
from twisted.internet.protocol import Factory, Protocol

from dynamo.api.peer import PeerFace
from dynamo.api.site import site
from dynamo.core.buckets import Bucket, Properties
from dynamo.errors import (
    MissingChunks,
    NotReady,
    PeerBroke,
    PeerUnreachable,
    StorageFull,
)
from dynamo.replica import remote as remote_module
from dynamo.replica.local import LocalReplica
from dynamo.replica.pool import peer_client
from dynamo.replica.remote import RemoteReplica
from dynamo.storage.chunks import digest_of
from dynamo.storage.committer import Committer
from dynamo.storage.facts import BucketTable
from dynamo.storage.threads import run_here
from dynamo.wire import messages
from dynamo.wire.hello import Hello
from dynamo.wire.signing import Signer
from tests.support.disk import INCARNATION, Disk, draft, record

pytestmark = pytest.mark.live
reactor: Any = _reactor
NOW = 1_700_000_000.0
HELLO = Hello("n2", "c", 64, "z", 1.0, "a", "c", "n2", "boot", True, {}, {}, "", 0, 0)


class View:
    """All that a local replica asks of the members."""

    name = "n2"

    def awaiting(self) -> tuple[str, ...]:
        return ("n9",)


class Babble(Protocol):
    """Says always the same, or nothing, whatever it is asked."""

    says: bytes | None = None

    def dataReceived(self, data: bytes) -> None:
        if self.says is not None and self.transport is not None:
            self.transport.write(self.says)
            self.transport.loseConnection()


class Pair:
    """`far` is a replica of `disk`, across the network; `heard` is the evidence it gave."""

    def __init__(self) -> None:
        self.disk = Disk()
        table = BucketTable(self.disk.engine, Committer(self.disk.engine, run_here))
        view: Any = View()
        self.local = LocalReplica("n2", self.disk.copies, self.disk.chunks, table, view)
        self.heard: list[bool] = []
        self.states: list[bytes] = []
        self.ports: list[Any] = []
        self.http, self.pool = peer_client(reactor)

    def serve(self, signer: Signer, wall: float = NOW) -> str:
        face = PeerFace(self.local, signer, lambda: wall, lambda asker: HELLO, self._state)
        return self.listen(site(face.app, reactor=reactor, body_limit=64 * 1024 * 1024))

    def _state(self, state: bytes) -> bytes:
        self.states.append(state)
        return state[::-1]

    def listen(self, factory: Any) -> str:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.ports.append(port)
        return f"127.0.0.1:{port.getHost().port}"

    def say(self, what: bytes | None) -> str:
        made = type("Says", (Babble,), {"says": what})
        return self.listen(Factory.forProtocol(made))

    def far(
        self, address: str, signer: Signer | None = None, timeout: float = 5.0
    ) -> RemoteReplica:
        return RemoteReplica(
            "n2",
            address,
            http=self.http,
            clock=reactor,
            wall_clock=lambda: NOW,
            signer=signer or Signer([]),
            timeout=timeout,
            evidence=lambda _, ok: self.heard.append(ok),
        )


@pytest_twisted.async_yield_fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    yield made
    await made.pool.closeCachedConnections()
    for port in made.ports:
        await port.stopListening()


@pytest.mark.parametrize("secrets", [[], ["a"], ["b", "a"]])
@pytest_twisted.ensureDeferred
async def test_every_operation_crosses_the_wire(pair: Pair, secrets: list[str]) -> None:
    """With and without a secret; what comes back is what the copies here would answer."""
    far = pair.far(pair.serve(Signer(["a"] if secrets else [])), Signer(secrets[::-1]))
    bucket = Bucket("é/ x", 1, False, 1, 1, Properties(n=2))
    made = record("1")
    merge = await far.call(messages.Merge(INCARNATION, b"k\xff", made))
    assert merge == messages.MergeReply(dict(made.context))
    held = await far.call(messages.Merge(INCARNATION, b"k\xff", record("2", "b"), hint_for="n3"))
    assert held == messages.MergeReply({"b": 1})
    both = pair.disk.read(b"k\xff")
    assert len(both.versions) == 2
    read = await far.call(messages.Read(INCARNATION, b"k\xff", True))
    assert read == messages.ReadReply(both, ("n9",))
    scan = await far.call(messages.Scan(INCARNATION, b"", b"k", 10))
    assert scan == messages.ScanReply(((b"k\xff", both.strip()),), True, ("n9",))
    inspect = await far.call(messages.Inspect(INCARNATION, b"k\xff"))
    assert inspect == messages.InspectReply(made.strip(), record("2", "b").strip(), ("n3",))
    told = await far.call(messages.BucketMerge((bucket,)))
    assert told == await far.call(messages.BucketRead(bucket.name))
    assert await far.call(messages.BucketList("")) == messages.BucketsReply((bucket,))
    assert await far.hello(5.0) == HELLO
    assert await far.exchange_state(b"abc", 5.0) == b"cba"
    assert set(pair.heard) == {True}


@pytest_twisted.ensureDeferred
async def test_chunks_cross_the_wire_verified(pair: Pair) -> None:
    """Written, read, missing, damaged, refused, full: each comes back as what it is."""
    far = pair.far(pair.serve(Signer(["a"])), Signer(["a"]))
    body = bytes(range(256)) * 4096
    digest = digest_of(body)
    assert await far.call(messages.ChunksMissing((digest,))) == messages.ChunksReply((digest,))
    with pytest.raises(MissingChunks):
        await far.read_chunk(digest)
    await far.write_chunk(digest, body)
    assert await far.read_chunk(digest) == body
    assert await far.call(messages.ChunksMissing((digest,))) == messages.ChunksReply(())
    pair.disk.chunks.stored[digest] = b"damaged"
    with pytest.raises(MissingChunks):
        await far.read_chunk(digest)
    with pytest.raises(PeerBroke):
        await far.write_chunk(digest_of(b"other"), b"not it")
    await far.call(messages.ChunksDiscard((digest,)))
    assert pair.disk.chunks.stored == {}
    pair.disk.chunks.bytes_max = 10
    with pytest.raises(StorageFull):
        await far.write_chunk(digest, body)


@pytest_twisted.ensureDeferred
async def test_a_batch_answers_each_operation_for_itself(pair: Pair) -> None:
    """One that fails leaves the others alone, merges among themselves and with others mixed."""
    far = pair.far(pair.serve(Signer([])))
    lacking = record("lacking", "a", 1, b"absent".ljust(32))
    for extra in ([], [messages.ChunksDiscard(())]):
        calls = [
            far.call(messages.Merge(INCARNATION, b"%d" % i, lacking if i == 2 else record("x")))
            for i in range(5)
        ]
        calls += [far.call(op) for op in extra]
        outcomes: Any = await DeferredList(calls, consumeErrors=True)
        assert [ok for ok, _ in outcomes] == [True, True, False, True, True, *(True for _ in extra)]
        assert isinstance(outcomes[2][1].value, MissingChunks)
        assert outcomes[2][1].value.digests == (b"absent".ljust(32),)
    with pytest.raises(NotReady):
        await far.call(messages.BucketMake("b", "create"))


@pytest_twisted.ensureDeferred
async def test_merges_together_end_as_merges_one_by_one(pair: Pair) -> None:
    """Also several of one key, on a full disk, and with chunks to free."""
    far = pair.far(pair.serve(Signer([])))
    chunk = pair.disk.chunk(b"c")
    pair.disk.put(b"k", draft("old", b"", chunk), actor="a")
    known = pair.disk.read(b"k")
    newer = known.put(draft("new"), actor="b", stamp=5)
    records = [newer, record("2", "c"), record("3", "d")]
    calls = [far.call(messages.Merge(INCARNATION, b"k", r)) for r in records]
    await DeferredList(calls)
    expected = known
    for one in records:
        expected = expected.merge(one)
    assert pair.disk.read(b"k") == expected
    assert pair.disk.chunks.stored == {}
    pair.disk.engine.bytes_max = 0
    gone = expected.put(None, actor="a", stamp=9)
    big = record("big" * 100, "z")
    calls = [
        far.call(messages.Merge(INCARNATION, key, r)) for key, r in ((b"k", gone), (b"l", big))
    ]
    outcomes: Any = await DeferredList(calls, consumeErrors=True)
    assert [ok for ok, _ in outcomes] == [True, False]
    assert isinstance(outcomes[1][1].value, StorageFull)
    assert pair.disk.read(b"k") == gone


@pytest.mark.parametrize("signer", [Signer([]), Signer(["b"])])
@pytest_twisted.ensureDeferred
async def test_who_does_not_share_the_secret_is_not_answered(pair: Pair, signer: Signer) -> None:
    """Nothing is done, and the error says why."""
    far = pair.far(pair.serve(Signer(["a"])), signer)
    digest = digest_of(b"x")
    for ask in (
        lambda: far.call(messages.Merge(INCARNATION, b"k", record("1"))),
        lambda: far.write_chunk(digest, b"x"),
        lambda: far.read_chunk(digest),
    ):
        with pytest.raises(PeerBroke, match="secret"):
            await ask()
    with pytest.raises(PeerBroke, match="secret"):
        await far.hello(5.0)
    with pytest.raises(PeerBroke, match="secret"):
        await far.exchange_state(b"x", 5.0)
    assert (pair.disk.read(b"k").versions, pair.disk.chunks.stored, pair.states) == ((), {}, [])


@pytest.mark.parametrize("off", [-86400.0, 86400.0])
@pytest_twisted.ensureDeferred
async def test_a_clock_that_is_off_costs_one_request(pair: Pair, off: float) -> None:
    """A signature is made again with the time the peer has."""
    far = pair.far(pair.serve(Signer(["a"]), NOW + off), Signer(["a"]))
    for _ in range(2):
        await far.call(messages.Merge(INCARNATION, b"k", record("1")))
    assert pair.disk.read(b"k").known()


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_was_certainly_not_seen(pair: Pair) -> None:
    """`sent` is False: the write may go elsewhere without a doubt."""
    address = pair.say(None)
    await pair.ports.pop().stopListening()
    with pytest.raises(PeerUnreachable) as caught:
        await pair.far(address).call(messages.BucketRead("b"))
    assert caught.value.sent is False
    assert pair.heard == [False]


@pytest.mark.parametrize(
    "says",
    [
        None,
        b"",
        b"noise\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ],
)
@pytest_twisted.ensureDeferred
async def test_silence_and_half_an_answer_are_no_answer(pair: Pair, says: bytes | None) -> None:
    """Unreachable, within the timeout, and perhaps seen."""
    far = pair.far(pair.say(says), timeout=0.2)
    with pytest.raises(PeerUnreachable) as caught:
        await far.call(messages.BucketRead("b"))
    assert caught.value.sent is True
    assert pair.heard == [False]
    if says is None:
        assert "said nothing for 0.2 s" in caught.value.detail


@pytest.mark.parametrize(
    "says",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nnoise",
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\x01\x90",
        b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_none_is_the_peers_fault(pair: Pair, says: bytes) -> None:
    """Noise, other codes, redirects, too few replies; chunks are not taken from it either."""
    with pytest.raises(PeerBroke):
        await pair.far(pair.say(says)).call(messages.BucketRead("b"))
    with pytest.raises(PeerBroke):
        await pair.far(pair.say(says)).hello(5.0)


@pytest_twisted.ensureDeferred
async def test_an_answer_without_end_is_cut_off(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node's memory is not a peer's to fill."""
    monkeypatch.setattr(remote_module, "ANSWER_BYTES_MAX", 1000)
    far = pair.far(pair.say(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100_000)))
    with pytest.raises((PeerBroke, PeerUnreachable)):
        await far.call(messages.BucketRead("b"))


@pytest_twisted.ensureDeferred
async def test_who_stops_waiting_is_told_at_once(pair: Pair) -> None:
    """Cancelling is no evidence against the peer."""
    waiting = pair.far(pair.say(None)).read_chunk(b"d" * 32)
    reactor.callLater(0.05, waiting.cancel)
    with pytest.raises((PeerUnreachable, CancelledError), match="not waited for"):
        await waiting
    assert pair.heard == []
