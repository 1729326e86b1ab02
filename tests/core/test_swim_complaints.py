"""What users of other systems complained of, as clusters on the virtual network.

Rows and issue numbers are those of the survey that this design began with; rows about a single
machine or about bytes are next to their kin in the other test modules.
"""

from __future__ import annotations

import statistics

import pytest

from dynamo.core.profiles import LAN, LOCAL, Settings
from tests.support.swim_network import SwimNetwork


def test_row_1_udp_blocked_between_a_pair() -> None:
    """serf 283 and 216: streams are open; no flap, at most one notice on each side."""
    net = SwimNetwork(1)
    net.cluster(9)
    net.cut = lambda a, b: {a, b} == {"n2", "n3"}
    net.cut_streams = lambda a, b: False
    net.run(300)
    assert net.events("suspected") == []
    assert all(s.event in ("joined", "changed") for s in net.seen)


def test_row_1_udp_blocked_at_one_node() -> None:
    """memberlist 37: the node lives on by stream; each peer gives one notice, and news reaches
    the node by stream."""
    net = SwimNetwork(2)
    net.cluster(9)
    net.cut = lambda a, b: "n2" in (a, b)
    net.cut_streams = lambda a, b: False
    net.run(120)
    assert net.events("failed") == []
    assert net.events("suspected") == []
    blocked = [(who, n.name) for _, who, n in net.notices if n.code == "udp_blocked"]
    assert len(blocked) == len(set(blocked)) == 16
    net.add("new", ["n0:7000"])
    net.run(40)
    assert net.agreed()


@pytest.mark.parametrize(("count", "pause", "run"), [(3, 2.0, 0.25), (1, 1.5, 0.064)])
def test_row_2_slow_members_cause_no_failures(count: int, pause: float, run: float) -> None:
    """consul 5928, 5567, 1212: members of 15 that stand still for up to 2 s, over and over, are
    not failed (serf: 14 failures in the first case), and nobody healthy is accused."""
    net = SwimNetwork(3)
    names = net.cluster(15)
    start = net.now
    while net.now < start + 60:
        for name in names[:count]:
            net.pause(name, pause)
        net.run(pause + run)
    net.run(10)
    healthy = set(names[count:])
    assert net.events("failed") == []
    assert [s for s in net.events("suspected") if s.name in healthy] == []
    assert net.agreed()


def test_row_2_long_pauses_fail_only_those_that_stand_still() -> None:
    """The cell in which serf counts 379 failures: they are about the stopped alone."""
    net = SwimNetwork(4)
    names = net.cluster(16)
    for _ in range(8):
        for name in names[:4]:
            net.pause(name, 8.192)
        net.run(8.192 + 0.064)
    net.run(30)
    assert {s.name for s in net.events("failed")} <= set(names[:4])
    assert net.agreed()


def test_row_2_a_node_that_hears_nothing_but_sends() -> None:
    """Nobody believes what it says of the others for longer than a refutation takes, and it is
    found out itself."""
    net = SwimNetwork(5)
    names = net.cluster(12)
    net.cut = lambda a, b: b == "n4"
    net.cut_streams = lambda a, b: "n4" in (a, b)
    net.run(60)
    others = [s for s in net.events("failed") if s.observer != "n4"]
    assert {s.name for s in others} == {"n4"}
    assert all(net.view("n1")[name] == "alive" for name in names if name != "n4")
    net.heal()
    net.run(30)
    assert net.agreed()


@pytest.mark.parametrize(
    ("size", "seconds"), [(1, 10.0), (4, 10.0), (5, 10.0), (1, 120.0), (5, 120.0), (4, 7200.0)]
)
def test_row_3_a_partition_heals_by_itself(size: int, seconds: float) -> None:
    """memberlist 222, serf 605, weaviate 10698: after 10 s, 2 min or 2 h, however it is split,
    all is one again within about a reconnect interval."""
    net = SwimNetwork(6, check=seconds < 1000)
    names = net.cluster(9)
    net.split(names[:size])
    net.run(seconds)
    assert net.all_say("n8", "dead") is False
    net.heal()
    start = net.now
    assert net.run_until(start + 60, net.agreed)
    assert net.now - start < LAN.reconnect_interval + 5


def test_row_3_two_nodes() -> None:
    """metallb 589: also when each side is one node."""
    net = SwimNetwork(7)
    net.cluster(2)
    net.split(["n0"])
    net.run(600)
    assert net.view("n0")["n1"] == net.view("n1")["n0"] == "dead"
    net.heal()
    net.run(LAN.reconnect_interval + 1)
    assert net.agreed()


@pytest.mark.parametrize("blocked", ["streams", "datagrams"])
def test_row_3_heals_by_either_way_alone(blocked: str) -> None:
    """Attempts to reach the dead go by datagram and by stream; one of them is enough."""
    net = SwimNetwork(7)
    net.cluster(4)
    net.split(["n0", "n1"])
    net.run(60)
    net.heal()
    net.cut = lambda a, b: blocked == "datagrams"
    net.cut_streams = lambda a, b: blocked == "streams"
    net.run(3 * LAN.reconnect_interval)
    assert all(node.swim.me.incarnation > 1 for node in net.up)
    assert net.agreed()


def test_row_27_paused_for_a_minute() -> None:
    """CASSANDRA-9183: the paused one is failed by others, accuses nobody on waking, and is back."""
    net = SwimNetwork(8)
    net.cluster(9)
    net.pause("n3", 60.0)
    net.run(60.5)
    assert [s for s in net.seen if s.observer == "n3" and s.event == "failed"] == []
    net.run(5)
    assert net.agreed()
    assert {s.name for s in net.events("failed")} == {"n3"}


def test_row_27_everybody_paused() -> None:
    """A suspended host of virtual machines: nobody fails when all wake together."""
    net = SwimNetwork(9)
    names = net.cluster(9)
    for name in names:
        net.pause(name, 30.0)
    net.run(60)
    assert net.events("failed") == []


def test_row_30_correlated_loss_recovers_in_one_refutation() -> None:
    """dskit 1034: all paths of one node fail together for longer than the suspicion lasts."""
    net = SwimNetwork(10)
    net.cluster(9)
    net.split(["n3"])
    net.run(12)
    net.heal()
    net.run(LAN.reconnect_interval + 5)
    assert net.agreed()
    assert net.nodes["n3"].swim.me.incarnation <= 3


def test_ten_percent_loss_keeps_the_whole_group() -> None:
    """SWIM's experiment: 17 processes join under 10 % loss; theirs settled at 12 members."""
    net = SwimNetwork(11, loss=0.1)
    net.cluster(17, settle=120)
    assert net.events("failed") == []
    net.run(30)
    assert all(len(view) == 17 for view in (net.view(f"n{i}") for i in range(17)))


def test_half_the_packets_of_a_few_members_are_lost() -> None:
    """Rapid's experiment, milder: nobody healthy is failed by anyone."""
    net = SwimNetwork(12)
    names = net.cluster(20)
    bad = set(names[:2])
    net.lossy = lambda a, b: 0.5 if a in bad or b in bad else 0.0
    net.run(120)
    assert {s.name for s in net.events("failed")} <= bad
    net.heal()
    net.run(40)
    assert net.agreed()


def test_one_way_loss_between_two_members_is_bridged() -> None:
    """Indirect probes and streams see what one member cannot."""
    net = SwimNetwork(13)
    net.cluster(9)
    net.cut = lambda a, b: (a, b) == ("n2", "n3")
    net.run(120)
    assert net.events("failed") == []


def test_duplicated_and_reordered_packets_change_nothing() -> None:
    """Every other packet twice, and up to 0.2 s late: past others, within a probe."""
    net = SwimNetwork(14, latency=(0.0, 0.1))
    net.duplicate = 0.5
    net.cluster(12, settle=120)
    assert net.events("failed") == []
    assert net.agreed()


def test_at_rest_two_packets_and_270_bytes_a_second() -> None:
    """SWIM's 2.0 packets per member and period, with the headers of UDP and IP, also sealed."""
    for secrets in ((), ("s",)):
        net = SwimNetwork(15, secrets=secrets)
        net.cluster(15)
        net.reset_counts()
        net.run(60)
        assert sum(net.packets.values()) / 60 / 15 <= 2.01
        assert sum(net.bytes.values()) / 60 / 15 <= 200
        assert set(net.kinds) == {"ping", "ack"}


@pytest.mark.parametrize(("settings", "median"), [(LAN, 4.0), (LOCAL, 1.5)])
def test_a_crash_is_known_to_all(settings: Settings, median: float) -> None:
    """15 processes, one killed: the time until all others know, over ten kills."""
    taken = []
    for seed in range(10):
        net = SwimNetwork(100 + seed, settings)
        net.cluster(15, settle=8)
        start = net.now
        net.kill("n7")
        assert net.run_until(start + 30, lambda net=net: net.all_say("n7", "dead"))
        taken.append(net.now - start)
        assert {s.name for s in net.events("failed")} == {"n7"}
    assert statistics.median(taken) <= median


def test_a_crash_of_the_whole_host_takes_the_deadline_longer() -> None:
    """No port refuses, packets just vanish: the same verdict."""
    net = SwimNetwork(16)
    net.cluster(15)
    net.cut = lambda a, b: "n7" in (a, b)
    start = net.now
    assert net.run_until(
        start + 10, lambda: all(net.view(f"n{i}")["n7"] == "dead" for i in range(15) if i != 7)
    )


def test_dead_members_are_told_the_news_for_a_while_only() -> None:
    """memberlist's gossip-to-the-dead window."""
    net = SwimNetwork(17)
    net.cluster(4)
    net.kill("n3")
    net.run(10 + LAN.gossip_to_dead)
    heard: list[str] = []
    send = net._send

    def spy(node, effect) -> None:  # type: ignore[no-untyped-def]
        if effect.address == "n3:7000":
            heard.append(type(effect.message).__name__)
        send(node, effect)

    net._send = spy  # type: ignore[method-assign]
    net.call(net.nodes["n0"], lambda swim: swim.describe(net.now, weight=2.0))
    net.run(30)
    assert "Gossip" not in heard
    assert "Ping" in heard


def test_one_seed_replays_byte_for_byte() -> None:
    """No clock, no salt, no chance of its own."""
    stories = []
    for _ in range(2):
        net = SwimNetwork(18, loss=0.1)
        net.cluster(12)
        net.kill("n4")
        net.run(20)
        stories.append((net.seen, net.bytes, net.packets))
    assert stories[0] == stories[1]
