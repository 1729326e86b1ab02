"""What clients must not send, byte by byte, to a real node: each gets the answer it is owed.

The last test looks at what all of it left behind: a node that serves, an empty bucket, and a log
without a traceback.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted

from tests.support.processes import Cluster, reactor

pytestmark = pytest.mark.live

HOST = b"Host: n1\r\n"
FORM = HOST + b"Content-Type: multipart/form-data; boundary=B\r\n"
URLENCODED = HOST + b"Content-Type: application/x-www-form-urlencoded\r\n"
OBJECTS = b"/v1/buckets/b/objects"
OBJECT_BYTES_MAX = 1 << 20
SILENCE_S = 15.0
RETRY_S = 0.9
"""A connection that finds no room at the node is tried again after a second."""


@pytest_twisted.async_yield_fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """One node alone, with a small limit on objects."""
    settings = {"limits": {"max_object_bytes": OBJECT_BYTES_MAX}}
    made = Cluster(tmp_path_factory.mktemp("bad"), ["n1"], settings, seeds=[])
    try:
        await made.start()
        assert (await made.ask("n1", "PUT", "/v1/buckets/b")).status == 201
        yield made
    finally:
        await made.close()


def talk(port: int, data: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Sends all of it and then no more; the answers until the node closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        while piece := connection.recv(65536):
            got += piece
    answers = []
    while got:
        head, _, got = got.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines)
        length = int(fields.get(b"content-length", b"0"))
        answers.append((int(first.split()[1]), fields, got[:length]))
        got = got[length:]
    return answers


def request(line: bytes, fields: bytes = HOST, body: bytes = b"") -> bytes:
    """A request whose Content-Length is right."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return line + b" HTTP/1.1\r\n" + fields + length + b"\r\n" + body


def short(line: bytes, size: int, fields: bytes = HOST) -> bytes:
    """A request that announces `size` bytes and sends half."""
    head = line + b" HTTP/1.1\r\n" + fields + b"Content-Length: %d\r\n\r\n" % size
    return head + bytes(size // 2)


def part(disposition: bytes, value: bytes = b"x") -> bytes:
    return b'--B\r\nContent-Disposition: form-data; name="' + disposition + b"\r\n\r\n" + value


FILE = part(b'bucket"', b"b") + b"\r\n" + part(b'file"; filename="f"', b"bytes")
CREATE = b"POST /create/file/"

CASES: dict[str, tuple[bytes, int, str]] = {
    # Not HTTP, or not quite.
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), 400, "bad_request"),
    "http2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
    "noise": (b"\x00\xff\x80\r\n\r\n", 400, "bad_request"),
    "no version": (b"GET /healthz\r\n\r\n", 400, "bad_request"),
    "half a head": (b"GET /healthz HTTP/1.1\r\nHost: n1\r\nX", 400, "bad_request"),
    "bare newlines": (b"GET /healthz HTTP/1.1\nHost: n1\n\n", 400, "bad_request"),
    "no colon": (request(b"GET /healthz", HOST + b"oops\r\n"), 400, "bad_request"),
    "a folded field": (request(b"GET /healthz", HOST + b"X: a\r\n b\r\n"), 400, "bad_request"),
    "a huge field": (
        request(b"GET /healthz", HOST + b"X: " + b"x" * 40_000 + b"\r\n"),
        431,
        "headers_too_large",
    ),
    "a huge target": (request(b"GET /" + b"x" * 40_000), 431, "headers_too_large"),
    "many fields": (request(b"GET /healthz", HOST + b"X: y\r\n" * 300), 431, "headers_too_large"),
    # Bodies that are not what was announced.
    "short body": (short(b"PUT " + OBJECTS + b"/short", 1000), 400, "incomplete_body"),
    "short large body": (short(b"PUT " + OBJECTS + b"/short", 300_000), 400, "incomplete_body"),
    "short form": (short(CREATE, 1000, FORM), 400, "incomplete_body"),
    "two lengths": (
        request(b"PUT " + OBJECTS + b"/x", HOST + b"Content-Length: 3\r\n", b"abc"),
        400,
        "bad_request",
    ),
    "length and chunks": (
        request(b"PUT " + OBJECTS + b"/x", HOST + b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        400,
        "bad_request",
    ),
    "a strange length": (
        request(b"PUT " + OBJECTS + b"/x", HOST + b"Content-Length: -1\r\n"),
        400,
        "bad_request",
    ),
    "broken chunks": (
        request(b"PUT " + OBJECTS + b"/x", HOST + b"Transfer-Encoding: chunked\r\n") + b"zz\r\n",
        400,
        "bad_chunking",
    ),
    "unfinished chunks": (
        request(b"PUT " + OBJECTS + b"/x", HOST + b"Transfer-Encoding: chunked\r\n") + b"5\r\nab",
        400,
        "incomplete_body",
    ),
    "another encoding": (
        request(b"PUT " + OBJECTS + b"/x", HOST + b"Transfer-Encoding: gzip\r\n"),
        400,
        "bad_request",
    ),
    "too large": (
        b"PUT " + OBJECTS + b"/x HTTP/1.1\r\nHost: n1\r\nContent-Length: 1048577\r\n\r\nabc",
        413,
        "too_large",
    ),
    "far too large": (
        b"PUT " + OBJECTS + b"/x HTTP/1.1\r\nHost: n1\r\nContent-Length: 99999999999\r\n\r\nabc",
        413,
        "too_large",
    ),
    "a wrong digest": (
        request(b"PUT " + OBJECTS + b"/x", HOST + b"Content-MD5: " + b"A" * 22 + b"==\r\n", b"abc"),
        400,
        "digest_mismatch",
    ),
    "no digest": (
        request(b"PUT " + OBJECTS + b"/x", HOST + b"X-Dynamo-SHA256: zz\r\n", b"abc"),
        400,
        "bad_digest",
    ),
    # Forms.
    "no boundary": (
        request(CREATE, HOST + b"Content-Type: multipart/form-data\r\n", b"x"),
        400,
        "bad_form",
    ),
    "another boundary": (request(CREATE, FORM, FILE.replace(b"--B", b"--C")), 400, "bad_form"),
    "no end": (request(CREATE, FORM, FILE), 400, "bad_form"),
    "cut in a part's head": (request(CREATE, FORM, FILE[:90]), 400, "bad_form"),
    "not a form": (request(CREATE, HOST + b"Content-Type: text/plain\r\n", b"x"), 400, "bad_form"),
    "no fields": (request(b"POST /create/bucket/"), 400, "missing_field"),
    "an empty field": (
        request(b"POST /create/bucket/", URLENCODED, b"name="),
        400,
        "missing_field",
    ),
    "no file": (request(CREATE, URLENCODED, b"name=x&bucket=b"), 400, "missing_field"),
    "no name": (request(CREATE, FORM, FILE + b"\r\n--B--\r\n"), 400, "missing_field"),
    "a field twice": (
        request(b"POST /create/bucket/", URLENCODED, b"name=x&name=y"),
        400,
        "bad_form",
    ),
    "a huge field of a form": (
        request(CREATE, FORM, part(b'name"', b"x" * 40_000) + b"\r\n" + FILE + b"\r\n--B--\r\n"),
        413,
        "too_large",
    ),
    "many parts": (
        request(CREATE, FORM, (part(b'z"') + b"\r\n") * 100 + b"--B--\r\n"),
        400,
        "bad_form",
    ),
    # Names.
    "a bucket that is not UTF-8": (request(b"PUT /v1/buckets/%ff"), 400, "bad_name"),
    "a form's bucket that is not UTF-8": (
        request(b"POST /create/bucket/", URLENCODED, b"name=%ff"),
        400,
        "bad_name",
    ),
    "a raw byte in the path": (request(b"PUT " + OBJECTS + b"/\xff", HOST, b"x"), 400, "bad_name"),
    "half an escape": (request(b"GET " + OBJECTS + b"/%4"), 400, "bad_name"),
    "a slash in a bucket": (request(b"PUT /v1/buckets/..%2Fevil"), 400, "bad_name"),
    "a newline in a bucket": (request(b"PUT /v1/buckets/a%0Ab"), 400, "bad_name"),
    "a long bucket": (request(b"PUT /v1/buckets/" + b"x" * 256), 400, "bad_name"),
    "a NUL in a key": (request(b"PUT " + OBJECTS + b"/a%00b", HOST, b"x"), 400, "bad_name"),
    "a long key": (request(b"PUT " + OBJECTS + b"/" + b"x" * 1025, HOST, b"x"), 400, "bad_name"),
    "a path out of the store": (request(b"GET /file/../../etc/passwd"), 404, "no_such_bucket"),
    "an absolute path": (request(b"GET /file//etc/passwd"), 404, "no_such_route"),
    # Paths, methods and parameters.
    "nothing there": (request(b"GET /nothing/here"), 404, "no_such_route"),
    "no such bucket": (request(b"GET /v1/buckets/none/objects/x"), 404, "no_such_bucket"),
    "no such key": (request(b"GET " + OBJECTS + b"/none"), 404, "no_such_file"),
    "an unknown parameter": (request(b"GET " + OBJECTS + b"/x?R=1"), 400, "bad_parameter"),
    "a parameter twice": (request(b"GET " + OBJECTS + b"/x?r=1&r=2"), 400, "bad_parameter"),
    "no number": (request(b"PUT " + OBJECTS + b"/x?w=two", HOST, b"x"), 400, "bad_parameter"),
    "zero": (request(b"GET " + OBJECTS + b"/x?r=0"), 400, "bad_parameter"),
    "too many": (request(b"GET " + OBJECTS + b"/x?r=9"), 503, "quorum_not_met"),
    "no context": (
        request(b"PUT " + OBJECTS + b"/x", HOST + b"X-Dynamo-Context: zz\r\n", b"x"),
        400,
        "bad_context",
    ),
    "a condition": (
        request(b"PUT " + OBJECTS + b"/x", HOST + b"If-None-Match: *\r\n", b"x"),
        501,
        "not_implemented",
    ),
    "bad properties": (
        request(b"PUT /v1/buckets/c", HOST, b'{"n": "many"}'),
        400,
        "bad_properties",
    ),
    "no JSON": (request(b"PUT /v1/buckets/c", HOST, b"\xff{"), 400, "bad_properties"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_answer_it_is_owed(cluster: Cluster, case: str) -> None:
    """Status and code of the contract, in the form of the face that was asked."""
    data, status, code = CASES[case]
    answers = talk(cluster["n1"].api, data)
    assert answers, "the node said nothing"
    got, fields, body = answers[0]
    told = json.loads(body)
    is_problem = fields[b"content-type"] == b"application/problem+json"
    assert (got, told["code" if is_problem else "error"]) == (status, code)
    if code != "bad_request":  # else the head was no head, and had no path to go by
        assert is_problem == (b" /v1/" in data.partition(b"\r\n")[0])
    assert told["detail"]
    assert str(cluster["n1"].data_dir) not in body.decode()


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        (b"GET /create/bucket/", b"post"),
        (b"DELETE /create/file/", b"post"),
        (b"POST /file/b/x", b"get, head"),
        (b"POST /v1/buckets/b/objects/x", b"delete, get, head, put"),
        (b"PATCH /v1/buckets/b", b"delete, get, head, put"),
        (b"POST /metrics", b"get, head"),
    ],
)
def test_a_wrong_method(cluster: Cluster, line: bytes, allowed: bytes) -> None:
    """405, with those that are right."""
    ((status, fields, _),) = talk(cluster["n1"].api, request(line))
    assert (status, fields[b"allow"]) == (405, allowed)


def test_a_body_longer_than_announced(cluster: Cluster) -> None:
    """The announced part is stored; the rest is taken for a request and is none."""
    head = b"PUT " + OBJECTS + b"/long HTTP/1.1\r\nHost: n1\r\nContent-Length: 3\r\n\r\n"
    stored, refused = talk(cluster["n1"].api, head + b"abcdef\r\n\r\n")
    assert (stored[0], refused[0]) == (200, 400)
    got, deleted = talk(
        cluster["n1"].api,
        request(b"GET " + OBJECTS + b"/long") + request(b"DELETE " + OBJECTS + b"/long"),
    )
    assert (got[0], got[2], deleted[0]) == (200, b"abc", 204)


def test_names_never_are_paths(cluster: Cluster) -> None:
    """`..` and absolute names are stored under just these names, nowhere else on the disk."""
    for name in (b"../../escaped", b"/tmp/escaped", b"..", b"a/../../escaped"):
        field = part(b'name"', name) + b"\r\n" + FILE + b"\r\n--B--\r\n"
        ((status, _, body),) = talk(cluster["n1"].api, request(CREATE, FORM, field))
        assert (status, json.loads(body)["status"]) == (200, "Success")
        fields = b"bucket=b&name=" + b"".join(b"%%%02x" % byte for byte in name)
        read, deleted = talk(
            cluster["n1"].api,
            request(b"POST /read/file/", URLENCODED, fields)
            + request(b"POST /delete/file/", URLENCODED, fields),
        )
        assert (read[0], deleted[0]) == (200, 200)
    folder = cluster["n1"].conf.parent
    assert not list(folder.parent.rglob("*escaped*"))
    assert not Path("/tmp/escaped").exists()


def test_connections_that_say_nothing(cluster: Cluster) -> None:
    """Two hundred of them at once, and half a head on each, keep nobody else from being served,
    nor wait for each other."""
    began = reactor.seconds()
    idle = [socket.create_connection(("127.0.0.1", cluster["n1"].api)) for _ in range(200)]
    try:
        for connection in idle:
            connection.sendall(b"GET / HT")
        assert reactor.seconds() - began < RETRY_S
        ((status, _, _),) = talk(cluster["n1"].api, request(b"GET /healthz"))
        assert status == 200
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(b"POST /peer/ops", HOST, b"\x01noise"), 400),
        (request(b"POST /peer/ops", HOST, b"\xff" * 1000), 400),
        (request(b"POST /peer/ops", HOST), 400),
        (short(b"POST /peer/ops", 1000), 400),
        (request(b"PUT /peer/chunks/" + b"0" * 64, HOST, b"other bytes"), 400),
        (request(b"PUT /peer/chunks/00", HOST, b"x"), 400),
        (request(b"PUT /peer/chunks/zz", HOST, b"x"), 400),
        (request(b"GET /peer/chunks/zz"), 404),
        (request(b"GET /peer/chunks/..%2f..%2fstore"), 404),
        (request(b"GET /peer/chunks/" + b"0" * 64), 404),
    ],
)
def test_noise_between_nodes(cluster: Cluster, data: bytes, status: int) -> None:
    """What is no operation of a peer is refused as well."""
    ((got, _, _), *_) = talk(cluster["n1"].cluster, data)
    assert got == status


def test_noise_in_datagrams(cluster: Cluster) -> None:
    """It is dropped."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gossip:
        for size in (0, 1, 100, 1400, 60_000):
            gossip.sendto(os.urandom(size), ("127.0.0.1", cluster["n1"].cluster))
    ((status, _, _),) = talk(cluster["n1"].api, request(b"GET /readyz"))
    assert status == 200


def test_nothing_of_it_is_left(cluster: Cluster) -> None:
    """The node serves, the bucket is empty, no chunk lies about, the log has no traceback."""
    ready, listed = talk(cluster["n1"].api, request(b"GET /readyz") + request(b"GET " + OBJECTS))
    assert ready[0] == 200
    assert json.loads(listed[2])["objects"] == []
    chunks = (cluster["n1"].data_dir / "chunks").rglob("*")
    assert [path for path in chunks if path.is_file()] == []
    assert cluster.tracebacks() == ""
    assert " error " not in cluster["n1"].log_text()
