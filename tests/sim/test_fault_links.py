"""Faults of the network do what they say, to whom they say, and no longer."""

from __future__ import annotations

import pytest

from dynamo.sim.faults import KINDS
from tests.support.sim_probe import Bench


def test_loss_loses_its_share_and_only_between_its_targets() -> None:
    bench = Bench()
    bench.inject("loss", "n1", "n2", seconds=300.0, amount=0.5)
    passed = bench.tell("n1", "n2", times=200, within=0.01)
    assert 60 < passed < 140
    assert bench.tell("n1", "n3", times=50, within=0.01) == 50
    bench.world.run_for(300.0)
    assert bench.tell("n1", "n2", times=50, within=0.01) == 50


def test_loss_of_one_node_is_on_all_its_paths() -> None:
    bench = Bench()
    bench.inject("loss", "n1", amount=1.0)
    assert bench.hears("n1", "n2") == (False, False)
    assert bench.hears("n3", "n1") == (False, False)
    assert bench.hears("n2", "n3") == (True, True)


def test_two_losses_add_up_and_end_each_for_itself() -> None:
    bench = Bench()
    bench.inject("loss", "n1", "n2", seconds=5.0, amount=1.0)
    bench.inject("loss", "n1", "n2", seconds=60.0, amount=0.5)
    assert bench.tell("n1", "n2", times=20, within=0.01) == 0
    bench.world.run_for(6.0)
    assert 60 < bench.tell("n1", "n2", times=200, within=0.01) < 140


def test_doubling_lets_datagrams_arrive_twice() -> None:
    bench = Bench()
    bench.inject("doubling", "n1", "n2", amount=1.0)
    assert bench.tell("n1", "n2", times=10, within=0.1) == 20


def test_latency_delays_and_mixes_datagrams_and_keeps_streams_in_order() -> None:
    bench = Bench()
    near, far = bench.connect("n1", "n2")
    bench.inject("latency", "n1", "n2", seconds=60.0, amount=1.0)
    began = bench.world.schedule.now
    bench.tell("n1", "n2", times=30, within=0.02)
    for number in range(50):
        near.transport.write(b"%03d" % number)
        bench.world.run_for(0.01)
    bench.world.run_for(5.0)
    heard = bench.ears["n2"].heard
    assert heard[0][0] - began >= 1.0
    numbers = [int(data) for _, data in heard]
    assert sorted(numbers) == list(range(30))
    assert numbers != sorted(numbers)
    assert far.times[0] - began >= 1.0
    assert far.got == b"".join(b"%03d" % number for number in range(50))


def test_low_bandwidth_makes_much_take_long_and_little_not() -> None:
    bench = Bench()
    near, far = bench.connect("n1", "n2")
    bench.inject("bandwidth", "n1", "n2", seconds=60.0, amount=50e3)
    near.transport.write(b"x" * 10)
    bench.world.run_for(0.1)
    assert len(far.got) == 10
    near.transport.write(b"x" * 100_000)
    bench.world.run_for(1.5)
    assert len(far.got) == 10
    bench.world.run_for(1.0)
    assert len(far.got) == 100_010


def test_a_stall_holds_streams_up_and_lets_datagrams_pass() -> None:
    bench = Bench()
    near, far = bench.connect("n1", "n2")
    bench.inject("stream_stall", "n1", "n2", seconds=8.0)
    near.transport.write(b"late")
    assert bench.hears("n1", "n2") == (True, True)
    assert far.got == b""
    bench.world.run_for(8.0)
    assert far.got == b"late"
    assert (near.ended, far.ended) == ("", "")


def test_a_reset_ends_both_sides_and_other_connections_live() -> None:
    bench = Bench()
    near, far = bench.connect("n1", "n2")
    other, _ = bench.connect("n1", "n3")
    bench.inject("reset", "n1", "n2", seconds=0.0)
    bench.world.run_for(0.1)
    assert (near.ended, far.ended) == ("ConnectionLost", "ConnectionLost")
    assert other.ended == ""


def test_a_half_open_connection_is_known_to_one_side_until_the_other_speaks() -> None:
    bench = Bench()
    near, far = bench.connect("n1", "n2")
    bench.inject("half_open", "n1", "n2", seconds=0.0)
    bench.world.run_for(30.0)
    assert (near.ended, far.ended) == ("ConnectionLost", "")
    far.transport.write(b"anyone?")
    bench.world.run_for(1.0)
    assert far.ended == "ConnectionLost"
    assert near.got == b""


def test_a_partition_parts_groups_both_ways() -> None:
    bench = Bench(4)
    bench.inject("partition", "n1", "n2", seconds=10.0)
    assert bench.hears("n1", "n2") == (True, True)
    assert bench.hears("n3", "n4") == (True, True)
    assert bench.hears("n1", "n3") == (False, False)
    bench.world.run_for(10.0)
    assert bench.hears("n1", "n3") == (True, True)


def test_a_one_way_partition_passes_one_way() -> None:
    bench = Bench()
    bench.inject("one_way", "n1")
    assert bench.hears("n1", "n2") == (False, True)
    assert bench.hears("n3", "n1") == (True, False)
    assert bench.hears("n2", "n3") == (True, True)


def test_a_bridge_hears_both_groups() -> None:
    bench = Bench(5)
    bench.inject("bridge", "n3", "n1", "n2", seconds=20.0)
    assert bench.hears("n3", "n1") == (True, True)
    assert bench.hears("n3", "n5") == (True, True)
    assert bench.hears("n1", "n4") == (False, False)
    assert bench.hears("n2", "n5") == (False, False)
    assert bench.hears("n1", "n2") == (True, True)


def test_a_client_is_cut_from_one_node() -> None:
    bench = Bench(clients=2)
    bench.inject("client_cut", "n1", amount=0.9)
    assert bench.hears("c2", "n1") == (False, False)
    assert bench.hears("c2", "n2") == (True, True)
    assert bench.hears("c1", "n1") == (True, True)
    bench.world.run_for(10.0)
    assert bench.hears("c2", "n1") == (True, True)


def test_overlapping_partitions_end_each_for_itself() -> None:
    bench = Bench()
    near, far = bench.connect("n1", "n2")
    bench.inject("partition", "n1", seconds=5.0)
    bench.inject("one_way", "n1", seconds=15.0)
    near.transport.write(b"late")
    bench.world.run_for(6.0)
    assert bench.hears("n1", "n2") == (False, True)
    assert far.got == b""
    bench.world.run_for(10.0)
    assert bench.hears("n1", "n2") == (True, True)
    assert far.got == b"late"


def test_what_is_cut_for_long_is_lost_for_its_sender() -> None:
    bench = Bench()
    near, far = bench.connect("n1", "n2")
    bench.inject("partition", "n1", seconds=60.0)
    near.transport.write(b"nobody will hear this")
    bench.world.run_for(20.0)
    assert near.ended == ""
    bench.world.run_for(10.0)
    assert near.ended == "ConnectionLost"
    bench.world.run_for(60.0)
    assert far.got == b""


def test_a_fault_between_nodes_that_are_down_is_skipped() -> None:
    bench = Bench()
    bench.world.kill("n1")
    bench.world.kill("n2")
    bench.inject("reset", "n1", "n2", seconds=0.0)
    bench.inject("loss", "n1", "n2", amount=0.5)
    assert not bench.faults.injected
    assert bench.world.calm_since is not None


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_says_what_it_is(kind: str) -> None:
    assert KINDS[kind].endswith(".")
