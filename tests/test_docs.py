"""What the documents say of the tree is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def named_tests() -> list[str]:
    text = (ROOT / "docs" / "WEAKNESSES.md").read_text()
    return sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", text)))


@pytest.mark.parametrize("name", named_tests())
def test_every_test_that_is_named_exists(name: str) -> None:
    """A row of the table of weaknesses that names no test shows nothing."""
    path, _, function = name.partition("::")
    text = (ROOT / path).read_text()
    assert "def test_" in text
    if function:
        assert f"def {function}(" in text


def test_every_weakness_has_a_row() -> None:
    """All twenty-five, in order."""
    text = (ROOT / "docs" / "WEAKNESSES.md").read_text()
    assert re.findall(r"^\| (W\d+) \|", text, re.M) == [f"W{i}" for i in range(1, 26)]


@pytest.mark.parametrize("page", [*sorted(p.name for p in ROOT.glob("docs/*.md")), "../README.md"])
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link in a document points to a file that is there."""
    folder = ROOT / "docs"
    text = (folder / page).read_text()
    base = (folder / page).parent
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (base / target).exists(), target
