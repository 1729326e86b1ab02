"""The ring while nodes are away, cut off, slow, broken or forgetful: it stays or goes on as one."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from twisted.internet.defer import Deferred

from dynamo.core.buckets import Bucket, Properties
from dynamo.core.layout import Layout
from dynamo.errors import NotReady
from dynamo.storage.agreed import LayoutBook
from dynamo.wire import agreeing
from tests.support.rings import Asked, ask, changes, layouts, one_ring, settle, watched
from tests.support.shells import Shell, World


def dead(world: World, *names: str, for_: Shell) -> None:
    world.until(lambda: all(for_.liveness()[n] == "dead" for n in names), f"{names} are dead")


def bucket(shell: Shell) -> None:
    shell.buckets.merge([Bucket("b").create(1, 1, Properties())])


# Away, and cut off.


@pytest.mark.parametrize("first", ["minority", "majority"])
def test_only_the_side_with_most_members_changes_the_ring(first: str) -> None:
    """Both want something else; afterwards there is one ring, that of the greater side."""
    world = World(1)
    with watched():
        n1, _, n3, _, _ = world.form("n1", "n2", "n3", "n4", "n5")
        settle(world)
        before = n1.view.layout
        world.apart("n1", "n2")
        dead(world, "n5", for_=n1)
        dead(world, "n1", for_=n3)
        asked = [Asked(changes(n1).remove("n5")), Asked(changes(n3).remove("n1"))]
        world.until(lambda: all(a.done for a in asked), "both are answered")
        with pytest.raises(
            NotReady, match=r"Most members .* have to agree .* too few did: (n\d: .*)+"
        ):
            asked[0].result()
        assert n1.view.layout == before
        assert n1.view.joined, "data is served as ever"
        world.until(lambda: n3.view.layout.stage == "steady", "n1 is out")
        assert n3.ring() == {"n2", "n3", "n4", "n5"}
        world.heal()
        if first == "minority":
            again = Asked(changes(n1).remove("n5"))
            world.until(lambda: again.done, "it is answered")
            assert again.failed
        settle(world, "n2", "n3", "n4", "n5")
        assert n1.book.out
        assert not n1.view.joined


@pytest.mark.parametrize("has_bucket", [True, False])
def test_one_that_was_away_over_a_whole_change(has_bucket: bool) -> None:
    """It goes by the newer layout before it serves, and by then knows that it may lack something,
    if there is anything at all; until it is whole it claims to use no layout."""
    world = World(2)
    n1, _, n3 = world.form("n1", "n2", "n3")
    settle(world)
    if has_bucket:
        for shell in world.up:
            bucket(shell)
    world.run(0.1)
    old = n3.view.layout.version
    n3.kill()
    dead(world, "n3", for_=n1)
    world.start("n4", "n1")
    settle(world, "n1", "n2", "n3", "n4")
    n3 = world.start("n3", "n2")
    n3.refills = False
    assert n3.view.layout.version == old
    world.until(lambda: n3.view.joined, "n3 serves")
    assert n3.view.layout == n1.view.layout
    assert n3.identity.refilling == has_bucket
    world.run(3)
    if has_bucket:
        assert n3.view.layouts.uses("n3") == n1.view.layouts.uses("n3") == 0
    n3.refills = True
    settle(world, "n1", "n2", "n3", "n4")
    assert not n3.identity.refilling


def test_one_that_was_away_while_a_ring_was_coming_only_takes_nothing_back() -> None:
    """What it owns it owned before: there was no change yet."""
    world = World(3)
    n1, _, n3 = world.form("n1", "n2", "n3")
    settle(world)
    n3.kill()
    dead(world, "n3", for_=n1)
    world.start("n4", "n1").syncs = False
    world.until(lambda: n1.view.layout.stage == "coming", "n4 is coming")
    n3 = world.start("n3", "n1")
    world.until(lambda: n3.view.joined, "n3 serves")
    assert n3.view.layout == n1.view.layout
    assert not n3.identity.refilling
    world.nodes["n4"].syncs = True
    settle(world, "n1", "n2", "n3", "n4")


def test_one_that_was_removed_while_it_was_away() -> None:
    """It finds out before it serves, for good."""
    world = World(4)
    with watched():
        n1, *_ = world.form("n1", "n2", "n3", "n4")
        settle(world)
        world.nodes["n4"].kill()
        dead(world, "n4", for_=n1)
        ask(world, changes(n1).remove("n4"))
        settle(world, "n1", "n2", "n3")
        n4 = world.start("n4", "n2")
        served = []
        for _ in range(100):
            world.run(0.1)
            served.append(n4.view.joined)
        assert not any(served)
        assert n4.book.out
        assert "not in the ring any more" in n4.view.why_not_joined()
        assert one_ring(world, "n1", "n2", "n3")


def test_with_half_of_the_members_gone_nothing_is_decided() -> None:
    """In a sentence; the data is served by the ring there is, and the change goes through as soon
    as one of them is back."""
    world = World(5)
    n1, n2, _, _ = world.form("n1", "n2", "n3", "n4")
    settle(world)
    before = n1.view.layout
    for name in ("n3", "n4"):
        world.nodes[name].kill()
    dead(world, "n3", "n4", for_=n1)
    began = world.clock.seconds()
    with pytest.raises(NotReady, match=r"Most members of the ring have to agree .*n3: .*n4: "):
        ask(world, changes(n1).remove("n4"))
    assert world.clock.seconds() - began < 10
    assert world.start("n5", "n1").view.layout.version == 0
    world.run(30)
    assert {n1.view.layout, n2.view.layout} == {before}
    assert n1.view.joined
    assert n2.view.joined
    assert world.nodes["n5"].ring() == {"n1", "n2", "n3", "n4"}, "it is no member yet"
    world.start("n3", "n1")
    settle(world, "n1", "n2", "n3", "n4", "n5")
    ask(world, changes(n1).remove("n4"))
    settle(world, "n1", "n2", "n3", "n5")


# Slow, and broken.


def test_a_member_that_does_not_answer_is_named() -> None:
    """In words that say so."""
    world = World(5)
    n1, n2, n3 = world.form("n1", "n2", "n3")
    settle(world)
    n3.kill()
    dead(world, "n3", for_=n1)
    n2.disk.hangs = True
    with pytest.raises(NotReady, match="too few did: n2: no answer; n3: "):
        ask(world, changes(n1).remove("n3"))


def test_the_second_takes_the_step_if_the_first_hangs() -> None:
    """A disk that never answers holds up whoever has it; the others wait some seconds."""
    world = World(6)
    with watched():
        n1, n2, _ = world.form("n1", "n2", "n3")
        settle(world)
        n4 = world.start("n4", "n1")
        n4.syncs = False
        world.until(lambda: n1.view.layout.stage == "coming", "n4 is coming")
        version = n1.view.layout.version
        world.until(
            lambda: all(
                s.view.layouts.uses(name) == version
                for s in world.up
                for name in ("n1", "n2", "n3", "n4")
            ),
            "all use it",
        )
        n1.disk.hangs, n4.syncs = True, True
        took = world.until(lambda: n2.view.layout.stage == "going", "n2 has taken the step")
        assert 2 < took < 6
        world.run(10)
        assert n1.view.layout.stage == "coming"
        assert n2.view.layouts.waits_for() == [f"Not yet going by layout {version + 1}: n1."]
        n1.disk.hangs = False
        while n1.disk.waiting:
            n1.disk.waiting.popleft()()
        settle(world, "n1", "n2", "n3", "n4", seconds=20)


def test_a_disk_that_fails_while_a_layout_is_adopted() -> None:
    """`NotReady` to whoever tells it; the node goes by the old one, nothing goes on, and once the
    disk works it learns by itself."""
    world = World(7)
    n1, n2, _ = world.form("n1", "n2", "n3")
    settle(world)
    old = n2.view.layout
    n2.disk.fault = OSError("no space left")
    world.start("n4", "n1")
    world.until(lambda: n1.view.layout.stage == "coming", "n4 is coming")
    coming = n1.view.layout
    told = n2.answer(agreeing.LayoutLearn(coming))
    raised: list[object] = []
    told.addErrback(lambda f: raised.append(f.trap(NotReady) and f.value))
    world.run(1)
    assert "n2 cannot store a layout of the ring" in str(raised[0])
    world.run(20)
    assert (n2.view.layout, n2.view.layouts.uses("n2")) == (old, old.version)
    assert n1.view.layout == coming
    n2.disk.fault = None
    settle(world, "n1", "n2", "n3", "n4")


def test_a_crash_between_deciding_and_adopting() -> None:
    """Most members had accepted n4's joining when n4 died without a word: whoever proposes next
    carries it through first, and n4 finds itself in when it is back."""
    world = World(8)
    with watched() as ledger:
        n1, *_ = world.form("n1", "n2", "n3")
        settle(world)
        base = n1.view.layout
        n4 = world.start("n4", "n1")

        adopt = LayoutBook.adopt

        def crash(self: LayoutBook, layout: Layout, **more: bool) -> Deferred[bool]:
            if self is n4.book and layout.knows("n4"):
                n4.kill()
                return Deferred()
            return adopt(self, layout, **more)

        with patch.object(LayoutBook, "adopt", crash):
            world.until(lambda: not n4.up, "n4 has died")
        assert layouts(world) == {base}
        world.start("n5", "n1")
        world.until(lambda: n1.view.layout.version == base.version + 2, "n5 is coming")
        (decided,) = ledger.adopted[base.birth, base.version + 1]
        assert [m.name for m in decided.next_members] == ["n1", "n2", "n3", "n4"]
        assert [m.name for m in n1.view.layout.next_members] == ["n1", "n2", "n3", "n4", "n5"]
        world.start("n4", "n1")
        settle(world, "n1", "n2", "n3", "n4", "n5")


def test_a_ballot_that_was_promised_to_nobody_keeps_nobody_up() -> None:
    """Somebody asked most members for promises and died: the next asks for more."""
    world = World(9)
    n1, n2, n3 = world.form("n1", "n2", "n3")
    settle(world)
    version = n1.view.layout.version + 1
    for shell in (n1, n2, n3):
        shell.answer(agreeing.LayoutPrepare(version, (10**6, "n9")))
    world.start("n4", "n1")
    settle(world, "n1", "n2", "n3", "n4", seconds=20)


def test_a_second_change_waits_for_who_does_not_go_by_the_first_yet() -> None:
    """It serves clients by the layout before, and by the one after the next would be refused."""
    world = World(14)
    n1, n2, _ = world.form("n1", "n2", "n3")
    settle(world)
    used = n2.view.layouts.used
    upload = n2.view.layouts._grace.enter()
    world.start("n4", "n1")
    world.until(lambda: n2.view.layout.stage == "coming", "n4 is coming")
    version = n1.view.layout.version
    world.start("n5", "n1")
    world.run(20)
    with pytest.raises(NotReady, match=f"^n2 must go by layout {version} of the ring first"):
        ask(world, changes(n1).leave())
    assert (n1.view.layout.version, n2.view.layouts.used) == (version, used)
    n2.view.layouts._grace.leave(upload)
    settle(world, "n1", "n2", "n3", "n4", "n5")


# Forgetful.


def test_the_vote_of_a_node_that_is_refilled_counts_with_those_of_all() -> None:
    """What it had promised is lost with its disk. Nor does it claim to use a layout."""
    world = World(10)
    n1, n2, n3 = world.form("n1", "n2", "n3")
    settle(world)
    for shell in world.up:
        bucket(shell)
    world.run(0.1)
    n3.kill()
    dead(world, "n3", for_=n1)
    n3 = world.start("n3", "n1", wipe=True)
    n3.refills = False
    world.until(lambda: n3.view.joined, "n3 serves")
    assert n3.identity.refilling
    world.run(3)
    assert n1.view.layouts.uses("n3") == 0
    n2.kill()
    dead(world, "n2", for_=n1)
    before = n1.view.layout
    with pytest.raises(
        NotReady, match="n3: may have forgotten a vote; its own counts if all members vote"
    ):
        ask(world, changes(n1).remove("n2"))
    said: list[agreeing.LayoutReply] = []
    for op in (
        agreeing.LayoutPrepare(before.version + 1, (99, "n1")),
        agreeing.LayoutAccept((99, "n1"), before.renew()),
    ):
        n3.answer(op).addCallback(said.append)
    world.run(0.1)
    assert [(reply.yes, reply.forgot) for reply in said] == [(True, True), (True, True)]
    n3.refills = True
    world.run(1)
    with pytest.raises(NotReady, match=r"too few did: .* n3: "):
        ask(world, changes(n1).remove("n2"))
    n2 = world.start("n2", "n1")
    world.until(lambda: n1.view.layout.version > before.version, "the others have voted")
    assert n1.view.layout.members == before.members
    n2.kill()
    dead(world, "n2", for_=n1)
    ask(world, changes(n1).remove("n2"))
    settle(world, "n1", "n3")


@pytest.mark.parametrize("together", [True, False])
def test_where_most_forgot_they_agree_when_all_are_there(together: bool) -> None:
    """Each disk of a cluster was put back to a copy of it, and these were made one by one."""
    world = World(13)
    n1, n2, n3 = world.form("n1", "n2", "n3")
    settle(world)
    before = n1.view.layout
    for shell in (n1, n2):
        shell.book.forget()
    if not together:
        n3.kill()
        dead(world, "n3", for_=n1)
        world.run(10)
        assert n1.view.layout == before
        with pytest.raises(NotReady, match="counts if all members vote"):
            ask(world, changes(n1).remove("n3"))
        n3 = world.start("n3", "n1")
    world.until(lambda: n1.view.layout.version > before.version, "they have voted")
    settle(world)
    n3.kill()
    dead(world, "n3", for_=n1)
    ask(world, changes(n1).remove("n3"))
    settle(world, "n1", "n2")


def test_a_change_waits_for_a_node_that_is_refilled() -> None:
    """It uses no layout, so nobody reads by a ring that it may not know of."""
    world = World(11)
    n1, *_ = world.form("n1", "n2", "n3")
    settle(world)
    for shell in world.up:
        bucket(shell)
    world.run(0.1)
    n3 = world.start("n3", "n1", wipe=True)
    n3.refills = False
    world.until(lambda: n3.view.joined, "n3 serves")
    world.start("n4", "n1")
    world.until(lambda: n1.view.layout.stage == "coming", "n4 is coming")
    version = n1.view.layout.version
    world.run(20)
    assert n1.view.layout.version == version
    assert n1.view.layouts.waits_for() == [f"Not yet going by layout {version}: n3."]
    n3.refills = True
    settle(world, "n1", "n2", "n3", "n4")


def test_a_node_without_an_actor_has_no_vote() -> None:
    """It knows the layout already, and not yet whether it is one that lost its disk."""
    world = World(12)
    n1, n2, _ = world.form("n1", "n2", "n3")
    settle(world)
    for shell in world.up:
        bucket(shell)
    world.run(0.1)
    n2.mute = True
    n3 = world.start("n3", "n1", wipe=True)
    world.until(lambda: n3.view.layout.version > 0, "n3 knows the layout")
    world.run(5)
    assert n3.identity.actor == ""
    said: list[agreeing.LayoutReply] = []
    version = n1.view.layout.version + 1
    n3.answer(agreeing.LayoutPrepare(version, (9, "n1"))).addCallback(said.append)
    world.run(0.1)
    assert [reply.yes for reply in said] == [False]
