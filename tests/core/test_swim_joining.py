"""Coming in, going out, coming back: seeds, exchanges, leaves, names, addresses, restarts."""

from __future__ import annotations

import random

import attrs
import pytest

from dynamo.core.effects import ExchangeState, Notice, PersistIncarnation, PersistMembers, Stopped
from dynamo.core.members import Liveness, Update
from dynamo.core.messages import Gossip, Ping, State
from dynamo.core.profiles import LAN, LOCAL
from dynamo.core.swim import Swim
from tests.support.swim_machine import CLUSTER, Bed, events, origin, record, sent, told
from tests.support.swim_network import SwimNetwork


def newcomer(*, incarnation: int = 0, seeds: tuple[str, ...] = ("s:1",), **more: object) -> Bed:
    """A machine that looks for its cluster."""
    bed = Bed.__new__(Bed)
    bed.settings, bed.now, bed.silent = LAN, 100.0, set()
    me = record("me", incarnation)
    bed.swim = Swim(LAN, me, CLUSTER, random.Random(1), **more)  # type: ignore[arg-type]
    bed.effects = bed.swim.join(bed.now, seeds)
    return bed


def asked(effects: list) -> list[str]:  # type: ignore[type-arg]
    """Addresses that are asked for an exchange."""
    return [e.address for e in effects if isinstance(e, ExchangeState)]


def test_a_node_without_seeds_founds_a_cluster() -> None:
    """Also one whose only seed is itself; its name is claimed at once."""
    for seeds in ((), ("me:7000",)):
        bed = newcomer(seeds=seeds)
        assert bed.swim.joined
        assert PersistIncarnation(1) in bed.effects


def test_a_seed_that_is_oneself_under_another_address() -> None:
    """alertmanager 1449: localhost is not 127.0.0.1 until it answers as this very process."""
    bed = newcomer(seeds=("localhost:7000",))
    assert not bed.swim.joined
    bed.swim.exchange(bed.now, bed.swim.state(), "localhost:7000")
    assert bed.swim.joined


def test_join() -> None:
    """The seed's answer brings its view, claims the name, and is followed by news of oneself."""
    bed = newcomer()
    assert asked(bed.effects) == ["s:1"]
    effects = bed.exchange(record("herald"), record("b"), asked="s:1")
    assert bed.swim.joined
    assert PersistIncarnation(1) in effects
    assert events(effects) == [("joined", "herald"), ("joined", "b")]
    assert asked(effects) == ["s:1"]
    assert record("me") in told(bed.run(0))


def test_row_13_seeds_are_asked_until_they_answer() -> None:
    """alertmanager 1428 and 1661: with growing patience, but for ever."""
    bed = newcomer(seeds=("a:1", "b:1", "c:1", "d:1", "me:7000"))
    bed.run(600)
    assert set(asked(bed.effects)) == {"a:1", "b:1", "c:1", "d:1"}
    assert 3 * 600 / 4 < len(asked(bed.effects)) < 3 * 600 / 2.5
    assert not bed.swim.joined


def test_row_13_a_silent_seed_is_tried_for_ever_also_after_joining() -> None:
    """Names that resolve late, wrong, or anew are resolved again by each of these attempts."""
    bed = newcomer(seeds=("late:1", "s:1"))
    bed.exchange(record("herald"), asked="s:1")
    assert "late:1" in asked(bed.run(3600)[-400:])


def test_an_exchange_with_another_cluster_is_refused() -> None:
    """Row 12, for the body of an exchange."""
    bed = newcomer()
    state = State("other", origin(record("x")), (record("x"),))
    effects = bed.swim.exchange(bed.now, state, "s:1")
    assert effects == [Notice("other_cluster", "x", "other")]
    assert len(bed.swim.members()) == 1


def test_a_restart_keeps_its_number_and_knows_its_cluster() -> None:
    """Without any seed, from the members on its disk."""
    bed = newcomer(
        incarnation=7, seeds=(), remembered=(record("b", 3), record("l", 2, Liveness.LEFT))
    )
    assert bed.effects[0] == PersistIncarnation(8)
    assert asked(bed.effects) == ["b:7000"]
    assert not bed.swim.joined
    assert bed.liveness("l") == "left"
    bed.exchange(record("b", 4), by="b", asked="b:7000")
    assert bed.swim.joined
    assert bed.liveness("b") == "alive"


def test_remembered_members_that_nobody_speaks_of_are_suspected_then_failed() -> None:
    """serf 924: a total outage does not make the lost ones unheard of."""
    dead = record("d", 2, Liveness.DEAD)
    bed = newcomer(incarnation=7, seeds=(), remembered=(record("b", 3), dead))
    bed.run(LAN.remember_patience - 0.1)
    assert bed.liveness("b") == "unknown"
    bed.silent.add("b")
    bed.run(30)
    assert (bed.liveness("b"), bed.liveness("d")) == ("dead", "dead")
    assert asked(bed.run(60))
    bed.hear(Update(record("b", 5)))
    assert bed.liveness("b") == "alive"


def test_what_is_known_is_stored_soon_after_it_changes() -> None:
    """All within `persist_delay` in one go, tombstones included."""
    bed = Bed()
    bed.hear(Update(record("b")), Update(record("c")))
    bed.hear(Update(record("c", 2, Liveness.LEFT)))
    stored = [e for e in bed.run(5) if isinstance(e, PersistMembers)]
    assert stored == [PersistMembers((record("b"), record("c", 2, Liveness.LEFT)))]


def test_nothing_works_before_join() -> None:
    """A machine that was not started says nothing and takes nothing."""
    swim = Swim(LAN, record("me"), CLUSTER, random.Random(1))
    assert swim.receive(0.0, "b:1", Ping(origin(record("b")), 1, "me", 1)) == []
    assert swim.tick(0.0) == []
    assert not swim.joined


def test_leave() -> None:
    """Said under a new incarnation, first of all news; then silence, once it has lingered."""
    bed = Bed().know(*[record(f"m{i}") for i in range(5)])
    effects = bed.swim.leave(bed.now)
    assert effects[0] == PersistIncarnation(2)
    assert len(sent(effects, Gossip)) == 4
    assert {m.order for m in told(effects)} == {record("me", 2, Liveness.LEFT).order}
    assert bed.swim.leave(bed.now) == []
    me = bed.swim.me
    ((_, answer),) = sent(bed.receive(Ping(origin(record("m1")), 1, me.name, me.identity)))
    assert answer.updates[0].member == me
    effects = bed.run(2)
    assert Stopped("left") in effects
    assert not sent(effects, Ping)
    assert bed.swim.wake_at == float("inf")
    assert bed.hear(Update(record("x"))) == []


def test_leave_alone() -> None:
    """With nobody to tell, at once."""
    bed = Bed()
    bed.swim.leave(bed.now)
    assert Stopped("left") in bed.run(0)


def test_a_leaver_out_jumps_a_late_accusation() -> None:
    """A verdict about a higher incarnation does not turn the leave into a failure."""
    bed = Bed().know(record("b"))
    bed.swim.leave(bed.now)
    bed.hear(Update(record("me", 5, Liveness.DEAD), "b"))
    assert bed.swim.me.order == record("me", 6, Liveness.LEFT).order


def test_a_contended_name_waits_for_its_holder() -> None:
    """A newcomer never takes a live member's name; it waits, and gives up in the end."""
    bed = newcomer()
    holder = record("me", 5, identity=9, address="there:1")
    effects = bed.exchange(record("herald"), holder, asked="s:1")
    assert Notice("name_contended", "me", "there:1") in effects
    assert not bed.swim.joined
    for _ in range(20):
        assert bed.run(2)
        assert not [e for e in bed.exchange(holder, asked="s:1") if isinstance(e, Notice)]
    effects = bed.run(LAN.name_patience)
    assert Stopped("name_taken", None) in effects


@pytest.mark.parametrize("liveness", [Liveness.DEAD, Liveness.LEFT])
def test_a_dead_holders_name_is_taken_with_a_leap(liveness: Liveness) -> None:
    """Replace: an empty node under the dead one's name, anywhere."""
    bed = newcomer()
    bed.exchange(record("me", 5, liveness, identity=9, address="there:1"), asked="s:1")
    assert bed.swim.joined
    assert bed.swim.me.incarnation == 5 + 1024


def test_an_emptied_node_at_the_same_address_takes_its_name_back() -> None:
    """Nobody else can be there: this process holds the socket."""
    bed = newcomer()
    bed.exchange(record("me", 5, identity=9, address="me:7000"), asked="s:1")
    assert bed.swim.joined


def test_the_higher_claim_stays_and_the_lower_stops() -> None:
    """Of two live processes under one name, by incarnation and then by identity."""
    me = record("me")
    for rival, survives in (
        (record("me", 1, identity=me.identity - 1, address="r:1"), True),
        (record("me", 1, identity=me.identity + 1, address="r:1"), False),
        (record("me", 2, identity=me.identity - 1, address="r:1"), False),
    ):
        bed = Bed().know(record("b"))
        effects = bed.hear(Update(rival))
        stopped = [e for e in effects if isinstance(e, Stopped)]
        assert stopped == ([] if survives else [Stopped("name_taken", rival)])
        if survives:
            assert ("r:1", Gossip(origin(me), (Update(me),))) in sent(effects)
            assert me in told(bed.run(0.3))
        else:
            assert bed.swim.tick(bed.now + 9) == []


def test_a_dead_rivals_claim_is_outdone() -> None:
    """It is gone: this one goes on, above it."""
    bed = Bed().know(record("b"))
    bed.hear(Update(record("me", 9, Liveness.DEAD, identity=1, address="r:1")))
    assert bed.swim.me.incarnation == 9 + 1024


def test_a_rival_that_writes_learns_of_us() -> None:
    """A datagram under our own name from another identity is answered with our claim."""
    bed = Bed().know(record("b"))
    rival = record("me", 1, identity=3, address="r:1")
    effects = bed.receive(Gossip(origin(rival)), "r:1")
    assert told(effects) == [bed.swim.me]


def test_strangers_and_newer_incarnations_lead_to_one_exchange() -> None:
    """What was missed is fetched whole, not more often than `seed_interval`."""
    bed = Bed().know(record("b"))
    effects = bed.receive(Gossip(origin(record("stranger"))), "x:9")
    assert asked(effects) == ["x:9"]
    assert asked(bed.receive(Gossip(origin(record("b", 9))), "b:7000")) == []
    bed.now += LAN.seed_interval
    assert asked(bed.receive(Gossip(origin(record("b", 9))), "b:7000")) == ["b:7000"]


class TestCluster:
    """The same on a virtual network."""

    def test_join_is_known_to_all_within_two_gossip_rounds(self) -> None:
        """The mark is 0.44 s."""
        net = SwimNetwork(1)
        net.cluster(15)
        net.add("new", ["n3:7000"])
        start = net.now
        assert net.run_until(start + 5, lambda: net.all_say("new", "alive"))
        assert net.now - start < 0.44

    def test_row_21_leave_is_known_to_all_and_is_no_failure(self) -> None:
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

    def test_seeds_that_have_no_cluster_form_one(self) -> None:
        """All start at once, each with the others as seeds."""
        net = SwimNetwork(2)
        seeds = [f"n{i}:7000" for i in range(3)]
        for i in range(3):
            net.add(f"n{i}", seeds)
        net.run(3)
        assert net.agreed()
        assert all(node.swim.joined for node in net.up)

    def test_row_14_the_only_seed_restarts_empty(self) -> None:
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
    def test_row_9_a_new_address_after_a_restart(self, wait: float, left: bool) -> None:
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

    def test_row_10_a_new_name_at_an_old_address(self) -> None:
        """serf 115 and 116: the old identity dies as soon as it is probed."""
        net = SwimNetwork(5)
        net.cluster(9)
        net.kill("n5")
        net.add("fresh", ["n0:7000"], address="n5:7000")
        start = net.now
        assert net.run_until(start + 5, lambda: net.all_say("n5", "dead"))
        assert "answers as fresh" in net.events("failed", "n5")[0].cause
        assert net.run_until(start + 10, net.agreed)

    def test_row_11_two_claimants_one_survivor(self) -> None:
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

    def test_replace_wins_over_the_old_one_that_comes_back(self) -> None:
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

    def test_row_15_total_outage(self) -> None:
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

    def test_row_4_mass_restart_in_random_order(self) -> None:
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

    def test_row_12_two_clusters_stay_two(self) -> None:
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

    def test_row_23_a_node_with_the_old_secret_is_refused_loudly(self) -> None:
        """serf 579: it forms no second cluster; it knows nobody and is not joined."""
        net = SwimNetwork(10, secrets=("new",))
        net.cluster(3)
        net.secrets = ("old",)
        net.cut_streams = lambda a, b: "late" in (a, b)
        late = net.add("late", ["n0:7000"])
        net.run(30)
        assert not late.swim.joined
        assert len(late.swim.members()) == 1

    def test_row_28_settings_may_differ_and_addresses_change(self) -> None:
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
