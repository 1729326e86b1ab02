"""A node whose disk is put back to an earlier state gives out no dot a second time (I5)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from dynamo.coordinator.requests import Options, Upload
from dynamo.core.buckets import Properties
from dynamo.sim.world import World
from dynamo.wire.codec import KEEPING
from tests.support.cluster import Body

VICTIM = "n1"


def done(world: World, work: Any) -> Any:
    """The result of a coroutine, for which time passes."""
    result = Deferred.fromCoroutine(work)
    ended: list[Any] = []
    result.addBoth(ended.append)
    assert world.schedule.run_while(lambda: not ended, world.schedule.now + 30)
    if hasattr(ended[0], "raiseException"):
        ended[0].raiseException()
    return ended[0]


def put(world: World, name: str, key: str, text: str) -> None:
    """A write without a context, coordinated by `name`."""
    door = world.node(name).door
    upload = Upload(body=Body(text.encode()), meta={})
    done(world, door.put("b", key, upload, context=None, options=Options()))


def dots(world: World) -> dict[tuple[bytes, str, int], set[bytes]]:
    """Every dot on any disk, with the bodies it stands for."""
    found: dict[tuple[bytes, str, int], set[bytes]] = {}
    for host in world.hosts.values():
        for table in ("records", "held"):
            for row, data in host.drive.durable().scan(table, b""):
                for version in KEEPING[table].decode(row, data).versions:
                    dot = (row, version.actor, version.counter)
                    found.setdefault(dot, set()).add(version.body)
    return found


@pytest.mark.parametrize("forgetful", [False, True])
def test_a_disk_put_back_does_not_repeat_its_dots(forgetful: bool) -> None:
    """Nor when all that saw how far it was have been restarted since."""
    world = World(1, 3)
    for name in world.names:
        world.start(name)
    world.run_for(5)
    done(world, world.node(VICTIM).door.create_bucket("b", Properties()))
    put(world, VICTIM, "k", "one")
    world.kill(VICTIM)
    snapshot = world.hosts[VICTIM].drive.snapshot()
    world.start(VICTIM)
    world.run_for(5)
    for number in range(9):
        put(world, VICTIM, f"k{number}", f"before {number}")
    put(world, VICTIM, "k", "two")
    world.kill(VICTIM)
    world.hosts[VICTIM].drive.roll_back(snapshot)
    for name in world.names[1:] if forgetful else ():
        world.kill(name)
        world.start(name)
    world.start(VICTIM)
    while not world.node(VICTIM).view.joined:
        world.run_for(0.01)
    for number in range(9):
        put(world, VICTIM, f"k{number}", f"after {number}")
    put(world, VICTIM, "k", "three")
    world.run_for(5)
    assert {dot: len(bodies) for dot, bodies in dots(world).items() if len(bodies) > 1} == {}
