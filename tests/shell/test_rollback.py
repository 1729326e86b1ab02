"""A start on a disk that was put back: the node signs as somebody new before it serves."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dynamo.cluster.rollback import AGAIN_S, Rollback
from dynamo.core.sightings import Origin
from dynamo.errors import StorageFull
from dynamo.wire.hello import Hello

OPENED = Origin("n1", 7, "now", 100)


def hello(*seen: Origin) -> Hello:
    """What a peer says that saw this of n1."""
    return Hello(
        "n2", "c", 8, "z", 1.0, "a", "c", "n2", "b", True, {}, {}, "", 0, 0, seen={"n1": seen}
    )


class Scene:
    """A watch, and the renewals it began."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.renewals: list[Deferred[None]] = []
        self.sure: list[bool] = []
        self.went_on = 0
        self.rollback = Rollback(OPENED, self.clock, self._renew)

    def _renew(self, sure: bool) -> Deferred[None]:
        self.sure.append(sure)
        self.renewals.append(Deferred())
        return self.renewals[-1]

    def pending(self, *hellos: Hello) -> bool:
        return self.rollback.pending(hellos, self._after)

    def _after(self) -> None:
        self.went_on += 1


def test_a_node_whose_disk_is_where_it_was_does_not_wait() -> None:
    scene = Scene()
    assert not scene.pending(hello(Origin("n1", 7, "before", 100)))
    assert scene.renewals == []


def test_one_that_is_not_told_by_all_takes_a_new_name_before_it_serves() -> None:
    """Once: whoever is silent later finds it so already."""
    scene = Scene()
    told = hello(Origin("n1", 7, "before", 100))
    assert not scene.pending(told)
    assert scene.rollback.pending([told], scene._after, silent=True)
    assert len(scene.renewals) == 1
    scene.renewals[0].callback(None)
    assert scene.went_on == 1
    assert not scene.rollback.pending([told], scene._after, silent=True)
    assert len(scene.renewals) == 1
    later = hello(Origin("n1", 7, "before", 101))
    assert scene.pending(later), "now it is sure"
    scene.renewals[1].callback(None)
    assert scene.sure == [False, True]
    assert not scene.pending(later)


def test_one_whose_disk_went_back_waits_until_it_has_a_new_name() -> None:
    scene = Scene()
    told = hello(Origin("n1", 7, "before", 101))
    assert scene.pending(hello(), told)
    assert scene.pending(told)
    assert len(scene.renewals) == 1
    scene.renewals[0].callback(None)
    assert scene.went_on == 1
    assert scene.rollback.found
    assert not scene.pending(told), "once is enough"


def test_a_new_name_that_cannot_be_stored_is_tried_again() -> None:
    scene = Scene()
    told: Any = hello(Origin("n1", 7, "before", 101))
    scene.pending(told)
    scene.renewals[0].errback(StorageFull())
    assert scene.pending(told)
    scene.clock.advance(AGAIN_S)
    scene.renewals[1].callback(None)
    assert scene.went_on == 1
