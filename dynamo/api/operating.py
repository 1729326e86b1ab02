"""The face for whoever runs the cluster: health, metrics, members, where a key lies.

GET /healthz                    the process is up
GET /readyz                     it has joined and can meet its default quorum; else 503 and why
GET /metrics                    Prometheus text
GET /v1/cluster                 every known member, and the change of the ring that is under way
GET /v1/ring/{bucket}/{key}     partition, preference list, and what each replica holds now
GET /v1/background              each background task, and the share of time they are granted
POST /v1/background/{task}/pause    steps a task no more until it is resumed, or the node restarts
POST /v1/background/{task}/resume
GET /v1/repair                  when this node's partitions were last equal to their other owners'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from dynamo.api.changes import change_told
from dynamo.api.errors import Answer, NoSuchTask, json_answer
from dynamo.api.metrics import Metrics
from dynamo.api.objects import timestamp
from dynamo.api.request import Request
from dynamo.api.site import Face
from dynamo.background.runner import Runner
from dynamo.cluster.membership import Membership
from dynamo.coordinator.door import Door
from dynamo.core.clock import wall_ms_of
from dynamo.core.names import check_bucket, check_key, decode_path
from dynamo.core.record import Record
from dynamo.errors import DynamoError
from dynamo.ports import Changing, Underway

TEXT = [(b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8")]


@attrs.define(eq=False)
class OperatingFace:
    """See the module. `why_not_ready()` is one sentence, "" when the node is ready; `repair()` is
    `dynamo.background.antientropy.AntiEntropy.partitions`; `changing` and `underway` are as in
    `dynamo.api.changes`."""

    cluster_name: str
    view: Membership
    door: Door
    metrics: Metrics
    why_not_ready: Callable[[], str]
    runner: Runner
    repair: Callable[[], list[dict[str, Any]]]
    changing: Changing | None = None
    underway: Callable[[], Underway] = Underway

    app = Face()

    @app.route("/healthz", methods=["GET"])
    def healthz(self, request: Request) -> Answer:
        return json_answer({"status": "up", "node": self.view.name})

    @app.route("/readyz", methods=["GET"])
    def readyz(self, request: Request) -> Answer:
        why = self.why_not_ready()
        if why:
            told = {"status": "not ready", "node": self.view.name, "detail": why}
            return json_answer(told, 503)
        return json_answer({"status": "ready", "node": self.view.name})

    @app.route("/metrics", methods=["GET"])
    def scrape(self, request: Request) -> Answer:
        return Answer(200, TEXT, self.metrics.text())

    @app.route("/v1/cluster", methods=["GET"])
    async def cluster(self, request: Request) -> Answer:
        await self.view.refresh()
        ring = self.view.ring
        placed = {m.name for m in ring.members}
        members = []
        for member in self.view.members():
            told = attrs.asdict(member)
            told["partitions"] = ring.partitions_owned(member.name) if member.name in placed else 0
            members.append(told)
        return json_answer(
            {
                "cluster": self.cluster_name,
                "node": self.view.name,
                "ring_version": ring.version,
                "members": members,
                "change": change_told(self.view, self.changing, self.underway()),
                "gossip": self._gossip(),
            }
        )

    def _gossip(self) -> dict[str, Any]:
        """What this node's gossip does: for whoever wonders why somebody is held dead."""
        view, gossip = self.view, self.view.gossip
        return {
            "health_score": view.gossip.health,
            "suspected": view.suspected(),
            "packets": {f"{way} {kind}": n for (way, kind), n in sorted(gossip.packets.items())},
            "bytes": dict(gossip.bytes),
            "dropped": dict(gossip.dropped),
            "counts": view.gossip.counts,
            "events": [{**attrs.asdict(event), "at": _time(event.at)} for event in view.events],
        }

    @app.route("/v1/repair", methods=["GET"])
    def compared(self, request: Request) -> Answer:
        told = [{**p, "last_equal": _time(p["last_equal"])} for p in self.repair()]
        return json_answer({"partitions": told})

    @app.route("/v1/ring/<bucket>/<rest:key>", methods=["GET"])
    async def where(self, request: Request, bucket: str, key: str) -> Answer:
        name = check_bucket(decode_path(bucket.encode()))
        file = check_key(decode_path(key.encode()))
        partition, preference, replies = await self.door.inspect(name, file)
        liveness = {m.name: m.liveness for m in self.view.members()}
        replicas = [
            {"name": node, "liveness": liveness.get(node, "dead"), **_held(reply)}
            for node, reply in replies.items()
        ]
        return json_answer(
            {
                "partition": partition,
                "preference": list(preference.owners),
                "stand_ins": [t.name for t in preference.targets if t.stand_in_for],
                "replicas": replicas,
            }
        )

    @app.route("/v1/background", methods=["GET"])
    def background(self, request: Request) -> Answer:
        standings = [self.runner.standing(name) for name in self.runner.names]
        tasks = [attrs.asdict(standing) for standing in standings]
        return json_answer({"tasks": tasks, "admission": attrs.asdict(self.runner.admitted())})

    @app.route("/v1/background/<task>/pause", methods=["POST"])
    def pause(self, request: Request, task: str) -> Answer:
        name = self._task(task)
        self.runner.pause(name)
        return json_answer(attrs.asdict(self.runner.standing(name)))

    @app.route("/v1/background/<task>/resume", methods=["POST"])
    def resume(self, request: Request, task: str) -> Answer:
        name = self._task(task)
        self.runner.resume(name)
        return json_answer(attrs.asdict(self.runner.standing(name)))

    def _task(self, encoded: str) -> str:
        name = decode_path(encoded.encode())
        if name not in self.runner.names:
            raise NoSuchTask(name, self.runner.names)
        return name


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(int(seconds * 1000))


def _held(reply: Any) -> dict[str, Any]:
    """One replica's part of the divergence view."""
    if isinstance(reply, Exception):
        why = str(reply) if isinstance(reply, DynamoError) else "gave no answer in time"
        return {"error": why, "versions": [], "context": {}, "hint_for": [], "last_exchange": None}
    record: Record = reply.owned.merge(reply.held) if reply.held.known() else reply.owned
    return {
        "versions": [
            {
                "id": version.id,
                "clock": {version.actor: version.counter},
                "modified": timestamp(wall_ms_of(version.stamp)),
                "size": version.size,
                "etag": version.etag,
            }
            for version in record.live()
        ],
        "context": dict(record.context),
        "hint_for": list(reply.hint_for),
        "last_exchange": _time(reply.exchanged),
    }
