"""What the next step of a change of the ring waits for (`dynamo.core.layout`).

Every member that is there has to go by the present layout; while a ring is coming it also has to
hold what it will own, and to have passed on what it keeps for others. One that is away is not
waited for, unless it is about to join: it holds nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from dynamo.core.layout import Layout

Lack = Literal["", "presence", "use", "data"]
"""Of what a member lacks first, "" if nothing."""


def lacking(layout: Layout, name: str, *, there: bool, uses: int, synced: int) -> Lack:
    """What of a member the next step waits for. `uses` and `synced`: the version of the layout it
    says it goes by, and for which it says it holds all it ought to."""
    if layout.stage == "steady":
        return ""
    coming = layout.stage == "coming"
    if not there:
        return "presence" if coming and not layout.in_ring(name) else ""
    if uses < layout.version:
        return "use"
    return "data" if coming and synced < layout.version else ""


def in_words(layout: Layout, lacks: Iterable[tuple[str, Lack]]) -> list[str]:
    """What is waited for in sentences: one for all that lack the same, and one for each that is not
    there. `lacks`: by name."""
    names: dict[Lack, list[str]] = {"use": [], "data": [], "presence": []}
    for name, lack in lacks:
        if lack:
            names[lack].append(name)
    found = []
    if names["use"]:
        found.append(f"Not yet going by layout {layout.version}: {', '.join(names['use'])}.")
    if names["data"]:
        who = ", ".join(names["data"])
        found.append(f"Still taking over what they will own, or passing on what they keep: {who}.")
    gone = "is joining and not there; start it again or remove it."
    return [*found, *(f"{name} {gone}" for name in names["presence"])]
