"""Signed requests between nodes whose wall clocks disagree."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

from dynamo.errors import PeerBroke
from dynamo.replica.remote import RemoteReplica
from dynamo.wire.signing import FRESH_S, HEADER, TIME, Signer

NOW = 1_800_000_000.0


@attrs.define
class Answered:
    """What treq reads of a response."""

    code: int
    headers: Headers
    length: int = 5

    def deliverBody(self, protocol: Any) -> None:
        protocol.dataReceived(b"chunk")
        protocol.connectionLost(Failure(ResponseDone()))


@attrs.define
class SignedPeer:
    """The peer's side of HTTP, judging by its own clock; stands in for treq's client."""

    signer: Signer
    now: float
    tells_time: bool = True
    refused: int = 0

    def request(self, method: str, url: Any, **given: Any) -> Deferred[Answered]:
        path = "/" + url.to_text().split("/", 3)[3]
        signature = given["headers"][HEADER]
        body = given["data"] or b""
        if self.signer.verify(self.now, signature, method.encode(), path.encode(), body):
            return succeed(Answered(200, Headers()))
        self.refused += 1
        told = {TIME: [b"%.3f" % self.now]} if self.tells_time else {}
        return succeed(Answered(401, Headers(told)))


def replica(peer: SignedPeer, secret: str = "s", now: float = NOW) -> RemoteReplica:
    return RemoteReplica(
        "n2",
        "127.0.0.1:1",
        http=peer,  # type: ignore[arg-type]
        clock=Clock(),
        wall_clock=lambda: now,
        signer=Signer([secret]),
        timeout=1.0,
        evidence=lambda name, ok: None,
    )


@pytest.mark.parametrize("off", [-3600.0, 3600.0, 10 * 365 * 86400.0])
def test_a_clock_that_is_off_costs_one_request(off: float) -> None:
    """The first request is signed anew by the peer's time, later ones are right at once."""
    peer = SignedPeer(Signer(["s"]), NOW + off)
    asker = replica(peer)
    results: list[bytes] = []
    for _ in range(3):
        asker.read_chunk(b"d").addCallback(results.append)
    assert (results, peer.refused) == ([b"chunk"] * 3, 1)


def test_a_small_difference_costs_nothing() -> None:
    """Within the bound a signature is fresh."""
    peer = SignedPeer(Signer(["s"]), NOW + FRESH_S - 1)
    results: list[bytes] = []
    replica(peer).read_chunk(b"d").addCallback(results.append)
    assert (results, peer.refused) == ([b"chunk"], 0)


@pytest.mark.parametrize("tells_time", [True, False])
def test_another_secret_is_refused_for_good(tells_time: bool) -> None:
    """Whatever time the peer tells, it is asked at most twice."""
    peer = SignedPeer(Signer(["other"]), NOW, tells_time)
    failures: list[Failure] = []
    replica(peer).read_chunk(b"d").addErrback(failures.append)
    assert failures[0].check(PeerBroke)
    assert peer.refused == 1 + tells_time
