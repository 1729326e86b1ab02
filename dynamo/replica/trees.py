"""What this node answers to another owner that compares trees with it (Dynamo §4.7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from dynamo.core.exchanges import Exchanges, Pair
from dynamo.core.ring import position
from dynamo.errors import BadRequest, NotReady
from dynamo.storage import rows
from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable
from dynamo.storage.owned import RECORDS
from dynamo.storage.places import Placed
from dynamo.storage.trees import Trees
from dynamo.wire import messages
from dynamo.wire.messages import Op, Reply

PARTITIONS_MAX = 1024
NODES_MAX = 256
KEYS_MAX = 1000
"""Keys one answer lists at most, those left out of it included."""

PULL_KEYS_MAX = 256
PULL_BYTES = 512 * 1024
"""At so many bytes an answer with records ends."""


@attrs.define(eq=False)
class TreeKeeper:
    """This node's trees as others see them. `wall_clock` reads seconds since the epoch.

    `lacking(pair)`: this node has first to take from the other what it lost; what differs until
    then is for nobody else to mend. `share()`: what part of the time background work may use here.
    """

    copies: Copies
    trees: Trees
    buckets: BucketTable
    wall_clock: Callable[[], float]
    exchanges: Exchanges = attrs.field(factory=Exchanges)
    lacking: Callable[[Pair], bool] = lambda pair: False
    share: Callable[[], float] = lambda: 1.0

    def handlers(self) -> dict[type[Op], Callable[..., Reply]]:
        """For `dynamo.replica.local.LocalReplica.handlers`."""
        return {
            messages.TreeRoots: self._roots,
            messages.TreeLevel: self._level,
            messages.TreeKeys: self._keys,
            messages.Pull: self._pull,
        }

    def exchanged(self, incarnation: bytes, key: bytes) -> float | None:
        """When a key's partition was last compared with another owner."""
        return self.exchanges.last(self.trees.shape.find(position(incarnation, key))[0])

    def listing(
        self, copies: int, partition: int, leaves: Sequence[int], after: bytes
    ) -> tuple[dict[bytes, Placed], bytes]:
        """The keys of these leaves by place, in order, and the place up to which they are all
        there are, b"" for the end.

        Keys of deleted buckets and of those that want another number of copies are left out.
        """
        found: dict[bytes, Placed] = {}
        view = self.copies.engine.view()
        listed = self.copies.places.of(view, self.trees.shape, partition, leaves, after)
        for seen, (place, placed) in enumerate(listed, start=1):
            if self._counts(placed.incarnation, copies):
                found[place] = placed
            if seen >= KEYS_MAX:
                return found, place
        return found, b""

    def _counts(self, incarnation: bytes, copies: int) -> bool:
        return (
            incarnation in self.buckets.by_incarnation
            and self.trees.copies_of(incarnation) == copies
        )

    def _roots(self, op: messages.TreeRoots) -> Reply:
        shape = self.trees.shape
        if op.of != shape.partitions or len(op.roots) != len(op.partitions):
            raise BadRequest("bad_tree", f"This node has {shape.partitions} partitions.")
        now, roots = self.wall_clock(), []
        for partition, theirs in zip(op.partitions[:PARTITIONS_MAX], op.roots, strict=False):
            self._check(partition)
            pair = (partition, op.sender, op.copies)
            known = op.refills or not self.lacking(pair)
            mine = self.trees.root(op.copies, partition) if known else b""
            roots.append(mine)
            if mine and theirs:
                self.exchanges.note(pair, now, mine == theirs)
        return messages.TreeRootsReply(tuple(roots))

    def _level(self, op: messages.TreeLevel) -> Reply:
        shape = self.trees.shape
        self._check(op.partition)
        if not self.trees.built(op.partition):
            raise NotReady("This node has not counted its keys yet.")
        if not 0 <= op.level < shape.depth or len(op.nodes) > NODES_MAX:
            raise BadRequest("bad_tree", f"A tree has levels 0 to {shape.depth}.")
        children = shape.children(op.level, op.nodes)
        leaves = self.trees.leaves(op.copies, op.partition)
        return messages.TreeLevelReply(shape.hashes(leaves, op.level + 1, children))

    def _keys(self, op: messages.TreeKeys) -> Reply:
        self._check(op.partition)
        leaves = sorted({leaf for leaf in op.leaves if 0 <= leaf < self.trees.shape.leaves})
        found, last = self.listing(op.copies, op.partition, leaves, op.after)
        keys = tuple((p.incarnation, p.key, p.fingerprint or 0) for p in found.values())
        return messages.TreeKeysReply(keys, last)

    def _pull(self, op: messages.Pull) -> Reply:
        view = self.copies.engine.view()
        found: list[bytes] = []
        size = 0
        for incarnation, key in op.keys[:PULL_KEYS_MAX]:
            found.append(view.get(RECORDS, rows.row(incarnation, key)) or b"")
            size += len(found[-1])
            if size >= PULL_BYTES:
                break
        return messages.PullReply(tuple(found), self.share())

    def _check(self, partition: int) -> None:
        if not 0 <= partition < self.trees.shape.partitions:
            raise BadRequest("bad_tree", f"There is no partition {partition}.")
