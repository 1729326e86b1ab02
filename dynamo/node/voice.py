"""What a node says of itself: who speaks, in every message, and who it is, to whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs
from twisted.internet.defer import Deferred

from dynamo.config import Config
from dynamo.core.members import Member, Role
from dynamo.core.refilling import Progress, Refilling
from dynamo.core.sightings import Origin, Sightings
from dynamo.core.transfers import Moved
from dynamo.log import make_logger
from dynamo.storage import ledger
from dynamo.storage.agreed import LayoutBook
from dynamo.storage.copies import Copies
from dynamo.storage.facts import BucketTable, Identity
from dynamo.wire.hello import Hello

log = make_logger()


@attrs.define(eq=False)
class Voice:
    """See the module. `directory` tells this data directory from others, `boot` this start.

    `used()` is the version of the layout that all that is under way here goes by. `seconds()` is
    monotonic; `moving()` is how far it is with what it will own,
    `describe` tells by gossip. `rng` draws hands.
    """

    config: Config
    identity: Identity
    book: LayoutBook
    table: BucketTable
    copies: Copies
    refilling: Refilling
    sightings: Sightings
    directory: int
    boot: str
    seconds: Callable[[], float]
    rng: Random
    used: Callable[[], int] = lambda: 0
    moving: Callable[[], Moved] = Moved
    describe: Callable[..., None] = lambda **changes: None
    _messages: int = 0
    _loaded: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._loaded = self.identity.incarnation

    def member(self) -> Member:
        """What gossip is to say of it at first."""
        config, layout = self.config, self.book.layout
        serves = self.identity.actor and layout.in_ring(config.node.name)
        return Member(
            name=config.node.name,
            identity=self.directory,
            address=str(config.advertise.cluster),
            incarnation=self.identity.incarnation,
            role=Role.ACTIVE if serves else Role.JOINING,
            api=str(config.advertise.api),
            zone=config.node.zone,
            weight=config.node.weight,
            layout=layout.version,
        )

    def origin(self) -> Origin:
        """Who speaks in the next message."""
        self._messages += 1
        return Origin(
            self.config.node.name,
            self.directory,
            self.boot,
            self.copies.engine.number(),
            self.identity.incarnation,
            self._messages,
            self.used(),
        )

    def fence(self) -> Origin | None:
        """The next message's; None until this start has claimed an incarnation of its own."""
        return self.origin() if self.identity.incarnation > self._loaded else None

    def sign_anew(self, sure: bool) -> Deferred[None]:
        """Signs with a hand nobody has seen, durably; `sure`: the disk went back, and with it what
        this node promised others who propose a layout."""
        hand = self.rng.randrange(*ledger.NEW_HANDS)
        if sure:
            self.book.forget().addErrback(lambda f: log.error("Not stored: {f}", f=f.value))
        # The incarnation went back with the disk: what is sent under it looks long given up.
        begun = self.identity.begin_hand(hand)
        return begun.addCallback(lambda _: self.describe(meta=b"%d" % hand))

    def hello(self, asker: str = "") -> Hello:
        """Who this node is. To an `asker` it says what it saw of that member, and not what it saw
        of all: every member asks every other, and in a cluster of many that is a lot."""
        config, identity = self.config, self.identity
        actors, seen = identity.actors, self.sightings.by_name
        about = [asker] if asker else sorted({*actors, *seen})
        objects, size = self.copies.totals()
        return Hello(
            name=config.node.name,
            cluster_name=config.cluster.name,
            partitions=config.cluster.partitions,
            zone=config.node.zone,
            weight=config.node.weight,
            api=str(config.advertise.api),
            cluster=str(config.advertise.cluster),
            actor=identity.actor,
            boot=self.boot,
            joined=bool(identity.actor),
            actors={name: actors[name] for name in about if name in actors},
            hints=dict(self.copies.hints.counts),
            buckets=self.table.digest(),
            objects=objects,
            bytes=size,
            seen={name: self.sightings.told(name) for name in about if name in seen},
            refill=self._refill(),
            layout=self.book.layout.version,
            birth=self.book.layout.birth,
            moved=self.moving(),
        )

    def _refill(self) -> Progress | None:
        if not self.identity.refilling:
            return None
        return self.refilling.progress(self.seconds())
