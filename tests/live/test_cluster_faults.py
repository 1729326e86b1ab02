"""Nodes that are killed, stopped, emptied: no client notices, nothing acknowledged is lost."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.support.processes import Cluster, NoAnswer, gather, reactor, until

pytestmark = pytest.mark.live

CLIENTS = 8
LARGE_EVERY = 12
SLOWEST_S = 4.0
"""Seconds any request may take while a node is away: far below the request's own timeout."""


class Load:
    """Clients that write and read back, each at nodes of its own, until they are told to stop.

    Each client makes new objects and updates one of its own, one request after another.
    `written`: what was acknowledged, by key. `doubtful`: what was sent and not yet answered.
    """

    def __init__(self, cluster: Cluster, bucket: str, nodes: Sequence[str]) -> None:
        self._cluster, self._bucket, self._nodes = cluster, bucket, nodes
        self._stopping = False
        self._running: Deferred[Any] | None = None
        self.written: dict[str, bytes] = {}
        self.doubtful: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.requests = 0
        self.slowest = 0.0

    def start(self) -> None:
        clients = [Deferred.fromCoroutine(self._client(i)) for i in range(CLIENTS)]
        self._running = gatherResults(clients)

    async def more(self, requests: int) -> None:
        """Waits until so many more requests were answered."""
        goal = self.requests + requests

        async def look() -> bool:
            return self.requests >= goal or bool(self.faults)

        await until(look, f"{requests} more requests answered")

    async def stop(self) -> None:
        """Ends after the requests under way."""
        self._stopping = True
        assert self._running is not None
        await self._running

    async def _client(self, number: int) -> None:
        rng = random.Random(number)
        node = self._nodes[number % len(self._nodes)]
        turn = 0
        while not self._stopping and not self.faults:
            turn += 1
            size = 200_000 if turn % LARGE_EVERY == 0 else rng.randrange(2000)
            fresh = f"client{number}/{turn:05}"
            await self._write(node, fresh, rng.randbytes(size))
            await self._write(node, f"client{number}/mine", b"turn %d" % turn)
            if not self.doubtful:
                await self._read(node, rng.choice(sorted(self.written)))

    async def _write(self, node: str, key: str, body: bytes) -> None:
        self.doubtful[key] = body
        if await self._ask(node, "PUT", key, body) is not None:
            self.written[key] = body
            del self.doubtful[key]

    async def _read(self, node: str, key: str) -> None:
        wanted = self.written[key]
        body = await self._ask(node, "GET", key)
        # Its own client may have updated it meanwhile.
        if body not in (None, wanted, self.written[key], self.doubtful.get(key)):
            self.faults.append(f"{key} is not what was written")

    async def _ask(self, node: str, method: str, key: str, body: bytes | None = None) -> Any:
        path = f"/v1/buckets/{self._bucket}/objects/{key}"
        began = reactor.seconds()
        try:
            answer = await self._cluster.ask(node, method, path, body)
        except NoAnswer as error:
            self.faults.append(str(error))
            return None
        self.slowest = max(self.slowest, reactor.seconds() - began)
        self.requests += 1
        if answer.status != 200:
            self.faults.append(f"{method} {key} at {node}: {answer.status} {answer.body!r}")
            return None
        return answer.body


@pytest_twisted.async_yield_fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three nodes; each test leaves them well."""
    made = Cluster(tmp_path_factory.mktemp("faults"))
    try:
        await made.start()
        yield made
        assert made.tracebacks() == ""
    finally:
        await made.close()


async def holds(cluster: Cluster, name: str, bucket: str, wanted: dict[str, bytes]) -> None:
    """That this node's own copies are these."""

    async def check(part: Sequence[str]) -> None:
        for key in part:
            answer = await cluster.own_copy(name, f"/v1/buckets/{bucket}/objects/{key}")
            assert (key, answer.status) == (key, 200)
            assert answer.body == wanted[key], key

    keys = sorted(wanted)
    await gather(check(keys[i::CLIENTS]) for i in range(CLIENTS))


@pytest_twisted.ensureDeferred
async def test_a_node_killed_under_load(cluster: Cluster) -> None:
    """Kill -9: no client of the others sees an error or a long wait, and the node comes back
    while the load goes on and ends up with all it missed."""
    await cluster.ask("n1", "PUT", "/v1/buckets/killed")
    load = Load(cluster, "killed", ("n1", "n2"))
    load.start()
    await load.more(150)
    cluster["n3"].kill()
    await load.more(300)
    await cluster.sees("n1", "n3", "dead", "suspect")
    assert (await cluster.ask("n1", "GET", "/readyz")).status == 200
    assert (await cluster.ask("n2", "GET", "/status/")).json()["n3"] in ("Down", "Live")
    cluster["n3"].start()
    await cluster.together()
    await load.more(100)
    await load.stop()
    assert load.faults == []
    assert load.slowest < SLOWEST_S
    await cluster.no_hints()
    await holds(cluster, "n3", "killed", load.written)


@pytest_twisted.ensureDeferred
async def test_a_node_that_hangs_under_load(cluster: Cluster) -> None:
    """SIGSTOP: its connections stay open and say nothing; requests at the others go on with
    bounded waits, and when it goes on it ends up with all it missed."""
    await cluster.ask("n1", "PUT", "/v1/buckets/hung")
    load = Load(cluster, "hung", ("n1", "n2"))
    load.start()
    await load.more(100)
    cluster["n3"].send(signal.SIGSTOP)
    try:
        await load.more(150)
        await cluster.sees("n1", "n3", "dead", "suspect")
        await load.more(150)
    finally:
        cluster["n3"].send(signal.SIGCONT)
    await cluster.together()
    await load.more(50)
    await load.stop()
    assert load.faults == []
    assert load.slowest < SLOWEST_S
    await cluster.no_hints()
    await holds(cluster, "n3", "hung", load.written)


@pytest_twisted.ensureDeferred
async def test_a_node_told_to_stop_under_load(cluster: Cluster) -> None:
    """SIGTERM and a new start, as for an upgrade: no client of the others sees an error, and the
    node has all it missed."""
    await cluster.ask("n1", "PUT", "/v1/buckets/told")
    load = Load(cluster, "told", ("n1", "n2"))
    load.start()
    await load.more(50)
    cluster["n3"].send(signal.SIGTERM)
    assert await cluster["n3"].ended() in (0, -signal.SIGTERM)
    await load.more(100)
    cluster["n3"].start()
    await cluster.together()
    await load.more(50)
    await load.stop()
    assert load.faults == []
    assert load.slowest < SLOWEST_S
    await cluster.no_hints()
    await holds(cluster, "n3", "told", load.written)


@pytest_twisted.ensureDeferred
async def test_all_nodes_killed_at_once_under_load(cluster: Cluster) -> None:
    """After a restart every acknowledged write is there; one that was not acknowledged is there
    whole or not at all."""
    await cluster.ask("n1", "PUT", "/v1/buckets/crash")
    load = Load(cluster, "crash", ("n1", "n2", "n3"))
    load.start()
    await load.more(300)
    for node in cluster.nodes.values():
        node.send(signal.SIGKILL)
    await load.stop()
    for node in cluster.nodes.values():
        node.kill()
        node.start()
    await cluster.together()

    listed = (await cluster.ask("n2", "GET", "/v1/buckets/crash/objects")).json()
    found = {entry["key"] for entry in listed["objects"]}
    assert listed["next"] is None
    assert set(load.written) <= found <= set(load.written) | set(load.doubtful)
    for i, key in enumerate(sorted(set(load.written) | set(load.doubtful))):
        answer = await cluster.ask(f"n{i % 3 + 1}", "GET", f"/v1/buckets/crash/objects/{key}")
        if key not in load.doubtful:
            assert (key, answer.status) == (key, 200)
            assert answer.body == load.written[key]
        elif answer.status == 200:
            assert answer.body in (load.doubtful[key], load.written.get(key))
        else:
            assert (answer.status, key in load.written) == (404, False)
    put = await cluster.ask("n3", "PUT", "/v1/buckets/crash/objects/after?w=3", b"after")
    assert put.status == 200


@pytest_twisted.ensureDeferred
async def test_a_node_with_an_emptied_disk(cluster: Cluster) -> None:
    """Its dots are of a new actor, so none is given twice, and no read is worse for it."""
    await cluster.ask("n1", "PUT", "/v1/buckets/wiped")
    path = "/v1/buckets/wiped/objects"
    for i in range(20):
        assert (await cluster.ask("n1", "PUT", f"{path}/{i}?w=3", b"%d" % i)).status == 200
    cluster["n1"].kill()
    shutil.rmtree(cluster["n1"].data_dir)
    cluster["n1"].start()
    await cluster.together()

    for i in range(20):
        assert (await cluster.ask("n1", "GET", f"{path}/{i}")).body == b"%d" % i
    made = await cluster.post("n1", "/create/file/", name="new", bucket="wiped", file=b"new")
    assert made.json()["node"] == "n1"
    assert {a for clock in made.json()["vector_clocks"].values() for a in clock} == {"n1~2"}
    held = (await cluster.replicas("n2", "wiped", "0"))["n2"]
    assert held["context"] == {"n1": 1}


def test_names_of_the_folders_are_of_this_node_alone(cluster: Cluster) -> None:
    """A node writes nothing beside its data folder and its log."""
    folder: Path = cluster["n1"].conf.parent
    wanted = {f"{name}{ending}" for name in cluster.nodes for ending in ("", ".log", ".yaml")}
    assert {path.name for path in folder.iterdir()} == wanted
