"""Three real nodes as a client and an operator meet them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from tests.support.processes import Cluster, until

pytestmark = pytest.mark.live

LARGE = bytes(range(256)) * 16 * 1024


@pytest_twisted.async_yield_fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three nodes; no test here harms them."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        await made.start()
        yield made
        assert made.tracebacks() == ""
    finally:
        await made.close()


@pytest_twisted.ensureDeferred
async def test_the_documented_operations_through_different_nodes(cluster: Cluster) -> None:
    """Each step through another node than the step before: all know at once what was done."""
    done = await cluster.post("n1", "/create/bucket/", name="b")
    assert (done.status, done.json()["status"]) == (200, "Success")
    again = await cluster.post("n2", "/create/bucket/", name="b")
    assert (again.status, again.code) == (409, "bucket_exists")

    done = await cluster.post("n3", "/create/file/", name="f.txt", bucket="b", file=b"first")
    assert done.status == 200
    clocks = done.json()["vector_clocks"]
    (actor,) = {actor for clock in clocks.values() for actor in clock}
    assert len(clocks) >= 2
    assert all(clock == {actor: 1} for clock in clocks.values())
    again = await cluster.post("n1", "/create/file/", name="f.txt", bucket="b", file=b"second")
    assert (again.status, again.code) == (409, "file_exists")

    read = await cluster.post("n2", "/read/file/", name="f.txt", bucket="b")
    assert read.json()["url"] == "/file/b/f.txt"
    for node in cluster.nodes:
        bytes_of = await cluster.ask(node, "GET", "/file/b/f.txt")
        assert (bytes_of.status, bytes_of.body) == (200, b"first")
        assert bytes_of.headers["content-type"] == "text/plain"

    context = read.json()["context"]
    done = await cluster.post(
        "n3", "/update/file/", name="f.txt", bucket="b", file=b"third", context=context
    )
    assert done.status == 200
    for node in cluster.nodes:
        bytes_of = await cluster.ask(node, "GET", "/file/b/f.txt")
        assert bytes_of.body == b"third"
        assert "x-dynamo-siblings" not in bytes_of.headers

    assert (await cluster.post("n1", "/delete/file/", name="f.txt", bucket="b")).status == 200
    for node in cluster.nodes:
        gone = await cluster.post(node, "/read/file/", name="f.txt", bucket="b")
        assert (gone.status, gone.code) == (404, "no_such_file")

    assert (await cluster.post("n2", "/delete/bucket/", name="b")).status == 200
    for node in cluster.nodes:
        gone = await cluster.post(node, "/create/file/", name="x", bucket="b", file=b"x")
        assert (gone.status, gone.code) == (404, "no_such_bucket")


@pytest_twisted.ensureDeferred
async def test_every_node_is_live(cluster: Cluster) -> None:
    """/status/ names all members, whoever is asked."""
    for node in cluster.nodes:
        told = await cluster.ask(node, "GET", "/status/")
        assert told.json() == {"n1": "Live", "n2": "Live", "n3": "Live"}


@pytest_twisted.ensureDeferred
async def test_objects_of_any_size(cluster: Cluster) -> None:
    """What one node took in another gives out: empty, inline, in chunks, a range of it."""
    assert (await cluster.ask("n1", "PUT", "/v1/buckets/sizes")).status == 201
    for size in (0, 1, 65536, 65537, len(LARGE)):
        path = f"/v1/buckets/sizes/objects/{size}"
        put = await cluster.ask("n1", "PUT", path, LARGE[:size], {"X-Dynamo-Meta-Of": "size"})
        assert put.status == 200
        for node in ("n2", "n3"):
            got = await cluster.ask(node, "GET", path)
            assert (got.status, got.body == LARGE[:size]) == (200, True)
            assert got.headers["etag"] == put.headers["etag"]
            assert got.headers["x-dynamo-meta-of"] == "size"
    span = {"Range": "bytes=1048570-1048599"}
    part = await cluster.ask("n3", "GET", f"/v1/buckets/sizes/objects/{len(LARGE)}", None, span)
    assert (part.status, part.body) == (206, LARGE[1048570:1048600])
    head = await cluster.ask("n2", "HEAD", f"/v1/buckets/sizes/objects/{len(LARGE)}")
    assert head.headers["content-length"] == str(len(LARGE))
    refused = await cluster.ask("n2", "PUT", path, b"x", {"X-Dynamo-SHA256": "0" * 64})
    assert (refused.status, refused.code) == (400, "digest_mismatch")


@pytest_twisted.ensureDeferred
async def test_names_are_kept_as_sent(cluster: Cluster) -> None:
    """Slashes, dots and anything else are characters of a name, on every node."""
    await cluster.ask("n1", "PUT", "/v1/buckets/names")
    names = ["a//b", "../../etc/passwd", "/abs", ".", "..", "a?b#c%41", "ünï", "a b+c", "a\nb"]
    for i, name in enumerate(names):
        path = f"/v1/buckets/names/objects/{quote(name, safe='').replace('.', '%2E')}"
        assert (await cluster.ask("n1", "PUT", path, b"%d" % i)).status == 200
        assert (await cluster.ask("n2", "GET", path)).body == b"%d" % i
    listed = (await cluster.ask("n3", "GET", "/v1/buckets/names/objects")).json()
    assert [entry["key"] for entry in listed["objects"]] == sorted(names, key=str.encode)


@pytest_twisted.ensureDeferred
async def test_a_listing_is_ordered_and_complete(cluster: Cluster) -> None:
    """Page after page through alternating nodes: each key once, in order; prefixes folded."""
    await cluster.ask("n1", "PUT", "/v1/buckets/list")
    keys = [f"{folder}/{i:02}" for folder in ("a", "b", "c") for i in range(10)]
    for i, key in enumerate(keys):
        node = f"n{i % 3 + 1}"
        assert (await cluster.ask(node, "PUT", f"/v1/buckets/list/objects/{key}", b"")).status < 300
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        node = f"n{len(seen) % 3 + 1}"
        query = f"limit=7&start_after={quote(after, safe='')}"
        page = (await cluster.ask(node, "GET", f"/v1/buckets/list/objects?{query}")).json()
        seen += [entry["key"] for entry in page["objects"]]
        after = page["next"]
    assert seen == keys
    folded = (await cluster.ask("n2", "GET", "/v1/buckets/list/objects?delimiter=/")).json()
    assert (folded["objects"], folded["prefixes"]) == ([], ["a/", "b/", "c/"])


@pytest_twisted.ensureDeferred
async def test_concurrent_versions_are_both_kept(cluster: Cluster) -> None:
    """Two writes that saw the same state are siblings, and a write that saw both ends it."""
    path = "/v1/buckets/siblings/objects/k"
    await cluster.ask("n1", "PUT", "/v1/buckets/siblings")
    await cluster.ask("n1", "PUT", path, b"zero")
    context = (await cluster.ask("n2", "GET", path)).headers["x-dynamo-context"]
    for node, body in (("n1", b"one"), ("n2", b"two")):
        await cluster.ask(node, "PUT", path, body, {"X-Dynamo-Context": context})
    told = await cluster.ask("n3", "GET", path)
    assert told.status == 300
    found = {
        (await cluster.ask("n1", "GET", f"{path}?version={quote(version['id'])}")).body
        for version in told.json()["versions"]
    }
    assert found == {b"one", b"two"}
    newest = await cluster.ask("n2", "GET", "/file/siblings/k")
    assert newest.headers["x-dynamo-siblings"] == "2"
    merged = {"X-Dynamo-Context": told.json()["context"]}
    await cluster.ask("n3", "PUT", path, b"three", merged)
    for node in cluster.nodes:
        assert (await cluster.ask(node, "GET", path)).body == b"three"


@pytest_twisted.ensureDeferred
async def test_what_an_operator_sees(cluster: Cluster) -> None:
    """Members, the place of a key with all its copies, and numbers that move."""
    members = await cluster.members("n2")
    assert sorted(members) == ["n1", "n2", "n3"]
    assert {(m["liveness"], m["role"]) for m in members.values()} == {("alive", "active")}
    versions = {
        (await cluster.ask(node, "GET", "/v1/cluster")).json()["ring_version"]
        for node in cluster.nodes
    }
    assert len(versions) == 1

    await cluster.ask("n1", "PUT", "/v1/buckets/seen")
    put = await cluster.ask("n1", "PUT", "/v1/buckets/seen/objects/k?w=3", b"12345")
    assert put.headers["x-dynamo-replicas"].count("n") == 3
    held = await cluster.replicas("n3", "seen", "k")
    assert sorted(held) == ["n1", "n2", "n3"]
    for replica in held.values():
        (version,) = replica["versions"]
        assert (version["size"], version["clock"]) == (5, {"n1": 1})
        assert (replica["context"], replica["hint_for"]) == ({"n1": 1}, [])

    text = (await cluster.ask("n1", "GET", "/metrics")).body.decode()
    for name in (
        "dynamo_requests_total{",
        "dynamo_request_seconds_bucket{",
        "dynamo_commits_total ",
        "dynamo_commit_batch_size_count ",
        "dynamo_objects ",
        "dynamo_bytes_stored ",
        'dynamo_members{liveness="alive"} 3.0',
        "dynamo_background_share ",
        'dynamo_background_steps_total{task="handoff"} ',
    ):
        assert name in text
    assert (await cluster.ask("n1", "GET", "/healthz")).status == 200


@pytest_twisted.ensureDeferred
async def test_a_change_of_the_ring_is_planned(cluster: Cluster) -> None:
    """Through any node alike, in another thread than requests are served in; nothing changes."""
    before = (await cluster.ask("n1", "GET", "/v1/cluster")).json()
    assert before["change"] is None
    plans = [(await cluster.ask(n, "GET", "/v1/ring/plan?join=n4")).json() for n in cluster.nodes]
    first = plans[0]
    assert first["ring_version"]["now"] == before["ring_version"] != first["ring_version"]["then"]
    assert {move["to"] for move in first["moves"]} == {"n4"}
    assert (first["lowest_copies"], first["more"], first["why_not"]) == (3, 0, None)
    assert 0.2 < first["moved_share"] < 0.3
    assert [[(m["partition"], m["from"]) for m in plan["moves"]] for plan in plans] == [
        [(m["partition"], m["from"]) for m in first["moves"]]
    ] * len(plans)
    refused = (await cluster.ask("n2", "GET", "/v1/ring/plan?leave=n1")).json()
    assert "add a node first" in refused["why_not"]
    unknown = await cluster.ask("n2", "GET", "/v1/ring/plan?remove=n9")
    assert (unknown.status, unknown.code) == (404, "no_such_member")
    after = (await cluster.ask("n3", "GET", "/v1/cluster")).json()
    assert after["ring_version"] == before["ring_version"]


@pytest_twisted.ensureDeferred
async def test_background_work_is_paused_and_resumed(cluster: Cluster) -> None:
    """On the node that is asked, and no other; what was deleted meanwhile is freed afterwards."""

    async def reaper(name: str) -> dict[str, Any]:
        told = (await cluster.ask(name, "GET", "/v1/background")).json()
        assert told["admission"]["target"] == 0.05
        (found,) = [task for task in told["tasks"] if task["name"] == "reaper"]
        return found

    async def delete(name: str) -> None:
        await cluster.ask("n1", "PUT", f"/v1/buckets/{name}")
        await cluster.ask("n1", "DELETE", f"/v1/buckets/{name}")

    async def freed(name: str, before: dict[str, Any]) -> bool:
        return (await reaper(name))["done"] > before["done"]

    paused = await cluster.ask("n1", "POST", "/v1/background/reaper/pause")
    assert (paused.status, paused.json()["state"]) == (200, "paused")
    first, second = await reaper("n1"), await reaper("n2")
    assert second["state"] != "paused"
    await delete("paused")
    await until(lambda: freed("n2", second), "n2 frees what was deleted")
    assert (await reaper("n1"))["done"] == first["done"]
    resumed = await cluster.ask("n1", "POST", "/v1/background/reaper/resume")
    assert resumed.json()["state"] in ("running", "idle")
    await until(lambda: freed("n1", first), "n1 frees what was deleted")
    unknown = await cluster.ask("n1", "POST", "/v1/background/none/pause")
    assert (unknown.status, unknown.code) == (404, "no_such_task")


@pytest_twisted.ensureDeferred
async def test_quorum_of_one_request(cluster: Cluster) -> None:
    """?r= and ?w= hold for that request; more than there are members is 503, nonsense 400."""
    await cluster.ask("n1", "PUT", "/v1/buckets/q")
    path = "/v1/buckets/q/objects/k"
    assert (await cluster.ask("n1", "PUT", f"{path}?w=3", b"x")).status == 200
    for node in cluster.nodes:
        assert (await cluster.own_copy(node, path)).body == b"x"
    assert (await cluster.ask("n1", "GET", f"{path}?r=4")).status == 503
    assert (await cluster.ask("n1", "PUT", f"{path}?w=0", b"x")).status == 400
    assert (await cluster.ask("n1", "GET", f"{path}?r=-1")).status == 400
