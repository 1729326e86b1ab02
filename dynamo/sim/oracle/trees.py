"""Whether the Merkle trees of two owners differ where their records do, while the run goes on.

Of what trees call equal anti-entropy learns nothing, but something else may mend it before the
judgement at rest. So it is looked now and then at the rows of which two owners hold different
records, be they cut off from each other: the leaf in which such a row lies has to differ as well.
Trees learn of a commit a little after it, and who is paused or has a disk that stalls, long after.
So nothing is said before a second look finds the same records, and both nodes at work each time.

Rows that differ are few, and only those that commits have touched are looked at anew.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import attrs

from dynamo.core.record import EMPTY, Record
from dynamo.core.ring import position
from dynamo.sim.oracle.mirrors import Located, describe
from dynamo.storage import broken
from dynamo.storage.owned import RECORDS

if TYPE_CHECKING:
    from dynamo.sim.oracle.rings import RingChecks
    from dynamo.storage.trees import Trees

AGAIN_S = 1.0
"""How long after one look the next one is."""

Pair = tuple[bytes, str, str]
"""A row, and two of its owners."""


@attrs.define(eq=False)
class TreeChecks:
    """See the module."""

    rings: RingChecks
    _looked_at: float = float("-inf")
    _differing: dict[Pair, tuple[Record, Record]] = attrs.field(factory=dict)
    """What was found at the last look, of nodes that were at work."""
    _told: set[Pair] = attrs.field(factory=set)

    def look(self) -> None:
        """To be called often."""
        now = self.rings.world.schedule.now
        if now - self._looked_at < AGAIN_S:
            return
        self._looked_at = now
        touched = self.rings.live.registry.touched
        rows = dict.fromkeys((*touched, *(row for row, _, _ in self._differing)))
        before, self._differing = self._differing, {}
        touched.clear()
        at_work = {name: trees for name in self.rings.world.present() if (trees := self._of(name))}
        for row in rows:
            self._look_at(row, at_work, before)

    def _of(self, name: str) -> Trees | None:
        """The trees of a node that is at work and says that they are complete."""
        host = self.rings.world.hosts[name]
        node, machine, drive = host.node, host.machine, host.drive
        if node is None or machine.paused or machine.burden or drive.stalled or drive.slow > 1.0:
            return None
        if not node.view.joined or node.view.layout != self.rings.latest:
            return None
        if self.rings.live.damaged.get(name) == host.starts:
            return None  # Its trees go by what the damaged row was, its mirror by what it is.
        return node.trees if node.trees.complete else None

    def _look_at(
        self, row: bytes, at_work: dict[str, Trees], before: dict[Pair, tuple[Record, Record]]
    ) -> None:
        registry = self.rings.live.registry
        found = registry.locate(row)
        owners = [owner for owner in self.rings.owners(row) if owner in registry.mirrors]
        for one, other in combinations(owners, 2):
            records = tuple(registry.mirrors[o].records.get(row, EMPTY) for o in (one, other))
            mine, theirs = records
            if found is None or (row, one, other) in self._told or mine.same_versions(theirs):
                continue
            damaged = self._is_damaged(one, row) or self._is_damaged(other, row)
            if damaged or one not in at_work or other not in at_work:
                registry.touched[row] = None
                continue
            pair = (row, one, other)
            self._differing[pair] = (mine, theirs)
            was = before.get(pair)
            if was is not None and was[0] is mine and was[1] is theirs:
                self._compare(pair, found, at_work)

    def _is_damaged(self, name: str, row: bytes) -> bool:
        """Whether the row is not what was stored, be it found or not: until it is mended the tree
        goes by what it was. A disk that was put back may be so from the start."""
        data = self.rings.world.hosts[name].drive.written().get(RECORDS, row) or b""
        return data != b"" and broken.decode(RECORDS, row, data).was is not None

    def _compare(self, pair: Pair, found: Located, at_work: dict[str, Trees]) -> None:
        row, one, other = pair
        live = self.rings.live
        mine, theirs = [_leaf(at_work[name], found) for name in (one, other)]
        if mine != theirs:
            live.tally.held("I6")
            return
        self._told.add(pair)
        states = [
            describe(live.registry.mirrors[name].records.get(row, EMPTY)) for name in pair[1:]
        ]
        live.tally.broken(
            "I6",
            live.now(),
            f"by their trees {one} and {other} hold the same of {live.registry.told(row)}, and "
            f"{one} has {states[0]}, {other} {states[1]}",
        )


def _leaf(trees: Trees, found: Located) -> int:
    """The leaf in which a key lies."""
    incarnation = found.bucket.incarnation
    partition, leaf = trees.shape.find(position(incarnation, found.place[1].encode()))
    return trees.leaves(trees.copies_of(incarnation), partition)[leaf]
