"""Who goes by which layout, among nodes that are killed, removed and come back."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from dynamo.core.layout import Layout, compatible, without
from tests.support.shells import World

NAMES = ("n1", "n2", "n3", "n4")


def test_what_a_removed_member_still_sends_is_refused() -> None:
    """It has adopted a layout without it, and goes by it no more than before: it may hold what was
    deleted, and reaped, since."""
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
    world.until(lambda: not back.view.layout.knows("n1"), "n1 has heard of it")
    world.run(5)
    assert not back.view.joined
    for shell in world.up:
        if shell is not back:
            here = shell.view.layouts
            assert here.floor == here.layout.version
            assert not compatible(here.layout.version, back.view.layouts.used, here.floor)
