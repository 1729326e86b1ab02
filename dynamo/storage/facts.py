"""What a node knows besides files: who it is, who the members are, which buckets there are.

Small, read once at start and kept in memory; changes are jobs of the group commit and take effect
in memory only when they are on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import attrs
from twisted.internet.defer import Deferred

from dynamo.core.buckets import Bucket
from dynamo.storage.committer import Committer
from dynamo.storage.engine import Engine, Transaction
from dynamo.wire.codec import BUCKET, MEMBERS, MemberFacts

ACTOR = b"actor"
MEMBERS_KEY = b"members"
CLUSTER = b"cluster"


@attrs.define
class Identity:
    """Who this node is and whom it has met, as its data directory says.

    `actor` is empty on a new data directory: the node has to ask the cluster for one that was
    never used. `cluster` is "name/partitions", empty until the node has joined.
    """

    engine: Engine
    committer: Committer
    actor: str = ""
    cluster: str = ""
    members: dict[str, MemberFacts] = attrs.field(factory=dict)

    def load(self) -> None:
        """Reads what the data directory holds."""
        view = self.engine.view()
        self.actor = (view.get("meta", ACTOR) or b"").decode()
        self.cluster = (view.get("meta", CLUSTER) or b"").decode()
        held = view.get("meta", MEMBERS_KEY)
        if held is not None:
            self.members = {m.name: m for m in MEMBERS.decode(held)}

    def save(self, actor: str, cluster: str, members: Iterable[MemberFacts]) -> Deferred[None]:
        """Writes all three; they hold from when the Deferred fires."""
        by_name = {m.name: m for m in sorted(members, key=lambda m: m.name)}

        def job(txn: Transaction) -> None:
            txn.put("meta", ACTOR, actor.encode())
            txn.put("meta", CLUSTER, cluster.encode())
            txn.put("meta", MEMBERS_KEY, MEMBERS.encode(list(by_name.values())))

        def take(_: None) -> None:
            self.actor, self.cluster, self.members = actor, cluster, by_name

        return self.committer.submit(job).addCallback(take)


@attrs.define
class BucketTable:
    """Every bucket state this node knows, deleted ones included.

    `states` is by name, `by_incarnation` holds the ones that exist.
    """

    engine: Engine
    committer: Committer
    states: dict[str, Bucket] = attrs.field(factory=dict)
    by_incarnation: dict[bytes, Bucket] = attrs.field(factory=dict)
    _digest: str = ""

    def load(self) -> None:
        """Reads what the data directory holds."""
        for _, data in self.engine.view().scan("buckets", b""):
            self._take(BUCKET.decode(data))

    def digest(self) -> str:
        """A fingerprint of all states: equal on nodes that know the same."""
        if not self._digest:
            whole = hashlib.blake2b(digest_size=8)
            for name in sorted(self.states):
                whole.update(BUCKET.encode(self.states[name]))
            self._digest = whole.hexdigest()
        return self._digest

    def get(self, name: str) -> Bucket:
        """What is known of a name; a state of generation 0 if nothing."""
        return self.states.get(name) or Bucket(name)

    def merge(self, incoming: Iterable[Bucket]) -> Deferred[list[Bucket]]:
        """Merges states; fires with what is held of the same names once it is on disk."""
        incoming = list(incoming)

        def job(txn: Transaction) -> list[Bucket]:
            held = []
            for bucket in incoming:
                row = bucket.name.encode()
                data = txn.get("buckets", row)
                old = Bucket(bucket.name) if data is None else BUCKET.decode(data)
                new = old.merge(bucket)
                if new != old:
                    txn.put("buckets", row, BUCKET.encode(new))
                held.append(new)
            return held

        def take(held: list[Bucket]) -> list[Bucket]:
            for bucket in held:
                self._take(bucket)
            return held

        return self.committer.submit(job).addCallback(take)

    def _take(self, bucket: Bucket) -> None:
        old = self.states.get(bucket.name)
        if old is not None:
            bucket = old.merge(bucket)
            self.by_incarnation.pop(old.incarnation, None)
        self.states[bucket.name] = bucket
        if bucket.exists:
            self.by_incarnation[bucket.incarnation] = bucket
        self._digest = ""
