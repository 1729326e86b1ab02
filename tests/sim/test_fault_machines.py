"""Faults of processes, clocks and disks do what they say, and are over when they say."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from twisted.internet.defer import Deferred

from dynamo.core.record import Record
from dynamo.errors import DynamoError, StorageFull
from dynamo.sim.faults import FAILURES, NOT_YET, draw
from dynamo.sim.plan import LASTING_S, Fault
from dynamo.storage.chunks import digest_of
from dynamo.storage.facts import Identity
from dynamo.wire.codec import KEEPING
from tests.support.sim_probe import Bench

NAMES = ["n1", "n2", "n3", "n4", "n5"]


def runs(bench: Bench) -> list[str]:
    return bench.world.running()


def commit(bench: Bench, name: str) -> Deferred[None]:
    """A commit by a node."""
    identity: Identity = bench.world.node(name).identity
    identity.actors["somebody"] = f"somebody~{bench.world.schedule.turn}"
    return identity.save_actors()


def stored(bench: Bench, name: str, seconds: float = 3.0) -> Deferred[None]:
    """A commit by a node, given so many seconds."""
    done = commit(bench, name)
    bench.world.run_for(seconds)
    return done


def failure_of(done: Deferred[None]) -> BaseException | None:
    found: list[BaseException] = []
    done.addErrback(lambda failure: found.append(failure.value))
    return found[0] if found else None


def test_a_killed_node_is_gone_its_machine_is_not_and_it_comes_back() -> None:
    bench = Bench()
    bench.inject("kill", "n2", seconds=5.0)
    assert runs(bench) == ["n1", "n3"]
    assert bench.world.hosts["n2"].machine.up
    assert bench.world.calm_since is None
    bench.world.run_for(6.0)
    assert runs(bench) == ["n1", "n2", "n3"]
    assert bench.world.hosts["n2"].starts == 2
    assert bench.world.calm_since == pytest.approx(bench.world.schedule.now - 1.0)
    assert bench.faults.injected == {"kill": 1}


def test_a_power_cut_takes_the_machine() -> None:
    bench = Bench()
    bench.inject("power_cut", "n2", seconds=5.0)
    assert not bench.world.hosts["n2"].machine.up
    assert bench.world.hosts["n2"].drive.counts["crash"] == 1
    bench.world.run_for(6.0)
    assert bench.world.hosts["n2"].machine.up
    assert runs(bench) == ["n1", "n2", "n3"]


def test_a_node_that_is_asked_stops_by_itself() -> None:
    bench = Bench()
    bench.inject("stop", "n2", seconds=20.0)
    assert "n2" in runs(bench)
    bench.world.run_for(10.0)
    assert runs(bench) == ["n1", "n3"]
    assert bench.world.hosts["n2"].drive.counts["kill"] == 0
    bench.world.run_for(11.0)
    assert runs(bench) == ["n1", "n2", "n3"]


def test_a_node_that_does_not_manage_to_stop_is_killed() -> None:
    bench = Bench()
    bench.inject("stop", "n2", seconds=0.1)
    bench.world.run_for(1.0)
    assert bench.world.hosts["n2"].drive.counts["kill"] == 1
    assert bench.world.hosts["n2"].starts == 2


@pytest.mark.parametrize(("amount", "end"), [(0.4, "kill"), (0.6, "crash")])
def test_several_go_at_once(amount: float, end: str) -> None:
    bench = Bench(4)
    bench.inject("crash_many", "n1", "n4", "n2", seconds=3.0, amount=amount)
    assert runs(bench) == ["n3"]
    assert [bench.world.hosts[n].drive.counts[end] for n in ("n1", "n2", "n4")] == [1, 1, 1]
    bench.world.run_for(4.0)
    assert runs(bench) == ["n1", "n2", "n3", "n4"]


def test_a_relapse_is_two_crashes() -> None:
    bench = Bench()
    bench.inject("relapse", "n3", seconds=10.0, amount=0.25)
    bench.world.run_for(1.2)
    assert "n3" in runs(bench)
    bench.world.run_for(0.1)
    assert "n3" not in runs(bench)
    bench.world.run_for(9.0)
    assert "n3" in runs(bench)
    assert bench.world.hosts["n3"].drive.counts["crash"] == 2


def test_a_paused_process_gets_no_turn_and_then_all_of_them() -> None:
    bench = Bench()
    bench.inject("pause", "n2", seconds=5.0)
    assert bench.tell("n1", "n2") == 0
    bench.world.run_for(5.0)
    assert len(bench.ears["n2"].heard) == 1
    assert not bench.world.hosts["n2"].machine.paused


def test_a_pause_longer_than_the_detectors_patience_costs_a_member_its_name() -> None:
    bench = Bench()
    bench.inject("pause", "n2", seconds=30.0)
    bench.world.run_for(25.0)
    words = {m.name: m.liveness for m in bench.world.node("n1").view.members()}
    assert words["n2"] == "dead"
    bench.world.run_for(20.0)
    words = {m.name: m.liveness for m in bench.world.node("n1").view.members()}
    assert words["n2"] == "alive"


def test_a_paused_process_does_not_commit_either() -> None:
    bench = Bench()
    done = commit(bench, "n2")
    bench.inject("pause", "n2", seconds=5.0)
    bench.world.run_for(4.0)
    assert not done.called
    bench.world.run_for(2.0)
    assert done.called


def test_the_pause_of_a_killed_process_is_not_its_successors() -> None:
    bench = Bench()
    bench.inject("pause", "n2", seconds=60.0)
    bench.inject("kill", "n2", seconds=1.0)
    bench.world.run_for(2.0)
    assert not bench.world.hosts["n2"].machine.paused
    bench.world.run_for(60.0)
    assert bench.world.calm_since is not None


def test_a_slow_node_takes_its_time_for_each_event() -> None:
    bench = Bench()
    bench.inject("slow", "n2", amount=0.05)
    port = bench.reactors["n1"].machine.udp[9001]
    for _ in range(10):
        port.write(b"x", (bench.ip("n2"), 9001))
    bench.world.run_for(5.0)
    times = [at for at, _ in bench.ears["n2"].heard]
    assert min(b - a for a, b in pairwise(times)) >= 0.05 - 1e-9
    bench.world.run_for(6.0)
    assert bench.world.hosts["n2"].machine.burden == 0.0


@pytest.mark.parametrize("amount", [3600.0, -3600.0])
def test_a_clock_jumps_and_is_set_right(amount: float) -> None:
    bench = Bench()
    wall, other = bench.world.hosts["n2"].wall, bench.world.hosts["n1"].wall
    before = wall() - other()
    bench.inject("clock_jump", "n2", seconds=5.0, amount=amount)
    assert wall() - other() == pytest.approx(before + amount)
    bench.world.run_for(6.0)
    assert wall() - other() == pytest.approx(before)


def test_a_clock_drifts_and_is_set_right() -> None:
    bench = Bench()
    wall, other = bench.world.hosts["n2"].wall, bench.world.hosts["n1"].wall
    before = wall() - other()
    bench.inject("clock_drift", "n2", seconds=10.0, amount=-0.1)
    bench.world.run_for(5.0)
    assert wall() - other() == pytest.approx(before - 0.5)
    bench.world.run_for(6.0)
    assert wall() - other() == pytest.approx(before)


def test_a_full_disk_takes_nothing_more() -> None:
    bench = Bench()
    bench.inject("disk_full", "n2", seconds=5.0)
    assert isinstance(failure_of(stored(bench, "n2")), StorageFull)
    bench.world.run_for(3.0)
    assert stored(bench, "n2").called
    assert not bench.world.hosts["n2"].drive.full


def test_a_slow_disk_takes_longer() -> None:
    bench = Bench()
    bench.inject("disk_slow", "n2", seconds=60.0, amount=300.0)
    assert not stored(bench, "n2", 0.05).called
    bench.world.run_for(70.0)
    assert stored(bench, "n2", 0.05).called


def test_a_stalled_disk_does_nothing_until_it_is_over() -> None:
    bench = Bench()
    bench.inject("disk_stalled", "n2", seconds=5.0)
    done = stored(bench, "n2", 4.5)
    assert not done.called
    bench.world.run_for(1.0)
    assert done.called


def test_a_bit_flips_in_a_chunk_if_there_is_one() -> None:
    """And another disk has it whole, for a record of its own: what is nowhere else no system
    keeps, and what nobody refers to may go."""
    bench = Bench()
    data = b"whatever a client sends"
    digest = digest_of(data)
    for name in ("n2", "n3"):
        bench.inject("chunk_flip", "n2", seconds=0.0)
        assert not bench.faults.injected
        written = bench.world.node(name).chunks.write(digest, data)
        bench.world.run_for(1.0)
        assert written.called
    bench.inject("chunk_flip", "n2", seconds=0.0)
    assert not bench.faults.injected
    bench.world.node("n3").committer.submit(lambda txn: txn.put("refs", digest, b"one"))
    bench.world.run_for(1.0)
    bench.inject("chunk_flip", "n2", seconds=0.0)
    assert bench.faults.injected == {"chunk_flip": 1}
    kept = bench.world.hosts["n2"].drive.written().chunks[digest]
    assert sum((a ^ b).bit_count() for a, b in zip(kept, data, strict=True)) == 1
    assert bench.oracle.told == ["n2"]


def test_a_bit_flips_in_a_record_if_there_is_one() -> None:
    """And another owner has the same."""
    bench = Bench()
    drive = bench.world.hosts["n2"].drive
    sealed = KEEPING["records"].encode(b"row", Record({"n2": 1}))
    for name in ("n2", "n3"):
        bench.inject("record_flip", "n2", seconds=0.0)
        assert not bench.faults.injected
        bench.world.node(name).committer.submit(lambda txn: txn.put("records", b"row", sealed))
        bench.world.run_for(1.0)
    bench.inject("record_flip", "n2", seconds=0.0)
    assert bench.faults.injected == {"record_flip": 1}
    assert drive.written().get("records", b"row") != sealed
    assert (bench.oracle.told, bench.oracle.knowing) == (["n2"], [True])


def test_at_rest_bits_flip_on_one_disk() -> None:
    """In a record and in a chunk, though it is no fault of the plan; only what is elsewhere too."""
    bench = Bench()
    bench.oracle.is_settled = True
    bench.faults.rot()
    assert bench.oracle.told == []
    data = b"chunk" * 100
    sealed = KEEPING["records"].encode(b"row", Record({"n2": 1}))
    drives = [bench.world.hosts[name].drive for name in ("n2", "n3")]
    for name in ("n2", "n3"):
        bench.world.node(name).committer.submit(lambda txn: txn.put("records", b"row", sealed))
        bench.world.node(name).chunks.write(digest_of(data), data)
        bench.world.node(name).committer.submit(
            lambda txn: txn.put("refs", digest_of(data), b"one")
        )
    bench.world.run_for(1.0)
    bench.faults.heal()
    bench.faults.rot()
    (name,) = set(bench.oracle.told)
    assert (len(bench.oracle.told), bench.oracle.knowing) == (2, [True, True])
    for drive in drives:
        whole = drive is not bench.world.hosts[name].drive
        assert (drive.written().get("records", b"row") == sealed) is whole
        assert (drive.chunks_durable[digest_of(data)] == data) is whole
    assert not bench.faults.injected


def test_a_wiped_disk_is_empty_when_its_node_comes_back() -> None:
    bench = Bench()
    assert stored(bench, "n2").called
    bench.inject("wipe", "n2", seconds=3.0)
    drive = bench.world.hosts["n2"].drive
    assert list(drive.durable().scan("meta", b"")) == []
    assert (bench.oracle.told, bench.oracle.knowing) == (["n2"], [False])
    bench.world.run_for(4.0)
    assert "n2" in runs(bench)


def test_only_one_disk_is_spoiled_until_the_cluster_had_settled() -> None:
    bench = Bench()
    bench.inject("wipe", "n2", seconds=3.0)
    bench.world.run_for(5.0)
    bench.inject("wipe", "n1", seconds=3.0)
    assert bench.faults.injected == {"wipe": 1}
    bench.oracle.is_settled = True
    bench.inject("wipe", "n1", seconds=3.0)
    assert bench.faults.injected == {"wipe": 2}
    assert bench.oracle.told == ["n2", "n1"]


def test_a_disk_is_put_back_to_what_it_was() -> None:
    bench = Bench()
    drive = bench.world.hosts["n2"].drive
    bench.inject("roll_back", "n2", seconds=20.0)
    assert "n2" in runs(bench)
    then = list(drive.durable().scan("meta", b""))
    bench.world.run_for(5.0)
    assert stored(bench, "n2").called
    bench.world.run_for(5.0)
    assert list(drive.durable().scan("meta", b"")) != then
    assert bench.oracle.told == []
    bench.world.run_for(7.0)
    assert bench.oracle.told == ["n2"]
    assert drive.counts["rolled_back"] == 1
    assert "n2" in runs(bench)


def test_what_concerns_a_node_that_is_down_is_skipped_and_not_counted() -> None:
    bench = Bench()
    bench.inject("kill", "n2", seconds=30.0)
    for kind in ("kill", "stop", "pause", "slow", "clock_jump", "disk_full", "chunk_flip", "wipe"):
        bench.inject(kind, "n2", seconds=1.0, amount=1.0)
    assert bench.faults.injected == {"kill": 1}
    assert bench.oracle.told == []


def test_a_node_that_will_not_start_is_started_again_until_it_does() -> None:
    bench = Bench()
    world = bench.world
    bench.inject("kill", "n2", seconds=1.0)
    first, tries = world.hosts["n2"].drive.open, []

    def refuse() -> object:
        tries.append(world.schedule.now)
        if len(tries) < 4:
            raise DynamoError("not yet")
        return first()

    world.hosts["n2"].drive.open = refuse  # type: ignore[method-assign, assignment]
    world.run_for(2.0)
    assert world.calm_since is None
    world.run_for(5.0)
    assert "n2" in runs(bench)
    assert world.calm_since == pytest.approx(tries[-1])


def test_healing_ends_everything_and_starts_everybody() -> None:
    bench = Bench(5, clients=1)
    rng = Random(1)
    kinds = [kind for kind in FAILURES if kind not in ("roll_back",)]
    plan = [
        Fault(at=0.1 * i, kind=kind, targets=targets(kind, rng), seconds=600.0, amount=0.5)
        for i, kind in enumerate(kinds)
    ]
    bench.faults.begin(plan)
    bench.world.run_for(20.0)
    bench.faults.heal()
    bench.world.run_for(5.0)
    bench.faults.release()
    assert runs(bench) == NAMES
    assert bench.world.calm_since is not None
    for host in bench.world.hosts.values():
        if 9001 not in host.machine.udp:
            bench.probe(host.machine)
    assert all(bench.hears(here, "n3") == (True, True) for here in ("n1", "n2", "n4", "c1"))
    for host in bench.world.hosts.values():
        assert not host.machine.paused
        assert (host.drive.full, host.drive.slow, host.drive.stalled) == (False, 1.0, False)


def test_those_cut_off_to_the_end_have_their_disks_held() -> None:
    """So that hints wait for them; until they go on, not everything has to work."""
    bench = Bench(5)
    bench.faults.begin([Fault(at=0.0, kind="partition", targets=("n2", "n4"), seconds=LASTING_S)])
    bench.world.run_for(15.0)
    bench.faults.heal()
    bench.world.run_for(5.0)
    drives = {name: host.drive.stalled for name, host in bench.world.hosts.items()}
    assert drives == {"n1": False, "n2": True, "n3": False, "n4": True, "n5": False}
    assert bench.faults.calm
    assert bench.world.calm_since is None
    bench.faults.release()
    assert bench.world.calm_since == bench.world.schedule.now
    assert not any(host.drive.stalled for host in bench.world.hosts.values())


def test_nothing_begins_after_healing() -> None:
    bench = Bench()
    bench.faults.begin([Fault(at=5.0, kind="kill", targets=("n1",), seconds=1.0)])
    bench.faults.heal()
    bench.world.run_for(10.0)
    assert not bench.faults.injected


def targets(kind: str, rng: Random) -> tuple[str, ...]:
    drawn = [f for s in range(400) for f in draw(Random(s), names=NAMES, seconds=90.0)]
    return next((f.targets for f in drawn if f.kind == kind), ("n1",))


# Drawing.


def test_a_seed_draws_the_same_and_every_kind_is_drawn() -> None:
    assert draw(Random(5), names=NAMES, seconds=90.0) == draw(Random(5), names=NAMES, seconds=90.0)
    drawn = {f.kind for s in range(60) for f in draw(Random(s), names=NAMES, seconds=90.0)}
    assert drawn == set(FAILURES) - set(NOT_YET)


@pytest.mark.parametrize("size", [3, 4, 5, 7])
def test_what_is_drawn_can_be_done(size: int) -> None:
    names = [f"n{number}" for number in range(1, size + 1)]
    for seed in range(200):
        faults = draw(Random(seed), names=names, seconds=90.0)
        assert list(faults) == sorted(faults, key=lambda f: f.at)
        assert all(0 <= f.at < 90.0 and 0 <= f.seconds <= 60.0 for f in faults)
        assert all(f.seconds >= 0.05 or f.seconds == 0.0 for f in faults)
        assert all(len(set(f.targets)) == len(f.targets) > 0 for f in faults)
        assert all(set(f.targets) <= set(names) for f in faults)
        assert all(len(f.targets) < size for f in faults if f.kind in ("partition", "one_way"))


def test_some_plans_have_one_fault_at_a_time_and_some_have_many() -> None:
    def most_at_once(faults: tuple[Fault, ...]) -> int:
        return max(
            (sum(g.at <= f.at <= g.at + g.seconds for g in faults) for f in faults), default=0
        )

    most = [most_at_once(draw(Random(s), names=NAMES, seconds=90.0)) for s in range(100)]
    assert sum(count == 1 for count in most) > 20
    assert sum(count > 2 for count in most) > 10
