"""Bits that flip on the disk of one node of three: no client sees any, and all are mended."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted

from tests.support.processes import Cluster, until

pytestmark = pytest.mark.live

RECORDS, LARGE = 20, 8
RNG = random.Random(2007)
SMALL_FILES = {f"small{i}": RNG.randbytes(3000 + 100 * i) for i in range(RECORDS)}
LARGE_FILES = {f"large{i}": RNG.randbytes(1_300_000 + i) for i in range(LARGE)}
FILES = {**SMALL_FILES, **LARGE_FILES}
FAST = {"repair": {"scrub_bytes_per_second": 1_000_000_000, "scrub_interval": 1.0}}


@pytest_twisted.async_yield_fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three nodes that scrub without a pause, and files on all of them."""
    made = Cluster(tmp_path, settings=FAST)
    try:
        await made.start()
        assert (await made.ask("n1", "PUT", "/v1/buckets/b")).status == 201
        for key, body in FILES.items():
            assert (await made.ask("n1", "PUT", path_of(key) + "?w=3", body)).status == 200
        yield made
        assert made.tracebacks() == ""
    finally:
        await made.close()


def path_of(key: str) -> str:
    return f"/v1/buckets/b/objects/{key}"


async def all_read(cluster: Cluster, *names: str, ask: str = "") -> None:
    """Every file, through each of these nodes: whole, at the first try."""
    for key, body in FILES.items():
        for name in names:
            answer = await cluster.ask(name, "GET", path_of(key) + ask)
            assert answer.status == 200, (name, key, answer.body[:300])
            assert answer.body == body, (name, key)


async def metric(cluster: Cluster, name: str, what: str) -> float:
    text = (await cluster.ask(name, "GET", "/metrics")).body.decode()
    found = re.search(rf"^dynamo_{re.escape(what)} (\S+)$", text, re.MULTILINE)
    assert found is not None, f"{what} is not among the metrics"
    return float(found[1])


async def passes(cluster: Cluster, more: int) -> None:
    """Waits until n2 has completed so many more passes."""
    goal = await metric(cluster, "n2", "scrub_passes_total") + more

    async def look() -> bool:
        return await metric(cluster, "n2", "scrub_passes_total") >= goal

    await until(look, f"{more} more passes")


def flip(path: Path, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << RNG.randrange(8)]))


def flip_within(path: Path, body: bytes) -> None:
    """Flips one bit of a value, wherever the file has it (a page freed since may have it too)."""
    within = RNG.randrange(len(body))
    at, found = -1, 0
    data = path.read_bytes()
    while (at := data.find(body, at + 1)) >= 0:
        flip(path, at + within)
        found += 1
    assert found, "the value is not in the file in one piece"


@pytest_twisted.ensureDeferred
async def test_flipped_bits_are_never_served_and_mended_within_a_pass(cluster: Cluster) -> None:
    """In records while the node is stopped, in chunks while it runs."""
    node = cluster["n2"]
    node.send(signal.SIGTERM)
    await node.ended()
    for body in SMALL_FILES.values():
        flip_within(node.data_dir / "store" / "data.mdb", body)
    node.start()
    await cluster.together()
    await all_read(cluster, "n2", "n1", "n3")

    files = sorted((node.data_dir / "chunks").glob("??/*"))
    assert len(files) == 2 * LARGE
    for path in files:
        flip(path, RNG.randrange(path.stat().st_size))
    await all_read(cluster, "n1", "n2", "n3")
    await passes(cluster, 2)

    async def mended() -> bool:
        return await metric(cluster, "n2", "mended_total") >= RECORDS + len(files)

    await until(mended, "all are mended")
    assert await metric(cluster, "n2", 'corrupt_total{kind="record"}') == RECORDS
    assert await metric(cluster, "n2", 'corrupt_total{kind="chunk"}') == len(files)
    verified = await metric(cluster, "n2", "scrub_verified_total")
    await passes(cluster, 2)
    assert await metric(cluster, "n2", "scrub_verified_total") >= verified + len(FILES)
    assert await metric(cluster, "n2", 'corrupt_total{kind="record"}') == RECORDS
    for other in ("n1", "n3"):
        cluster[other].kill()
    await all_read(cluster, "n2", ask="?r=1")
