"""Several nodes' membership together: whatever parted them, in the end all hold one view."""

from __future__ import annotations

import pytest

from dynamo.core.profiles import LAN, LOCAL, Settings
from tests.support.shells import World


def one_view(world: World) -> bool:
    """All running nodes are well in each other's eyes and hold equal records of everybody."""
    first, *others = world.records()
    return world.whole() and all(records == first for records in others)


def test_two_halves_started_apart_join_when_one_seed_crosses() -> None:
    """Two clusters of one name, and a node that has a seed in each."""
    world = World(1)
    for names in (("n1", "n2", "n3"), ("n4", "n5", "n6")):
        for name in names:
            world.start(name, names[0])
    world.run(20)
    assert world.nodes["n1"].ring() == {"n1", "n2", "n3"}
    world.start("n7", "n2", "n5")
    took = world.until(lambda: one_view(world), "one view")
    assert took < LAN.reconnect_interval + 2
    assert world.nodes["n1"].ring() == set(world.nodes)
    for shell in world.up:
        assert shell.happened("failed") == []


@pytest.mark.parametrize("seconds", [10.0, 120.0, 7200.0])
def test_a_partition_heals_by_itself(seconds: float) -> None:
    """However long it lasted, within about a reconnect interval of the side that is alone."""
    world = World(2)
    world.form("n1", "n2", "n3", "n4", "n5") if seconds < 1000 else world.form("n1", "n2", "n3")
    version = world.nodes["n1"].view.ring.version
    world.run(3)
    world.apart("n1", "n2")
    world.run(seconds)
    assert world.nodes["n1"].liveness()["n3"] == "dead"
    assert world.nodes["n3"].liveness()["n1"] == "dead"
    assert all(shell.view.joined for shell in world.up)
    assert all(shell.view.ring.version == version for shell in world.up)
    world.heal()
    assert world.until(lambda: one_view(world), "one view") < 3 * LAN.reconnect_interval
    assert {shell.view.ring.version for shell in world.up} == {version}


@pytest.mark.parametrize("settings", [LAN, LOCAL])
def test_kill_and_restart(settings: Settings) -> None:
    """Found dead, found back, one after the other and two at once; nobody else is accused."""
    world = World(3)
    names = ("n1", "n2", "n3", "n4", "n5")
    world.form(*names, settings=settings)
    for victims in (("n2",), ("n3",), ("n4", "n5"), ("n1", "n2")):
        for victim in victims:
            world.nodes[victim].kill()
        world.until(lambda: one_view(world), f"{victims} are dead", 20)
        for victim in victims:
            world.start(victim, "n1", "n3", settings=settings)
        assert world.until(lambda: one_view(world), f"{victims} are back") < 5
    world.run(60)
    assert one_view(world)
    assert set(world.nodes["n3"].happened("failed")) <= {"n1", "n2", "n4", "n5"}


def test_all_are_killed_and_come_back_in_another_order() -> None:
    """A total outage ends as one cluster, from the disks alone, without seeds."""
    world = World(4)
    world.form("n1", "n2", "n3", "n4")
    world.run(5)
    for shell in world.up:
        shell.kill()
    world.run(600)
    for name in ("n3", "n1", "n4", "n2"):
        world.start(name)
        world.run(1)
    world.until(lambda: one_view(world), "one view", 30)


def test_a_change_of_all_addresses() -> None:
    """Each node comes back somewhere else, one by one: a rolling move needs no configuration."""
    world = World(5)
    names = ("n1", "n2", "n3")
    world.form(*names)
    world.run(3)
    for i, name in enumerate(names):
        world.nodes[name].kill()
        world.run(10)
        world.start(name, address=f"10.0.7.{i}:7000")
        world.until(lambda: one_view(world), f"{name} has moved", 30)
    assert {m.address for m in world.nodes["n1"].swim.members()} == {
        f"10.0.7.{i}:7000" for i in range(3)
    }


def test_rolling_restarts_are_no_failures() -> None:
    """Told to stop and started again, each in turn: `left` and `returned`, and nothing graver."""
    world = World(6)
    names = ("n1", "n2", "n3", "n4")
    world.form(*names)
    for name in names:
        world.nodes[name].leave()
        world.run(3)
        world.start(name, *names)
        world.until(lambda: one_view(world), f"{name} is back", 10)
    for shell in world.up:
        assert shell.happened("failed") == []
        assert shell.happened("suspected") == []


@pytest.mark.parametrize("seed", range(5))
def test_any_mishaps_end_in_one_view(seed: int) -> None:
    """Kills, stops, restarts and cuts at random for two minutes; then peace."""
    world = World(seed)
    names = ["n1", "n2", "n3", "n4", "n5"]
    world.form(*names)
    for _ in range(40):
        name = world.rng.choice(names)
        shell = world.nodes[name]
        act = world.rng.randrange(4)
        if act == 0 and len(world.up) > 2:
            shell.kill()
        elif act == 1 and shell.up and len(world.up) > 2:
            shell.leave()
        elif act == 2 and not shell.up:
            world.start(name, *names)
        else:
            world.apart(*world.rng.sample(names, 2)) if act == 3 else world.heal()
        world.run(world.rng.uniform(0, 6))
    world.heal()
    for name in names:
        if not world.nodes[name].up:
            world.start(name, *names)
    world.run(3)
    for name in names:  # one that was told to stop in the last moment
        if not world.nodes[name].up:
            world.start(name, *names)
    world.until(lambda: one_view(world), "one view", 60)
