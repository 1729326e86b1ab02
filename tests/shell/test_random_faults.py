"""Random work on random nodes while links go down and up: what was acknowledged holds.

Each story is made from its seed alone; a failure names the seed and the faults.
"""

from __future__ import annotations

import pytest

from tests.support.story import Story


@pytest.mark.parametrize("seed", range(40))
def test_nothing_acknowledged_is_lost_and_nothing_deleted_returns(seed: int) -> None:
    """I1, I2, I3, I6, I11: readable as soon as all nodes can be reached, equal once drained."""
    story = Story(seed, size=3 + seed % 4, big=seed % 4 == 0)
    story.tell(60)
    story.check_readable()
    story.cluster.hand_off()
    story.cluster.pass_time(1)
    story.check_drained()
    story.check_converged()
    assert story.acked


@pytest.mark.parametrize("seed", range(100, 120))
def test_crashes_lose_nothing_acknowledged(seed: int) -> None:
    """I10: nodes die and begin again on what was committed. What a coordinator had not sent when
    it died stays with those who have it, so owners need not be equal yet."""
    story = Story(seed, size=3 + seed % 4, crashes=True)
    story.tell(60)
    story.check_readable()
    story.cluster.hand_off()
    story.cluster.pass_time(1)
    story.check_readable()


def test_a_story_is_its_seed() -> None:
    """The same seed tells the same story, to the last byte of the last record."""
    ends = []
    for _ in range(2):
        story = Story(7)
        story.tell(40)
        records = {name: node.owned("alpha") for name, node in story.cluster.nodes.items()}
        ends.append((story.faults, sorted(story.acked), str(records)))
    assert ends[0] == ends[1]
