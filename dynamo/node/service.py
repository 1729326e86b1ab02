"""A node's life: its parts are built in the order of the data, and stopped the other way round.

Disk, copies, members, coordinator, background, faces; then no new requests, those under way
finish, and background, network and disk end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError

from dynamo.api.metrics import Metrics, Reading
from dynamo.api.peer import PeerFace
from dynamo.api.site import Site, site
from dynamo.api.vitals import moving_readings, readings
from dynamo.cluster.changes import Changes
from dynamo.cluster.membership import Membership
from dynamo.cluster.rollback import Rollback
from dynamo.config import Address, Config
from dynamo.coordinator.terms import Defaults
from dynamo.core.clock import HybridClock
from dynamo.core.grace import Grace
from dynamo.core.members import IDENTITY_MAX, Role
from dynamo.core.refilling import Refilling
from dynamo.core.sightings import Origin
from dynamo.core.swim import Swim
from dynamo.errors import DynamoError
from dynamo.log import make_logger
from dynamo.node.coordination import build_door
from dynamo.node.faces import build_faces, underway
from dynamo.node.voice import Voice
from dynamo.node.work import Work
from dynamo.replica.graves import GraveKeeper
from dynamo.replica.lane import Lane
from dynamo.replica.local import LocalReplica
from dynamo.replica.pool import peer_client
from dynamo.replica.remote import RemoteReplica
from dynamo.replica.wholeness import Wholeness
from dynamo.storage.agreed import LayoutBook
from dynamo.storage.committer import Committer
from dynamo.storage.copies import Copies
from dynamo.storage.disk import LocalDisk, OpenDisk
from dynamo.storage.facts import BucketTable, Identity
from dynamo.storage.hints import HintBook
from dynamo.storage.places import PlaceBook
from dynamo.storage.threads import Run, run_here
from dynamo.storage.trees import Trees
from dynamo.wire.datagrams import NONCE_BYTES, Codec
from dynamo.wire.signing import Signer

PEER_TIMEOUT_S = 1.0
GOODBYE_S = 5.0
PEER_GRACE_S = 1.0
BACKLOG = 1024
"""Connections that may wait to be accepted; one without room is tried again a second later."""
BODY_SLACK = 1024 * 1024
"""Bytes a form may have beyond its file: its other fields and the boundaries."""

log = make_logger()


class Node(Service):
    """One member of a cluster."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        rng: random.Random,
        wall_clock: Callable[[], float],
        open_disk: OpenDisk | None = None,
        aside: Run = run_here,
    ) -> None:
        self.config = config
        self._aside = aside
        self._reactor = reactor
        self._rng = rng
        self._wall_clock = wall_clock
        self._open_disk = open_disk or partial(LocalDisk, config.node.data_dir, reactor)
        self._refilling = Refilling(config.node.name)
        self._ports: list[Any] = []
        self._filled: set[Lane] = set()
        self.on_left: Callable[[], object] = lambda: None
        """Called when this node has left the ring for good, and may be stopped."""

    def startService(self) -> None:
        super().startService()
        try:
            self._build_storage()
            self._build_cluster()
            self._build_coordinator()
            self._build_background()
            self._build_faces()
            self._listen(self.config.listen.cluster, self._peer_site)
            seeds = [str(seed) for seed in self.config.cluster.seeds]
            self._gossip_port = self._reactor.listenUDP(
                self.config.listen.cluster.port,
                self.view.gossip,
                interface=self.config.listen.cluster.host,
                maxPacketSize=65536,
            )
            self.view.start(self.local, seeds)
            self._listen(self.config.listen.api, self._api_site)
        except (DynamoError, CannotListenError) as error:
            log.critical("{node} cannot start: {why}", node=self.config.node.name, why=error)
            raise SystemExit(f"{self.config.node.name} cannot start: {error}") from None
        self.work.start()
        log.info(
            "{node} serves clients on {api}, members on {cluster}; data in {where}",
            node=self.config.node.name,
            api=self.config.listen.api,
            cluster=self.config.listen.cluster,
            where=self.config.node.data_dir,
        )

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        peer_port, api_port = self._ports
        await _maybe(api_port.stopListening())
        goodbye = self.view.leave()
        await self._finish(self._api_site, self.config.limits.shutdown_grace)
        await self._within(goodbye, GOODBYE_S)
        await _maybe(peer_port.stopListening())
        await self._finish(self._peer_site, PEER_GRACE_S)
        self.work.runner.stop()
        self.view.stop()
        await _maybe(self._gossip_port.stopListening())
        await self.committer.close()
        await self._pool.closeCachedConnections()
        await self._disk.stop()
        log.info("{node} has stopped", node=self.config.node.name)

    async def _finish(self, site: Site, seconds: float) -> None:
        """Lets a face answer what is in flight, for so long; then breaks off."""
        await self._within(site.finish(), seconds)
        site.abort()

    async def _within(self, done: Deferred[None], seconds: float) -> None:
        await done.addTimeout(seconds, self._reactor, lambda result, seconds: None)

    # The parts, in the order of the data.

    def _build_storage(self) -> None:
        self._disk = self._open_disk()
        self.engine, self.chunks = self._disk.engine, self._disk.chunks
        self.metrics = Metrics(self._readings)
        self.committer = Committer(
            self.engine,
            self._disk.run,
            on_commit=self.metrics.commit,
            call_soon=partial(self._reactor.callLater, 0),
            call_later=self._reactor.callLater,
        )
        self.hybrid = HybridClock()
        self.copies = Copies(
            engine=self.engine,
            committer=self.committer,
            chunks=self.chunks,
            alone=self._disk.run,
            observe=self._observe,
            hints=HintBook(self.engine.view()),
            places=PlaceBook(self.engine.view()),
        )
        self.copies.seen.load(self.engine.view())
        self.identity = Identity(self.engine, self.committer)
        self.identity.load()
        self.book = LayoutBook(self.engine, self.committer, self.identity)
        self.book.load()
        self.table = BucketTable(self.engine, self.committer)
        self.table.load()
        copies_of = partial(self.table.copies_of, default=self.config.replication.n)
        self.trees = Trees(self.config.cluster.partitions, copies_of)
        self.copies.moved, self.copies.gone = self.trees.apply, self.table.gone
        swept = self.copies.sweep()
        if swept:
            log.info("Swept {n} leftovers of unfinished writes", n=swept)

    def _build_cluster(self) -> None:
        config = self.config
        _check_directory(config, self.identity, self.book)
        self.signer = Signer(config.cluster.secrets)
        self._http, self._pool = peer_client(self._reactor)
        self.voice = Voice(
            config,
            self.identity,
            self.book,
            self.table,
            self.copies,
            self._refilling,
            self.copies.seen.sightings,
            self.identity.number or self._rng.randrange(1, IDENTITY_MAX),
            self._rng.randbytes(8).hex(),
            self._reactor.seconds,
            self._rng,
        )
        grace = Grace()
        self.view = self._build_view(grace)
        self.voice.used = lambda: self.view.layouts.used
        self.voice.describe = self.view.gossip.describe
        self.view.on_left = self._left
        self.view.rollback = Rollback(self.voice.origin(), self._reactor, self.voice.sign_anew)
        self.local = LocalReplica(config.node.name, self.copies, self.chunks, self.table, self.view)
        self.graves = GraveKeeper(
            self.copies, self.view, self._actor, self._wall_ms, self.voice.fence, grace
        )
        self.local.handlers.update(self.graves.handlers())
        self.local.handlers.update(self.view.layouts.handlers())
        self.whole = Wholeness(self.view, self.trees, self.identity, self._refilling)
        self.local.awaits, self.local.awaits_listed = self.whole.awaits, self.whole.awaits_listed
        self.changing = Changes(
            self.view.layouts,
            lambda: {m.name: m.liveness for m in self.view.members()},
            lambda: self.table.copies_wanted(config.replication.n),
        )

    def _build_view(self, grace: Grace) -> Membership:
        cluster, settings = self.config.cluster, self.config.gossip.settings()
        swim = Swim(
            settings,
            self.voice.member(),
            cluster.name,
            random.Random(self._rng.randbytes(16)),
            remembered=self.identity.remembered,
        )
        nonce = partial(self._rng.randbytes, NONCE_BYTES)
        return Membership(
            clock=self._reactor,
            wall_clock=self._wall_clock,
            identity=self.identity,
            buckets=self.table,
            book=self.book,
            about_me=self.voice.hello,
            remote=self._remote,
            swim=swim,
            codec=Codec(cluster.name, cluster.secrets, nonce),
            copies=self.config.replication.n,
            timeout=max(settings.probe_deadline, PEER_TIMEOUT_S),
            grace=grace,
            rng=random.Random(self._rng.randbytes(16)),
        )

    def _build_coordinator(self) -> None:
        config = self.config
        rep, timeout = config.replication, config.limits.request_timeout
        self.defaults = Defaults(n=rep.n, r=rep.r, w=rep.w, quorum=rep.quorum, timeout=timeout)
        self.door = build_door(
            config=config,
            defaults=self.defaults,
            view=self.view,
            copies=self.copies,
            table=self.table,
            local=self.local,
            reactor=self._reactor,
            rng=random.Random(self._rng.randbytes(16)),
            hybrid=self.hybrid,
            wall_ms=self._wall_ms,
            actor=self._actor,
            grace=self.graves.grace,
            counted=self.metrics.operation,
            whole=self.whole,
        )

    def _build_background(self) -> None:
        self.work = Work(
            config=self.config,
            view=self.view,
            copies=self.copies,
            table=self.table,
            local=self.local,
            reactor=self._reactor,
            actor=self._actor,
            metrics=self.metrics,
            graves=self.graves,
            trees=self.trees,
            identity=self.identity,
            refilling=self._refilling,
            whole=self.whole,
            rng=random.Random(self._rng.randbytes(16)),
            wall_clock=self._wall_clock,
            changing=self.changing,
            filled=self._filled,
        )
        self.voice.moving = self.work.moving

    def _build_faces(self) -> None:
        config = self.config
        peer = PeerFace(
            self.local,
            self.signer,
            self._wall_clock,
            self.voice.hello,
            self.view.answer_exchange,
            self.voice.origin,
            self._heard,
            self.graves.fences,
            lambda: (self.view.layout.version, self.view.layouts.floor),
        )
        self._api_site = site(
            *build_faces(
                config=config,
                defaults=self.defaults,
                view=self.view,
                door=self.door,
                metrics=self.metrics,
                work=self.work,
                aside=self._aside,
                changing=self.changing,
                underway=lambda: underway(self.voice.moving(), self.view.peers.hellos()),
            ),
            reactor=self._reactor,
            body_limit=config.limits.max_object_bytes + BODY_SLACK,
            observe=self.metrics.request,
            foreground=self.work.admission.waited,
        )
        self._peer_site = site(
            peer.app,
            observe=self.metrics.request,
            foreground=self.work.admission.waited,
            reactor=self._reactor,
            body_limit=64 * 1024 * 1024,
        )

    # What the parts ask of the whole.

    def _listen(self, address: Address, factory: Any) -> None:
        port = self._reactor.listenTCP(
            address.port, factory, backlog=BACKLOG, interface=address.host
        )
        self._ports.append(port)

    def _remote(self, name: str, address: str) -> RemoteReplica:
        return RemoteReplica(
            name,
            address,
            http=self._http,
            clock=self._reactor,
            wall_clock=self._wall_clock,
            signer=self.signer,
            timeout=self.config.limits.request_timeout,
            evidence=lambda who, ok: self.view.evidence(who, ok),
            origin=self.voice.origin,
            heard=self._heard,
            filled=self._filled,
        )

    def _readings(self) -> Iterable[Reading]:
        work = self.work
        tasks = (work.runner, work.upkeep, work.antientropy.tally, self.graves)
        yield from readings(self.copies, self.engine, self.chunks, self.view, *tasks)
        yield from moving_readings(work.refill, work.transfer, work.clearing)

    def _wall_ms(self) -> int:
        return int(self._wall_clock() * 1000)

    def _observe(self, stamp: int) -> None:
        if stamp > self.hybrid.last:
            self.hybrid.observe(self._wall_ms(), stamp)

    def _actor(self) -> str:
        return self.identity.actor

    def _heard(self, origin: Origin) -> None:
        if origin.name in self.view.peers.by_name:
            self.voice.sightings.note(origin)
            self.view.layouts.heard(origin.name, origin.layout)

    def _left(self) -> None:
        """The node is not in the ring any more: it says so and serves nothing."""
        self.view.gossip.describe(role=Role.LEAVING)
        self.on_left()


def _check_directory(config: Config, identity: Identity, book: LayoutBook) -> None:
    """Raises `DynamoError` for a data directory that this node must not go on with."""
    mine = f"{config.cluster.name}/{config.cluster.partitions}"
    if identity.cluster not in ("", mine):
        raise DynamoError(
            f"{config.node.data_dir} belongs to cluster/partitions {identity.cluster}, "
            f"the configuration says {mine}; put it back or use an empty data_dir."
        )
    if book.out:
        raise DynamoError(
            f"{config.node.data_dir} is of a member that left the ring or was removed, and may "
            "hold what was deleted since; with an empty data_dir this node can join anew."
        )


async def _maybe(result: Any) -> None:
    if result is not None:
        await result
