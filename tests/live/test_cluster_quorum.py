"""Three real nodes of which some are gone: what still works, what is refused, and how."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_twisted

from tests.support.processes import Cluster, reactor, until

pytestmark = pytest.mark.live

MIB = 1 << 20
LARGE = os.urandom(24 * MIB)
AT_ONCE_S = 2.0


@pytest_twisted.async_yield_fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three nodes; each test leaves them well."""
    made = Cluster(tmp_path_factory.mktemp("quorum"))
    try:
        await made.start()
        yield made
        assert made.tracebacks() == ""
    finally:
        await made.close()


async def key_not_at(cluster: Cluster, bucket: str, node: str) -> tuple[str, list[str]]:
    """A key that `node` holds no copy of, and who does."""
    for number in range(100):
        told = await cluster.ask(node, "GET", f"/v1/ring/{bucket}/key{number}")
        if node not in told.json()["preference"]:
            return f"key{number}", told.json()["preference"]
    raise AssertionError(f"{node} owns all keys")


@pytest_twisted.ensureDeferred
async def test_a_holder_that_dies_in_the_middle_of_a_download(cluster: Cluster) -> None:
    """Two copies, read through the node that has none: whichever holder is killed while bytes
    flow, the client gets all of them, and does not notice."""
    await cluster.ask("n1", "PUT", "/v1/buckets/two", b'{"n": 2, "r": 1, "w": 2}')
    key, holders = await key_not_at(cluster, "two", "n1")
    path = f"/v1/buckets/two/objects/{key}"
    assert (await cluster.ask("n1", "PUT", path, LARGE)).status == 200
    assert set(holders) == {"n2", "n3"}

    async def held_by_its_owners_alone() -> bool:
        held = await cluster.replicas("n1", "two", key)
        return {name for name, replica in held.items() if replica["versions"]} == set(holders)

    # An owner that was late has n1 as its stand-in, until n1 has handed off.
    await until(held_by_its_owners_alone, "only the owners hold it")
    for holder in holders:
        with socket.create_connection(("127.0.0.1", cluster["n1"].api), timeout=20) as connection:
            request = f"GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            got = bytearray(connection.recv(MIB))
            cluster[holder].kill()
            while piece := connection.recv(MIB):
                got += piece
        head, _, body = bytes(got).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == LARGE
        cluster[holder].start()
        await cluster.together()
    assert (await cluster.ask("n1", "DELETE", path)).status == 204


@pytest_twisted.ensureDeferred
async def test_one_node_left_of_three(cluster: Cluster) -> None:
    """What needs two is refused with 503 that counts them, what one can do is done; when the
    others are back they get what was written meanwhile."""
    path = "/v1/buckets/left/objects"
    await cluster.ask("n1", "PUT", "/v1/buckets/left")
    assert (await cluster.ask("n1", "PUT", f"{path}/before?w=3", b"before")).status == 200
    for name in ("n2", "n3"):
        cluster[name].kill()
    for name in ("n2", "n3"):
        await cluster.sees("n1", name, "dead")

    ready = await cluster.ask("n1", "GET", "/readyz")
    assert (ready.status, "n2, n3" in ready.json()["detail"]) == (503, True)
    assert (await cluster.ask("n1", "GET", "/healthz")).status == 200
    for method, key, body in (("PUT", "new", b"x"), ("GET", "before", None)):
        began = reactor.seconds()
        refused = await cluster.ask("n1", method, f"{path}/{key}", body)
        assert (refused.status, refused.code) == (503, "quorum_not_met")
        assert "needs 2 replicas" in refused.json()["detail"]
        assert reactor.seconds() - began < AT_ONCE_S
    refused = await cluster.post("n1", "/create/file/", name="f", bucket="left", file=b"x")
    assert (refused.status, refused.json()["status"]) == (503, "Failure")

    assert (await cluster.ask("n1", "GET", f"{path}/before?r=1")).body == b"before"
    assert (await cluster.ask("n1", "PUT", f"{path}/alone?w=1", b"alone")).status == 200
    assert (await cluster.ask("n1", "GET", f"{path}/alone?r=1")).body == b"alone"

    for name in ("n2", "n3"):
        cluster[name].start()
    await cluster.together()
    await cluster.no_hints()
    for name in cluster.nodes:
        assert (await cluster.ask(name, "GET", f"{path}/alone?r=1")).body == b"alone"


@pytest_twisted.ensureDeferred
async def test_the_others_hang(cluster: Cluster) -> None:
    """Two of three say nothing: what needs them ends within the time that was given, and all
    goes on as before when they do."""
    path = "/v1/buckets/hang/objects/k"
    await cluster.ask("n1", "PUT", "/v1/buckets/hang")
    assert (await cluster.ask("n1", "PUT", f"{path}?w=3", b"one")).status == 200
    for name in ("n2", "n3"):
        cluster[name].send(signal.SIGSTOP)
    try:
        for method, body in (("PUT", b"two"), ("GET", None)):
            began = reactor.seconds()
            refused = await cluster.ask("n1", method, f"{path}?timeout=1", body)
            assert (method, refused.status) == (method, 503)
            assert reactor.seconds() - began < 1 + AT_ONCE_S
    finally:
        for name in ("n2", "n3"):
            cluster[name].send(signal.SIGCONT)
    await cluster.together()
    await cluster.no_hints()
    for name in cluster.nodes:
        # The write that was refused may have been done all the same, then everywhere.
        assert (await cluster.ask(name, "GET", f"{path}?r=3")).body in (b"one", b"two")
