"""Every mutant does what it says, where it says, and leaves nothing behind."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dynamo.node
from dynamo.core import quorum, record
from tests.mutants.patch import Edit, Mutant, SeamMoved, applied
from tests.mutants.probes_of_rings import PROBES
from tests.mutants.registry import MUTANTS
from tests.mutants.seeds import KNOWN


def picture() -> dict[str, Any]:
    """Every object in a module or class of `dynamo`, by where it is."""
    return dict(_picture())


def _picture() -> Iterator[tuple[str, Any]]:
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] != "dynamo":
            continue
        for key, value in list(vars(module).items()):
            yield f"{name}:{key}", value
            if isinstance(value, type) and value.__module__ == name:
                for inner, held in vars(value).items():
                    yield f"{name}:{key}.{inner}", held


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_mutant_breaks_what_it_says_and_nothing_for_longer(name: str) -> None:
    """Its probe holds before, does not hold within, and holds again after."""
    assert dynamo.node  # all of the node is loaded: what is imported later imports the original
    probe = PROBES[name]
    assert probe()
    before = picture()
    with applied(MUTANTS[name]):
        assert not probe()
    after = picture()
    assert [place for place in before if after[place] is not before[place]] == []
    assert probe()


def test_every_mutant_has_a_probe_and_says_who_should_notice() -> None:
    """And no two have one name, which a table keeps silent about."""
    assert sorted(PROBES) == sorted(MUTANTS)
    assert len(MUTANTS) >= 25
    for mutant in MUTANTS.values():
        assert mutant.invariants
        assert mutant.breaks.endswith(".")


def test_every_mutant_is_named_with_the_seeds_that_are_known_to_find_it() -> None:
    """None where none is known: then all are tried."""
    assert sorted(KNOWN) == sorted(MUTANTS)
    assert all(seed > 0 for seeds in KNOWN.values() for seed in seeds)


def test_the_page_tells_of_every_mutant_and_of_a_seed_that_finds_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "TESTING.md").read_text()
    told = dict(re.findall(r"^\| ([a-z-]+) \| (\d+) \|", page, re.MULTILINE))
    found = {name: seeds[0] for name, seeds in KNOWN.items() if seeds}
    assert {name: int(seed) for name, seed in told.items()} == found
    assert [name for name in MUTANTS if f"`{name}`" not in page and name not in found] == []


@pytest.mark.parametrize(
    ("where", "old"),
    [
        ("dynamo.core.quorum:majority", "there is no such text"),
        ("dynamo.core.quorum:majority", "n"),
        ("dynamo.core.quorum:minority", "return"),
    ],
)
def test_a_seam_that_moved_is_told(where: str, old: str) -> None:
    """A mutant must not come to nothing unnoticed; what it had changed already is put back."""
    first = Edit(
        "dynamo.core.record:Record.put", "counter = union.get(actor, 0) + 1", "counter = 1"
    )
    before = picture()
    with (
        pytest.raises(SeamMoved),
        applied(Mutant("m", "It fails.", (), (first, Edit(where, old, "")))),
    ):
        raise AssertionError("not reached")
    after = picture()
    assert [place for place in before if after[place] is not before[place]] == []


@pytest.mark.parametrize("name", ["merge-drops-a-side", "w-minus-one"])
def test_the_oracle_is_not_led_astray(name: str) -> None:
    """It may use the node's own words for what should be; they mean to it what they always did."""
    asked = """
def merge():
    one, two = Record({"a": 1}), Record({"b": 1}, (Version("b", 1, 1, b"", 0, ""),))
    return len(one.merge(two).versions)
def verdict():
    tally = WriteTally(1)
    tally.ask("a")
    return tally.verdict
"""
    said = {}
    with applied(MUTANTS[name]):
        for caller in ("dynamo.sim.oracle.rest", "dynamo.node"):
            told: dict[str, Any] = {**vars(record), "WriteTally": quorum.WriteTally}
            told["__name__"] = caller
            exec(asked, told)
            said[caller] = (told["merge"](), told["verdict"]())
    assert said["dynamo.sim.oracle.rest"] == (1, "pending")
    assert said["dynamo.node"] != (1, "pending")


def test_a_function_is_replaced_wherever_its_name_was_imported() -> None:
    """`prefer` is known to three modules besides its own."""
    from dynamo.coordinator import preferences
    from dynamo.core import cover, preference

    original = preference.prefer
    with applied(MUTANTS["owners-not-distinct"]):
        assert preference.prefer is not original
        assert preferences.prefer is preference.prefer
        assert cover.prefer is preference.prefer
    assert preferences.prefer is cover.prefer is preference.prefer is original
