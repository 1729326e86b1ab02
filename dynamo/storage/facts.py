"""What a node knows besides files: who it is, who the members are, which buckets there are.

Small, read once at start and kept in memory; changes are jobs of the group commit and take effect
in memory only when they are on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import attrs
from twisted.internet.defer import Deferred, succeed

from dynamo.core.buckets import Bucket
from dynamo.core.members import Member
from dynamo.errors import Corrupt, StorageFault
from dynamo.log import make_logger
from dynamo.storage import ledger
from dynamo.storage.committer import Committer
from dynamo.storage.engine import Engine, Transaction, View
from dynamo.wire.codec import ACTORS, BUCKET, REMEMBERED, ROW_FORMAT, STATE

ACTOR = b"actor"
ACTORS_KEY = b"actors"
IDENTITY = b"identity"
INCARNATION = b"incarnation"
REMEMBERED_KEY = b"remembered"
CLUSTER = b"cluster"
FORMAT = b"format"
REFILL = b"refill"
"""The row of `meta` that says that this node lost what was on its disk and takes it back."""

log = make_logger()


@attrs.define
class Identity:
    """Who this node is and whom it has met, as its data directory says.

    `actor` is empty on a new data directory: the node has to ask the cluster for one that was
    never used. `cluster` is "name/partitions", empty until the node has joined. `actors`
    are the last ones seen under each member's name. `number` tells
    this data directory from any other under the same name (0: not drawn yet); `incarnation` is
    the last one claimed, and `remembered` what gossip knew at the end. `refilling`: what was on
    this node's disk was lost, and is taken back from the others; `refills_coming`: how many commits
    are under way that say so.
    """

    engine: Engine
    committer: Committer
    actor: str = ""
    cluster: str = ""
    actors: dict[str, str] = attrs.field(factory=dict)
    number: int = 0
    incarnation: int = 0
    remembered: list[Member] = attrs.field(factory=list)
    refilling: bool = False
    refills_coming: int = 0

    @property
    def whole(self) -> bool:
        """Whether this node holds what it ought to: it knows who it is, and lost nothing."""
        return not self.refilling and self.actor != ""

    def load(self) -> None:
        """Reads what the data directory holds."""
        view = self.engine.view()
        if view.get("meta", FORMAT) is None and any(
            view.get("meta", row) for row in (ACTOR, IDENTITY)
        ):
            raise StorageFault(
                "The data directory was written by an earlier version, whose rows carry no "
                "checksums; start with an empty data_dir."
            )
        try:
            self._read(view)
        except Corrupt as error:
            raise Corrupt(
                f"What the data directory says of this node itself is damaged ({error}); "
                "start with an empty data_dir, and the others give it what it held."
            ) from error

    def _read(self, view: View) -> None:
        self.actor = (ledger.fact(view, ACTOR) or b"").decode()
        self.cluster = (ledger.fact(view, CLUSTER) or b"").decode()
        held = ledger.fact(view, ACTORS_KEY)
        if held is not None:
            self.actors = ACTORS.decode(held)
        self.number = int.from_bytes(ledger.fact(view, IDENTITY) or b"")
        self.incarnation = int.from_bytes(ledger.fact(view, INCARNATION) or b"")
        self.refilling = view.get("meta", REFILL) is not None
        ledger.fact(view, ledger.HAND)
        try:
            known = ledger.fact(view, REMEMBERED_KEY)
        except Corrupt as error:
            log.error("Who the members were is damaged; the seeds are asked: {e}", e=error)
        else:
            if known is not None:
                self.remembered = REMEMBERED.decode(known)

    def save_incarnation(self, number: int, incarnation: int) -> Deferred[None]:
        """Writes who claims which incarnation; fires when it is on disk."""

        def job(txn: Transaction) -> None:
            self._state(txn, IDENTITY, number.to_bytes(4))
            self._state(txn, INCARNATION, incarnation.to_bytes(8))

        def take(_: None) -> None:
            self.number, self.incarnation = number, incarnation

        return self.committer.submit(job, take)

    def save_remembered(self, members: Iterable[Member]) -> Deferred[None]:
        """Writes what gossip knows, for the next start."""
        data = REMEMBERED.encode(list(members))
        return self.committer.submit(lambda txn: self._state(txn, REMEMBERED_KEY, data))

    def save(
        self, actor: str, cluster: str, *, refill: bool = False, hand: int = 0
    ) -> Deferred[None]:
        """Writes what this node is; it holds from when the Deferred fires. `refill`: the others
        may hold what this node ought to. `hand`: the one it begins with, if not the first."""

        def job(txn: Transaction) -> None:
            self._state(txn, ACTOR, actor.encode())
            self._state(txn, CLUSTER, cluster.encode())
            if refill:
                self._state(txn, REFILL, ROW_FORMAT)
            if hand:
                ledger.begin_hand(txn, hand)

        def take(_: None) -> None:
            self.actor, self.cluster, self.refilling = actor, cluster, refill

        return self.committer.submit(job, take)

    def begin_hand(self, hand: int) -> Deferred[None]:
        """Makes the node sign with a hand that was never used (`dynamo.storage.ledger`), and take
        back what it has forgotten."""

        def job(txn: Transaction) -> None:
            ledger.begin_hand(txn, hand)
            self._state(txn, REFILL, ROW_FORMAT)

        # From now on, not from the commit on: what this node says meanwhile may be old already.
        self.refilling = True
        return self.committer.submit(job)

    def end_refill(self) -> Deferred[None]:
        """Everything that was lost is back; it holds from when the Deferred fires."""

        if self.refills_coming:
            return succeed(None)

        def take(_: None) -> None:
            self.refilling = False

        return self.committer.submit(lambda txn: txn.delete("meta", REFILL), take)

    def save_actors(self) -> Deferred[None]:
        """Writes under which actors the members write, so that one can be told if it forgets."""
        data = ACTORS.encode(dict(sorted(self.actors.items())))
        return self.committer.submit(lambda txn: self._state(txn, ACTORS_KEY, data))

    def _state(self, txn: Transaction, key: bytes, said: bytes) -> None:
        if txn.get("meta", FORMAT) is None:
            txn.put("meta", FORMAT, ROW_FORMAT)
        ledger.state(txn, key, said)


@attrs.define
class BucketTable:
    """Every bucket state this node knows, deleted ones included.

    `states` is by name, `by_incarnation` holds the ones that exist, `gone` the names of those that
    do not any more, by incarnation.
    """

    engine: Engine
    committer: Committer
    states: dict[str, Bucket] = attrs.field(factory=dict)
    by_incarnation: dict[bytes, Bucket] = attrs.field(factory=dict)
    gone: dict[bytes, str] = attrs.field(factory=dict)
    _digest: str = ""

    def load(self) -> None:
        """Reads what the data directory holds. A damaged state is left out: every member has all
        of them, and those that differ are exchanged."""
        for row, data in self.engine.view().scan("buckets", b""):
            try:
                self._take(STATE.decode(row, data))
            except Corrupt as error:
                log.error("A bucket's state is damaged; others are asked for it: {e}", e=error)

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

    def copies_of(self, incarnation: bytes, default: int) -> int:
        """How many copies a bucket wants of each key; `default` if it does not say or is gone."""
        bucket = self.by_incarnation.get(incarnation)
        return (bucket.properties.n if bucket is not None else None) or default

    def copies_wanted(self, default: int) -> int:
        """The most copies that any bucket wants of its keys."""
        return max(self.classes(default))

    def classes(self, default: int) -> frozenset[int]:
        """How many copies buckets want of their keys, and `default`."""
        asked = [bucket.properties.n or default for bucket in self.by_incarnation.values()]
        return frozenset([default, *asked])

    def merge(self, incoming: Iterable[Bucket]) -> Deferred[list[Bucket]]:
        """Merges states; fires with what is held of the same names once it is on disk."""
        incoming = list(incoming)

        def job(txn: Transaction) -> list[Bucket]:
            held = []
            for bucket in incoming:
                row = bucket.name.encode()
                old, whole = self._stored(txn, row, bucket.name)
                new = old.merge(bucket)
                if new != old or not whole:
                    txn.put("buckets", row, STATE.encode(row, new))
                held.append(new)
            return held

        def take(held: list[Bucket]) -> list[Bucket]:
            for bucket in held:
                self._take(bucket)
            return held

        return self.committer.submit(job, take)

    def _stored(self, txn: Transaction, row: bytes, name: str) -> tuple[Bucket, bool]:
        """The state on disk, and whether it is whole; a damaged one is taken from memory."""
        data = txn.get("buckets", row)
        if data is None:
            return Bucket(name), True
        try:
            return STATE.decode(row, data), True
        except Corrupt:
            return self.states.get(name) or Bucket(name), False

    def _take(self, bucket: Bucket) -> None:
        old = self.states.get(bucket.name)
        known = 0 if old is None else old.generations_gone
        if old is not None:
            bucket = old.merge(bucket)
            self.by_incarnation.pop(old.incarnation, None)
        self.states[bucket.name] = bucket
        if bucket.exists:
            self.by_incarnation[bucket.incarnation] = bucket
        for generation in range(known + 1, bucket.generations_gone + 1):
            self.gone[Bucket(bucket.name, generation).incarnation] = bucket.name
        self._digest = ""
