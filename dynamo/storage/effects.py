"""What a job did besides writing rows."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.define
class Effects:
    """Taken note of when the commit ends, and in the reactor's thread after it.

    `unused`: chunks nothing refers to any more. `hinted`: changes of the hint counts. `broken`: the
    table, incarnation and key of records whose row turned out damaged. `moved`: changes of owned
    keys, as `dynamo.storage.places.Change`. `objects` and `size`: by how much
    the totals change.
    """

    unused: list[bytes] = attrs.field(factory=list)
    hinted: list[tuple[str, int]] = attrs.field(factory=list)
    broken: list[tuple[str, bytes, bytes]] = attrs.field(factory=list)
    moved: list[Any] = attrs.field(factory=list)
    objects: int = 0
    size: int = 0
