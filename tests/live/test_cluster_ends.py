"""Nodes at the edges of their life: alone, told to stop, among strangers, on a full disk."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_twisted

from tests.support.processes import Cluster, gather, until

pytestmark = pytest.mark.live

MIB = 1 << 20
DISK_BYTES = 96 * MIB
NEVER_S = 2.5
"""How long something that must not happen is waited for: two rounds of asking and more."""


@contextlib.asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[Cluster]:
    """Starts a cluster and ends it; no log may hold a traceback."""
    try:
        await cluster.start()
        yield cluster
        assert cluster.tracebacks() == ""
    finally:
        await cluster.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest_twisted.ensureDeferred
async def test_one_node_alone_works_at_once(tmp_path: Path) -> None:
    """No seeds: a cluster of its own, everything kept once; and again after a restart."""
    async with running(Cluster(tmp_path, ["n1"], seeds=[])) as cluster:
        assert (await cluster.post("n1", "/create/bucket/", name="b")).status == 200
        made = await cluster.post("n1", "/create/file/", name="f", bucket="b", file=b"x" * 100_000)
        assert made.json()["vector_clocks"] == {"n1": {"n1": 1}}
        assert (await cluster.ask("n1", "GET", "/file/b/f")).body == b"x" * 100_000
        assert (await cluster.ask("n1", "GET", "/status/")).json() == {"n1": "Live"}

        cluster["n1"].kill()
        cluster["n1"].start()
        await cluster.together()
        assert (await cluster.ask("n1", "GET", "/file/b/f")).body == b"x" * 100_000
        made = await cluster.post("n1", "/update/file/", name="f", bucket="b", file=b"y")
        assert made.json()["vector_clocks"] == {"n1": {"n1": 2}}


def send_half(port: int, path: str, body: bytes) -> socket.socket:
    """A PUT of which half the body has been sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = f"PUT {path} HTTP/1.1\r\nHost: n1\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[: len(body) // 2])
    return connection


def refuses(port: int) -> bool:
    """Whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest_twisted.ensureDeferred
async def test_sigterm_finishes_what_is_under_way(tmp_path: Path) -> None:
    """An upload and a download that had begun are finished; then the process ends by itself,
    with nothing wrong in its log, and what was uploaded is there after a restart."""
    body = bytes(range(256)) * 16 * 1024
    async with running(Cluster(tmp_path, ["n1"], seeds=[])) as cluster:
        node = cluster["n1"]
        await cluster.ask("n1", "PUT", "/v1/buckets/b")
        await cluster.ask("n1", "PUT", "/v1/buckets/b/objects/down", body)
        upload = send_half(node.api, "/v1/buckets/b/objects/up", body)
        download = socket.create_connection(("127.0.0.1", node.api), timeout=20)
        request = (
            b"GET /v1/buckets/b/objects/down HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n"
        )
        download.sendall(request)
        got = download.recv(1000)
        node.send(signal.SIGTERM)

        async def closed() -> bool:
            return refuses(node.api)

        await until(closed, "n1 takes no new connections")
        assert node.running
        upload.sendall(body[len(body) // 2 :])
        answer = upload.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        while piece := download.recv(MIB):
            got += piece
        assert got.partition(b"\r\n\r\n")[2] == body
        upload.close()
        download.close()
        assert await node.ended(12) in (0, -signal.SIGTERM)

        node.start()
        await cluster.together()
        assert (await cluster.ask("n1", "GET", "/v1/buckets/b/objects/up")).body == body


@pytest_twisted.ensureDeferred
async def test_sigterm_does_not_wait_for_ever(tmp_path: Path) -> None:
    """An upload that never goes on is given up after the grace, and nothing of it is stored."""
    settings = {"limits": {"shutdown_grace": 1.0}}
    async with running(Cluster(tmp_path, ["n1"], settings, seeds=[])) as cluster:
        node = cluster["n1"]
        await cluster.ask("n1", "PUT", "/v1/buckets/b")
        upload = send_half(node.api, "/v1/buckets/b/objects/up", bytes(4 * MIB))
        node.send(signal.SIGTERM)
        assert await node.ended(10) in (0, -signal.SIGTERM)
        upload.close()
        node.start()
        await cluster.together()
        assert (await cluster.ask("n1", "GET", "/v1/buckets/b/objects/up")).status == 404
        chunks = [path for path in (node.data_dir / "chunks").rglob("*") if path.is_file()]
        assert chunks == []


@pytest_twisted.ensureDeferred
async def test_a_secret_keeps_strangers_out(tmp_path: Path) -> None:
    """Two nodes that share a secret form a cluster; one with a wrong secret is not let in, and
    what is not signed is answered 401."""
    cluster = Cluster(
        tmp_path,
        settings={"cluster": {"secret": "the right one"}},
        own={"n3": {"cluster": {"secret": "a wrong one"}}},
    )
    friends = [cluster["n1"].cluster, cluster["n2"].cluster]
    for name in ("n1", "n2"):
        cluster[name].configure(friends)
    try:
        for node in cluster.nodes.values():
            node.start()
        await cluster.together("n1", "n2")
        await cluster.ask("n1", "PUT", "/v1/buckets/b")
        assert (await cluster.ask("n1", "PUT", "/v1/buckets/b/objects/k?w=2", b"v")).status == 200
        assert (await cluster.ask("n2", "GET", "/v1/buckets/b/objects/k?r=2")).body == b"v"

        peer = f"http://127.0.0.1:{cluster['n1'].cluster}/peer"
        chunk = f"{peer}/chunks/{'0' * 64}"
        for method, url, body in (
            ("GET", f"{peer}/hello", None),
            ("POST", f"{peer}/ops", b"anything"),
            ("PUT", chunk, b"anything"),
            ("GET", chunk, None),
        ):
            answer = await cluster.client.ask(method, url, body)
            assert (method, answer.status, answer.code) == (method, 401, "unauthorized")

        async def let_in() -> bool:
            ready = await cluster.ask("n3", "GET", "/readyz")
            known = {*await cluster.members("n1"), *await cluster.members("n2")}
            return ready.status == 200 or "n3" in known

        with pytest.raises(AssertionError, match=f"not within {NEVER_S:g} s"):
            await until(let_in, "n3 is let in", NEVER_S)
        refused = await cluster.ask("n3", "GET", "/v1/buckets/b/objects/k")
        assert (refused.status, refused.code) == (503, "not_ready")
        assert cluster.tracebacks() == ""
    finally:
        await cluster.close()


@pytest_twisted.ensureDeferred
async def test_a_full_disk(tmp_path: Path, disk: Path) -> None:
    """Writes answer 507, everything stored is still read, deletes work and make room again,
    for objects in chunks and for small ones."""
    own = {"n1": {"node": {"data_dir": str(disk / "n1")}}}
    async with running(Cluster(tmp_path, ["n1"], own=own, seeds=[])) as cluster:
        objects = "/v1/buckets/b/objects"
        await cluster.ask("n1", "PUT", "/v1/buckets/b")
        stored: dict[str, bytes] = {}
        for kind, size in (("large", MIB), ("small", 60_000)):
            for number in range(2000):
                key, body = f"{kind}{number}", os.urandom(size)
                answer = await cluster.ask("n1", "PUT", f"{objects}/{key}", body)
                if answer.status != 200:
                    break
                stored[key] = body
            assert (answer.status, answer.code) == (507, "storage_full")
        assert len(stored) > 20

        async def check(key: str) -> None:
            answer = await cluster.ask("n1", "GET", f"{objects}/{key}")
            assert (key, answer.status, answer.body == stored[key]) == (key, 200, True)

        await gather(check(key) for key in stored)
        assert (await cluster.ask("n1", "GET", "/healthz")).status == 200
        for key in list(stored)[:6]:
            assert (await cluster.ask("n1", "DELETE", f"{objects}/{key}")).status == 204
            assert (await cluster.ask("n1", "GET", f"{objects}/{key}")).status == 404
            del stored[key]

        async def room() -> bool:
            answer = await cluster.ask("n1", "PUT", f"{objects}/again", os.urandom(MIB))
            return answer.status == 200

        await until(room, "what was deleted makes room", 10)
        await gather(check(key) for key in stored)


@pytest_twisted.ensureDeferred
async def test_a_full_disk_of_one_node_of_three(tmp_path: Path, disk: Path) -> None:
    """While two of three have room nobody sees it, whichever node is asked."""
    own = {"n3": {"node": {"data_dir": str(disk / "n3")}}}
    async with running(Cluster(tmp_path, own=own)) as cluster:
        await cluster.steady()  # while one has just joined, W of those before it are needed as well
        await cluster.ask("n1", "PUT", "/v1/buckets/b")
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(DISK_BYTES - 66 * MIB))
        for number in range(8):
            for size in (1000, 2 * MIB):
                path = f"/v1/buckets/b/objects/{number}-{size}"
                body = os.urandom(size)
                put = await cluster.ask(f"n{number % 3 + 1}", "PUT", path, body)
                assert put.status == 200
                assert (await cluster.ask("n3", "GET", path)).body == body
        ballast.unlink()
        await cluster.no_hints()
        held = await cluster.replicas("n1", "b", f"7-{2 * MIB}")
        assert [len(held[name]["versions"]) for name in ("n1", "n2", "n3")] == [1, 1, 1]
