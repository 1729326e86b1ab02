"""Who goes by which layout, among nodes that are killed, removed and come back."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from dynamo.core.layout import Layout, compatible, without
from tests.support.shells import Shell, World

NAMES = ("n1", "n2", "n3", "n4")


def removed_and_back() -> tuple[World, Shell]:
    """Four members of which one was removed while it was down, and is back with its old disk."""
    world = World(5)
    world.form(*NAMES)
    world.nodes["n1"].kill()
    world.until(lambda: world.nodes["n2"].liveness()["n1"] == "dead", "n1 is held dead")

    def make(base: Layout) -> Layout | None:
        return base.change(without(base.next_members, "n1"))

    Deferred.fromCoroutine(world.nodes["n2"].view.layouts.propose(make, 5.0))

    def through() -> bool:
        for shell in world.up:
            shell.view.layouts.sync_done(shell.view.layout.version)
        layouts = [shell.view.layouts for shell in world.up]
        return all(x.layout.stage == "steady" and not x.layout.knows("n1") for x in layouts)

    world.until(through, "n1 is removed")
    back = world.start("n1")
    world.until(lambda: back.view.layout.version >= 4, "n1 has heard of it")
    world.run(5)
    return world, back


def test_what_a_removed_member_still_sends_is_refused() -> None:
    """It has adopted a layout without it, and goes by it no more than before: it may hold what was
    deleted, and reaped, since."""
    world, back = removed_and_back()
    assert not back.view.layout.knows("n1")
    assert not back.view.joined
    for shell in world.up:
        if shell is not back:
            here = shell.view.layouts
            assert here.floor == here.layout.version
            assert not compatible(here.layout.version, back.view.layouts.used, here.floor)


def test_who_asked_for_a_layout_may_go_away_while_it_is_stored() -> None:
    """A client that waits for no answer any more does not keep the node from going by it."""
    world = World()
    n1, *_ = world.form("n1", "n2", "n3")
    now = n1.view.layout
    later = Layout(now.version + 1, now.birth, now.members, now.members[:2], True)
    n1.disk.delay = 0.5
    asked = Deferred.fromCoroutine(n1.view.layouts.adopt(later))
    world.run(0.1)
    asked.cancel()
    asked.addErrback(lambda failure: None)
    world.run(1)
    assert n1.book.layout == later
    assert n1.view.layout == later
