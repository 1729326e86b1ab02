"""Deletes on a simulated cluster: nothing deleted returns, and in the end no tombstone is left."""

from __future__ import annotations

from typing import Any

from dynamo.coordinator.requests import Options
from dynamo.core.buckets import Properties
from dynamo.sim.world import World
from dynamo.storage import graves
from dynamo.wire.codec import RECORD
from tests.sim.test_put_back import done, put

SETTINGS: dict[str, dict[str, Any]] = {"cluster": {"partitions": 64}, "repair": {"interval": 60}}


def started(seed: int, size: int = 4) -> World:
    world = World(seed, size, settings=SETTINGS)
    for name in world.names:
        world.start(name)
    world.run_for(5)
    done(world, world.node("n1").door.create_bucket("b", Properties()))
    return world


def delete(world: World, name: str, key: str) -> None:
    done(world, world.node(name).door.delete("b", key, options=Options()))


def records(world: World) -> dict[str, int]:
    """Rows of records on each disk, owned and held."""
    return {
        name: sum(1 for table in ("records", "held") for _ in host.drive.durable().scan(table, b""))
        for name, host in world.hosts.items()
    }


def tombstones(world: World) -> int:
    return sum(graves.count(host.drive.durable()) for host in world.hosts.values())


def alive(world: World) -> set[bytes]:
    """Keys, by their rows, of which any disk has a live version."""
    found = set()
    for host in world.hosts.values():
        for table in ("records", "held"):
            for row, data in host.drive.durable().scan(table, b""):
                if RECORD.decode(data).live():
                    found.add(row)
    return found


def shown(world: World, name: str, key: str) -> list[bytes]:
    found = done(world, world.node(name).door.get("b", key, options=Options()))
    return [version.body for version in found.record.live()]


def test_a_thousand_deletes_past_a_long_outage() -> None:
    """Nothing is reaped while a member is away, nothing returns with it, and then all is gone."""
    world = started(11)
    keys = [f"k{i}" for i in range(1000)]
    for i, key in enumerate(keys):
        put(world, f"n{i % 4 + 1}", key, key)
    world.run_for(3)
    world.cut_power("n4")
    world.run_for(30)
    for i, key in enumerate(keys):
        delete(world, f"n{i % 3 + 1}", key)
    world.run_for(2 * 24 * 3600)
    assert sum(world.node(name).graves.reaped for name in world.running()) == 0
    assert world.node("n1").tombstones.waits_for == "n4 must be there to agree"
    assert len(alive(world)) > 500, "what n4 holds is old"
    world.start("n4")
    world.run_for(120)
    assert not alive(world)
    assert all(not shown(world, name, key) for name in world.names for key in keys[::97])
    world.run_for(600)
    assert tombstones(world) == 0
    assert set(records(world).values()) == {0}
