"""Joins, leaves, restarts, names and addresses in clusters on the virtual network."""

from __future__ import annotations

import attrs
import pytest

from dynamo.core.profiles import LAN, LOCAL
from tests.support.swim_network import SwimNetwork


def test_join_is_known_to_all_within_two_gossip_rounds() -> None:
    """The mark is 0.44 s."""
    net = SwimNetwork(1)
    net.cluster(15)
    net.add("new", ["n3:7000"])
    start = net.now
    assert net.run_until(start + 5, lambda: net.all_say("new", "alive"))
    assert net.now - start < 0.44


def test_row_21_leave_is_known_to_all_and_is_no_failure() -> None:
    """consul 3706, serf 359: under 10 % loss and with the leaver gone at once; 0.69 s."""
    for seed in range(5):
        net = SwimNetwork(seed, loss=0.1)
        net.cluster(15)
        start = net.now
        net.leave("n4")
        assert net.run_until(start + 5, lambda net=net: net.all_say("n4", "left"))
        assert net.now - start < 0.69
        net.run(20)
        assert net.events("failed") == []


def test_seeds_that_have_no_cluster_form_one() -> None:
    """All start at once, each with the others as seeds."""
    net = SwimNetwork(2)
    seeds = [f"n{i}:7000" for i in range(3)]
    for i in range(3):
        net.add(f"n{i}", seeds)
    net.run(3)
    assert net.agreed()
    assert all(node.swim.joined for node in net.up)


def test_row_14_the_only_seed_restarts_empty() -> None:
    """cortex 4931: one cluster, by itself, within a reconnect interval."""
    net = SwimNetwork(3)
    net.cluster(5)
    net.kill("n0")
    net.run(1)
    net.restart("n0", wipe=True)
    net.run(LAN.reconnect_interval + 5)
    assert net.agreed()


@pytest.mark.parametrize("wait", [0.0, 20.0])
@pytest.mark.parametrize("left", [False, True])
def test_row_9_a_new_address_after_a_restart(wait: float, left: bool) -> None:
    """consul 6897 and six more: after a crash, after a leave, before and after detection."""
    net = SwimNetwork(4)
    net.cluster(9)
    (net.leave if left else net.kill)("n5")
    net.run(wait + 2 * left)
    net.restart("n5", address="elsewhere:1")
    start = net.now
    assert net.run_until(start + 10, net.agreed)
    assert net.now - start < 2
    assert net.nodes["n1"].swim.member("n5").address == "elsewhere:1"  # type: ignore[union-attr]


def test_row_10_a_new_name_at_an_old_address() -> None:
    """serf 115 and 116: the old identity dies as soon as it is probed."""
    net = SwimNetwork(5)
    net.cluster(9)
    net.kill("n5")
    net.add("fresh", ["n0:7000"], address="n5:7000")
    start = net.now
    assert net.run_until(start + 5, lambda: net.all_say("n5", "dead"))
    assert "answers as fresh" in net.events("failed", "n5")[0].cause
    assert net.run_until(start + 10, net.agreed)


def test_row_11_two_claimants_one_survivor() -> None:
    """serf 167 and 551: two clusters that both have an n1 meet; exactly one n1 stays."""
    for seed in range(6):
        net = SwimNetwork(seed, LOCAL)
        net.add("a0")
        net.add("n1", ["a0:7000"], address="left:1")
        net.run(2)
        net.cut = lambda a, b: (a in ("a0", "n1")) != (b in ("a0", "n1"))
        net.add("b0")
        net.add("n1", ["b0:7000"], address="right:1")
        net.run(2)
        net.heal()
        net.add("bridge", ["a0:7000", "b0:7000"])
        net.run(20)
        claimants = [node for node in net.nodes.values() if node.swim.me.name == "n1"]
        assert len(claimants) == 2
        assert sorted(node.stopped for node in claimants) == ["", "name_taken"]
        assert net.agreed()


def test_replace_wins_over_the_old_one_that_comes_back() -> None:
    """An empty node took the dead one's name; the dead one's disk is found and started."""
    net = SwimNetwork(6)
    net.cluster(5)
    old = dict(net.nodes["n3"].disk)
    net.kill("n3")
    net.run(10)
    new = net.add("n3", ["n0:7000"], address="new:1")
    net.run(5)
    assert net.agreed()
    back = net.add("n3", ["n0:7000"], address="n3:7000", disk=old)
    net.run(10)
    assert (new.stopped, back.stopped) == ("", "name_taken")
    assert net.agreed()


def test_row_15_total_outage() -> None:
    """serf 333, consul 1271: all killed at once, all but one come back, as one cluster that
    still lists the missing one; some of their disks lost the list of members."""
    net = SwimNetwork(7)
    names = net.cluster(6)
    for name in names:
        net.kill(name)
    net.nodes["n2"].disk.pop("members")
    for name in names[:5]:
        net.nodes[name].running = False
        net.restart(name)
    net.run(40)
    assert net.agreed()
    assert net.all_say("n5", "dead")


def test_row_4_mass_restart_in_random_order() -> None:
    """memberlist 311: nobody stays dead, and at most one refutation each."""
    net = SwimNetwork(8)
    names = net.cluster(30)
    net.rng.shuffle(names)
    for name in names:
        net.kill(name)
        net.restart(name)
        net.run(0.05)
    net.run(15)
    assert net.agreed()
    refuted = [who for _, who, notice in net.notices if notice.code == "refuted"]
    assert all(refuted.count(name) <= 1 for name in names)


def test_row_12_two_clusters_stay_two() -> None:
    """consul 1939, nomad 3837: another cluster at a member's old address is never joined."""
    net = SwimNetwork(9)
    net.cluster(5)
    net.kill("n2")
    other = net.add("x", ["n0:7000"], address="n2:7000", cluster="other")
    net.run(60)
    assert net.dropped["other_cluster"] > 10
    assert len(other.swim.members()) == 1
    assert "x" not in net.view("n0")
    assert net.all_say("x", "dead") is False


def test_row_23_a_node_with_the_old_secret_is_refused_loudly() -> None:
    """serf 579: it forms no second cluster; it knows nobody and is not joined."""
    net = SwimNetwork(10, secrets=("new",))
    net.cluster(3)
    net.secrets = ("old",)
    net.cut_streams = lambda a, b: "late" in (a, b)
    late = net.add("late", ["n0:7000"])
    net.run(30)
    assert not late.swim.joined
    assert len(late.swim.members()) == 1


def test_row_28_settings_may_differ_and_addresses_change() -> None:
    """CASSANDRA-19244: an upgrade of settings, node by node, each with a new address."""
    net = SwimNetwork(11)
    names = net.cluster(7)
    for i, name in enumerate(names[1:]):
        net.kill(name)
        disk = net.nodes[name].disk
        changed = attrs.evolve(LAN, suspicion_multiplier=2.0, gossip_fanout=4)
        net.add(name, ["n0:7000"], address=f"v2-{i}:1", disk=disk, settings=changed)
        net.run(3)
    net.run(15)
    assert net.agreed()
    assert net.events("failed") == []
