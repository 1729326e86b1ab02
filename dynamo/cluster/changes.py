"""Changes of the ring that somebody asks for: a node leaves, a dead one is taken out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import attrs

from dynamo.cluster.layouts import Layouts
from dynamo.core.layout import Layout, keeps_majorities, with_member, without
from dynamo.core.plans import why_refused
from dynamo.errors import Refused
from dynamo.ports import Liveness

PATIENCE_S = 5.0
"""How long is tried to get most members to agree."""


@attrs.define(eq=False)
class Changes:
    """The `Changing` of a running node. `liveness()` is by name, `copies()` the most copies that a
    bucket wants."""

    layouts: Layouts
    liveness: Callable[[], Mapping[str, Liveness]]
    copies: Callable[[], int]

    def uses(self, name: str) -> int:
        return self.layouts.uses(name)

    def waits_for(self) -> list[str]:
        return self.layouts.waits_for()

    def sync_done(self, version: int) -> None:
        self.layouts.sync_done(version)

    async def leave(self, *, force: bool = False) -> Layout:
        return await self._take_out("leave", self.layouts.me.name, force)

    async def remove(self, name: str, *, force: bool = False) -> Layout:
        return await self._take_out("remove", name, force)

    async def stay(self) -> Layout:
        me = self.layouts.me

        def make(base: Layout) -> Layout | None:
            if base.stage == "going" or not base.in_ring(me.name):
                raise Refused(
                    "change_under_way",
                    f"{me.name} has handed over all it had, and its leaving cannot be taken back; "
                    "it can join again with an empty data_dir.",
                )
            return base.change(with_member(base.next_members, me))

        return await self.layouts.propose(make, PATIENCE_S)

    async def _take_out(self, kind: Literal["leave", "remove"], name: str, force: bool) -> Layout:
        def make(base: Layout) -> Layout | None:
            copies, me = self.copies(), self.layouts.me.name
            why = why_refused(kind, name, base, self.liveness(), copies, me, force=force)
            if why is not None:
                raise why
            staying = without(base.next_members, name)
            if not keeps_majorities(min(copies, len(base.members)), min(copies, len(staying))):
                raise Refused(
                    "change_under_way",
                    f"Others are on their way out; without {name} as well, what they alone hold "
                    "would be lost. Let that end first.",
                )
            return base.change(staying)

        return await self.layouts.propose(make, PATIENCE_S)
