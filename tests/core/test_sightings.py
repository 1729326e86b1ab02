"""What peers saw of a disk, and whether it went back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.sightings import BOOTS_MAX, Origin, Sightings, rolled_back

origins = st.builds(
    Origin,
    name=st.sampled_from(["n1", "n2"]),
    directory=st.integers(1, 2),
    boot=st.sampled_from(["a", "b", "c"]),
    commit=st.integers(0, 9),
)


@given(st.lists(origins))
def test_the_highest_commit_of_each_start_is_kept(said: list[Origin]) -> None:
    sightings = Sightings()
    for origin in said:
        sightings.note(origin)
    told = {name: sightings.told(name) for name in ("n1", "n2")}
    for name in ("n1", "n2"):
        for boot in ("a", "b", "c"):
            commits = [o.commit for o in said if (o.name, o.boot) == (name, boot)]
            kept = [o.commit for o in told.get(name, ()) if o.boot == boot]
            assert kept == ([max(commits)] if commits else [])


def test_only_the_last_starts_are_remembered() -> None:
    sightings = Sightings()
    for number in range(BOOTS_MAX + 2):
        sightings.note(Origin("n1", 1, str(number), number))
    assert [o.boot for o in sightings.told("n1")] == ["2", "3", "4", "5"]


def test_a_disk_at_an_earlier_commit_than_was_seen_went_back() -> None:
    mine = Origin("n1", 7, "now", 100)
    assert rolled_back(mine, [Origin("n1", 7, "before", 101)])


def test_a_disk_at_the_commit_that_was_seen_did_not() -> None:
    mine = Origin("n1", 7, "now", 100)
    assert not rolled_back(mine, [Origin("n1", 7, "before", 100)])


def test_what_this_start_committed_since_does_not_count() -> None:
    assert not rolled_back(Origin("n1", 7, "now", 100), [Origin("n1", 7, "now", 150)])


def test_another_directory_of_the_same_name_does_not_count() -> None:
    assert not rolled_back(Origin("n1", 7, "now", 3), [Origin("n1", 6, "before", 900)])
