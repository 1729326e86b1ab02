"""Coming in, going out, coming back: seeds, exchanges, leaves, names, addresses, restarts."""

from __future__ import annotations

import random

import pytest

from dynamo.core.effects import ExchangeState, Notice, PersistIncarnation, PersistMembers, Stopped
from dynamo.core.members import Liveness, Update
from dynamo.core.messages import Gossip, Ping, State
from dynamo.core.profiles import LAN
from dynamo.core.swim import Swim
from tests.support.swim_machine import CLUSTER, Bed, events, origin, record, sent, told


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


def test_an_unclaimed_node_waits_for_its_seed_even_if_accused() -> None:
    """It has nothing to refute with before it knows whether the name is free."""
    bed = newcomer()
    bed.hear(Update(record("me", 0, Liveness.SUSPECT), "x"))
    assert bed.swim.me.incarnation == 0


def test_a_flood_of_rival_claims_is_answered_at_the_gossip_rate() -> None:
    """Each objection is a datagram, so they are not one for one."""
    bed = Bed().know(record("b"))
    rival = record("me", 1, identity=3, address="r:1")
    effects = [e for _ in range(50) for e in bed.hear(Update(rival))]
    assert len([a for a, _ in sent(effects, Gossip) if a == "r:1"]) == 1
    assert bed.swim.counts["name_conflicts"] == 50


def test_bad_records_on_the_own_disk_are_passed_over() -> None:
    """consul 3362: rubbish after a power loss does not stop a start."""
    bed = newcomer(remembered=(record("b", -1), record("me", 3, identity=1)))
    bed.run(30)
    assert len(bed.swim.members()) == 1


def test_a_remembered_member_at_the_own_address_is_not_asked() -> None:
    """The node was renamed: nobody else can be there."""
    bed = newcomer(seeds=(), remembered=(record("old", 2, address="me:7000"), record("b")))
    bed.run(20)
    assert set(asked(bed.effects)) == {"b:7000"}


def test_a_remembered_member_that_left_meanwhile_is_forgotten() -> None:
    """The cluster spoke of it: it is not suspected on the strength of an old disk."""
    bed = newcomer(incarnation=3, remembered=(record("b", 3),))
    bed.exchange(record("herald"), record("b", 4, Liveness.LEFT), asked="s:1")
    bed.run(LAN.remember_patience + 1)
    assert bed.liveness("b") == "unknown"
