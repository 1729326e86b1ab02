"""A few mutants that the first seeds find: in every run of the tests the whole way is gone."""

from __future__ import annotations

from tests.mutants.hunt import SOUND, Hunt, hunt_all

SEEDS = (1, 2, 3)
QUICK = (
    "acknowledge-before-fsync",
    "dot-counted-from-context",
    "merge-ignores-context",
    "hint-skipped",
)


def test_the_first_seeds_find_some_mutants_and_nothing_without_them() -> None:
    """The whole hunt is `make mutants`."""
    hunts = [Hunt(name, SEEDS) for name in (SOUND, *QUICK)]
    kills = {kill.name: kill for kill in hunt_all(hunts, jobs=2, cpu_per_seed=60)}
    assert kills[SOUND].word == "survived", kills[SOUND].text
    for name in QUICK:
        assert kills[name].word == "caught", (name, kills[name].text)
