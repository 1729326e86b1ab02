"""A cluster of more members than usual: one that joins settles, and asks for little."""

from __future__ import annotations

from collections import Counter

import pytest

from dynamo.replica.remote import RemoteReplica
from dynamo.sim.world import World
from dynamo.wire.hello import Hello

MEMBERS = 24
SETTINGS = {"cluster": {"partitions": 64}, "gossip": {"profile": "lan"}}


def settled(world: World, members: int) -> bool:
    views = [world.node(name).view for name in world.present()]
    layout = views[0].layout
    return layout.stage == "steady" and all(
        view.layout == layout and view.joined and len(view.ring.members) == members
        for view in views
    )


def until_settled(world: World, members: int, seconds: float) -> None:
    end = world.schedule.now + seconds
    while not settled(world, members):
        assert world.schedule.now < end, f"not settled within {seconds:g} s"
        world.run_for(0.1)


def test_a_join_settles_in_a_cluster_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(3, MEMBERS + 1, founders=MEMBERS, settings=SETTINGS)
    for name in world.present():
        world.start(name)
    until_settled(world, MEMBERS, 10)
    world.run_for(3)
    asked: Counter[str] = Counter()
    told: list[Hello] = []
    hello = RemoteReplica.hello

    async def counted(self: RemoteReplica, timeout: float, *, asker: str = "") -> Hello:
        asked[asker] += 1
        told.append(await hello(self, timeout, asker=asker))
        return told[-1]

    monkeypatch.setattr(RemoteReplica, "hello", counted)
    world.absent.clear()
    joiner = world.names[-1]
    world.start(joiner)
    until_settled(world, MEMBERS + 1, 10)
    assert MEMBERS <= asked[joiner] <= 2 * MEMBERS
    assert sum(asked.values()) <= 5 * MEMBERS
    assert max(len(said.actors) + len(said.seen) for said in told) <= 2, "of the asker alone"
    node = world.node("n1")
    assert len(node.voice.hello().actors) == MEMBERS, "with no asker: of all"
