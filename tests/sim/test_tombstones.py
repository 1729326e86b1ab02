"""Deletes on a simulated cluster: nothing deleted returns, and in the end no tombstone is left."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from dynamo.coordinator.requests import Options, Upload
from dynamo.core.buckets import Properties
from dynamo.errors import DynamoError
from dynamo.replica.remote import OPS
from dynamo.sim.world import World
from dynamo.storage import graves
from dynamo.storage.broken import decode
from dynamo.wire import messages
from tests.sim.test_put_back import done, put
from tests.support.cluster import Body

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
                if decode(table, row, data).record.live():
                    found.add(row)
    return found


def shown(world: World, name: str, key: str) -> list[bytes]:
    found = done(world, world.node(name).door.get("b", key, options=Options()))
    return [version.body for version in found.record.live()]


def seen(world: World, name: str, key: str) -> set[tuple[str, int]]:
    """The dots of what a node shows of a key."""
    found = done(world, world.node(name).door.get("b", key, options=Options()))
    return {(version.actor, version.counter) for version in found.record.versions}


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
    world.run_for(3600)
    assert sum(world.node(name).graves.reaped for name in world.running()) == 0
    assert world.node("n1").work.tombstones.waits_for == "n4 must be there to agree"
    assert len(alive(world)) > 500, "what n4 holds is old"
    world.start("n4")
    world.run_for(120)
    assert not alive(world)
    assert all(not shown(world, name, key) for name in world.names for key in keys[::97])
    world.run_for(600)
    assert tombstones(world) == 0
    assert set(records(world).values()) == {0}


def eavesdrop(world: World, name: str, sent: list[tuple[str, bytes]]) -> None:
    """Keeps a copy of every batch with merges that a node sends, and to whom."""
    for known in world.node(name).view.peers.by_name.values():
        replica: Any = known.replica
        exchange = replica._exchange

        def heard(method: bytes, path: bytes, body: bytes, timeout: float, **also: Any) -> Any:
            to, onwards = also["to"], also["onwards"]
            if path == OPS and any(
                isinstance(o, messages.Merge) for o in messages.decode_ops(body)
            ):
                sent.append((to, body))
            return onwards(method, path, body, timeout)

        def bound(*given: Any, to: str = known.member.name, onwards: Any = exchange) -> Any:
            return heard(*given, to=to, onwards=onwards)

        replica._exchange = bound


def send(world: World, name: str, to: str, body: bytes) -> None:
    """A batch arrives as it was sent once."""
    replica: Any = world.node(name).view.replica(to)
    done(world, type(replica)._exchange(replica, b"POST", OPS, body, 5.0))


def reaped(world: World, key: str) -> list[tuple[str, bytes]]:
    """The merges by which `n1` wrote a key that was deleted and reaped since."""
    sent: list[tuple[str, bytes]] = []
    eavesdrop(world, "n1", sent)
    put(world, "n1", key, "old")
    world.run_for(1)
    old = list(sent)
    assert old
    delete(world, "n1", key)
    world.run_for(30)
    assert tombstones(world) == 0
    assert not any(records(world).values())
    return old


def test_a_straggler_brings_nothing_back() -> None:
    """A request that lay in the network until the key was deleted and its tombstone gone."""
    world = started(3, 3)
    for to, body in reaped(world, "k"):
        send(world, "n1", to, body)
    assert not alive(world)
    assert sum(world.node(name).graves.fences.refused for name in world.names) > 0
    put(world, "n1", "k", "new")
    world.run_for(1)
    assert shown(world, "n3", "k") == [b"new"]


def test_a_straggler_of_a_start_before_brings_nothing_back() -> None:
    world = started(4, 3)
    sent: list[tuple[str, bytes]] = []
    eavesdrop(world, "n1", sent)
    put(world, "n1", "k", "old")
    world.run_for(1)
    world.kill("n1")
    world.start("n1")
    world.run_for(10)
    delete(world, "n2", "k")
    world.run_for(30)
    assert tombstones(world) == 0
    assert sent
    for to, body in sent:
        send(world, "n1", to, body)
    assert not alive(world)


def test_a_straggler_would_bring_it_back_but_for_the_fences() -> None:
    world = started(3, 3)
    sent = reaped(world, "k")
    for name in world.names:
        world.node(name).graves.fences.by_name.clear()
    for to, body in sent:
        send(world, "n1", to, body)
    assert alive(world)


def test_a_paused_node_that_goes_on_brings_nothing_back() -> None:
    """What was written while it stood still lies in its sockets, and is deleted and waited for."""
    world = started(5)
    keys = [f"k{i}" for i in range(30)]
    world.hosts["n4"].machine.pause()
    for i, key in enumerate(keys):
        put(world, f"n{i % 3 + 1}", key, key)
    for key in keys:
        delete(world, "n1", key)
    world.run_for(1800)
    assert sum(world.node(name).graves.reaped for name in world.names[:3]) == 0
    world.hosts["n4"].machine.resume()
    world.run_for(300)
    assert not alive(world)
    assert tombstones(world) == 0
    assert set(records(world).values()) == {0}


@pytest.mark.parametrize("step", [0.0005, 0.0015, 0.003, 0.006, 0.02])
def test_power_that_fails_while_they_are_buried(step: float) -> None:
    """Some owners have buried and others not: no version returns, and in the end all are gone."""
    world = started(6, 3)
    keys = [f"k{i}" for i in range(20)]
    for key in keys:
        put(world, "n1", key, key)
    for key in keys:
        delete(world, "n2", key)
    buried = [world.node(name).graves for name in world.names]
    assert world.schedule.run_while(
        lambda: not any(keeper.reaped for keeper in buried), world.schedule.now + 60
    )
    world.run_for(step)
    world.cut_power("n2")
    world.run_for(20)
    world.start("n2")
    world.run_for(150)
    assert not alive(world)
    assert tombstones(world) == 0


@pytest.mark.parametrize("seed", range(4))
def test_what_was_seen_and_deleted_stays_deleted(seed: int) -> None:
    """Writes, deletes, crashes, pauses and cut paths in any order."""
    world = started(100 + seed)
    rng = Random(seed)
    gone: set[tuple[str, str, int]] = set()
    for number in range(120):
        fault(world, rng)
        up = [n for n in world.running() if not world.hosts[n].machine.paused]
        work = change(world, rng.choice(up), f"k{rng.randrange(8)}", number, gone)
        Deferred.fromCoroutine(work).addErrback(lambda failure: failure.trap(DynamoError))
        world.run_for(rng.choice([0.01, 0.1, 0.5, 3]))
    for name, host in world.hosts.items():
        if host.node is None:
            world.start(name)
        elif host.machine.paused:
            host.machine.resume()
    for path in world.network.paths(*[[h.machine.ip for h in world.hosts.values()]] * 2):
        world.network.open(path)
    world.run_for(400)
    assert tombstones(world) == 0
    for name in world.names:
        for key in [f"k{number}" for number in range(8)]:
            assert not gone & {(key, *dot) for dot in seen(world, name, key)}
    assert sum(world.node(name).graves.reaped for name in world.names) > 0


def fault(world: World, rng: Random) -> None:
    """Now and then something breaks, or is mended."""
    up = [n for n in world.running() if not world.hosts[n].machine.paused]
    name = rng.choice(world.names)
    host = world.hosts[name]
    chance = rng.random()
    if host.node is None:
        if chance < 0.5:
            world.start(name)
    elif host.machine.paused:
        if chance < 0.5:
            host.machine.resume()
    elif len(up) > 3 and chance < 0.1:
        rng.choice([world.kill, world.cut_power, lambda n: host.machine.pause()])(name)
    elif chance < 0.2:
        other = world.hosts[rng.choice(world.names)].machine.ip
        world.network.stall(world.network.path(host.machine.ip, other), rng.uniform(0, 15))


async def change(
    world: World, name: str, key: str, number: int, gone: set[tuple[str, str, int]]
) -> None:
    """Writes a key, or deletes what a read of it shows."""
    door = world.node(name).door
    if number % 2:
        upload = Upload(body=Body(b"%d" % number), meta={})
        await door.put("b", key, upload, context=None, options=Options())
        return
    found = await door.get("b", key, options=Options())
    context = found.record.context
    await door.delete("b", key, context=context, options=Options())
    # Not by its body: a write that was tried again at another coordinator may be two versions.
    gone.update((key, version.actor, version.counter) for version in found.record.versions)
