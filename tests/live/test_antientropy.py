"""Real nodes that differ behind each other's back find it out and become equal."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted

from dynamo.core.buckets import Bucket
from dynamo.core.record import Draft, Record
from dynamo.storage.chunks import MemoryChunks
from dynamo.storage.committer import Committer
from dynamo.storage.copies import Copies
from dynamo.storage.hints import HintBook
from dynamo.storage.lmdb_engine import LmdbEngine
from dynamo.storage.places import PlaceBook
from dynamo.storage.threads import run_here
from tests.support.processes import Cluster, until

pytestmark = pytest.mark.live

BUCKET = "b"
INTERVAL = {"repair": {"interval": 2.0}}


@pytest_twisted.async_yield_fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    started = Cluster(tmp_path, settings=INTERVAL)
    try:
        await started.start()
        yield started
    finally:
        await started.close()


def add(folder: Path, keys: list[str], body: bytes) -> None:
    """Writes these objects into the store of a node that is not running."""
    engine = LmdbEngine(folder / "store")
    copies = Copies(
        engine=engine,
        committer=Committer(engine, run_here),
        chunks=MemoryChunks(),
        alone=run_here,
        observe=lambda stamp: None,
        hints=HintBook(engine.view()),
        places=PlaceBook(engine.view()),
    )
    incarnation = Bucket(BUCKET, 1).incarnation
    many = []
    for key in keys:
        made = Draft(write=key.encode()[:16], size=len(body), etag="e", body=body)
        record = Record().put(made, actor="elsewhere", stamp=1 << 16, context={})
        many.append((incarnation, key.encode(), record, False))
    for start in range(0, len(many), 1000):
        outcomes: list[object] = []
        copies.merge_all(many[start : start + 1000]).addBoth(outcomes.append)
        assert isinstance(outcomes[0], list), outcomes
    engine.close()


async def metric(cluster: Cluster, name: str) -> int:
    """A counter, over all nodes."""
    total = 0
    for node in cluster.nodes:
        text = (await cluster.ask(node, "GET", "/metrics")).body.decode()
        found = re.search(rf"^dynamo_{name} ([0-9.e+]+)$", text, re.MULTILINE)
        assert found, name
        total += int(float(found[1]))
    return total


async def all_equal(cluster: Cluster, since: str = "") -> bool:
    """Whether every partition was seen equal, by every node, after `since`."""
    for node in cluster.nodes:
        told = (await cluster.ask(node, "GET", "/v1/repair")).json()["partitions"]
        assert len(told) == 1024
        if not all((p["last_equal"] or "") > since and p["differing"] == 0 for p in told):
            return False
    return True


@pytest_twisted.ensureDeferred
async def test_keys_that_only_one_node_has_are_found_among_many(cluster: Cluster) -> None:
    """At a cost that follows the difference."""
    assert (await cluster.ask("n1", "PUT", f"/v1/buckets/{BUCKET}")).status == 201
    common = [f"common/{i}" for i in range(3000)]
    for number, node in enumerate(cluster.nodes.values()):
        node.kill()
        await node.ended()
        mine = [f"only/{i}" for i in range(30) if i % 3 == number]
        add(node.data_dir, [*common, *mine], b"x" * 1024)
    for node in cluster.nodes.values():
        node.start()
    await cluster.together()
    await until(lambda: all_equal(cluster), "all partitions are equal", 60)
    for i in range(30):
        replicas = await cluster.replicas("n1", BUCKET, f"only/{i}")
        assert all(r["context"] == {"elsewhere": 1} for r in replicas.values()), replicas
        assert all(r["last_exchange"] for r in replicas.values())
    assert 60 <= await metric(cluster, "antientropy_keys_repaired_total") <= 90
    assert await metric(cluster, "antientropy_keys_read_total") <= 90
    assert await metric(cluster, "antientropy_keys_listed_total") <= 500
    assert await metric(cluster, "antientropy_exchanges_total") >= 3 * 1024
    assert cluster.tracebacks() == ""


@pytest_twisted.ensureDeferred
async def test_a_node_whose_disk_was_replaced_gets_everything_back(cluster: Cluster) -> None:
    """Without anybody reading it: bodies in chunks and tombstones too."""
    assert (await cluster.ask("n1", "PUT", f"/v1/buckets/{BUCKET}")).status == 201
    path = f"/v1/buckets/{BUCKET}/objects"
    large = b"large" * 300_000
    for i in range(40):
        assert (await cluster.ask("n1", "PUT", f"{path}/{i}", b"%d" % i)).status in (200, 201)
    await cluster.ask("n1", "PUT", f"{path}/large", large)
    await cluster.ask("n2", "DELETE", f"{path}/7")
    await cluster.no_hints()
    cluster["n3"].kill()
    await cluster["n3"].ended()
    shutil.rmtree(cluster["n3"].data_dir)
    cluster["n3"].start()
    await cluster.together()

    async def whole() -> bool:
        told = await cluster.members("n3")
        return bool(told["n3"]["objects"] == 40)

    await until(whole, "n3 has all objects", 60)
    got = await cluster.ask("n3", "GET", f"{path}/large?r=1")
    assert got.body == large
    held = await cluster.replicas("n1", BUCKET, "7")
    assert held["n3"]["versions"] == []
    assert held["n3"]["context"] == held["n1"]["context"]
    assert cluster.tracebacks() == ""
