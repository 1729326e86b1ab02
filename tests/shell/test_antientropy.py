"""Owners that differ find out where, at a cost that follows the difference, and become equal."""

from __future__ import annotations

from dynamo.coordinator.bodies import CHUNK_BYTES
from dynamo.core.record import Record
from dynamo.wire import messages
from tests.shell.test_bodies import body_of
from tests.support.cluster import TestCluster

BIG = body_of(3 * CHUNK_BYTES + 5)


def only_at(cluster: TestCluster, name: str, key: str, body: bytes = b"x", **more: object) -> None:
    """A write that no other owner hears of, as after hints were lost."""
    cluster.cut(name, known=False)
    incarnation = cluster.nodes[name].table.get("b").incarnation
    from tests.support.disk import draft

    cluster.wait(
        cluster.nodes[name].copies.coordinate(
            incarnation,
            key.encode(),
            draft(f"{name} {key} {cluster.clock.seconds()}", body),
            actor=name,
            stamp=int(cluster.clock.seconds() * 1000) << 16,
            context=None,
        )
    )
    cluster.heal(name)


def owned(cluster: TestCluster, key: str) -> dict[str, Record]:
    return {name: node.owned(key) for name, node in cluster.nodes.items()}


def test_what_one_owner_alone_has_reaches_the_others() -> None:
    cluster = TestCluster(3)
    for i in range(300):
        cluster.put("n1", f"k{i}", b"%d" % i)
    cluster.pass_time(2)
    for i in range(10):
        only_at(cluster, "n2", f"extra{i}")
    cluster.network.sent.clear()
    cluster.compare_all()
    for i in range(10):
        records = owned(cluster, f"extra{i}")
        assert records["n2"].live()
        assert records["n1"] == records["n2"] == records["n3"]
    listed = sum(node.repair.tally.listed for node in cluster.nodes.values())
    read = sum(node.repair.tally.read for node in cluster.nodes.values())
    print(listed, read, [node.repair.tally for node in cluster.nodes.values()])
    assert messages.Scan not in {type(op) for _, _, op in cluster.network.sent}
