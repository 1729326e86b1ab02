"""Links between the nodes of an in-process cluster: delayed, lossy, cut or hung, from one seed.

What crosses a link is encoded and decoded, so that nothing is shared by reference.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from dynamo.errors import DynamoError, MissingChunks, NotReady, PeerBroke, PeerUnreachable
from dynamo.errors import StorageFull as Full
from dynamo.ports import Replica
from dynamo.wire import faults, messages
from dynamo.wire.messages import Fault, Op, Reply

SILENCE_S = 10.0


@attrs.define
class Link:
    """One direction of asking. Seconds each way are `delay` plus up to `jitter`.

    `down`: refused at once. `hang`: nothing is ever answered. `deaf`: requests arrive and
    answers are lost. `drop`: the share of exchanges that are lost, one way or the other.
    A chunk takes `chunk_delay` longer to arrive. `refuse`: an error given instead of doing an
    operation, or None.
    """

    delay: float = 0.001
    jitter: float = 0.0
    chunk_delay: float = 0.0
    down: bool = False
    hang: bool = False
    deaf: bool = False
    drop: float = 0.0
    refuse: Callable[[object], DynamoError | None] = lambda op: None


class Network:
    """All links, by (from, to). `sent` notes every operation that was begun, in order."""

    def __init__(self, clock: Clock, rng: Random) -> None:
        self.clock = clock
        self.rng = rng
        self.sent: list[tuple[str, str, object]] = []
        self._links: dict[tuple[str, str], Link] = {}

    def link(self, here: str, there: str) -> Link:
        return self._links.setdefault((here, there), Link())

    def around(self, name: str, others: list[str]) -> list[Link]:
        """Every link from and to a node."""
        ends = [(name, o) for o in others if o != name] + [(o, name) for o in others if o != name]
        return [self.link(*end) for end in ends]

    def carry(
        self, here: str, there: str, what: object, do: Callable[[], Deferred[Any]]
    ) -> Deferred[Any]:
        """Does `do` at the far end; fires with its result, or fails as a peer would."""
        link = self.link(here, there)
        self.sent.append((here, there, what))
        answer: Deferred[Any] = Deferred()

        def give(result: Any) -> None:
            silence.cancel() if silence.active() else None
            if not answer.called:
                is_fault = isinstance(result, Exception)
                answer.errback(Failure(result)) if is_fault else answer.callback(result)

        def back(result: Any) -> None:
            result = result.value if isinstance(result, Failure) else result
            if not lost_back and not link.hang and not link.deaf:
                self.clock.callLater(self._seconds(link), give, result)

        def arrive() -> None:
            if link.down:
                give(PeerUnreachable(there, "refused the connection", sent=False))
            elif not lost and not link.hang:
                refusal = link.refuse(what)
                back(refusal) if refusal is not None else do().addBoth(back)

        lost = self.rng.random() < link.drop / 2
        lost_back = self.rng.random() < link.drop / 2
        silence = self.clock.callLater(
            SILENCE_S, give, PeerUnreachable(there, f"said nothing for {SILENCE_S:g} s")
        )
        slower = link.chunk_delay if isinstance(what, tuple) else 0.0
        self.clock.callLater(self._seconds(link) + slower, arrive)
        return answer

    def _seconds(self, link: Link) -> float:
        return link.delay + self.rng.random() * link.jitter


class FarReplica:
    """A node's copies as another node sees them. `node()` is the far node, None if it is gone."""

    gathering = False

    def __init__(
        self, network: Network, here: str, name: str, local: Callable[[], Replica | None]
    ) -> None:
        self.name = name
        self._network = network
        self._here = here
        self._local = local

    def call(self, op: Op) -> Deferred[Reply]:
        data = messages.encode([op])

        def do() -> Deferred[bytes]:
            return self._far().call(messages.decode_ops(data)[0]).addCallbacks(reply, faulty)

        def reply(result: Reply) -> bytes:
            return messages.encode([result])

        def faulty(failure: Failure) -> bytes:
            error = failure.value
            if not isinstance(error, DynamoError):
                error = NotReady(f"{type(error).__name__}: {error}")
            return messages.encode([faults.fault(error)])

        def decoded(answer: bytes) -> Reply:
            result = messages.decode_replies(answer)[0]
            if isinstance(result, Fault):
                raise faults.raised(self.name, result)
            return result

        return self._network.carry(self._here, self.name, op, do).addCallback(decoded)

    def read_chunk(self, digest: bytes) -> Deferred[bytes]:
        def do() -> Deferred[bytes]:
            return self._far().read_chunk(digest)

        return self._chunk(("read", digest), do, MissingChunks((digest,)))

    def write_chunk(self, digest: bytes, data: bytes) -> Deferred[None]:
        def do() -> Deferred[None]:
            return self._far().write_chunk(digest, bytes(data))

        broke = PeerBroke(self.name, "answered 400 to a chunk")
        return self._chunk(("write", digest), do, broke)

    def _chunk(self, what: object, do: Callable[[], Deferred[Any]], error: Exception) -> Any:
        def failed(failure: Failure) -> Any:
            if failure.check(Full, PeerUnreachable):
                return failure
            failure.trap(DynamoError)
            raise error

        return self._network.carry(self._here, self.name, what, do).addErrback(failed)

    def _far(self) -> Replica:
        local = self._local()
        if local is None:
            raise PeerUnreachable(self.name, "refused the connection", sent=False)
        return local
