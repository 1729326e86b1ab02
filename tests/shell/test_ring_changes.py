"""What an operator asks of the ring, through `Changes`, and what is seen of how far it is."""

from __future__ import annotations

import pytest

from dynamo.core.refilling import Progress
from dynamo.core.transfers import Moved, Moving
from dynamo.errors import NoSuchMember, Refused
from dynamo.node.faces import underway
from dynamo.ports import Underway
from dynamo.wire.hello import Hello
from tests.support.rings import Asked, ask, changes, layouts, settle
from tests.support.shells import Shell, World


def world_of(*names: str) -> tuple[World, Shell]:
    world = World(1)
    first, *_ = world.form(*names)
    settle(world, *names)
    return world, first


def test_fewer_members_than_copies_need_force() -> None:
    """And nothing was begun before."""
    world, n1 = world_of("n1", "n2", "n3")
    before = n1.view.layout
    for change in (changes(n1, 3).leave(), changes(n1, 7).leave()):
        with pytest.raises(Refused) as raised:
            ask(world, change)
        assert raised.value.code == "too_few_members"
    assert layouts(world) == {before}
    assert ask(world, changes(n1, 3).leave(force=True)).version == before.version + 1


@pytest.mark.parametrize("force", [False, True])
def test_what_force_does_not_bring_about(force: bool) -> None:
    """Removing one that is there, or oneself; leaving twice; the last member; a stranger."""
    world, n1 = world_of("n1", "n2", "n3")
    before = n1.view.layout
    for name, code in (("n2", "not_dead"), ("n1", "leave_instead")):
        with pytest.raises(Refused) as raised:
            ask(world, changes(n1).remove(name, force=force))
        assert raised.value.code == code
    with pytest.raises(NoSuchMember):
        ask(world, changes(n1).remove("n9", force=force))
    assert layouts(world) == {before}
    for shell in world.up:
        shell.syncs = False
    ask(world, changes(n1).leave(force=force))
    with pytest.raises(Refused) as raised:
        ask(world, changes(n1).leave(force=force))
    assert raised.value.code == "change_under_way"

    world, n1 = world_of("n1")
    with pytest.raises(Refused) as raised:
        ask(world, changes(n1).leave(force=force))
    assert raised.value.code == "last_member"


def test_while_a_change_is_nearly_through_others_wait() -> None:
    world, n1 = world_of("n1", "n2", "n3")
    world.start("n4", "n1")
    world.until(lambda: n1.view.layout.stage == "going", "it is nearly through")
    with pytest.raises(Refused, match="nearly through") as raised:
        ask(world, changes(n1).leave())
    assert raised.value.code == "change_under_way"
    settle(world, "n1", "n2", "n3", "n4")
    ask(world, changes(n1).leave())
    settle(world, "n2", "n3", "n4")


def test_a_change_is_judged_by_the_layout_it_follows() -> None:
    """Two are told to leave at once, of four that keep three copies: for the second it is judged
    again after the first was decided."""
    world, n1 = world_of("n1", "n2", "n3", "n4")
    for shell in world.up:
        shell.syncs = False
    both = [Asked(changes(shell, 3).leave()) for shell in (n1, world.nodes["n2"])]
    world.until(lambda: all(asked.done for asked in both), "both are answered")
    assert sorted(asked.failed for asked in both) == [False, True]
    with pytest.raises(Refused, match="there are 2 members for 3 copies"):
        next(asked for asked in both if asked.failed).result()
    world.run(1)
    (layout,) = layouts(world)
    assert len(layout.next_members) == 3


def test_a_dead_one_is_removed_while_another_joins() -> None:
    """One ring at the end of both."""
    world, n1 = world_of("n1", "n2", "n3", "n4")
    world.nodes["n4"].kill()
    world.until(lambda: n1.liveness()["n4"] == "dead", "n4 is dead")
    world.start("n5", "n1").syncs = False
    world.until(lambda: n1.view.layout.stage == "coming", "n5 is coming")
    removed = ask(world, changes(n1, 3).remove("n4"))
    assert [m.name for m in removed.next_members] == ["n1", "n2", "n3", "n5"]
    assert removed.stage == "coming"
    world.nodes["n5"].syncs = True
    settle(world, "n1", "n2", "n3", "n5")


def test_what_others_use_and_have_is_what_they_say() -> None:
    """Nothing is known of a stranger."""
    world, n1 = world_of("n1", "n2")
    world.start("n3", "n1").syncs = False
    world.until(lambda: n1.view.layout.stage == "coming", "n3 is coming")
    world.run(3)
    seen, version = changes(n1), n1.view.layout.version
    assert [seen.uses(name) for name in ("n1", "n2", "n3", "n9")] == [version] * 3 + [0]
    assert [n1.view.layouts.has_synced(name) == version for name in ("n1", "n2", "n3", "n9")] == [
        True,
        True,
        False,
        False,
    ]
    changes(world.nodes["n3"]).sync_done(version - 1)
    assert world.nodes["n3"].view.layouts.synced == 0
    world.run(3)
    assert n1.view.layout.version == version, "what was ready for an earlier layout is not for this"
    changes(world.nodes["n3"]).sync_done(version)
    settle(world, "n1", "n2", "n3")


# How far it is.


def moving(source: str, target: str) -> Moving:
    return Moving(source, target, 7, 100, 10.0, None)


def hello(name: str, moved: Moved) -> Hello:
    return Hello(name, "c", 8, "z", 1.0, "a", "c", name, "b", True, {}, {}, "", 0, 0, moved=moved)


def test_nothing_is_under_way() -> None:
    assert underway(Moved(), [hello("n2", Moved())]) == Underway()


def test_what_is_under_way_is_the_sum_of_what_all_say() -> None:
    """It takes as long as the slowest of those that can say; reasons and moves are listed."""
    mine = Moved((moving("n2", "n1"),), Progress(1, 4, 1000, 10.0, 30.0), "")
    others = [
        hello("n2", Moved((), None, "n3 is not there.")),
        hello("n3", Moved((moving("n1", "n3"),), Progress(2, 6, 500, 10.0, 90.0), "")),
        hello("n4", Moved((), Progress(0, 8, 0, 0.0, None), "It counts its keys first.")),
    ]
    assert underway(mine, others) == Underway(
        waits_for=("n3 is not there.", "It counts its keys first."),
        transfers=(moving("n2", "n1"), moving("n1", "n3")),
        partitions_left=18,
        bytes=1500,
        seconds_left=90.0,
    )
    assert underway(Moved(), others[2:]).seconds_left is None
    assert underway(mine, ()).seconds_left == 30.0
