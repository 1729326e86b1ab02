"""What only a kernel's sockets can show: half-closes, resets, full buffers, and what is read of
an answer that came early."""

from __future__ import annotations

import hashlib
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http import Response, multipart, read_responses, request_bytes

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
LARGE = hashlib.sha256(b"seed").digest() * 250_000
PATH = "/v1/buckets/b/objects/k"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    command = [sys.executable, "-m", "tests.support.serve_faces"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as node:
        assert node.stdout is not None
        assert node.stderr is not None
        yield int(node.stdout.readline())
        node.terminate()
        assert node.stderr.read() == b""


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_all(client: socket.socket, step: int = 1 << 20) -> list[Response]:
    """Reads until the node closes, at most `step` bytes at a time."""
    pieces = []
    while piece := client.recv(step):
        pieces.append(piece)
    return read_responses(b"".join(pieces))


def exchange(port: int, data: bytes, half_close: bool = True) -> list[Response]:
    with dial(port) as client:
        client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return read_all(client)


def test_large_bodies_pass_whole_both_ways(port: int) -> None:
    """Written at once where the socket takes it, queued where it does not: in order always."""
    put, get, again = exchange(
        port,
        request_bytes("PUT", PATH, LARGE) + request_bytes("GET", PATH) + request_bytes("GET", PATH),
    )
    assert put.status == 200
    assert get.body == again.body == LARGE


def test_a_slow_reader_gets_all(port: int) -> None:
    """One whose buffer is small and that reads in crumbs keeps the node waiting, and gets all."""
    assert exchange(port, request_bytes("PUT", PATH, LARGE))[0].status == 200
    with dial(port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.sendall(request_bytes("GET", PATH))
        client.shutdown(socket.SHUT_WR)
        [response] = read_all(client, step=1024)
    assert response.body == LARGE


def test_a_form_passes_whole(port: int) -> None:
    body, kind = multipart(("name", b"f", None), ("bucket", b"b", None), ("file", LARGE, "x"))
    data = request_bytes("POST", "/create/file/", body, {"Content-Type": kind})
    made, got = exchange(port, data + request_bytes("GET", "/file/b/f"))
    assert made.status == 200
    assert got.body == LARGE


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (request_bytes("GET", "/status"), [200]),
        (request_bytes("PUT", PATH, b"x" * 10)[:-1], [400]),
        (request_bytes("PUT", PATH, LARGE)[:-1], [400]),
        (request_bytes("PUT", PATH, b"x") + b"surplus", [200, 400]),
        (request_bytes("PUT", "/v1/buckets/none/objects/k", LARGE[: 1 << 21]), [404]),
        (request_bytes("PUT", PATH, b"x" * ((1 << 26) + 1))[: 1 << 21], [413]),
        (b"\x16\x03\x01\x02\x00", [400]),
    ],
    ids=range(7),
)
def test_an_answer_can_be_read(port: int, data: bytes, statuses: list[int]) -> None:
    """Also one that was sent while the client was still sending."""
    assert [response.status for response in exchange(port, data)] == statuses


@pytest.mark.parametrize("size", [10, len(LARGE)])
def test_a_silent_client_is_told_so(port: int, size: int) -> None:
    data = request_bytes("PUT", PATH, LARGE[:size])[:-1]
    assert [response.status for response in exchange(port, data, half_close=False)] == [408]


@pytest.mark.parametrize(
    "data", [request_bytes("PUT", PATH, LARGE)[:-1], request_bytes("GET", PATH)]
)
def test_a_client_that_resets_leaves_nothing_behind(port: int, data: bytes) -> None:
    """Nothing is logged (the fixture looks), and the next one is served."""
    with dial(port) as client:
        client.sendall(data)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert exchange(port, request_bytes("GET", "/status"))[0].status == 200
