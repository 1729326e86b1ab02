"""Many nodes and one ring: founding, joining, leaving, being taken out; nobody disturbs."""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest

from dynamo.core.layout import Layout
from dynamo.core.members import Role
from dynamo.errors import DynamoError, Refused
from tests.support.rings import Asked, ask, changes, layouts, one_ring, settle, watched
from tests.support.shells import World

# Founding.


@pytest.mark.parametrize("order", [*permutations((1, 2, 3)), (1,), (2, 1), (4, 2, 3, 1)])
@pytest.mark.parametrize("pause", [0.0, 0.3, 4.0])
def test_founding_in_any_order(order: tuple[int, ...], pause: float) -> None:
    """One birth, one steady ring of all, however long there is between the starts."""
    names = [f"n{i}" for i in sorted(order)]
    world = World(len(order))
    with watched() as ledger:
        for number in order:
            world.start(f"n{number}", *(n for n in names if n != f"n{number}"))
            world.run(pause)
        settle(world, *names)
    assert len(ledger.births()) == 1
    assert all(shell.swim.me.role is Role.ACTIVE for shell in world.up)


@pytest.mark.parametrize("seed", range(8))
def test_founding_at_any_moments(seed: int) -> None:
    """Five nodes within two seconds, each with any other as its seed or all of them."""
    world, rng = World(seed), Random(seed)
    names = [f"n{i}" for i in range(1, 6)]
    with watched() as ledger:
        for name in rng.sample(names, 5):
            others = [n for n in names if n != name]
            world.start(name, *(others if rng.random() < 0.5 else ["n1", "n5"]))
            world.run(rng.uniform(0, 0.5))
        settle(world, *names)
    assert len(ledger.births()) == 1


# Joining.


def test_a_join_goes_through_all_stages() -> None:
    """And each version is one that all used before the next was decided."""
    world = World(1)
    with watched() as ledger:
        world.form("n1", "n2", "n3")
        settle(world, "n1", "n2", "n3")
        first = world.nodes["n1"].view.layout.version
        world.start("n4", "n1")
        world.until(lambda: bool(world.nodes["n4"].view.layout.version), "n4 knows")
        settle(world, "n1", "n2", "n3", "n4")
    assert world.nodes["n4"].view.layout.version == first + 3
    stages = [
        next(iter(ledger.adopted[birth, version])).stage
        for birth, version in sorted(ledger.adopted)
        if version >= first
    ]
    assert stages == ["steady", "coming", "going", "steady"]


def test_whoever_took_part_has_nothing_to_take_back() -> None:
    """Each holds what it owns by the new ring when reads go over to it."""
    world = World(1)
    world.form("n1", "n2", "n3")
    settle(world)
    world.start("n4", "n1")
    for shell in world.up:
        shell.refills = False
    settle(world, "n1", "n2", "n3", "n4")
    assert not any(shell.identity.refilling for shell in world.up)


def test_no_step_before_all_use_the_last() -> None:
    """A node under whose hands something from an earlier layout goes on keeps all back."""
    world = World(1)
    _, n2, _ = world.form("n1", "n2", "n3")
    settle(world)
    n1 = world.nodes["n1"]
    since = n2.view.layouts._grace.enter()
    world.start("n4", "n1")
    world.until(lambda: n1.view.layout.stage == "coming", "n4 is coming")
    version = n1.view.layout.version
    world.run(30)
    assert layouts(world) == {n1.view.layout}
    assert n1.view.layout.version == version
    assert n1.view.layouts.waits_for() == [f"n2 does not go by layout {version} yet."]
    assert n2.view.layouts.uses("n2") == version - 1
    n2.view.layouts._grace.leave(since)
    settle(world, "n1", "n2", "n3", "n4", seconds=10)


@pytest.mark.parametrize("seed", range(6))
def test_two_join_at_once(seed: int) -> None:
    """Or five: whoever comes while another is coming, joins it."""
    world = World(seed)
    with watched() as ledger:
        world.form("n1", "n2", "n3")
        settle(world)
        more = ("n4", "n5") if seed % 2 else ("n4", "n5", "n6", "n7", "n8")
        for name in more:
            world.start(name, "n1")
            world.run(0.01 * seed)
        settle(world, "n1", "n2", "n3", *more)
    assert len(ledger.births()) == 1


def test_a_joiner_that_dies_half_way_is_waited_for() -> None:
    """The others serve by the old ring, say whom they wait for, and go on when it is back."""
    world = World(2)
    world.form("n1", "n2", "n3")
    settle(world)
    n1 = world.nodes["n1"]
    world.start("n4", "n1").syncs = False
    world.until(lambda: n1.view.layout.stage == "coming", "n4 is coming")
    world.run(3)
    version = n1.view.layout.version
    assert n1.view.layouts.waits_for() == ["n4 is still taking over what it will own."]
    world.nodes["n4"].kill()
    world.run(60)
    for shell in world.up:
        assert shell.view.layouts.waits_for() == ["n4 is joining, and is not there."]
        assert (shell.view.layout.version, shell.ring()) == (version, {"n1", "n2", "n3"})
        assert shell.view.joined
    world.start("n4", "n1")
    settle(world, "n1", "n2", "n3", "n4")
    assert n1.view.layout.version == version + 2
    assert n1.view.layouts.waits_for() == []


def test_a_joiner_that_is_removed_half_way() -> None:
    """What was begun is cancelled. Its old disk lets it in no more, an empty one does."""
    world = World(3)
    world.form("n1", "n2", "n3")
    settle(world)
    n1 = world.nodes["n1"]
    world.start("n4", "n1").syncs = False
    world.until(lambda: n1.view.layout.stage == "coming", "n4 is coming")
    world.run(1)
    with pytest.raises(Refused, match="not dead"):
        ask(world, changes(n1).remove("n4"))
    world.nodes["n4"].kill()
    world.until(lambda: n1.liveness()["n4"] == "dead", "n4 is dead")
    removed = ask(world, changes(n1).remove("n4"))
    assert removed.stage == "steady"
    settle(world, "n1", "n2", "n3", seconds=5)
    n4 = world.start("n4", "n1")
    world.run(30)
    assert n4.book.out
    assert not n4.view.joined
    assert "left or was removed" in n4.view.why_not_joined()
    assert one_ring(world, "n1", "n2", "n3")
    world.start("n4", "n1", wipe=True)
    settle(world, "n1", "n2", "n3", "n4")


# Leaving.


def test_leaving() -> None:
    """It serves until the end, is out then, and does not come back with what it had."""
    world = World(4)
    with watched():
        world.form("n1", "n2", "n3", "n4")
        settle(world)
        n3, left = world.nodes["n3"], []
        n3.view.on_left = lambda: left.append(True)
        coming = ask(world, changes(n3).leave())
        assert coming.stage == "coming"
        assert n3.view.joined
        assert coming.role("n3") == "leaving"
        settle(world, "n1", "n2", "n4")
        assert (left, n3.book.out, n3.view.joined) == ([True], True, False)
        with pytest.raises(DynamoError, match="a member that left"):
            world.start("n3", "n1")
        world.run(20)
        assert one_ring(world, "n1", "n2", "n4")
        world.start("n3", "n1", wipe=True)
        settle(world, "n1", "n2", "n3", "n4")


def test_leaving_is_taken_back() -> None:
    """While nothing is through, by a layout of its own; afterwards that is refused."""
    world = World(5)
    world.form("n1", "n2", "n3")
    settle(world)
    n3 = world.nodes["n3"]
    for shell in world.up:
        shell.syncs = False
    coming = ask(world, changes(n3).leave())
    world.run(3)
    assert layouts(world) == {coming}, "it does not ask to be in again by itself"
    stayed = ask(world, changes(n3).stay())
    assert (stayed.stage, stayed.version) == ("steady", coming.version + 1)
    settle(world, "n1", "n2", "n3", seconds=5)
    assert ask(world, changes(n3).stay()) == stayed, "nothing to take back"
    for shell in world.up:
        shell.syncs = True
    ask(world, changes(n3).leave())
    world.until(lambda: n3.view.layout.stage == "going" or n3.book.out, "it is nearly through")
    with pytest.raises(Refused, match="cannot be taken back"):
        ask(world, changes(n3).stay())


def test_staying_while_another_change_is_nearly_through() -> None:
    """A refusal, in words."""
    world = World(5)
    n1, *_ = world.form("n1", "n2", "n3")
    settle(world)
    world.start("n4", "n1")
    world.until(lambda: n1.view.layout.stage == "going", "it is nearly through")
    with pytest.raises(Refused):
        ask(world, changes(n1).stay())


def test_two_of_two_cannot_leave_each_other() -> None:
    """Each by a layout that the other agreed to: one of them is the last member."""
    world = World(6)
    with watched():
        n1, n2 = world.form("n1", "n2")
        settle(world)
        both = [Asked(changes(shell).leave()) for shell in (n1, n2)]
        world.until(lambda: all(a.done for a in both), "both are answered")
        assert sorted(asked.failed for asked in both) == [False, True]
        settle(world)
        assert len([shell for shell in world.up if shell.view.joined]) == 1


def test_no_more_leave_at_once_than_leave_a_majority() -> None:
    """Of three that keep three copies, the last would be alone with what it may lack."""
    world = World(7)
    n1, n2, n3 = world.form("n1", "n2", "n3")
    settle(world)
    for shell in world.up:
        shell.syncs = False
    ask(world, changes(n3, 3).leave(force=True))
    world.run(1)
    with pytest.raises(Refused, match="Let that end first"):
        ask(world, changes(n2, 3).leave(force=True))
    for shell in world.up:
        shell.syncs = True
    settle(world, "n1", "n2")
    ask(world, changes(n2, 3).leave(force=True))
    settle(world, "n1")
    assert n1.view.joined


def test_removing() -> None:
    """A dead one, by any other; only once it is dead; a stranger is not found."""
    world = World(8)
    with watched():
        n1, *_ = world.form("n1", "n2", "n3", "n4")
        settle(world)
        world.nodes["n4"].kill()
        world.until(lambda: n1.liveness()["n4"] == "dead", "n4 is dead")
        first = ask(world, changes(world.nodes["n2"]).remove("n4"))
        assert [m.name for m in first.next_members] == ["n1", "n2", "n3"]
        settle(world, "n1", "n2", "n3")


def test_of_two_one_takes_out_the_other() -> None:
    world = World(9)
    n1, n2 = world.form("n1", "n2")
    settle(world)
    n1.kill()
    world.until(lambda: n2.liveness()["n1"] == "dead", "n1 is dead")
    ask(world, changes(n2).remove("n1"))
    settle(world, "n2")


# What a node's configuration says.


@pytest.mark.parametrize("more", [{"weight": 2.0}, {"zone": "z9"}])
def test_a_changed_weight_or_zone_changes_the_ring(more: dict[str, object]) -> None:
    world = World(10)
    n1, *_ = world.form("n1", "n2", "n3")
    settle(world)
    before = n1.view.layout
    world.nodes["n3"].kill()
    world.run(1)
    n3 = world.start("n3", "n1", **more)

    def told(layout: Layout) -> bool:
        (mine,) = [m for m in layout.members if m.name == "n3"]
        return {key: getattr(mine, key) for key in more} == more

    world.until(lambda: told(n1.view.layout), "the ring has it")
    settle(world, "n1", "n2", "n3")
    assert n3.view.layout.version == before.version + 3
    world.run(30)
    assert n1.view.layout.version == before.version + 3, "once"
