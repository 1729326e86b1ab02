"""Whom an answer of this node's has to wait for before it counts.

Members that keep hints for this node know of writes it missed. While a lost disk is being refilled,
the other owners of a key know what was on it (`dynamo.core.refilling`). Members that are gone are
not waited for, or nothing could be read for as long as they are; but a strict read must not count
on what this disk no longer knows, so for it owners that are away count as waited for.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from dynamo.core.exchanges import Pair
from dynamo.core.refilling import Refilling
from dynamo.ports import ClusterView
from dynamo.storage.facts import Identity
from dynamo.storage.trees import Trees


@attrs.define(eq=False)
class Wholeness:
    """See the module; of keys, and of whole buckets for listings."""

    view: ClusterView
    trees: Trees
    identity: Identity
    state: Refilling
    _of_bucket: dict[object, tuple[str, ...]] = attrs.field(factory=dict)

    def awaits(self, incarnation: bytes, key: bytes, strict: bool = False) -> tuple[str, ...]:
        """Members whose answer an answer of this node's for a key waits for."""
        hinted = self.view.awaiting()
        if self.identity.whole:
            return hinted
        lacked = self._lacks(incarnation, key)
        return _both(hinted, lacked if strict else self._there(lacked))

    def awaits_listed(self, incarnation: bytes, strict: bool = False) -> tuple[str, ...]:
        """The same for a scan of a bucket."""
        hinted = self.view.awaiting()
        if self.identity.whole:
            return hinted
        lacked = self._lacks_of_bucket(incarnation)
        return _both(hinted, lacked if strict else self._there(lacked))

    def lacks(self, incarnation: bytes, key: bytes) -> tuple[str, ...]:
        """The other owners of a key that are there and may hold what this node lost."""
        return () if self.identity.whole else self._there(self._lacks(incarnation, key))

    def _lacks(self, incarnation: bytes, key: bytes) -> tuple[str, ...]:
        if not self.identity.actor:
            return self._others()
        ring, copies = self.view.ring, self.trees.copies_of(incarnation)
        partition = ring.partition(incarnation, key)
        return self.state.lacks(partition, copies, ring.owners(partition, copies))

    def pair_lacks(self, pair: Pair) -> bool:
        """Whether this node is to take from the other owner what it lost before the two compare."""
        return not self.identity.whole and not self.state.whole(pair)

    def _lacks_of_bucket(self, incarnation: bytes) -> tuple[str, ...]:
        if not self.identity.actor:
            return self._others()
        ring, copies = self.view.ring, self.trees.copies_of(incarnation)
        case = (ring.version, copies, self.state.version)
        found = self._of_bucket.get(case)
        if found is None:
            names: set[str] = set()
            for partition in range(ring.partitions):
                names.update(self.state.lacks(partition, copies, ring.owners(partition, copies)))
            found = tuple(sorted(names))
            self._of_bucket = {case: found}
        return found

    def _others(self) -> tuple[str, ...]:
        return tuple([m.name for m in self.view.ring.members if m.name != self.view.name])

    def _there(self, names: Iterable[str]) -> tuple[str, ...]:
        view = self.view
        return tuple([n for n in names if view.is_healthy(n) or view.is_doubtful(n)])


def _both(hinted: tuple[str, ...], lacked: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*hinted, *lacked})) if hinted and lacked else hinted or lacked
