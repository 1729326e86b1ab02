"""The path of a write: W answers or a clear error, and no target forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from dynamo.core.clock import wall_ms_of
from dynamo.errors import NotReady, QuorumNotMet, StorageFull
from tests.support.cluster import TestCluster

BIG = bytes(range(256)) * 8192


def names_of(cluster: TestCluster, key: str = "k") -> tuple[str, ...]:
    return cluster.ranking(key)


def test_a_write_reaches_all_replicas() -> None:
    """Answered at W, then on every owner; the clocks are those of who acknowledged."""
    cluster = TestCluster(3)
    written = cluster.put("n1", "k", b"hello")
    assert len(written.replicas) >= 2
    assert all(dict(clock) == dict(written.context) for clock in written.clocks.values())
    cluster.pass_time(1)
    assert {node.owned("k").live()[0].body for node in cluster.nodes.values()} == {b"hello"}
    assert cluster.hints() == {}


def test_the_answer_comes_at_w_and_not_before() -> None:
    """I10: with W=3 the slowest of three decides, with W=1 nobody but the coordinator."""
    cluster = TestCluster(3)
    for name in ("n2", "n3"):
        cluster.link("n1", name).delay = 0.1
    before = cluster.clock.seconds()
    assert cluster.put("n1", "k", options={"w": 1}).replicas == ("n1",)
    assert cluster.clock.seconds() - before < 0.05
    assert len(cluster.put("n1", "k", options={"w": 3}).replicas) == 3
    assert cluster.clock.seconds() - before > 0.2


def test_a_dead_owner_is_stood_in_for() -> None:
    """The next on the ring keeps the copy apart, with a hint, and W counts it."""
    cluster = TestCluster(5)
    a, b, c, d, _ = names_of(cluster)
    cluster.cut(b)
    cluster.cut(c)
    written = cluster.put(a, "k", options={"w": 3})
    assert set(written.replicas) == {a, d, names_of(cluster)[4]}
    assert cluster.nodes[d].owned("k").live() == ()
    assert cluster.hints() == {d: {b: 1}, names_of(cluster)[4]: {c: 1}}
    for name in (b, c):
        cluster.heal(name)
    cluster.hand_off()
    assert cluster.hints() == {}
    owners = [cluster.nodes[name].owned("k") for name in (a, b, c)]
    assert owners[0] == owners[1] == owners[2]
    assert not cluster.nodes[d].held("k").known()


def test_a_dead_owner_without_stand_in_is_noted_by_the_coordinator() -> None:
    """In a cluster of three the coordinator keeps the hint itself."""
    cluster = TestCluster(3)
    cluster.cut("n3")
    cluster.put("n1", "k")
    cluster.pass_time(1)
    assert cluster.hints() == {"n1": {"n3": 1}}
    cluster.heal("n3")
    cluster.hand_off()
    assert cluster.nodes["n3"].owned("k") == cluster.nodes["n1"].owned("k")


@pytest.mark.parametrize("fault", ["down", "hang", "deaf"])
def test_an_owner_that_does_not_answer_gets_a_parallel_stand_in(fault: str) -> None:
    """I15: nobody has noticed yet, and the client sees no failure and waits for no timeout."""
    cluster = TestCluster(4)
    a, b, c, d = names_of(cluster)
    for name in (b, c):
        setattr(cluster.link(a, name), fault, True)
    before = cluster.clock.seconds()
    written = cluster.put(a, "k", options={"w": 2})
    assert cluster.clock.seconds() - before < 0.5
    assert set(written.replicas) == {a, d}
    cluster.pass_time(15)
    kept = {target for hints in cluster.hints().values() for target in hints}
    assert kept == {b, c}, "one by the stand-in, the other by the coordinator"
    for name in (b, c):
        cluster.heal(name)
    cluster.hand_off()
    assert cluster.nodes[a].owned("k") == cluster.nodes[b].owned("k")
    assert cluster.nodes[b].owned("k") == cluster.nodes[c].owned("k")


def test_a_stand_in_that_fails_leaves_the_hint_with_somebody_else() -> None:
    """Whoever fails and in whichever order: every owner has the record or somebody a hint."""
    cluster = TestCluster(4)
    a, b, c, d = names_of(cluster)
    cluster.link(a, c).hang = True
    cluster.link(a, d).down = True
    cluster.put(a, "k")
    cluster.pass_time(15)
    kept = {target for hints in cluster.hints().values() for target in hints}
    assert c in kept
    cluster.heal(c)
    cluster.heal(d)
    cluster.hand_off()
    assert cluster.nodes[c].owned("k") == cluster.nodes[b].owned("k")


def test_a_late_owner_whose_stand_in_lacks_the_chunks_gets_a_hint() -> None:
    """The stand-in was not sent the body; the coordinator then keeps the hint itself."""
    cluster = TestCluster(4)
    a, b, c, d = names_of(cluster)
    cluster.link(a, c).hang = True
    cluster.put(a, "k", BIG)
    cluster.pass_time(15)
    assert cluster.hints().get(a, {}).get(c) == 1
    cluster.heal(c)
    cluster.hand_off()
    assert cluster.nodes[c].owned("k") == cluster.nodes[b].owned("k")
    assert cluster.nodes[c].chunks.stored == cluster.nodes[b].chunks.stored
    assert cluster.nodes[d].chunks.stored == {}


def test_a_write_is_spread_though_its_client_has_gone() -> None:
    """It hung up while the disk took its time: all owners get what the coordinator stored."""
    cluster = TestCluster(3)
    a, b, c = names_of(cluster)
    disk: list[Callable[[], None]] = []
    node = cluster.nodes[a]
    run = node.committer._run

    def slow(call: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        disk.append(lambda: run(call).chainDeferred(done))
        return done

    node.committer._run = slow  # type: ignore[assignment]
    waiting = Deferred.fromCoroutine(cluster.put_later(a, "k", b"x"))
    cluster.pass_time(0.1)
    waiting.addErrback(lambda f: f.trap(CancelledError) and None)
    waiting.cancel()
    while disk:
        disk.pop(0)()
        cluster.pass_time(0.1)
    for name in (a, b, c):
        assert cluster.nodes[name].owned("k").live(), name
    assert node.grace.passed(node.grace.mark()), "nothing is under way any more"


def test_a_lost_write_says_how_many_answered() -> None:
    """Too few reachable: 503 with the count, as soon as that is certain."""
    cluster = TestCluster(3)
    cluster.cut("n2", known=False)
    cluster.cut("n3", known=False)
    before = cluster.clock.seconds()
    with pytest.raises(QuorumNotMet) as caught:
        cluster.put("n1", "k")
    assert (caught.value.answered, caught.value.needed) == (1, 2)
    assert "n2: n2: refused" in caught.value.why
    assert cluster.clock.seconds() - before < 0.1


def test_a_write_nobody_answers_gives_up_in_time() -> None:
    """The bound is the request's own timeout."""
    cluster = TestCluster(3)
    for name in ("n2", "n3"):
        cluster.link("n1", name).hang = True
    before = cluster.clock.seconds()
    with pytest.raises(QuorumNotMet):
        cluster.put("n1", "k", options={"timeout": 1.0})
    assert 0.9 < cluster.clock.seconds() - before < 1.2


def test_strict_keeps_to_the_owners() -> None:
    """No stand-in takes a strict write: fewer than W owners fail it before anything is stored."""
    cluster = TestCluster(5)
    a, b, c, *others = names_of(cluster)
    cluster.cut(b)
    cluster.cut(c)
    with pytest.raises(QuorumNotMet):
        cluster.put(a, "k", options={"quorum": "strict"})
    with pytest.raises(QuorumNotMet):
        cluster.put(others[0], "k", options={"quorum": "strict"})
    cluster.heal(b)
    written = cluster.put(others[0], "k", options={"quorum": "strict"})
    assert set(written.replicas) <= {a, b, c}
    cluster.pass_time(1)
    assert not any(cluster.nodes[name].held("k").known() for name in others)


def test_more_acknowledgements_than_copies_are_refused_at_once() -> None:
    """n=1 and w=2 can never be met; nobody is made to wait for that."""
    cluster = TestCluster(3)
    with pytest.raises(QuorumNotMet):
        cluster.put("n1", "k", options={"n": 1, "w": 2})
    with pytest.raises(QuorumNotMet):
        cluster.get("n1", "k", n=1, r=2)


def test_a_node_outside_the_list_hands_the_write_on() -> None:
    """An owner coordinates, with its own actor, and the entry node keeps nothing."""
    cluster = TestCluster(5)
    *owners, entry, _ = names_of(cluster)
    written = cluster.put(entry, "k")
    assert written.coordinator == owners[0]
    assert list(written.context) == [owners[0]]
    cluster.pass_time(1)
    assert not cluster.nodes[entry].held("k").known()


@pytest.mark.parametrize("fault", ["down", "hang", "deaf"])
@pytest.mark.parametrize("context", [None, {}])
def test_a_forwarded_write_that_is_tried_again_makes_no_second_version(
    fault: str, context: dict[str, int] | None
) -> None:
    """I11: also where the first coordinator stored it and only its answer was lost."""
    cluster = TestCluster(5)
    *owners, entry, _ = names_of(cluster)
    setattr(cluster.link(entry, owners[0]), fault, True)
    written = cluster.put(entry, "k", b"once", context=context)
    assert written.coordinator == owners[1]
    cluster.pass_time(15)
    cluster.heal(entry)
    for name in cluster.names:
        assert cluster.bodies(name, "k", r=3) == [b"once"]


def test_a_coordinator_that_is_stopping_is_passed_over() -> None:
    """Its refusal is no answer to the client while others can coordinate."""
    cluster = TestCluster(5)
    *owners, entry, _ = names_of(cluster)
    cluster.link(entry, owners[0]).refuse = lambda op: NotReady("This node is stopping.")
    assert cluster.put(entry, "k").coordinator == owners[1]


def test_a_node_without_an_actor_coordinates_nothing() -> None:
    """One that has just met the cluster with an empty disk has nobody to sign as yet."""
    cluster = TestCluster(5)
    owner, *_, outsider = names_of(cluster)
    cluster.nodes[owner].view.joined = False
    written = cluster.put(outsider, "k")
    assert written.coordinator != owner
    assert all(version.actor for version in cluster.live(outsider, "k"))


def test_a_late_try_is_not_taken_for_a_newer_write() -> None:
    """The stamp is that of whoever took the request, however long it is on its way."""
    cluster = TestCluster(5)
    owner, *_, outsider = names_of(cluster)
    cluster.link(outsider, owner).delay = 0.9
    cluster.put(outsider, "k")
    (version,) = cluster.live(owner, "k")
    began = wall_ms_of(version.stamp) - cluster.wall_ms()
    assert -2100 < began < -1700


def test_a_full_coordinator_hands_the_write_on() -> None:
    """Its own full disk is no reason to fail a write that others have room for."""
    cluster = TestCluster(3)
    cluster.nodes["n1"].engine.bytes_max = 0
    written = cluster.put("n1", "k")
    assert written.coordinator in ("n2", "n3")
    assert cluster.bodies("n1", "k") == [b"x"]


def test_a_write_all_disks_are_too_full_for_says_so() -> None:
    """507, not 503: trying again will not help."""
    cluster = TestCluster(3)
    for node in cluster.nodes.values():
        node.engine.bytes_max = 0
    with pytest.raises(StorageFull):
        cluster.put("n1", "k")
    with pytest.raises(StorageFull):
        cluster.put("n1", "k", BIG)


def test_full_replicas_that_keep_it_from_w_say_so() -> None:
    """Where the coordinator has room and the others do not."""
    cluster = TestCluster(3)
    for name in ("n2", "n3"):
        cluster.nodes[name].engine.bytes_max = 0
    with pytest.raises(StorageFull):
        cluster.put("n1", "k")


def test_a_delete_goes_through_on_a_full_disk() -> None:
    """That is how room comes back."""
    cluster = TestCluster(3)
    cluster.put("n1", "k", bytes(1000))
    cluster.pass_time(1)
    for node in cluster.nodes.values():
        node.engine.bytes_max = 0
    cluster.delete("n1", "k")
    assert cluster.live("n2", "k") == ()


def test_concurrent_writes_through_two_coordinators_become_siblings() -> None:
    """Never a silent loss; a write that carries the merged context replaces both."""
    cluster = TestCluster(3)
    cluster.link("n1", "n2").hang = cluster.link("n2", "n1").hang = True
    cluster.put("n1", "k", b"one", context={})
    cluster.put("n2", "k", b"two", context={})
    cluster.heal("n1")
    cluster.pass_time(15)
    assert sorted(cluster.bodies("n3", "k")) == [b"one", b"two"]
    context = cluster.get("n3", "k").record.context
    cluster.put("n1", "k", b"three", context=context)
    assert cluster.bodies("n2", "k", r=3) == [b"three"]


def test_a_write_without_context_replaces_what_its_coordinator_holds() -> None:
    """As a plain PUT does everywhere."""
    cluster = TestCluster(3)
    for n in range(5):
        cluster.put("n1", "k", b"%d" % n)
    assert cluster.bodies("n3", "k", r=3) == [b"4"]


@pytest.mark.parametrize("first", [3, 1])
def test_a_node_that_owns_a_key_for_some_writes_only_gives_no_dot_twice(first: int) -> None:
    """I5: copies owned and copies held for others share one count. With another n, or another
    ring, a node may be owner of a key once and stand-in for it another time."""
    cluster = TestCluster(3)
    a, b, _ = names_of(cluster)
    ids = set()
    for n in (first, 4 - first, first):
        cluster.cut(a)
        written = cluster.put(b, "k", b"%d" % n, context={}, options={"n": n, "w": 1})
        ids.add(written.version.id)
    assert len(ids) == 3
    cluster.heal(a)
    cluster.pass_time(1)
    cluster.hand_off()
    assert len(cluster.live(a, "k", r=3)) == 3


def test_missing_chunks_of_an_older_sibling_do_not_lose_a_write() -> None:
    """The replica takes the record as soon as it was given the chunks."""
    cluster = TestCluster(3)
    cluster.cut("n3")
    cluster.put("n1", "k", BIG, context={})
    cluster.heal("n3")
    cluster.put("n1", "k", b"small", context={})
    cluster.pass_time(1)
    cluster.hand_off()
    assert cluster.nodes["n3"].owned("k") == cluster.nodes["n1"].owned("k")
    assert len(cluster.live("n3", "k", r=1)) == 2
