"""When a node serves: alone, joined, restarted, emptied, under a name that is taken."""

from __future__ import annotations

import pytest

from dynamo.core.buckets import Bucket, Properties
from dynamo.core.members import Role
from dynamo.storage import ledger
from tests.support.shells import Disk, World


def made(name: str) -> Bucket:
    return Bucket(name).create(1, 1, Properties())


@pytest.mark.parametrize("seeds", [(), ("n1",)])
def test_a_fresh_node_founds_a_cluster_alone(seeds: tuple[str, ...]) -> None:
    """Without seeds, or with itself as the only one: as soon as its disk says who it is."""
    world = World()
    n1 = world.start("n1", *seeds)
    assert not n1.view.joined
    world.until(lambda: n1.view.joined, "n1 serves", 0.1)
    assert (n1.identity.actor, n1.identity.cluster) == ("n1", "test/8")
    assert n1.swim.me.role is Role.ACTIVE
    assert n1.ring() == {"n1"}
    assert n1.view.why_not_joined() == ""


def test_a_fresh_node_joins_by_one_seed() -> None:
    """It knows all, all know it, and it serves, within half a second."""
    world = World()
    world.form("n1", "n2", "n3")
    world.start("n4", "n2")
    assert world.until(world.whole, "n4 is one of them") < 0.5
    assert world.nodes["n4"].identity.actor == "n4"


def test_silent_seeds() -> None:
    """It is not ready, says so, and joins as soon as one of them starts."""
    world = World()
    n3 = world.start("n3", "n1", "n2")
    world.run(120)
    assert not n3.view.joined
    assert "No seed has answered" in n3.view.why_not_joined()
    world.start("n1", "n1")
    assert world.until(world.whole, "n3 has joined") < 5
    assert n3.identity.actor == "n3"


def test_seeds_that_have_no_cluster_form_one() -> None:
    """All have all as seeds and start at once: nobody founds one alone."""
    world = World()
    names = ("n1", "n2", "n3", "n4")
    for name in names:
        world.start(name, *names)
    assert world.until(world.whole, "they have formed one") < 5


def test_a_restart_with_all_others_dead() -> None:
    """It knows its cluster from its disk; once it has asked the others in vain, it serves."""
    world = World()
    world.form("n1", "n2", "n3")
    world.run(5)
    for shell in world.up:
        shell.kill()
    n1 = world.start("n1", "n1", "n2", "n3")
    assert not n1.view.joined
    assert "Asking the other members" in n1.view.why_not_joined()
    world.until(lambda: n1.view.joined, "n1 serves", 3)
    assert n1.ring() == {"n1", "n2", "n3"}
    world.until(lambda: set(n1.liveness().values()) == {"dead"}, "they are dead", 30)
    assert n1.view.awaiting() == ()
    assert n1.identity.actor == "n1"


def test_a_wiped_node_takes_the_next_actor() -> None:
    """One that no member has seen under its name: dots are never given out twice."""
    world = World()
    world.form("n1", "n2", "n3")
    for actor in ("n1~2", "n1~3"):
        world.nodes["n1"].kill()
        world.run(3)
        world.start("n1", "n2", wipe=True)
        world.until(world.whole, "n1 is back")
        world.run(0.5)  # the news that it serves goes with the next gossip
        assert world.nodes["n1"].identity.actor == actor


def test_a_wiped_node_waits_for_all_answers_before_it_takes_an_actor() -> None:
    """A member that is there and does not answer may be the one that knows of its old one."""
    world = World()
    *_, n4 = world.form("n1", "n2", "n3", "n4")
    for name in ("n2", "n3"):
        world.nodes[name].mute = True
    n4.kill()
    n4 = world.start("n4", "n1", wipe=True)
    world.run(20)
    assert not n4.view.joined
    assert n4.identity.actor == ""
    for name in ("n2", "n3"):
        world.nodes[name].mute = False
    world.until(lambda: n4.view.joined, "n4 serves")
    assert n4.identity.actor == "n4~2"


def test_a_name_conflict() -> None:
    """The newcomer does not serve and says why; the holder notices nothing. When the holder has
    gone, the newcomer takes the name, and serves."""
    world = World()
    world.form("n1", "n2", "n3")
    holder = world.nodes["n2"]
    twin = world.start("n2", "n1", address="10.0.0.99:7000", disk=Disk())
    world.run(10)
    assert holder.view.joined
    assert not twin.view.joined
    assert "10.0.0.2:7000 is named 'n2' too" in twin.view.why_not_joined()
    holder.kill()
    world.until(lambda: twin.view.joined, "the newcomer has the name", 30)
    world.until(world.whole, "all know")
    assert twin.identity.actor == "n2~2"


def test_a_name_that_is_never_free() -> None:
    """In the end the newcomer gives up, for good, and says whose the name is."""
    world = World()
    world.form("n1", "n2")
    twin = world.start("n2", "n1", address="10.0.0.99:7000", disk=Disk())
    world.run(90)
    assert "The name 'n2' belongs to another node" in twin.view.why_not_joined()
    assert not twin.view.joined
    left = twin.view.leave()
    assert left.called


@pytest.mark.parametrize("more", [{"cluster": "other"}, {"partitions": 16}])
def test_a_node_that_does_not_belong(more: dict[str, object]) -> None:
    """Of another cluster, or with another number of partitions: it never serves among them, owns
    nothing, and they go on."""
    world = World()
    world.form("n1", "n2")
    n3 = world.start("n3", "n1", **more)
    world.run(60)
    assert not n3.view.joined
    assert n3.identity.actor == ""
    for name in ("n1", "n2"):
        shell = world.nodes[name]
        assert shell.view.joined
        assert shell.ring() == {"n1", "n2"}
        assert not shell.view.is_healthy("n3")
    if "cluster" in more:
        assert world.nodes["n1"].liveness().keys() == {"n2"}
        assert world.nodes["n1"].view.gossip.dropped["other_cluster"] > 0
    else:
        assert "cluster.partitions" in n3.view.why_not_joined()


def test_another_clusters_process_at_a_members_address_is_not_the_member() -> None:
    """Same name, same address, another cluster: dead, and no bucket crosses."""
    world = World()
    n1, _ = world.form("n1", "n2")
    world.nodes["n2"].kill()
    stranger = world.start("n2", disk=Disk(), cluster="other")
    stranger.buckets.merge([made("theirs")])
    world.until(lambda: n1.liveness()["n2"] == "dead", "n2 is dead", 30)
    world.run(60)
    assert n1.liveness()["n2"] == "dead"
    assert "theirs" not in n1.buckets.states


def test_newcomers_do_not_stop_a_node_that_serves() -> None:
    """Not for a moment, and not one whose peer HTTP never answers."""
    world = World()
    n1, n2 = world.form("n1", "n2")
    n3 = world.start("n3", "n1")
    n3.mute = True
    served: list[bool] = []
    for _ in range(300):
        world.run(0.01)
        served += [n1.view.joined, n2.view.joined]
    assert "n3" in n1.liveness()
    assert all(served)


def test_a_disk_that_fails_at_first() -> None:
    """The node says nothing and does not serve; when the disk works, it joins by itself."""
    world = World()
    world.form("n1", "n2")
    n3 = world.start("n3", "n1", disk=Disk(fault=OSError("no space left")))
    world.run(20)
    assert not n3.view.joined
    assert n3.swim.me.incarnation == 1
    assert world.nodes["n1"].swim.member("n3") is None or (
        world.nodes["n1"].swim.member("n3").incarnation == 0  # type: ignore[union-attr]
    )
    n3.disk.fault = None
    world.until(world.whole, "n3 has joined", 10)


def test_a_node_that_forgot_the_others_does_not_serve_alone() -> None:
    """Killed before its disk knew of them: it has an actor, and asks its seeds first."""
    world = World()
    n1, n2 = world.form("n1", "n2")
    n2.kill()
    n1.kill()
    n2 = world.start("n2", "n1")
    assert n2.identity.remembered == []
    assert n2.identity.actor == "n2"
    world.run(30)
    assert not n2.view.joined
    assert "No seed" in n2.view.why_not_joined()
    world.start("n1")
    world.until(world.whole, "they are together")


def test_who_lost_its_disk_twice_signs_as_nobody_did_before() -> None:
    """Though the one that knows the actor in between is away: it signs with a hand of its own."""
    world = World()
    n1, n2, n3 = world.form("n1", "n2", "n3")
    n2.kill()
    world.until(lambda: n1.liveness()["n2"] == "dead", "n2 is dead")
    n3.kill()
    n3 = world.start("n3", "n1", disk=Disk())
    world.until(lambda: n3.view.joined, "n3 is back with an empty disk")
    first = ledger.signs_as(n3.engine.view(), n3.identity.actor)
    assert n3.identity.actor == "n3~2"
    n1.kill()
    n3.kill()
    n2 = world.start("n2", "n1", disk=n2.disk)
    n3 = world.start("n3", "n2", disk=Disk())
    world.until(lambda: n3.identity.actor != "", "n3 has an actor again")
    assert n3.identity.actor == "n3~2"
    assert ledger.signs_as(n3.engine.view(), n3.identity.actor) not in (first, "n3~2")


def test_an_actor_is_known_to_others_as_soon_as_it_serves() -> None:
    """Even when they talked to it before it had one: its disk may be lost at any time."""
    world = World()
    world.form("n1", "n2", "n3")
    for shell in world.up:
        assert shell.identity.actors == {n: n for n in world.nodes if n != shell.name}
