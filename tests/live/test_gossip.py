"""Members that find and watch each other by gossip: five real nodes and one seed."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.support.processes import Cluster, NoAnswer, Process, gather, reactor, until

pytestmark = pytest.mark.live

NAMES = ("n1", "n2", "n3", "n4", "n5")
CLIENTS = 16
SECRET = "seven words nobody else has ever said"
SETTINGS = {"gossip": {"profile": "local"}, "cluster": {"secret": SECRET}}
SLOWEST_S = 4.0
BAD_NEWS = ("suspected", "failed")


def alone(cluster: Cluster, *seeds: str) -> None:
    """These are the only seeds of all nodes."""
    for node in cluster.nodes.values():
        node.configure([cluster[seed].cluster for seed in seeds])


@pytest_twisted.async_yield_fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Five nodes whose only seed is n1; each test leaves them well."""
    made = Cluster(tmp_path_factory.mktemp("gossip"), NAMES, SETTINGS)
    alone(made, "n1")
    try:
        await made.start()
        yield made
        assert made.tracebacks() == ""
    finally:
        await made.close()


def now() -> str:
    """The time as events tell it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def events(cluster: Cluster, name: str, since: str) -> list[tuple[str, str]]:
    """What has happened in one node's eyes: (member, event)."""
    told = (await cluster.ask(name, "GET", "/v1/cluster")).json()
    return [(e["member"], e["event"]) for e in told["gossip"]["events"] if e["at"] >= since]


async def accused(cluster: Cluster, since: str) -> set[str]:
    """Whom anybody has held to be suspect or dead."""
    return {
        member
        for name in cluster.nodes
        for member, event in await events(cluster, name, since)
        if event in BAD_NEWS
    }


async def metric(cluster: Cluster, name: str, metric: str, *labels: str) -> float:
    """The sum over the lines of a metric that carry all these labels."""
    text = (await cluster.ask(name, "GET", "/metrics")).body.decode()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith(metric) and all(label in line for label in labels)
    )


class Load:
    """Clients of some nodes that write and read back with n=3, r=2, w=2 until they are stopped.

    `written`: what was acknowledged. `faults`: requests that failed, or lied.
    """

    def __init__(self, cluster: Cluster, nodes: Sequence[str]) -> None:
        self._cluster, self._nodes = cluster, nodes
        self._stopping = False
        self.written: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.requests = 0
        self.slowest = 0.0
        self._running = gatherResults(
            [Deferred.fromCoroutine(self._client(i)) for i in range(CLIENTS)]
        )

    async def more(self, requests: int) -> None:
        """Waits until so many more requests were answered."""
        goal = self.requests + requests

        async def look() -> bool:
            return self.requests >= goal or bool(self.faults)

        await until(look, f"{requests} more requests answered")

    async def stop(self) -> None:
        """Ends after the requests under way."""
        self._stopping = True
        await self._running

    async def _client(self, number: int) -> None:
        rng = random.Random(number)
        node = self._nodes[number % len(self._nodes)]
        turn = 0
        while not self._stopping and not self.faults:
            turn += 1
            key, body = f"c{number}/{turn:05}", rng.randbytes(rng.randrange(2000))
            await self._ask(node, "PUT", key, body)
            self.written[key] = body
            key = f"c{number}/{rng.randint(1, turn):05}"
            if await self._ask(node, "GET", key) != self.written[key]:
                self.faults.append(f"{key} is not what was written")

    async def _ask(self, node: str, method: str, key: str, body: bytes | None = None) -> bytes:
        counts = "n=3&w=2" if method == "PUT" else "n=3&r=2"
        path, began = f"/v1/buckets/load/objects/{key}?{counts}", reactor.seconds()
        try:
            answer = await self._cluster.ask(node, method, path, body)
        except NoAnswer as error:
            self.faults.append(str(error))
            return b""
        self.slowest = max(self.slowest, reactor.seconds() - began)
        self.requests += 1
        if answer.status != 200:
            self.faults.append(f"{method} {key} at {node}: {answer.status} {answer.body!r}")
        return answer.body


async def owners_hold(cluster: Cluster, keys: Sequence[str]) -> None:
    """That each key's owners hold it for themselves, all the same version of it."""

    async def check(part: Sequence[str]) -> None:
        for key in part:
            told = (await cluster.ask("n1", "GET", f"/v1/ring/load/{quote(key)}")).json()
            held = {r["name"]: (r["versions"], r["hint_for"]) for r in told["replicas"]}
            owners = [held[name] for name in told["preference"]]
            assert len(owners) == 3
            assert all(versions and not hints for versions, hints in owners), (key, told)
            assert all(each == owners[0] for each in owners), (key, told)

    await gather(check(keys[i::CLIENTS]) for i in range(CLIENTS))


async def answers_alone(cluster: Cluster, name: str, keys: Sequence[str]) -> None:
    """Waits until a node that is back counts by itself, as it has heard from all what it missed:
    until then the loss of another is a second one."""
    for key in keys:
        told = await cluster.ask("n1", "GET", f"/v1/ring/load/{quote(key)}")
        if name in told.json()["preference"]:
            await cluster.own_copy(name, f"/v1/buckets/load/objects/{key}")
            return
    raise AssertionError(f"{name} owns no key")


@pytest_twisted.ensureDeferred
async def test_all_know_all_by_a_single_seed(cluster: Cluster) -> None:
    """And every node has the same ring."""
    told = [(await cluster.ask(name, "GET", "/v1/cluster")).json() for name in NAMES]
    assert {tuple(sorted(m["name"] for m in each["members"])) for each in told} == {NAMES}
    assert len({each["ring_version"] for each in told}) == 1


@pytest_twisted.ensureDeferred
async def test_two_nodes_killed_under_load(cluster: Cluster) -> None:
    """Kill -9 of one of five, and of a second when that one is back: no client of the others sees
    an error or a long wait, and in the end every owner holds what it should."""
    await cluster.ask("n1", "PUT", "/v1/buckets/load")
    began = now()
    load = Load(cluster, ("n1", "n2", "n3"))
    await load.more(300)
    for victim in ("n4", "n5"):
        cluster[victim].kill()
        await load.more(200)
        await cluster.sees("n1", victim, "dead")
        await load.more(200)
        cluster[victim].start()
        await cluster.together()
        await load.more(100)
        await cluster.no_hints()
        await answers_alone(cluster, victim, sorted(load.written))
    await load.stop()
    assert load.faults == []
    assert load.slowest < SLOWEST_S
    await cluster.no_hints()
    await owners_hold(cluster, sorted(load.written))
    assert await accused(cluster, began) <= {"n4", "n5"}


@pytest_twisted.ensureDeferred
async def test_a_node_that_is_told_to_stop_has_left(cluster: Cluster) -> None:
    """SIGTERM: every other node sees `left`, none a failure, and the ring stays."""
    before = (await cluster.ask("n1", "GET", "/v1/cluster")).json()["ring_version"]
    began = now()
    cluster["n5"].send(signal.SIGTERM)
    others = [name for name in NAMES if name != "n5"]
    for name in others:
        await cluster.sees(name, "n5", "left")
    await cluster["n5"].ended()
    for name in others:
        assert await events(cluster, name, began) == [("n5", "left")]
        assert await metric(cluster, name, "dynamo_members", 'liveness="left"') == 1
    assert (await cluster.ask("n1", "GET", "/v1/cluster")).json()["ring_version"] == before
    assert (await cluster.ask("n1", "GET", "/readyz")).status == 200
    cluster["n5"].start()
    await cluster.together()
    assert await accused(cluster, began) == set()


@pytest_twisted.ensureDeferred
async def test_a_node_that_stands_still(cluster: Cluster) -> None:
    """SIGSTOP for three seconds: it is found dead and comes back by itself; nobody else is accused,
    least of all by the one that slept."""
    began = now()
    cluster["n3"].send(signal.SIGSTOP)
    try:
        stopped = reactor.seconds()
        await cluster.sees("n1", "n3", "dead")

        async def look() -> bool:
            return bool(reactor.seconds() - stopped > 3.0)

        await until(look, "three seconds")
    finally:
        cluster["n3"].send(signal.SIGCONT)
    await cluster.together()
    assert await accused(cluster, began) == {"n3"}
    assert "did not run for" in cluster["n3"].log_text()


@pytest_twisted.ensureDeferred
async def test_strangers_never_show_up(cluster: Cluster, tmp_path: Path) -> None:
    """A node with a wrong secret, and one of another cluster with the right one: they are refused,
    counted, not ready, and in nobody's view."""
    spy = Process("spy", tmp_path, {**SETTINGS, "cluster": {"secret": "guessed"}})
    other = Process("other", tmp_path, {**SETTINGS, "cluster": {"secret": SECRET, "name": "x"}})
    strangers = (spy, other)
    try:
        for node in strangers:
            node.configure([cluster["n1"].cluster])
            node.start()

        async def refused() -> bool:
            dropped = "dynamo_gossip_dropped_total"
            asked = await metric(cluster, "n1", "dynamo_requests_total", "peer/state", '"401"')
            strange = await metric(cluster, "n1", dropped, "other_cluster")
            return asked >= 3 and strange >= 3

        await until(refused, "both were refused several times")
        for node in strangers:
            answer = await cluster.client.ask("GET", f"{node.url}/readyz")
            assert (answer.status, "No seed" in answer.json()["detail"]) == (503, True)
            told = (await cluster.client.ask("GET", f"{node.url}/v1/cluster")).json()
            assert [m["name"] for m in told["members"]] == [node.name]
        for name in NAMES:
            assert (await cluster.members(name)).keys() == set(NAMES)
    finally:
        for node in strangers:
            node.kill()


@pytest_twisted.ensureDeferred
async def test_peer_http_wants_a_signature(cluster: Cluster) -> None:
    """Nothing under /peer/ is answered without one, nor with one that is made up."""
    base = f"http://127.0.0.1:{cluster['n1'].cluster}"
    chunk = f"/peer/chunks/{'00' * 32}"
    for headers in ({}, {"X-Dynamo-Signature": "1700000000.000:" + "0" * 64}):
        for method, path, body in (
            ("GET", "/peer/hello", None),
            ("POST", "/peer/state", b"\x01"),
            ("POST", "/peer/ops", b"\x01\x90"),
            ("GET", chunk, None),
            ("PUT", chunk, b"x"),
        ):
            answer = await cluster.client.ask(method, base + path, body, headers)
            assert (path, answer.status) == (path, 401)


async def restart_with(cluster: Cluster, name: str, secret: Any) -> None:
    """Stops a node as an operator does, and starts it with another secret."""
    node = cluster[name]
    node.send(signal.SIGTERM)
    await node.ended()
    node._settings = {**SETTINGS, "cluster": {"secret": secret}}
    node.configure([cluster["n2"].cluster])
    node.start()


@pytest_twisted.ensureDeferred
async def test_seeds_that_start_last_and_a_change_of_keys(tmp_path: Path) -> None:
    """Nodes wait for their seed and say so; later the secret is changed one node at a time, by a
    list of two, and at no step do they lose each other."""
    cluster = Cluster(tmp_path, ("n1", "n2"), SETTINGS)
    alone(cluster, "n2")
    try:
        cluster["n1"].start()

        async def waits() -> bool:
            answer = await cluster.ask("n1", "GET", "/readyz", seconds=2.0)
            return answer.status == 503 and "No seed has answered" in answer.json()["detail"]

        await until(waits, "n1 waits for its seed")
        cluster["n2"].start()
        await cluster.together()
        began, new = now(), "eight other words that are not told either"
        for secret in ([SECRET, new], [new, SECRET], new):
            for name in ("n1", "n2"):
                await restart_with(cluster, name, secret)
                await cluster.together()
        assert await accused(cluster, began) == set()
        assert cluster.tracebacks() == ""
    finally:
        await cluster.close()
