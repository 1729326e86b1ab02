"""Read repair: after the answer, who was stale is sent the merge."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo.coordinator import repair
from dynamo.coordinator.bodies import INLINE_MAX
from dynamo.wire import messages
from tests.support.cluster import TestCluster

LARGE = b"large" * INLINE_MAX


def forgetful(body: bytes = b"new", *, before: bytes | None = None, **more: Any) -> TestCluster:
    """Three owners, of which n3 missed the last write and nobody keeps a hint for it."""
    cluster = TestCluster(3, **more)
    if before is not None:
        cluster.put("n1", "k", before)
        cluster.pass_time(1)
    cluster.cut("n3")
    cluster.put("n1", "k", body)
    cluster.pass_time(1)
    forget_hints(cluster)
    cluster.heal("n3")
    cluster.network.sent.clear()
    return cluster


def forget_hints(cluster: TestCluster) -> None:
    """Nothing but a read will ever tell anybody what it missed."""
    for node in cluster.nodes.values():
        hints = node.engine.tables["hints"]
        for row in list(hints.keys):
            hints.set(row, None)
        node.copies.hints.counts.clear()


def mended(cluster: TestCluster, name: str = "n3") -> bool:
    return cluster.nodes[name].owned("k") == cluster.nodes["n1"].owned("k")


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("body", [b"new", LARGE], ids=["inline", "chunks"])
def test_a_read_mends_whoever_lacks_something(body: bytes, before: bytes | None) -> None:
    """Missing or old, inline or in chunks: the stale owner ends up with all of it."""
    cluster = forgetful(body, before=before)
    cluster.get("n2", "k", r=3)
    cluster.pass_time(1)
    assert mended(cluster)
    assert cluster.stream("n3", "k", r=1) == body
    assert ("repair", "ok") in cluster.nodes["n2"].counts


def test_the_node_that_read_mends_itself_too() -> None:
    """Its own copy was the stale one."""
    cluster = forgetful()
    assert cluster.bodies("n3", "k", r=2) == [b"new"]
    cluster.pass_time(1)
    assert mended(cluster)


def test_siblings_are_brought_together() -> None:
    """Each owner of one of two versions ends up with both."""
    cluster = TestCluster(3)
    for at, others in (("n1", ("n2", "n3")), ("n2", ("n1", "n3"))):
        for other in others:
            cluster.told(at, other, "dead")
        cluster.put(at, "k", at.encode(), context={}, options={"w": 1})
        for other in others:
            cluster.told(at, other, "alive")
    forget_hints(cluster)
    assert sorted(cluster.bodies("n3", "k", r=3)) == [b"n1", b"n2"]
    cluster.pass_time(1)
    assert mended(cluster, "n2")
    assert mended(cluster, "n3")


def test_a_read_that_finds_nothing_stale_writes_nothing() -> None:
    """The usual read costs no more than before."""
    cluster = TestCluster(3)
    cluster.put("n1", "k")
    cluster.pass_time(1)
    cluster.network.sent.clear()
    cluster.get("n2", "k", r=3)
    cluster.pass_time(1)
    assert not [op for _, _, op in cluster.network.sent if isinstance(op, messages.Merge)]


def test_a_delete_is_mended_as_well() -> None:
    """A version the others know to be deleted does not stay on the one that missed it."""
    cluster = TestCluster(3)
    cluster.put("n1", "k")
    cluster.pass_time(1)
    cluster.cut("n3")
    cluster.delete("n1", "k")
    cluster.pass_time(1)
    forget_hints(cluster)
    cluster.heal("n3")
    assert cluster.get("n2", "k", r=3).record.live() == ()
    cluster.pass_time(1)
    assert cluster.nodes["n3"].owned("k").live() == ()


def test_repairs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound a repair is left to the next read, and counted."""
    monkeypatch.setattr(repair, "UNDER_WAY_MAX", 0)
    cluster = forgetful()
    assert cluster.bodies("n2", "k", r=3) == [b"new"]
    cluster.pass_time(1)
    assert not mended(cluster)
    assert ("repair", "skipped") in cluster.nodes["n2"].counts


def test_a_repair_that_fails_makes_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner went away again before it could be told."""
    monkeypatch.setattr(repair, "UNDER_WAY_MAX", 1)
    cluster = forgetful()
    cluster.get("n2", "k", r=3)
    cluster.cut("n3")
    cluster.pass_time(30)
    assert not mended(cluster)
    cluster.heal("n3")
    cluster.get("n2", "k", r=3)
    cluster.pass_time(1)
    assert mended(cluster)
