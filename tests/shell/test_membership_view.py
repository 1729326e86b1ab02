"""What a node believes of the others: whom it relies on, who owns what, what it tells of it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dynamo.cluster.membership import EVENTS_KEPT
from dynamo.cluster.peers import DOUBT_S
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.effects import Notice
from dynamo.core.layout import Layout, without
from dynamo.core.members import Liveness
from dynamo.errors import NotReady
from tests.support.shells import Disk, Shell, World
from tests.support.swim_machine import record


def made(name: str) -> Bucket:
    return Bucket(name).create(1, 1, Properties())


# Whom it relies on.


def test_suspected_and_doubted_members_are_doubtful() -> None:
    """They are asked, and not relied on; a dead one is neither."""
    world = World()
    n1, *_ = world.form("n1", "n2", "n3")
    view = n1.view
    assert (view.is_healthy("n2"), view.is_doubtful("n2")) == (True, False)
    world.nodes["n2"].kill()
    world.until(lambda: view.suspected() == ["n2"], "n2 is suspected")
    assert (view.is_healthy("n2"), view.is_doubtful("n2")) == (False, True)
    world.until(lambda: n1.liveness()["n2"] == "dead", "n2 is dead")
    assert (view.is_healthy("n2"), view.is_doubtful("n2")) == (False, False)
    assert view.is_healthy("n1")
    assert not view.is_healthy("nobody")
    assert not view.is_doubtful("nobody")


def test_a_doubt_ends_by_itself() -> None:
    """After a request failed a member is doubtful for a second, longer if more fail, and no
    longer than that while gossip finds it well."""
    world = World()
    n1, *_ = world.form("n1", "n2", "n3")
    world.run(20)
    epoch = n1.view.epoch
    n1.view.evidence("n2", False)
    assert n1.view.is_doubtful("n2")
    assert n1.view.epoch == epoch + 1
    world.run(DOUBT_S / 2)
    n1.view.evidence("n2", False)
    world.run(DOUBT_S * 0.9)
    assert n1.view.is_doubtful("n2")
    assert n1.view.epoch == epoch + 1
    world.run(DOUBT_S * 0.2)
    assert n1.view.is_healthy("n2")
    assert n1.view.epoch == epoch + 2
    assert n1.liveness()["n2"] == "alive"
    n1.view.evidence("nobody", False)
    assert n1.view.epoch == epoch + 2


def test_a_returning_member_is_well_when_buckets_were_exchanged() -> None:
    """Alive is not enough: first both know the same of buckets, then it is told to watchers."""
    world = World()
    n1, n2, _ = world.form("n1", "n2", "n3")
    n2.kill()
    world.until(lambda: n1.liveness()["n2"] == "dead", "n2 is dead")
    n1.buckets.merge([made("b")])
    world.run(1)
    n2 = world.start("n2", "n1")
    n2.mute = True
    world.until(lambda: n1.liveness()["n2"] == "alive", "n2 is back")
    world.run(5)
    assert not n1.view.is_healthy("n2")
    assert "n2" in n1.view.awaiting()
    told = len(n1.told)
    n2.mute = False
    world.until(lambda: n1.view.is_healthy("n2"), "it is well")
    assert n1.told[told:] == [("n2", "alive")]
    assert n2.buckets.digest() == n1.buckets.digest()
    assert "b" in n2.buckets.states


def test_hints_are_awaited_and_asked_for_until_handed_over() -> None:
    """`awaiting` names who keeps hints for this node, until it says that it has none."""
    world = World()
    n1, n2, _ = world.form("n1", "n2", "n3")
    n1.kill()
    n2.hints["n1"] = 2
    world.run(1)
    n1 = world.start("n1", "n2")
    world.until(world.whole, "n1 is back")
    world.run(5)
    assert n1.view.awaiting() == ("n2",)
    n2.hints["n1"] = 0
    assert world.until(lambda: n1.view.awaiting() == (), "all is handed over") < 0.5


def test_hints_are_asked_for_by_one_that_missed_nobody_and_was_missed() -> None:
    """A node that was cut off may have suspected the others for longer than they suspected it."""
    world = World()
    n1, n2, _ = world.form("n1", "n2", "n3")
    world.run(5)
    n2.hints["n1"] = 2
    n1.view.noticed(Notice("refuted", "dead", "rumour from n2"))
    assert n1.view.awaiting() == ("n2", "n3")
    world.run(1)
    assert n1.view.awaiting() == ("n2",)


def test_a_member_that_stays_silent_is_not_awaited_when_it_is_dead() -> None:
    """A newcomer that only hears of a dead member does not wait for it."""
    world = World()
    n1, *_ = world.form("n1", "n2", "n3")
    world.nodes["n3"].kill()
    world.until(lambda: n1.liveness()["n3"] == "dead", "n3 is dead")
    n4 = world.start("n4", "n1")
    world.until(lambda: n4.liveness().get("n3") == "dead", "n4 has heard")
    world.run(2)
    assert n4.view.awaiting() == ()
    assert n4.view.joined


# Who owns what.


def test_a_plain_stop_keeps_ownership() -> None:
    """Everybody sees `left` and nobody a failure; the ring stays, also at a node that restarts
    while it is stopped; when it is back, all is as before."""
    world = World()
    n1, n2, n3 = world.form("n1", "n2", "n3")
    version = n1.view.ring.version
    n3.leave()
    world.run(5)
    for shell in (n1, n2):
        assert shell.liveness()["n3"] == "left"
        assert shell.happened("failed") == shell.happened("suspected") == []
        assert shell.view.ring.version == version
    n2 = world.start("n2", "n1")
    world.until(lambda: n2.view.joined, "n2 serves")
    world.run(5)
    assert n2.liveness()["n3"] == "left"
    assert n2.view.awaiting() == ()
    assert n2.view.ring.version == version
    world.start("n3", "n1")
    world.until(world.whole, "n3 is back")
    assert n1.view.ring.version == version


def test_a_dead_member_keeps_its_place_and_so_does_its_successor() -> None:
    """Replace: an empty node under the dead one's name, somewhere else."""
    world = World()
    n1, *_ = world.form("n1", "n2", "n3")
    version = n1.view.ring.version
    world.nodes["n3"].kill()
    world.until(lambda: n1.liveness()["n3"] == "dead", "n3 is dead")
    assert n1.view.ring.version == version
    new = world.start("n3", "n1", address="10.0.9.9:7000", disk=Disk())
    while not (n1.view.is_healthy("n3") and new.view.joined):
        world.run(0.01)
        assert n1.view.ring.version == version
    world.until(world.whole, "all know")
    assert new.identity.actor == "n3~2"
    assert new.view.ring.version == version


def test_a_member_that_left_for_good_owns_nothing() -> None:
    """It serves until the others have all of it, and not when it is started again."""
    world = World()
    n1, n2, n3 = world.form("n1", "n2", "n3")
    n2.syncs = False
    take_out(n3, "n3")
    world.run(3)
    assert n1.ring() == {"n1", "n2", "n3"}
    assert n3.view.joined
    n2.syncs = True
    world.until(lambda: n1.ring() == n2.ring() == {"n1", "n2"}, "n3 is out")
    world.until(lambda: n1.view.layout.stage == "steady", "it is done")
    world.until(lambda: not n3.view.joined, "n3 knows")
    assert "not in the ring any more" in n3.view.why_not_joined()
    assert n3.book.out


def test_a_newcomer_knows_the_place_of_one_that_is_stopped() -> None:
    """All have one ring, whenever they came; and whoever is removed for good leaves it at all."""
    world = World()
    n1, n2, n3 = world.form("n1", "n2", "n3")
    n3.leave()
    world.run(3)
    n4 = world.start("n4", "n2")
    world.until(world.whole, "n4 has joined")
    assert n4.ring() == n1.ring() == {"n1", "n2", "n3", "n4"}
    assert n4.liveness()["n3"] == "left"
    assert n4.view.awaiting() == ()
    world.until(lambda: n1.view.layout.stage == "steady", "n4 is in the ring")
    n2.kill()
    world.until(lambda: n4.liveness()["n2"] == "dead", "n2 is dead")
    world.run(2)
    asked = take_out(n1, "n2")
    world.run(20)
    failure = asked.result
    assert isinstance(failure, Failure)
    assert failure.check(NotReady), "half of the members are not most of them"
    asked.addErrback(lambda _: None)
    world.start("n3", "n1")
    world.until(world.whole, "n3 is back")
    take_out(n1, "n2")
    world.until(lambda: n4.ring() == n1.ring() == {"n1", "n3", "n4"}, "n2 is out")
    assert "n2" in {m.name for m in n1.view.members()}
    world.until(lambda: n1.view.layout.stage == "steady", "nobody writes to it any more")
    assert "n2" not in {m.name for m in n1.view.members()}


def take_out(by: Shell, name: str) -> Deferred[Layout]:
    """As an operator asks for it."""

    def make(base: Layout) -> Layout | None:
        return base.change(without(base.next_members, name))

    return Deferred.fromCoroutine(by.view.layouts.propose(make, 5.0))


# What others go by.


def watched(shell: Shell) -> tuple[object, ...]:
    """What `epoch` has to change with."""
    view, names = shell.view, sorted(shell.liveness())
    return view.layout.version, [(n, view.is_healthy(n), view.is_doubtful(n)) for n in names]


def test_the_epoch_changes_exactly_with_health_and_ring() -> None:
    """Whatever happens: joins, refreshes, doubts, a death, a return; not at rest."""
    world = World()
    n1, *_ = world.form("n1", "n2", "n3")

    def step(seconds: float) -> None:
        end = world.clock.seconds() + seconds
        while world.clock.seconds() < end:
            before, epoch = watched(n1), n1.view.epoch
            calls = world.clock.getDelayedCalls()
            due = min(call.getTime() for call in calls)
            world.clock.advance(max(0.0, due - world.clock.seconds()))
            assert (watched(n1) == before) == (n1.view.epoch == epoch)

    step(40)
    Deferred.fromCoroutine(n1.view.refresh())
    step(1)
    n1.view.evidence("n2", False)
    step(2)
    world.nodes["n3"].kill()
    step(10)
    world.start("n3", "n1")
    step(5)
    world.start("n4", "n2")
    step(5)


def test_a_refresh_of_a_silent_member_ends_quietly() -> None:
    """In a second, whoever is silent, and without a word in the log."""
    world = World()
    n1, *_ = world.form("n1", "n2", "n3")
    world.nodes["n2"].mute = True
    done = Deferred.fromCoroutine(n1.view.refresh())
    world.run(1.01)
    assert done.called
    world.run(5)


def test_events_are_bounded() -> None:
    """The last hundred, whatever flaps."""
    world = World()
    n1, n2 = world.form("n1", "n2")
    for incarnation in range(2, 200):
        n1.view.gossip._obey(
            n1.swim.exchange(
                world.clock.seconds(),
                n1.swim.state().__class__(
                    "test",
                    n2.swim.state().origin,
                    (record("x", incarnation), record("x", incarnation, Liveness.SUSPECT)),
                ),
            )
        )
    assert len(n1.view.events) == EVENTS_KEPT
    assert n1.view.events[-1].member == "x"


def test_a_wall_clock_that_jumps_changes_nothing() -> None:
    """An hour forth and back: no event, no suspicion, no other epoch."""
    world = World()
    world.form("n1", "n2", "n3")
    world.run(30)
    before = [(len(s.view.events), s.view.epoch, s.liveness()) for s in world.up]
    for jump in (3600, -7200, 3600):
        world.wall += jump
        world.run(60)
    assert [(len(s.view.events), s.view.epoch, s.liveness()) for s in world.up] == before
