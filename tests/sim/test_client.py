"""The simulated clients' HTTP: whole answers however they come, one word for each failure."""

from __future__ import annotations

from random import Random

import pytest
from twisted.internet.protocol import Factory, Protocol

from dynamo.sim import pipes
from dynamo.sim.client import Answer, Caller, request_bytes
from dynamo.sim.network import Network
from dynamo.sim.reactor import Reactor
from dynamo.sim.schedule import Schedule
from dynamo.sim.trace import Trace
from dynamo.sim.world import API_PORT, World

GET = request_bytes(b"GET", b"/", [])
HELLO = b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello"


class Server:
    """A machine that answers each request with the next of `script`, and keeps what it was sent.

    b"" closes the connection; a tuple is written piece by piece, a little later each.
    """

    def __init__(self, *script: bytes | tuple[bytes, ...], listen: bool = True) -> None:
        self.schedule = Schedule()
        trace = Trace(self.schedule.seconds, None, on=False)
        self.network = Network(self.schedule, Random(1), trace)
        self.machine = self.network.machine("s", "10.0.0.1")
        self.script = list(script)
        self.connections = 0
        self.got = b""
        self.caller = Caller(Reactor(self.network.machine("c", "10.0.0.2")))
        if listen:
            factory = Factory.forProtocol(_Scripted)
            factory.server = self  # type: ignore[attr-defined]
            self.reactor = Reactor(self.machine)
            self.reactor.listenTCP(80, factory)

    def ask(self, request: bytes = GET, *, head: bool = False, seconds: float = 5.0) -> Answer:
        got: list[Answer] = []
        asked = self.caller.ask(("10.0.0.1", 80), request, head=head, seconds=seconds)
        asked.addCallback(got.append)
        self.schedule.run_until(self.schedule.now + seconds + 1)
        assert len(got) == 1
        return got[0]


class _Scripted(Protocol):
    factory: Factory

    def connectionMade(self) -> None:
        self.server: Server = self.factory.server  # type: ignore[attr-defined]
        self.server.connections += 1

    def dataReceived(self, data: bytes) -> None:
        self.server.got += data
        if not self.server.script:
            return
        answer = self.server.script.pop(0)
        for number, piece in enumerate(answer if isinstance(answer, tuple) else (answer,)):
            self.server.schedule.callLater(0.01 * number, self.say, piece)

    def say(self, piece: bytes) -> None:
        assert self.transport is not None
        if piece:
            self.transport.write(piece)
        else:
            self.transport.loseConnection()


def test_an_answer_comes_whole_over_a_connection_that_is_kept() -> None:
    """Three requests, one connection."""
    server = Server(HELLO, HELLO, HELLO)
    for _ in range(3):
        answer = server.ask()
        assert (answer.status, answer.body, answer.failed) == (200, b"hello", "")
        assert answer.header(b"x-a") == "b"
    assert server.connections == 1
    assert server.got == GET * 3


@pytest.mark.parametrize("cut", range(1, len(HELLO), 7))
def test_an_answer_in_pieces_is_one(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the segments end, and when each is cut in two."""
    monkeypatch.setattr(pipes, "SPLIT", 1.0)
    server = Server((HELLO[:cut], HELLO[cut:]))
    assert server.ask().body == b"hello"


def test_a_head_has_no_body_and_the_next_answer_is_read_afresh() -> None:
    """Its length is of a body that does not come."""
    server = Server(HELLO.removesuffix(b"hello"), HELLO)
    first = server.ask(head=True)
    assert (first.status, first.header(b"content-length"), first.body) == (200, "5", b"")
    assert server.ask().body == b"hello"
    assert server.connections == 1


def test_a_close_amid_an_answer_is_a_loss() -> None:
    """And the next request uses another connection."""
    server = Server((HELLO[:-2], b""), HELLO)
    answer = server.ask()
    assert (answer.failed, answer.sent) == ("lost", True)
    assert server.ask().body == b"hello"
    assert server.connections == 2


def test_a_connection_closed_while_idle_is_not_used() -> None:
    """As a server closes those it has kept long enough."""
    server = Server((HELLO, b""), HELLO)
    assert server.ask().status == 200
    assert server.ask().status == 200
    assert server.connections == 2


def test_a_request_lost_on_a_kept_connection_says_so() -> None:
    """The node was restarted and its machine knows nothing of the connection."""
    server = Server(HELLO, HELLO)
    assert server.ask().status == 200
    for end in list(server.machine.ends):
        end.vanish()
    answer = server.ask()
    assert (answer.failed, answer.sent, answer.stale) == ("lost", True, True)
    assert server.ask().status == 200
    assert not Server((HELLO[:-2], b"")).ask().stale


def test_an_answer_that_says_close_is_the_last() -> None:
    """Whether or not the server has closed yet."""
    server = Server(HELLO.replace(b"X-A: b", b"Connection: close"), HELLO)
    assert server.ask().status == 200
    assert server.ask().status == 200
    assert server.connections == 2


def test_two_answers_to_one_request_end_the_connection() -> None:
    """The second would be taken for the next request's."""
    server = Server((HELLO, HELLO.replace(b"hello", b"other")), HELLO)
    assert server.ask().body == b"hello"
    assert server.ask().body == b"hello"
    assert server.connections == 2


def test_what_is_no_http_is_a_loss() -> None:
    assert Server(b"220 smtp ready\r\n").ask().failed == "lost"


def test_nobody_listens() -> None:
    """The request was never sent."""
    answer = Server(listen=False).ask()
    assert (answer.failed, answer.sent) == ("refused", False)


def test_no_answer_in_time() -> None:
    """It may have been done; the connection is not used again."""
    server = Server()
    answer = server.ask(seconds=2.0)
    assert (answer.failed, answer.sent) == ("timeout", True)
    assert server.got == GET
    server.script.append(HELLO)
    assert server.ask().status == 200
    assert server.connections == 2


def test_no_connection_in_time() -> None:
    """It was certainly not done."""
    server = Server()
    server.machine.up = False
    answer = server.ask(seconds=2.0)
    assert (answer.failed, answer.sent) == ("timeout", False)


def test_a_node_understands_it() -> None:
    """The real faces, on the simulated reactor."""
    world = World(1, 2, settings={"log": {"level": "critical"}})
    caller = Caller(Reactor(world.client_machine("c1", 1)))
    for name in world.names:
        world.start(name)
    world.run_for(8)
    place = (world.hosts["n1"].machine.ip, API_PORT)
    got: list[Answer] = []

    def ask(method: bytes, target: bytes, body: bytes = b"", *, head: bool = False) -> Answer:
        request = request_bytes(method, target, [], body)
        caller.ask(place, request, head=head, seconds=5).addCallback(got.append)
        world.run_for(1)
        return got.pop()

    assert ask(b"PUT", b"/v1/buckets/b").status == 201
    large = b"x" * 100_000
    for body in (b"small", large):
        assert ask(b"PUT", b"/v1/buckets/b/objects/k", body).status == 200
        assert ask(b"GET", b"/v1/buckets/b/objects/k").body == body
        assert ask(b"HEAD", b"/v1/buckets/b/objects/k", head=True).status == 200
    assert ask(b"GET", b"/v1/buckets/b/objects/none").status == 404
