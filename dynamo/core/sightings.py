"""How far each member's disk was seen to have got, so that one that went back can be told.

A data directory numbers its commits. A node's messages say which commit they follow, its peers keep
the highest by the start (`boot`) of the process that said it, and tell the node when it asks. One
whose directory is at a lower commit than somebody saw in an earlier start was rolled back, to a
snapshot or a backup: it must not go on giving out dots where the directory says it stopped
(riak_kv issue 679), nor count as having what it acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import msgspec

BOOTS_MAX = 4
"""Starts remembered of each member, the latest."""


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """Who speaks, and what is on its disk: `directory` is drawn when a data directory is made,
    `boot` when the process starts; every dot in the message was on disk at `commit`. The messages
    of a member rise by (`incarnation`, `number`) (`dynamo.core.fences`), and it goes by `layout`
    (`dynamo.core.layout`)."""

    name: str
    directory: int
    boot: str
    commit: int
    incarnation: int = 0
    number: int = 0
    layout: int = 0


@attrs.define
class Sightings:
    """What was seen of all members, by name; in order of the last start seen. `news`: the latest of
    those that were seen further on; whoever takes note of it takes it out."""

    by_name: dict[str, dict[str, Origin]] = attrs.field(factory=dict)
    news: dict[str, Origin] = attrs.field(factory=dict)

    def note(self, origin: Origin) -> None:
        """A message came."""
        boots = self.by_name.setdefault(origin.name, {})
        seen = boots.get(origin.boot)
        if seen is None:
            boots[origin.boot] = self.news[origin.name] = origin
            if len(boots) > BOOTS_MAX:
                del boots[next(iter(boots))]
        elif origin.commit > seen.commit:
            boots[origin.boot] = self.news[origin.name] = origin

    def told(self, name: str) -> tuple[Origin, ...]:
        """What was seen of a member, for a `Hello`."""
        return tuple(self.by_name.get(name, {}).values())


def rolled_back(mine: Origin, seen: Iterable[Origin]) -> bool:
    """Whether the directory of `mine`, at its commit when this process opened it, had been further
    in an earlier start, as peers saw it."""
    return any(
        other.directory == mine.directory and other.boot != mine.boot and other.commit > mine.commit
        for other in seen
    )
