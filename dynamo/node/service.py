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

from dynamo.api.documented import DocumentedFace
from dynamo.api.metrics import Metrics, Reading
from dynamo.api.operating import OperatingFace
from dynamo.api.peer import PeerFace
from dynamo.api.resource import ResourceFace
from dynamo.api.site import Site, site
from dynamo.api.vitals import readings, refill_readings, status, why_not_ready
from dynamo.cluster.membership import Membership
from dynamo.cluster.rollback import Rollback
from dynamo.config import Address, Config
from dynamo.coordinator.terms import Defaults
from dynamo.core.clock import HybridClock
from dynamo.core.grace import Grace
from dynamo.core.members import IDENTITY_MAX, Member, Role
from dynamo.core.refilling import Progress, Refilling
from dynamo.core.sightings import Origin, Sightings
from dynamo.core.swim import Swim
from dynamo.errors import DynamoError
from dynamo.log import make_logger
from dynamo.node.coordination import build_door
from dynamo.node.work import Work
from dynamo.replica.graves import GraveKeeper
from dynamo.replica.local import LocalReplica
from dynamo.replica.pool import peer_client
from dynamo.replica.remote import RemoteReplica
from dynamo.replica.wholeness import Wholeness
from dynamo.storage.committer import Committer
from dynamo.storage.copies import Copies
from dynamo.storage.disk import LocalDisk, OpenDisk
from dynamo.storage.facts import BucketTable, Identity
from dynamo.storage.hints import HintBook
from dynamo.storage.places import PlaceBook
from dynamo.storage.trees import Trees
from dynamo.wire.datagrams import NONCE_BYTES, Codec
from dynamo.wire.hello import Hello
from dynamo.wire.signing import Signer

PEER_TIMEOUT_S = 1.0
GOODBYE_S = 5.0
PEER_GRACE_S = 1.0
BACKLOG = 1024
"""Connections that may wait to be accepted; one without room is tried again a second later."""
NEW_HANDS = (1 << 16, 1 << 31)
"""Of these a node draws its hand when it does not know which it has used; counted up otherwise."""
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
    ) -> None:
        self.config = config
        self._reactor = reactor
        self._rng = rng
        self._wall_clock = wall_clock
        self._open_disk = open_disk or partial(LocalDisk, config.node.data_dir, reactor)
        self._boot = rng.randbytes(8).hex()
        self._sightings = Sightings()
        self._messages = 0
        self._refilling = Refilling(config.node.name)
        self._ports: list[Any] = []

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
        self.identity = Identity(self.engine, self.committer)
        self.identity.load()
        self._loaded_incarnation = self.identity.incarnation
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
        mine = f"{config.cluster.name}/{config.cluster.partitions}"
        if self.identity.cluster not in ("", mine):
            raise DynamoError(
                f"{config.node.data_dir} belongs to cluster/partitions {self.identity.cluster}, "
                f"the configuration says {mine}; put it back or use an empty data_dir."
            )
        secrets = config.cluster.secrets
        self.signer = Signer(secrets)
        self._http, self._pool = peer_client(self._reactor)
        settings = config.gossip.settings()
        self._directory = self.identity.number or self._rng.randrange(1, IDENTITY_MAX)
        me = Member(
            name=config.node.name,
            identity=self._directory,
            address=str(config.advertise.cluster),
            incarnation=self.identity.incarnation,
            role=Role.ACTIVE if self.identity.actor else Role.JOINING,
            api=str(config.advertise.api),
            zone=config.node.zone,
            weight=config.node.weight,
        )
        self.view = Membership(
            clock=self._reactor,
            wall_clock=self._wall_clock,
            identity=self.identity,
            buckets=self.table,
            about_me=self._hello,
            remote=self._remote,
            swim=Swim(
                settings,
                me,
                config.cluster.name,
                random.Random(self._rng.randbytes(16)),
                remembered=self.identity.remembered,
            ),
            codec=Codec(config.cluster.name, secrets, partial(self._rng.randbytes, NONCE_BYTES)),
            copies=config.replication.n,
            timeout=max(settings.probe_deadline, PEER_TIMEOUT_S),
        )
        self.view.rollback = Rollback(self._origin(), self._reactor, self._sign_anew)
        self.local = LocalReplica(config.node.name, self.copies, self.chunks, self.table, self.view)
        self.graves = GraveKeeper(
            self.copies, self.view, self._actor, self._wall_ms, self._fence, Grace()
        )
        self.local.handlers.update(self.graves.handlers())
        self.whole = Wholeness(self.view, self.trees, self.identity, self._refilling)
        self.local.awaits, self.local.awaits_listed = self.whole.awaits, self.whole.awaits_listed

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
        )

    def _build_faces(self) -> None:
        config = self.config
        operating = OperatingFace(
            cluster_name=config.cluster.name,
            view=self.view,
            door=self.door,
            metrics=self.metrics,
            why_not_ready=lambda: why_not_ready(self.view, self.defaults),
            runner=self.work.runner,
            repair=self.work.antientropy.partitions,
        )
        peer = PeerFace(
            self.local,
            self.signer,
            self._wall_clock,
            self._hello,
            self.view.answer_exchange,
            self._origin,
            self._heard,
            self.graves.fences,
        )
        self._api_site = site(
            DocumentedFace(self.door, partial(status, self.view)).app,
            ResourceFace(self.door).app,
            operating.app,
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
            origin=self._origin,
            heard=self._heard,
        )

    def _readings(self) -> Iterable[Reading]:
        work = self.work
        tasks = (work.runner, work.upkeep, work.antientropy.tally, self.graves)
        yield from readings(self.copies, self.engine, self.chunks, self.view, *tasks)
        yield from refill_readings(self._refilling, self.identity.refilling)

    def _wall_ms(self) -> int:
        return int(self._wall_clock() * 1000)

    def _observe(self, stamp: int) -> None:
        if stamp > self.hybrid.last:
            self.hybrid.observe(self._wall_ms(), stamp)

    def _actor(self) -> str:
        return self.identity.actor

    def _origin(self) -> Origin:
        name = self.config.node.name
        self._messages += 1
        incarnation, commit = self.identity.incarnation, self.engine.number()
        return Origin(name, self._directory, self._boot, commit, incarnation, self._messages)

    def _fence(self) -> Origin | None:
        """None until this start has claimed an incarnation of its own."""
        own = self.identity.incarnation > self._loaded_incarnation
        return self._origin() if own else None

    def _heard(self, origin: Origin) -> None:
        if origin.name in self.view.peers.by_name:
            self._sightings.note(origin)

    def _sign_anew(self) -> Deferred[None]:
        return self.identity.begin_hand(self._rng.randrange(*NEW_HANDS))

    def _refill_told(self) -> Progress | None:
        if not self.identity.refilling:
            return None
        return self._refilling.progress(self._reactor.seconds())

    def _hello(self) -> Hello:
        config = self.config
        objects, size = self.copies.totals()
        return Hello(
            name=config.node.name,
            cluster_name=config.cluster.name,
            partitions=config.cluster.partitions,
            zone=config.node.zone,
            weight=config.node.weight,
            api=str(config.advertise.api),
            cluster=str(config.advertise.cluster),
            actor=self.identity.actor,
            boot=self._boot,
            joined=bool(self.identity.actor),
            actors=dict(self.identity.actors),
            hints=dict(self.copies.hints.counts),
            buckets=self.table.digest(),
            objects=objects,
            bytes=size,
            seen=self._sightings.told(),
            refill=self._refill_told(),
        )


async def _maybe(result: Any) -> None:
    if result is not None:
        await result
