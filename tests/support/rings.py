"""Changes of the ring in a `World`, and what is seen of them from outside."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dynamo.cluster.changes import Changes
from dynamo.cluster.layouts import Layouts
from dynamo.core.layout import Layout
from tests.support.shells import Shell, World


def changes(shell: Shell, copies: int = 1) -> Changes:
    """What an operator of a node can ask of it; `copies` is N."""
    return Changes(
        shell.view.layouts,
        lambda: {m.name: m.liveness for m in shell.view.members()},
        lambda: copies,
    )


class Asked:
    """A change that was asked for; it goes on while time passes."""

    def __init__(self, change: Coroutine[Any, Any, Layout]) -> None:
        self.outcome: list[Any] = []
        Deferred.fromCoroutine(change).addBoth(self.outcome.append)

    @property
    def done(self) -> bool:
        return bool(self.outcome)

    @property
    def failed(self) -> bool:
        return self.done and isinstance(self.outcome[0], Failure)

    def result(self) -> Layout:
        """The layout, or raises what kept it from being decided."""
        assert self.done, "not answered yet"
        if isinstance(self.outcome[0], Failure):
            self.outcome[0].raiseException()
        assert isinstance(self.outcome[0], Layout)
        return self.outcome[0]


def ask(world: World, change: Coroutine[Any, Any, Layout], seconds: float = 20.0) -> Layout:
    """Waits for a change; its layout, or raises why there is none."""
    asked = Asked(change)
    world.until(lambda: asked.done, "the change is answered", seconds)
    return asked.result()


def layouts(world: World) -> set[Layout]:
    """Those that running nodes with a part in it go by."""
    return {shell.view.layout for shell in world.up if not shell.book.out}


def one_ring(world: World, *names: str) -> bool:
    """Whether all running nodes that are not out go by one steady layout and use it, these (or
    all of those) are its members, and they serve."""
    inside = [shell for shell in world.up if not shell.book.out]
    members = set(names) or {shell.name for shell in inside}
    return len(layouts(world)) == 1 and all(
        shell.view.layout.stage == "steady"
        and shell.ring() == members
        and shell.view.beside is None
        and shell.view.joined
        and shell.view.layouts.uses(shell.name) == shell.view.layout.version
        for shell in inside
    )


def settle(world: World, *names: str, seconds: float = 60.0) -> None:
    """Waits until these are the ring, steadily, and gossip has brought that about."""
    world.until(lambda: one_ring(world, *names), f"the ring is {names or 'whole'}", seconds)
    world.run(1)


@attrs.define
class Ledger:
    """Every layout that any node of any world went by, by birth and version."""

    adopted: dict[tuple[int, int], dict[Layout, set[str]]] = attrs.field(factory=dict)

    def births(self) -> set[int]:
        return {birth for birth, _ in self.adopted}

    def check(self) -> None:
        """Each was decided once, whoever heard of it."""
        for (birth, version), seen in self.adopted.items():
            assert len(seen) == 1, f"layout {version} of {birth} is two: {seen}"


@contextmanager
def watched() -> Iterator[Ledger]:
    """Notes what every node goes by, from the moment it does."""
    ledger, take = Ledger(), Layouts._take

    def noted(self: Layouts, layout: Layout) -> None:
        if layout.version:
            seen = ledger.adopted.setdefault((layout.birth, layout.version), {})
            seen.setdefault(layout, set()).add(self.me.name)
        take(self, layout)

    with patch.object(Layouts, "_take", noted):
        yield ledger
    ledger.check()
