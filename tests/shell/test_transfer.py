"""Before the ring changes, whoever will own keys has them: from all who hold them, hints too."""

from __future__ import annotations

import pytest

from dynamo.background import pulling
from dynamo.background.pulling import GRANT_S, LOST_RETRY_S, RETRY_S
from dynamo.coordinator.bodies import CHUNK_BYTES
from dynamo.core.ring import Member, Ring
from dynamo.errors import NotReady
from dynamo.ports import Liveness
from dynamo.replica.transfer import others
from dynamo.wire import messages
from tests.shell.test_antientropy import write
from tests.shell.test_bodies import body_of
from tests.support.cluster import TestCluster, TestNode

KEYS = 120


def cluster_of(ring: int, size: int, **more: int) -> TestCluster:
    """So many nodes, of which the first are the ring."""
    cluster = TestCluster(size, **more)
    cluster.found(*cluster.names[:ring])
    return cluster


def fill(cluster: TestCluster, keys: int = KEYS) -> None:
    for i in range(keys):
        cluster.put("n1", f"k{i}", b"%d" % i)
    cluster.pass_time(2)


def count(cluster: TestCluster) -> None:
    """All that are up count their keys."""
    for node in cluster.nodes.values():
        while node.alive and cluster.run(node.census.step()):
            pass


def transfer(cluster: TestCluster, *names: str, steps: int = 2000) -> list[str]:
    """Steps these nodes (all that are up, if none is named) until they do nothing; who has said
    that it is done with this layout."""
    nodes = [cluster.nodes[name] for name in names or cluster.names]
    nodes = [node for node in nodes if node.alive]
    count(cluster)
    for _ in range(steps):
        busy = [cluster.run(node.transfer.step()) for node in nodes]
        if not any(busy):
            return [n.name for n in nodes if n.changing.said[-1:] == [n.view.layout.version]]
    raise AssertionError("the transfer does not come to an end")


def owners_to_be(cluster: TestCluster, key: str) -> tuple[str, ...]:
    view = cluster.nodes["n1"].view
    assert view.beside is not None
    partition = view.beside.partition(cluster.nodes["n1"].table.get("b").incarnation, key.encode())
    return view.beside.owners(partition, view.beside.copies)


def check(cluster: TestCluster, keys: int = KEYS) -> None:
    """Every coming owner holds every key."""
    for i in range(keys):
        for name in owners_to_be(cluster, f"k{i}"):
            assert cluster.nodes[name].owned(f"k{i}").live(), (name, i)


def asked(cluster: TestCluster, node: TestNode, kind: type) -> set[str]:
    return {to for who, to, op in cluster.network.sent if who == node.name and isinstance(op, kind)}


def test_a_joiner_pulls_what_it_will_own_and_says_so_once() -> None:
    cluster = cluster_of(3, 4)
    fill(cluster)
    cluster.put("n1", "big", body_of(2 * CHUNK_BYTES + 5))
    cluster.put("n1", "gone")
    cluster.delete("n2", "gone")
    cluster.pass_time(2)
    cluster.change("n1", "n2", "n3", "n4")
    cluster.network.sent.clear()
    assert transfer(cluster) == cluster.names
    check(cluster)
    node = cluster.nodes["n4"]
    assert asked(cluster, node, messages.TreeRoots) == {"n1", "n2", "n3"}, "every owner"
    assert not asked(cluster, node, messages.Merge), "it pushes nothing"
    for name in owners_to_be(cluster, "big"):
        assert cluster.stream(name, "big", r=1) == body_of(2 * CHUNK_BYTES + 5)
    for name in owners_to_be(cluster, "gone"):
        assert cluster.nodes[name].owned("gone").is_tombstone()
    assert transfer(cluster) == cluster.names
    assert node.changing.said == [2], "once"
    held = [i for i in range(KEYS) if node.owned(f"k{i}").known()]
    assert held == [i for i in range(KEYS) if "n4" in owners_to_be(cluster, f"k{i}")]
    assert [n.changing.said for n in cluster.nodes.values()] == [[2]] * 4


def test_a_member_that_gains_partitions_does_the_same() -> None:
    cluster = cluster_of(5, 5)
    fill(cluster)
    cluster.change("n1", "n2", "n3", "n4")
    assert transfer(cluster) == cluster.names
    check(cluster)
    assert cluster.nodes["n1"].transfer.pulling.state.keys


def test_nothing_is_pulled_before_all_that_are_there_go_by_the_layout() -> None:
    cluster = cluster_of(3, 4)
    fill(cluster)
    cluster.change("n1", "n2", "n3", "n4")
    cluster.nodes["n2"].changing.used = 1
    cluster.network.sent.clear()
    assert transfer(cluster) == []
    assert cluster.network.sent == []
    why = cluster.nodes["n4"].transfer.why_waiting()
    assert why == "Waiting until n2 can go by version 2 of the layout."
    cluster.told("n4", "n2", "suspect")
    assert transfer(cluster, "n4") == [], "it may be there"
    assert cluster.network.sent == []
    cluster.told("n4", "n2", "alive")
    cluster.nodes["n2"].changing.used = None
    assert transfer(cluster) == cluster.names
    assert cluster.nodes["n4"].transfer.why_waiting() == ""
    check(cluster)


@pytest.mark.parametrize("seen_late", [True, False])
def test_what_was_pulled_before_one_turned_up_that_is_behind_is_pulled_again(
    seen_late: bool,
) -> None:
    """It may have written to the present owners alone."""
    cluster = cluster_of(4, 5)
    cluster.believe("n3", "dead")
    cluster.change(*cluster.names)
    node = cluster.nodes["n5"]
    assert "n5" in transfer(cluster)
    key = next(f"k{i}" for i in range(100) if "n5" in owners_to_be(cluster, f"k{i}"))
    write(cluster, next(o for o in cluster.ranking(key)[:3] if o != "n3"), key)
    transfer(cluster)
    assert not node.owned(key).known(), "what is written is not looked for all the time"
    cluster.nodes["n3"].changing.used = 1
    cluster.believe("n3", "alive")
    node.transfer.appeared("n3")
    if seen_late:
        cluster.run(node.transfer.step())
    cluster.nodes["n3"].changing.used = None
    transfer(cluster)
    assert node.owned(key).live()


def test_a_source_that_dies_midway_is_not_waited_for_if_enough_are_there() -> None:
    cluster = cluster_of(3, 4)
    fill(cluster)
    cluster.change("n1", "n2", "n3", "n4")
    node = cluster.nodes["n4"]
    count(cluster)
    for _ in range(4):
        cluster.run(node.transfer.step())
    cluster.cut("n2")
    assert transfer(cluster, "n1", "n3", "n4") == ["n1", "n3", "n4"]
    for i in range(KEYS):
        assert node.owned(f"k{i}").live() or "n4" not in owners_to_be(cluster, f"k{i}")


def test_it_waits_for_most_of_the_owners_and_says_so() -> None:
    cluster = cluster_of(3, 4)
    fill(cluster)
    write(cluster, "n2", "only")
    cluster.cut("n2")
    cluster.cut("n3")
    cluster.change("n1", "n2", "n3", "n4")
    assert transfer(cluster, "n1", "n4") == ["n1"]
    node = cluster.nodes["n4"]
    why = node.transfer.why_waiting()
    assert why.endswith("partitions wait for n2, n3: too few of those who hold them are there.")
    progress = node.transfer.progress(cluster.clock.seconds())
    assert progress is not None
    assert progress.partitions_left > 0, "it is not shown as done"
    cluster.heal("n2")
    cluster.told("n2", "n3", "dead")
    node.transfer.appeared("n2")
    assert transfer(cluster, "n1", "n2", "n4") == ["n1", "n2", "n4"]
    assert node.owned("only").live() or "n4" not in owners_to_be(cluster, "only")


def test_who_is_taken_out_for_good_is_not_waited_for() -> None:
    cluster = cluster_of(4, 4)
    fill(cluster)
    cluster.cut("n4")
    cluster.change("n1", "n2", "n3")
    assert transfer(cluster, "n1", "n2", "n3") == ["n1", "n2", "n3"]
    check(cluster)


@pytest.mark.parametrize("who", ["n1", "n4"])
def test_it_goes_on_after_a_crash_of_either_side(who: str) -> None:
    cluster = cluster_of(3, 4)
    fill(cluster)
    cluster.change("n1", "n2", "n3", "n4")
    node = cluster.nodes["n4"]
    count(cluster)
    cluster.run(node.transfer.step())
    stepping = cluster.start(node.transfer.step())
    cluster.pass_time(0.0035)
    cluster.restart(who)
    stepping.addErrback(lambda _: None)
    cluster.pass_time(RETRY_S + 10)
    assert transfer(cluster) == cluster.names
    check(cluster)


def test_a_failed_peer_is_held_back_and_asked_again() -> None:
    cluster = cluster_of(3, 4)
    fill(cluster)
    cluster.link("n4", "n2").down = True
    cluster.change("n1", "n2", "n3", "n4")
    assert transfer(cluster) == ["n1", "n2", "n3"]
    why = cluster.nodes["n4"].transfer.why_waiting()
    assert why == "What n2 holds is to be pulled; it is asked again soon."
    cluster.link("n4", "n2").down = False
    assert transfer(cluster) == ["n1", "n2", "n3"], "not at once"
    cluster.pass_time(RETRY_S)
    assert transfer(cluster) == cluster.names
    check(cluster)


def test_one_that_fails_amid_a_pull_is_held_back_as_well() -> None:
    cluster = cluster_of(3, 4)
    fill(cluster)
    link = cluster.link("n4", "n2")
    link.refuse = lambda op: NotReady("no") if isinstance(op, messages.Pull) else None
    cluster.change("n1", "n2", "n3", "n4")
    assert transfer(cluster) == ["n1", "n2", "n3"]
    pulls = [op for _, to, op in cluster.network.sent if isinstance(op, messages.Pull)]
    link.refuse = lambda op: None
    assert transfer(cluster) == ["n1", "n2", "n3"]
    now = [op for _, to, op in cluster.network.sent if isinstance(op, messages.Pull)]
    assert len(now) == len(pulls), "not at once"
    cluster.pass_time(RETRY_S)
    assert transfer(cluster) == cluster.names
    check(cluster)


def test_chunks_are_looked_for_with_the_members_of_both_rings() -> None:
    cluster = cluster_of(3, 4)
    cluster.change("n2", "n3", "n4")
    names = [replica.name for replica in others(cluster.nodes["n1"].view, "n2")]
    assert names == ["n3", "n4"]


def test_what_nobody_has_whole_does_not_hold_up_the_ring_for_ever() -> None:
    """It is tried twice; what is merely damaged awaits its repair."""
    cluster = cluster_of(3, 4)
    cluster.change("n1", "n2", "n3", "n4")
    keys = [f"k{i}" for i in range(100) if "n4" in owners_to_be(cluster, f"k{i}")]
    cluster.change("n1", "n2", "n3")
    lost, rotten = keys[:2]
    cluster.put("n1", lost, body_of(CHUNK_BYTES))
    write(cluster, "n2", rotten)
    cluster.pass_time(1)
    for name in ("n1", "n2", "n3"):
        cluster.nodes[name].chunks.stored.clear()
    cluster.nodes["n2"].damage(rotten)
    cluster.change("n1", "n2", "n3", "n4")
    node = cluster.nodes["n4"]
    assert transfer(cluster) == ["n1", "n2", "n3"]
    assert node.transfer.pulling.state.left == 2, "once is not enough"
    for _ in range(4):
        cluster.pass_time(LOST_RETRY_S)
        assert transfer(cluster) == ["n1", "n2", "n3"]
    assert {pair[1] for pairs in node.transfer.pulling.state.lacking() for pair in pairs} == {"n2"}
    cluster.scrub("n2")
    cluster.put("n1", rotten, b"again")
    cluster.pass_time(LOST_RETRY_S)
    assert transfer(cluster) == cluster.names
    assert node.owned(rotten).live()
    assert not node.owned(lost).known()


def test_who_lacks_what_it_lost_is_no_source() -> None:
    """Its own roots would say that there is nothing to take."""
    cluster = cluster_of(3, 4)
    fill(cluster)
    found = cluster.nodes["n1"].view
    lost = cluster.wipe("n2")
    lost.view.layout, lost.view.ring = found.layout, found.ring
    cluster.change("n1", "n2", "n3", "n4")
    assert transfer(cluster, "n4") == []
    lacking = cluster.nodes["n4"].transfer.pulling.state.lacking()
    assert {pair[1] for pairs in lacking for pair in pairs} == {"n2"}
    while cluster.run(lost.refill.step()):
        pass
    assert lost.identity.whole
    cluster.pass_time(RETRY_S)
    assert transfer(cluster, "n4") == ["n4"]


def test_another_layout_begins_anew() -> None:
    cluster = cluster_of(3, 5)
    fill(cluster)
    cluster.change("n1", "n2", "n3", "n4")
    assert transfer(cluster) == cluster.names
    cluster.change(*cluster.names)
    assert transfer(cluster) == cluster.names
    check(cluster)
    assert cluster.nodes["n4"].changing.said == [2, 3]
    cluster.switch()
    assert transfer(cluster) == []
    assert cluster.nodes["n4"].transfer.progress(cluster.clock.seconds()) is None
    assert cluster.nodes["n4"].changing.said == [2, 3], "there is nothing to say"


def test_a_node_without_anything_to_do_says_so_at_once() -> None:
    cluster = cluster_of(3, 4)
    cluster.change("n1", "n2", "n3", "n4")
    cluster.network.sent.clear()
    node = cluster.nodes["n2"]
    assert not node.trees.complete, "it need not even have counted its keys"
    assert not cluster.run(node.transfer.step())
    assert node.changing.said == [2]
    assert cluster.network.sent == []
    assert not cluster.run(cluster.nodes["n4"].transfer.step())
    assert cluster.nodes["n4"].transfer.why_waiting() == "This node counts its keys first."
    assert cluster.nodes["n4"].changing.said == []


def test_what_hints_are_held_for_goes_to_the_coming_owners() -> None:
    """The one that was written to is gone; who kept its hint and who owns the key next had it
    nowhere else."""
    cluster = cluster_of(5, 6)
    key = next(f"k{i}" for i in range(1000) if moves(cluster, f"k{i}"))
    a, b, c, d, e = cluster.ranking(key)
    for name in (a, b, c, e):
        cluster.cut(name)
    cluster.put(d, key, b"x" * 100, options={"w": 1})
    cluster.pass_time(2)
    for name in (b, c, e):
        cluster.heal(name)
        cluster.told(name, a, "dead")
    assert cluster.hints() == {d: {a: 1, b: 1, c: 1}}
    cluster.change(*[n for n in cluster.names if n != a])
    coming = owners_to_be(cluster, key)
    assert "n6" in coming
    up = [n for n in cluster.names if n != a]
    cluster.nodes[d].transfer.passing.appeared()
    assert transfer(cluster, *up) == up
    for name in coming:
        assert cluster.nodes[name].owned(key).live(), name
    assert cluster.nodes[d].transfer.passing.passed >= 1
    assert cluster.hints()[d][a] == 1, "the hints stay"


def test_all_hints_are_passed_on_whoever_they_are_for() -> None:
    cluster = cluster_of(4, 5)
    for name in ("n3", "n4"):
        cluster.cut(name)
    for i in range(100):
        cluster.put("n1", f"k{i}", options={"w": 1})
    cluster.pass_time(1)
    held = cluster.hints()
    assert {target for kept in held.values() for target in kept} == {"n3", "n4"}
    cluster.change(*cluster.names)
    view = cluster.nodes["n1"].view
    transfer(cluster, "n1", "n2")
    passed = sum(cluster.nodes[name].transfer.passing.passed for name in ("n1", "n2"))
    assert passed == sum(count for kept in held.values() for count in kept.values())
    assert view.beside is not None
    for i in range(100):
        if "n5" in owners_to_be(cluster, f"k{i}"):
            assert cluster.nodes["n5"].owned(f"k{i}").live(), i


def test_large_bodies_are_passed_on_a_few_at_a_time() -> None:
    """As by handoff."""
    cluster = cluster_of(3, 4)
    cluster.cut("n3")
    for i in range(4):
        cluster.put("n1", f"k{i}", body_of(5 * CHUNK_BYTES + i))
    cluster.pass_time(1)
    assert cluster.hints() == {"n1": {"n3": 4}}
    cluster.change("n1", "n2", "n4")
    count(cluster)
    passing = cluster.nodes["n1"].transfer.passing
    for _ in range(50):
        cluster.run(cluster.nodes["n1"].transfer.step())
        if passing.passed:
            break
    assert passing.passed == 2, "with the second it is more than eight MiB"
    transfer(cluster, "n1")
    assert passing.passed == 4


def moves(cluster: TestCluster, key: str) -> bool:
    """Whether n6 owns the key once the first owner is taken out, and no stand-in does."""
    a, _, _, d, _ = cluster.ranking(key)
    coming = Ring([Member(n) for n in cluster.names if n != a], 64, 3)
    partition = coming.partition(cluster.nodes["n1"].table.get("b").incarnation, key.encode())
    owners = coming.owners(partition, 3)
    return "n6" in owners and d not in owners


def test_a_keeper_of_hints_that_will_own_the_key_owns_its_copy() -> None:
    cluster = cluster_of(4, 4)
    a, b, c, d = cluster.ranking("k")
    for name in (a, b, c):
        cluster.cut(name)
    cluster.put(d, "k", body_of(CHUNK_BYTES + 1), options={"w": 1})
    cluster.pass_time(2)
    for name in (b, c):
        cluster.heal(name)
        cluster.told(name, a, "dead")
        cluster.told(d, name, "dead")
    assert not cluster.nodes[d].owned("k").known()
    cluster.change(*sorted((b, c, d)))
    for name in (b, c):
        cluster.told(d, name, "alive")
    assert transfer(cluster, b, c, d) == [b, c, d]
    assert cluster.nodes[d].owned("k").live()


def test_hints_that_cannot_be_passed_on_are_tried_again() -> None:
    cluster = cluster_of(3, 4)
    cluster.cut("n3")
    for i in range(5):
        cluster.put("n1", f"k{i}")
    cluster.pass_time(1)
    assert cluster.hints() == {"n1": {"n3": 5}}
    cluster.change("n1", "n2", "n3", "n4")
    count(cluster)
    cluster.nodes["n4"].engine.bytes_max = 0
    assert transfer(cluster, "n1") == []
    why = cluster.nodes["n1"].transfer.why_waiting()
    assert why.startswith("What others missed could not be passed on: ")
    cluster.nodes["n4"].engine.bytes_max = None
    assert transfer(cluster, "n1") == []
    cluster.pass_time(RETRY_S)
    assert transfer(cluster, "n1") == ["n1"]
    for i in range(5):
        if "n4" in owners_to_be(cluster, f"k{i}"):
            assert cluster.nodes["n4"].owned(f"k{i}").live()


def test_a_coming_owner_that_turns_up_late_is_told_what_others_missed() -> None:
    cluster = cluster_of(3, 4)
    cluster.cut("n3")
    for i in range(20):
        cluster.put("n1", f"k{i}")
    cluster.pass_time(1)
    cluster.cut("n4")
    cluster.change("n1", "n2", "n3", "n4")
    assert transfer(cluster, "n1", "n2") == ["n1", "n2"]
    assert not any(cluster.nodes["n4"].owned(f"k{i}").known() for i in range(20))
    cluster.heal("n4")
    cluster.told("n4", "n3", "dead")
    transfer(cluster, "n1")
    for i in range(20):
        if "n4" in owners_to_be(cluster, f"k{i}"):
            assert cluster.nodes["n4"].owned(f"k{i}").live()
    assert cluster.nodes["n1"].changing.said == [2], "once"


def test_the_rate_has_a_bound_and_what_moves_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "KEYS_PER_S", 50)
    monkeypatch.setattr(pulling, "KEYS_AT_ONCE", 2)
    cluster = cluster_of(3, 4, partitions=8)
    fill(cluster)
    cluster.change("n1", "n2", "n3", "n4")
    node, began = cluster.nodes["n4"], cluster.clock.seconds()
    count(cluster)
    shown: list[list[object]] = []
    while cluster.run(node.transfer.step()):
        moving = node.transfer.transfers(cluster.clock.seconds())
        shown.append([*moving])
        for one in moving:
            assert one.target == "n4"
            assert one.source in ("n1", "n2", "n3")
            assert one.bytes_per_second >= 0
    keys = node.transfer.pulling.state.keys
    assert cluster.clock.seconds() - began >= keys / 50
    assert any(shown)
    assert all(len(some) <= 32 for some in shown)
    assert node.transfer.transfers(cluster.clock.seconds()) == []
    assert node.changing.said == [2]


def test_who_is_pulled_from_says_how_fast() -> None:
    """The least that any of them has to give lately; of one that is asked no more nothing stays."""
    cluster = cluster_of(3, 4)
    fill(cluster)
    for name, share in (("n1", 0.25), ("n2", 1.0), ("n3", 0.5)):
        cluster.nodes[name].keeper.share = lambda share=share: share
    cluster.change("n1", "n2", "n3", "n4")
    pulling = cluster.nodes["n4"].transfer.pulling
    assert pulling.granted() == 1.0
    assert transfer(cluster, "n4") == ["n4"]
    assert pulling.granted() == 0.25
    cluster.pass_time(GRANT_S)
    assert pulling.granted() == 1.0


def test_what_is_written_meanwhile_is_not_waited_for() -> None:
    """A pass through what differed is enough: the coming owners are written to."""
    cluster = cluster_of(3, 4)
    fill(cluster)
    cluster.change("n1", "n2", "n3", "n4")
    node = cluster.nodes["n4"]
    count(cluster)
    for i in range(2000):
        if not cluster.run(node.transfer.step()):
            break
        cluster.put("n1", f"k{i % KEYS}", b"again")
    assert node.changing.said == [2]


def test_of_many_that_are_late_one_is_looked_at() -> None:
    """And when this node is done, news of others that change nothing for it are none to look at."""
    cluster = cluster_of(8, 9)
    cluster.change(*cluster.names)
    node = cluster.nodes["n9"]
    count(cluster)
    for name in ("n4", "n7"):
        cluster.nodes[name].changing.used = 1
    asked: list[str] = []
    uses = node.changing.uses

    def noted(name: str) -> int:
        asked.append(name)
        return uses(name)

    node.changing.uses = noted  # type: ignore[method-assign]
    cluster.run(node.transfer.step())
    assert "n4" in node.transfer.why_waiting()
    asked.clear()
    cluster.run(node.transfer.step())
    assert set(asked) == {"n4"}
    cluster.nodes["n4"].changing.used = None
    cluster.run(node.transfer.step())
    assert "n7" in node.transfer.why_waiting()
    cluster.nodes["n7"].changing.used = None
    assert transfer(cluster, "n9") == ["n9"]
    asked.clear()
    cluster.run(node.transfer.step())
    assert asked == []
    node.view.epoch += 1
    cluster.run(node.transfer.step())
    assert set(asked) == set(cluster.names), "somebody's health is another"


def single_of(cluster: TestCluster, owner: str, coming: str) -> str:
    """A key with one owner, which goes over to another one."""
    return next(
        f"k{i}"
        for i in range(2000)
        if cluster.ranking(f"k{i}")[0] == owner and owners_to_be(cluster, f"k{i}")[0] == coming
    )


def test_who_leaves_waits_until_somebody_can_take_over_what_it_keeps() -> None:
    """Of a key with one owner that is away, and was so when it was written."""
    cluster = cluster_of(4, 4, n=1)
    key = next(f"k{i}" for i in range(2000) if cluster.ranking(f"k{i}")[:2] == ("n3", "n4"))
    cluster.cut("n3")
    cluster.believe("n3", "dead")
    cluster.put("n4", key)
    cluster.pass_time(2)
    assert cluster.hints() == {"n4": {"n3": 1}}
    cluster.change("n1", "n2", "n3")
    assert transfer(cluster, "n1", "n2", "n4") == ["n1", "n2"]
    assert "n3 must be there to take over what this node keeps" in (
        cluster.nodes["n4"].transfer.why_waiting()
    )
    cluster.heal("n3")
    cluster.believe("n3", "alive")
    for node in cluster.nodes.values():
        node.transfer.appeared("n3")
    cluster.pass_time(6)
    assert transfer(cluster) == cluster.names
    assert cluster.nodes["n3"].owned(key).live()


def moved_and_missed() -> tuple[TestCluster, str, str]:
    """n2 is leaving a key to n4, which has pulled from it, and has missed a write of it: the key,
    and who keeps the hint."""
    cluster = cluster_of(3, 4, n=1)
    cluster.change("n1", "n3", "n4")
    key = single_of(cluster, "n2", "n4")
    cluster = cluster_of(3, 4, n=1)
    cluster.cut("n2")
    cluster.believe("n2", "dead")
    cluster.put("n1", key)
    cluster.pass_time(2)
    (keeper,) = cluster.hints()
    assert keeper != "n2"
    cluster.heal("n2")
    cluster.believe("n2", "alive")
    cluster.change("n1", "n3", "n4")
    assert "n4" in transfer(cluster, *[n for n in cluster.names if n != keeper])
    assert not cluster.nodes["n4"].owned(key).known()
    return cluster, key, keeper


def test_a_hint_that_is_told_as_the_ring_changes_reaches_the_coming_owners() -> None:
    """They have pulled from its target before it was told, and the hint is gone thereafter."""
    cluster, key, keeper = moved_and_missed()
    cluster.run(cluster.nodes[keeper].handoff.step())
    assert cluster.hints() == {}
    assert cluster.nodes["n4"].owned(key).live()


@pytest.mark.parametrize("switched", [False, True])
@pytest.mark.parametrize("held", ["suspect", "dead"])
def test_a_hint_stays_until_the_coming_owners_are_there(held: Liveness, switched: bool) -> None:
    """Its target has the record then, and is about to leave, before and after reads go over."""
    cluster, key, keeper = moved_and_missed()
    cluster.told(keeper, "n4", held)
    if switched:
        cluster.switch()
    cluster.run(cluster.nodes[keeper].handoff.step())
    assert cluster.nodes["n2"].owned(key).live()
    assert cluster.hints() == {keeper: {"n2": 1}}
    cluster.told(keeper, "n4", "alive")
    cluster.run(cluster.nodes[keeper].handoff.step())
    assert cluster.hints() == {}
    assert cluster.nodes["n4"].owned(key).live()


def test_a_hint_that_is_told_while_the_old_ring_is_dropped_stays() -> None:
    """Its target has it, and has left by then."""
    cluster, key, keeper = moved_and_missed()
    cluster.switch()
    telling = cluster.start(cluster.nodes[keeper].handoff.step())
    cluster.end()
    cluster.wait(telling)
    assert cluster.nodes["n2"].owned(key).live()
    assert cluster.hints() == {keeper: {"n2": 1}}
    cluster.hand_off()
    assert cluster.hints() == {}
    assert cluster.nodes["n4"].owned(key).live()
