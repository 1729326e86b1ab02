"""A connection keeps every promise of HTTP's request side, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from dynamo.api.body import UNREAD_MAX
from dynamo.api.errors import Answer
from dynamo.api.request import Request
from dynamo.api.site import Face, Site, site
from dynamo.errors import NoSuchBucket, Overloaded
from tests.support.http import (
    Client,
    Clock,
    Errors,
    chunked,
    logged_errors,
    read_responses,
    request_bytes,
)

__all__ = ["logged_errors"]

LIMIT = 10_000_000
LARGE = 200_000


class Echo:
    """Routes that use a request in every way."""

    app = Face()

    def __init__(self) -> None:
        self.reading: Deferred[None] | None = None
        self.ended: list[str] = []
        self.held: Deferred[Answer] | None = None
        self.cancelled = 0
        self.pieces = 0

    @app.route("/echo", methods=["GET", "POST"])
    async def echo(self, request: Request) -> Answer:
        pieces = []
        try:
            while True:
                if self.reading is not None:
                    await self.reading
                piece = await request.body.read(50_000)
                self.pieces += 1
                pieces.append(piece)
                if len(piece) < 50_000:
                    break
        except Exception as error:
            self.ended.append(getattr(error, "code", type(error).__name__))
            raise
        return Answer(200, [], b"".join(pieces))

    @app.route("/exact", methods=["POST"])
    async def exact(self, request: Request) -> Answer:
        assert request.body.length is not None
        return Answer(200, [], b"%d" % len(await request.body.read(request.body.length)))

    @app.route("/refuse", methods=["POST"])
    async def refuse(self, request: Request) -> Answer:
        raise NoSuchBucket("b")

    @app.route("/busy", methods=["GET"])
    async def busy(self, request: Request) -> Answer:
        raise Overloaded("queue")

    @app.route("/crash", methods=["GET"])
    async def crash(self, request: Request) -> Answer:
        raise RuntimeError("a mistake with a secret in it")

    @app.route("/hold", methods=["GET", "POST"])
    async def hold(self, request: Request) -> Answer:
        self.held = Deferred()
        try:
            return await self.held
        except BaseException:
            self.cancelled += 1
            raise

    @app.route("/stream", methods=["GET"])
    async def stream(self, request: Request) -> None:
        request.begin(200, [(b"Content-Length", b"100000")])
        for _ in range(10):
            await request.send(b"x" * 10_000)
            self.pieces += 1

    @app.route("/broken", methods=["GET"])
    async def broken(self, request: Request) -> None:
        request.begin(200, [(b"Content-Length", b"100000")])
        await request.send(b"x" * 10_000)
        raise Overloaded("disk")

    @app.route("/classic", methods=["GET"])
    def classic(self, request: Any) -> bytes:
        request.setHeader(b"X-Client", request.getHeader(b"user-agent") or b"")
        request.setResponseCode(202)
        return b",".join(request.args.get(b"a", []))

    @app.route("/path/<rest:rest>", methods=["GET"])
    async def path(self, request: Request, rest: str) -> Answer:
        return Answer(200, [], rest.encode())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def faces(clock: Clock, echo: Echo) -> Site:
    return make_site(clock, echo)


def make_site(clock: Clock, echo: Echo, **options: Any) -> Site:
    settings = {"body_limit": LIMIT, "silence": 20.0, "idle": 60.0, "drain_seconds": 5.0}
    return site(echo.app, reactor=clock, **{**settings, **options})


@pytest.fixture
def client(faces: Site) -> Client:
    return Client(faces)


# Requests that are as they should be.


@pytest.mark.parametrize("size", [0, 1, 4096, 65536, 65537, LARGE])
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_a_body_of_any_size_arrives(client: Client, size: int, coding: str) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    if coding == "length":
        data = request_bytes("POST", "/echo", body)
    else:
        data = request_bytes("POST", "/echo", None, {"Transfer-Encoding": "chunked"})
        data += chunked(body)

    client.send(data)

    [response] = client.responses()
    assert (response.status, response.body) == (200, body)
    assert not client.closed


@given(
    cuts=st.lists(st.integers(0, 160_000), max_size=12),
    sizes=st.lists(st.sampled_from([0, 1, 700, 65_530, 66_000]), min_size=1, max_size=4),
    coding=st.booleans(),
)
def test_requests_cut_anywhere_are_the_same_requests(
    cuts: list[int], sizes: list[int], coding: bool
) -> None:
    """Pipelined requests, cut at any places, are answered in order and in full."""
    client = Client(make_site(Clock(), Echo()))
    bodies = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
    data = b"".join(
        request_bytes("POST", "/echo", None, {"Transfer-Encoding": "chunked"}) + chunked(body, 999)
        if coding
        else request_bytes("POST", "/echo", body)
        for body in bodies
    )

    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, stop in pairwise(edges):
        client.send(data[start:stop])

    assert [r.body for r in client.responses()] == bodies
    assert not client.closed


@given(noise=st.binary(max_size=300), cut=st.integers(0, 300))
def test_noise_is_refused_and_never_raises(noise: bytes, cut: int) -> None:
    """Whatever comes, the connection answers what it can and closes in the end."""
    clock = Clock()
    client = Client(make_site(clock, Echo()))

    client.send(noise[:cut])
    client.send(noise[cut:])
    client.half_close()

    assert client.closed
    assert all(r.status in (400, 404, 405, 408, 413, 431) for r in client.responses())


def test_a_connection_is_used_again_and_again(client: Client) -> None:
    for _ in range(5):
        assert client.ask("GET", "/echo").status == 200
    assert not client.closed
    assert client.wire.pauses == 0


def test_pipelined_requests_wait_for_their_turn(client: Client, echo: Echo) -> None:
    client.send(request_bytes("GET", "/hold") + request_bytes("POST", "/echo", b"next"))
    assert client.responses() == []

    assert echo.held is not None
    echo.held.callback(Answer(200, [], b"first"))

    assert [r.body for r in client.responses()] == [b"first", b"next"]


def test_a_flood_of_pipelined_requests_is_held_back(client: Client, echo: Echo) -> None:
    client.send(request_bytes("GET", "/hold"))
    while not client.wire.paused:
        client.send(request_bytes("GET", "/echo") * 10)
        assert client.wire.pauses < 2

    assert echo.held is not None
    echo.held.callback(Answer(200, [], b"first"))

    assert not client.wire.paused
    assert all(r.status == 200 for r in client.responses())


def test_a_handler_in_the_manner_of_twisted_web_works(client: Client) -> None:
    response = client.ask("GET", "/classic?a=1&a=2", headers={"User-Agent": "t"})
    assert (response.status, response.body) == (202, b"1,2")
    assert response.headers["x-client"] == "t"
    assert "date" in response.headers


def test_head_has_the_length_and_no_body(client: Client) -> None:
    response = client.ask("HEAD", "/path/abc")
    assert (response.status, response.headers["content-length"], response.body) == (200, "3", b"")
    assert client.ask("GET", "/path/abc").body == b"abc"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /echo HTTP/1.0\r\n\r\n", 200),
        (b"GET /echo HTTP/1.1\r\nHost: n\r\nConnection: Close\r\n\r\n", 200),
        (b"GET /echo HTTP/1.1\r\nHost: n\r\nConnection: x, close\r\n\r\n", 200),
    ],
)
def test_a_client_that_wants_to_close_is_let(client: Client, data: bytes, status: int) -> None:
    client.send(data)
    [response] = client.responses()
    assert (response.status, response.headers["connection"]) == (status, "close")
    assert client.closed


@pytest.mark.parametrize(
    "host",
    ["", "..", "a" * 300, "xn--\u00ff", "[::1]:80", "b\u00fccher.example:x", "a b", "\u2603"],
)
def test_the_host_header_means_nothing(client: Client, host: str) -> None:
    """Klein hands it to an IDNA encoder, which raises on most of these."""
    data = b"GET /path/a HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n"
    client.send(data)
    assert client.responses()[0].status == 200


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a//b",
        "/",
        "//",
        "a/",
        "..",
        "../..",
        "./.",
        "a%2Fb",
        "%2e%2e",
        "a%00b",
        "%ff",
        "a;b=c",
        "*",
    ],
)
def test_a_path_reaches_the_handler_as_it_was_sent(client: Client, path: str) -> None:
    response = client.ask("GET", f"/path/{path}")
    assert (response.status, response.body) == (200, path.encode())


def test_raw_bytes_in_a_path_are_escaped(client: Client) -> None:
    assert client.ask("GET", "/path/é%41".encode()).body == b"%C3%A9%41"


def test_the_absolute_form_names_the_same_path(client: Client) -> None:
    assert client.ask("GET", "http://elsewhere:80/path/x").body == b"x"


def test_an_empty_line_too_many_is_overlooked(client: Client) -> None:
    client.send(b"\r\n" + request_bytes("GET", "/echo"))
    assert client.responses()[0].status == 200


# What is refused.


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"lower case\r\n", 400),
        (b"get /echo HTTP/1.1\r\n\r\n", 400),
        (b"GET /echo\r\n\r\n", 400),
        (b"GET /echo HTTP/2.0\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\nHost: n\n\n", 400),
        (b"GET /echo HTTP/1.1\r\nHost n\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nHost : n\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nA: b\x00c\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nA: b\rc\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"GET /echo HTTP/1.1\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431),
        (b"GET /echo HTTP/1.1\r\nA: " + b"b" * 40_000, 431),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 10000001\r\n\r\n", 413),
    ],
)
def test_what_is_no_request_is_refused(client: Client, data: bytes, status: int) -> None:
    client.send(data)
    [response] = client.responses()
    assert (response.status, response.headers["connection"]) == (status, "close")
    assert response.json()["status"] == "Failure"
    assert client.wire.half_closed
    client.half_close()
    assert client.closed


def test_a_head_that_cannot_be_read_is_answered_in_the_manner_of_its_face(client: Client) -> None:
    """Under /v1 every error is a problem document, these as well."""
    client.send(b"PUT /v1/buckets/b HTTP/1.1\r\nHost: n\r\nContent-Length: -1\r\n\r\n")
    [response] = client.responses()
    assert response.status == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "bad_request"


def test_a_method_that_is_not_offered_is_told_the_others(client: Client) -> None:
    response = client.ask("DELETE", "/echo")
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD, POST")
    assert client.ask("GET", "/nowhere").status == 404
    assert not client.closed


def test_a_mistake_of_ours_is_logged_once_and_not_told(
    client: Client, logged_errors: Errors
) -> None:
    response = client.ask("GET", "/crash")
    assert (response.status, response.json()["error"]) == (500, "internal")
    assert b"secret" not in response.body
    [event] = logged_errors
    assert "a mistake with a secret" in str(event["log_failure"])
    logged_errors.clear()


def test_an_overloaded_node_says_when_to_come_back(client: Client) -> None:
    response = client.ask("GET", "/busy")
    assert (response.status, response.headers["retry-after"]) == (503, "1")


def test_a_chunked_body_past_the_limit_is_refused(clock: Clock, echo: Echo) -> None:
    client = Client(make_site(clock, echo, body_limit=100_000))
    client.send(request_bytes("POST", "/echo", None, {"Transfer-Encoding": "chunked"}))
    client.send(chunked(b"x" * 150_000, 10_000)[:-5])
    assert [r.status for r in client.responses()] == [413]
    assert echo.ended == ["too_large"]


# Early answers.


def test_an_early_answer_is_sent_and_the_rest_thrown_away(client: Client) -> None:
    """The client gets to read the 404, its body is taken off its hands, then it is over."""
    data = request_bytes("POST", "/refuse", b"x" * LARGE)

    client.send(data[:1000])

    [response] = client.responses()
    assert (response.status, response.headers["connection"]) == (404, "close")
    assert client.wire.half_closed
    assert not client.closed
    client.send(data[1000:50_000])
    assert not client.closed
    client.send(data[50_000:])
    assert client.closed


def test_the_rest_is_thrown_away_up_to_a_number_of_bytes(clock: Clock, echo: Echo) -> None:
    client = Client(make_site(clock, echo, drain_bytes=100_000))
    client.send(request_bytes("POST", "/refuse", b"x" * 5_000_000)[:1000])
    for _ in range(11):
        assert not client.closed
        client.send(b"x" * 10_000)
    assert client.closed


def test_the_rest_is_thrown_away_for_a_time(client: Client, clock: Clock) -> None:
    client.send(request_bytes("POST", "/refuse", b"x" * LARGE)[:1000])
    for _ in range(5):
        assert not client.closed
        client.send(b"x" * 100)
        clock.advance(1)
    assert client.closed


def test_a_body_that_came_in_time_keeps_the_connection(client: Client) -> None:
    client.send(request_bytes("POST", "/refuse", b"x" * 1000))
    assert client.ask("GET", "/echo").status == 200


def test_a_handler_that_reads_no_further_than_the_length_keeps_the_connection(
    client: Client,
) -> None:
    client.send(request_bytes("POST", "/exact", b"x" * LARGE))
    assert client.responses()[0].body == b"%d" % LARGE
    assert client.ask("GET", "/echo").status == 200


# Expect: 100-continue.


@pytest.mark.parametrize("size", [5, LARGE])
def test_a_body_that_is_wanted_is_asked_for(client: Client, size: int) -> None:
    data = request_bytes("POST", "/echo", b"x" * size, {"Expect": "100-continue"})
    client.send(data[:-size])
    assert client.wire.value() == b"HTTP/1.1 100 Continue\r\n\r\n"

    client.send(data[-size:])

    assert client.responses()[0].body == b"x" * size
    assert client.wire.value().count(b"100 Continue") == 1


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [("/refuse", LARGE, 404), ("/refuse", 5, 404), ("/echo", LIMIT + 1, 413), ("/none", 5, 404)],
)
def test_a_refusal_is_not_preceded_by_an_invitation(
    client: Client, path: str, size: int, status: int
) -> None:
    head = b"POST %s HTTP/1.1\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
    client.send(head % (path.encode(), size))
    assert b"100 Continue" not in client.wire.value()
    assert client.responses()[0].status == status


def test_a_client_that_did_not_wait_is_not_asked(client: Client) -> None:
    client.send(request_bytes("POST", "/echo", b"x" * 5, {"Expect": "100-continue"}))
    assert b"100 Continue" not in client.wire.value()
    assert client.responses()[0].body == b"xxxxx"


# Bodies that are not as announced.


@pytest.mark.parametrize("size", [100, LARGE])
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_a_half_close_inside_a_body_is_an_incomplete_body(
    client: Client, size: int, coding: str
) -> None:
    if coding == "length":
        data = request_bytes("POST", "/echo", b"x" * size)
    else:
        data = request_bytes("POST", "/echo", None, {"Transfer-Encoding": "chunked"})
        data += chunked(b"x" * size)
    client.send(data[:-3])
    client.half_close()
    [response] = client.responses()
    assert (response.status, response.json()["error"]) == (400, "incomplete_body")
    assert client.closed


@pytest.mark.parametrize("size", [100, LARGE])
def test_silence_inside_a_body_is_a_timeout(client: Client, clock: Clock, size: int) -> None:
    data = request_bytes("POST", "/echo", b"x" * size)
    client.send(data[: len(data) // 2])
    clock.advance(19)
    client.send(data[len(data) // 2 : -1])
    clock.advance(19)
    assert client.responses() == []
    clock.advance(1)
    [response] = client.responses()
    assert (response.status, response.json()["error"]) == (408, "request_timeout")
    assert response.headers["connection"] == "close"
    clock.advance(5)
    assert client.closed


def test_a_head_that_trickles_in_is_a_timeout(client: Client, clock: Clock) -> None:
    for byte in b"GET /path/aaaaaaaaaaaaaaaa":
        client.send(bytes([byte]))
        clock.advance(1)
    assert [r.status for r in client.responses()] == [408]


def test_an_unused_connection_is_closed(client: Client, clock: Clock) -> None:
    client.ask("GET", "/echo")
    clock.advance(59)
    assert not client.closed
    client.ask("GET", "/echo")
    clock.advance(59)
    assert not client.closed
    clock.advance(1)
    assert client.closed
    assert len(client.responses()) == 2


def test_a_slow_handler_is_waited_for(client: Client, clock: Clock, echo: Echo) -> None:
    client.send(request_bytes("GET", "/hold"))
    clock.advance(1000)
    assert echo.held is not None
    echo.held.callback(Answer(200, [], b"late"))
    assert client.responses()[0].body == b"late"


@pytest.mark.parametrize("size", [100, LARGE])
def test_a_client_that_vanishes_inside_a_body_is_not_worth_a_word(
    client: Client, echo: Echo, size: int
) -> None:
    client.send(request_bytes("POST", "/echo", b"x" * size)[:-3])
    client.vanish()
    assert client.responses() == []
    assert echo.ended == (["incomplete_body"] if size == LARGE else [])


def test_a_client_that_vanishes_cancels_its_handler(client: Client, echo: Echo) -> None:
    client.send(request_bytes("GET", "/hold"))
    client.vanish()
    assert echo.cancelled == 1


@pytest.mark.parametrize("path", ["/echo", "/hold"])
def test_a_client_that_half_closes_after_its_request_is_answered(
    client: Client, echo: Echo, path: str
) -> None:
    client.send(request_bytes("GET", path))
    client.half_close()
    if echo.held is not None:
        echo.held.callback(Answer(200, [], b""))
    assert [r.status for r in client.responses()] == [200]
    assert client.closed


def test_pipelined_requests_before_a_half_close_are_all_answered(
    client: Client, echo: Echo
) -> None:
    client.send(request_bytes("GET", "/hold") + request_bytes("GET", "/path/2"))
    client.half_close()
    assert echo.held is not None
    echo.held.callback(Answer(200, [], b"1"))
    assert [r.body for r in client.responses()] == [b"1", b"2"]
    assert client.closed


@pytest.mark.parametrize("surplus", [b"surplus", b"\x00\x01", b"SURPLUS\r\n\r\n"])
@pytest.mark.parametrize("size", [10, LARGE])
def test_a_body_longer_than_announced_is_a_bad_next_request(
    client: Client, surplus: bytes, size: int
) -> None:
    client.send(request_bytes("POST", "/echo", b"x" * size) + surplus)
    first, second = client.responses()
    assert (first.status, first.body) == (200, b"x" * size)
    assert second.status == 400
    client.half_close()
    assert client.closed


# Back-pressure.


def test_a_sender_waits_while_nobody_reads(client: Client, echo: Echo, clock: Clock) -> None:
    """What is unread is bounded, waiting for the reader is no silence, and all arrives."""
    echo.reading = reading = Deferred()
    body = bytes(range(250)) * 8000
    client.send(request_bytes("POST", "/echo", body)[: -len(body)])
    at = 0
    while not client.wire.paused:
        client.send(body[at : at + 16_384])
        at += 16_384
    assert UNREAD_MAX <= at <= UNREAD_MAX + 16_384
    clock.advance(1000)

    echo.reading = None
    reading.callback(None)
    while at < len(body):
        assert not client.wire.paused
        client.send(body[at : at + 16_384])
        at += 16_384

    assert client.responses()[0].body == body


def test_a_stream_waits_while_the_client_does_not_read(client: Client, echo: Echo) -> None:
    client.wire.always_full = True
    client.send(request_bytes("GET", "/stream"))
    for resumed in range(10):
        assert echo.pieces == resumed
        client.channel.resumeProducing()
    assert client.responses()[0].body == b"x" * 100_000


def test_a_client_that_never_reads_is_cut_off(client: Client, clock: Clock, echo: Echo) -> None:
    client.send(request_bytes("GET", "/hold"))
    client.channel.pauseProducing()
    clock.advance(60)
    assert client.wire.aborted
    client.vanish()
    assert echo.cancelled == 1


def test_a_client_that_vanishes_inside_a_stream_stops_it(client: Client, echo: Echo) -> None:
    client.channel.pauseProducing()
    client.send(request_bytes("GET", "/stream"))
    client.vanish()
    assert echo.pieces == 0


def test_a_stream_that_fails_breaks_the_connection(client: Client) -> None:
    """A part is never taken for the whole."""
    client.send(request_bytes("GET", "/broken"))
    assert client.wire.aborted
    assert read_responses(client.wire.value()) == []


def test_every_answer_is_told_to_the_observer(clock: Clock, echo: Echo) -> None:
    seen: list[tuple[str, str, int, float]] = []
    client = Client(make_site(clock, echo, observe=lambda *facts: seen.append(facts)))
    client.ask("GET", "/path/x")
    client.ask("GET", "/nowhere")
    client.send(request_bytes("GET", "/hold"))
    clock.advance(2.5)
    assert echo.held is not None
    echo.held.callback(Answer(200, [], b""))
    assert seen == [
        ("/path/<rest:rest>", "GET", 200, 0.0),
        ("none", "GET", 404, 0.0),
        ("/hold", "GET", 200, 2.5),
    ]


# The end.


def test_a_node_that_stops_answers_what_is_in_flight(faces: Site, echo: Echo) -> None:
    idle, busy = Client(faces), Client(faces)
    idle.ask("GET", "/echo")
    busy.send(request_bytes("GET", "/hold"))
    finished: list[None] = []
    assert faces.in_flight == 1

    faces.finish().addCallback(finished.append)

    assert idle.closed
    idle.close()
    assert (busy.closed, finished) == (False, [])
    assert echo.held is not None
    echo.held.callback(Answer(200, [], b"done"))
    [response] = busy.responses()
    assert (response.body, response.headers["connection"]) == (b"done", "close")
    assert (busy.closed, faces.in_flight) == (True, 0)
    busy.close()
    assert finished == [None]


def test_a_node_that_stops_waits_no_longer_than_it_wants(faces: Site, echo: Echo) -> None:
    busy = Client(faces)
    busy.send(request_bytes("GET", "/hold"))
    finished: list[None] = []
    faces.finish().addCallback(finished.append)

    faces.abort()
    busy.vanish()

    assert busy.wire.aborted
    assert echo.cancelled == 1
    assert finished == [None]


def test_a_node_without_connections_stops_at_once(faces: Site) -> None:
    finished: list[None] = []
    faces.finish().addCallback(finished.append)
    assert finished == [None]
