"""A seeded story of clients and faults on an in-process cluster, and what must hold at its end.

Every write has a body of its own and carries the context of a read (or none, as a create), so
that it is known which writes it may replace: those its client had been shown, and no others.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from dynamo.coordinator.requests import Options, Upload
from dynamo.errors import DynamoError
from tests.support.cluster import Body, TestCluster, TestNode

KEYS = ("alpha", "beta", "gamma")


class Story:
    """One run. `submitted` and `acked` map each write to (key, writes it may replace); `gone`
    holds, by key, what acknowledged writes and deletes have replaced for good."""

    def __init__(self, seed: int, size: int = 5, *, crashes: bool = False, big: bool = False):
        self.seed, self.crashes, self.big = seed, crashes, big
        self.rng = Random(f"{seed}:story")
        self.cluster = TestCluster(size, seed=seed)
        self.submitted: dict[bytes, tuple[str, frozenset[bytes]]] = {}
        self.acked: dict[bytes, tuple[str, frozenset[bytes]]] = {}
        self.gone: dict[str, set[bytes]] = {key: set() for key in KEYS}
        self.bodies: dict[bytes, bytes] = {}
        self.faults: list[str] = []
        self._under_way: list[Deferred[None]] = []
        self._handing: dict[str, tuple[TestNode, Deferred[Any]]] = {}

    def tell(self, steps: int) -> None:
        """Clients work while links go down and up; in the end all are up."""
        for _ in range(steps):
            for _ in range(self.rng.randrange(3)):
                self._begin()
            if self.rng.random() < 0.3:
                self._fault()
            if self.rng.random() < 0.3:
                self._hand_off(self.cluster.nodes[self.rng.choice(self.cluster.names)])
            self.cluster.pass_time(self.rng.choice([0.001, 0.01, 0.1, 0.4]))
        self.heal()

    def _hand_off(self, node: TestNode) -> None:
        """A step of handoff amid the work, one at a time for each node as its runner sees to."""
        before = self._handing.get(node.name)
        if before is None or before[0] is not node or before[1].called:
            step = Deferred.fromCoroutine(node.handoff.step())
            step.addErrback(lambda f: f.trap(DynamoError))
            self._handing[node.name] = (node, step)

    def heal(self) -> None:
        cluster = self.cluster
        for here in cluster.names:
            for there in cluster.names:
                link = cluster.link(here, there)
                link.down = link.hang = link.deaf = False
                link.drop = link.jitter = 0.0
            cluster.heal(here)
        cluster.pass_time(25)
        self._under_way.clear()

    def _begin(self) -> None:
        rng, node = self.rng, self.cluster.nodes[self.rng.choice(self.cluster.names)]
        key = rng.choice(KEYS)
        kind = rng.choice(["create", "update", "update", "delete", "read"])
        work = self._client(node.door, key, kind, b"%d:%d" % (self.seed, len(self.submitted)))
        done = Deferred.fromCoroutine(work)
        done.addErrback(lambda f: f.trap(DynamoError))
        self._under_way.append(done)

    async def _client(self, door: Any, key: str, kind: str, write: bytes) -> None:
        context: Any = {}
        seen: frozenset[bytes] = frozenset()
        done = frozenset(self.acked)
        if kind != "create":
            found = await door.get("b", key, options=Options())
            seen = frozenset(v.meta["id"].encode() for v in found.record.live())
            self._check_phantoms(key, seen)
            context = found.record.context
        if kind == "read":
            return
        write += b":" + kind.encode() + b":%d" % len(self.submitted)
        self.submitted[write] = (key, seen)
        if kind == "delete":
            await door.delete("b", key, context=context, options=Options())
        else:
            body = write * (20_000 if self.big and self.rng.random() < 0.3 else 1)
            self.bodies[write] = body
            upload = Upload(body=Body(body), meta={"id": write.decode()})
            await door.put("b", key, upload, context=context, options=Options())
        self.acked[write] = self.submitted[write]
        # What was still being written when it was read may yet arrive through a second coordinator.
        self.gone[key] |= seen & done

    def _fault(self) -> None:
        rng, cluster = self.rng, self.cluster
        name = rng.choice(cluster.names)
        kind = rng.choice(["cut", "cut", "hang", "deaf", "lossy", "pair", "heal", "heal", "crash"])
        if kind == "crash" and not self.crashes:
            kind = "heal"
        self.faults.append(f"{cluster.clock.seconds():.3f} {kind} {name}")
        if kind == "cut":
            cluster.cut(name, known=rng.random() < 0.5)
        elif kind in ("hang", "deaf"):
            for link in cluster.around(name):
                setattr(link, kind, True)
        elif kind == "lossy":
            for link in cluster.around(name):
                link.drop, link.jitter = 0.2, 0.2
        elif kind == "pair":
            other = rng.choice([n for n in cluster.names if n != name])
            cluster.link(name, other).down = cluster.link(other, name).down = True
            cluster.told(name, other, rng.choice(["alive", "suspect", "dead"]))
        elif kind == "crash":
            cluster.restart(name)
        else:
            for link in cluster.around(name):
                link.drop = link.jitter = 0.0
            cluster.heal(name)

    # What must hold.

    def _check_phantoms(self, key: str, shown: frozenset[bytes]) -> None:
        """I2: whatever is read was once submitted for that key."""
        for write in shown:
            assert self.submitted.get(write, ("",))[0] == key, f"phantom {write!r}, {self}"

    def check_readable(self) -> None:
        """I1 before hints are drained: all nodes can be reached, so all that was acknowledged and
        not replaced is in what every node reads."""
        for name in self.cluster.names:
            for key in KEYS:
                shown = self.shown(name, key)
                lost = self.owed(key) - shown
                assert not lost, f"{name} does not show {lost} of {key}, {self}"

    def check_drained(self) -> None:
        """I1, I2, I3, I11 at rest, from every node and at every R."""
        for name in self.cluster.names:
            for key in KEYS:
                for r in (1, 2, 3):
                    shown = self.shown(name, key, r=r)
                    back = shown & self.gone[key]
                    assert not self.owed(key) - shown, f"{name} lost some of {key}, {self}"
                    assert not back, f"{back} of {key} came back at {name}, {self}"

    def check_converged(self) -> None:
        """I6: owners are equal to the byte, and nobody keeps anything for others."""
        cluster = self.cluster
        assert cluster.hints() == {}, f"hints are left, {self}"
        for key in KEYS:
            owned = [cluster.nodes[n].owned(key) for n in cluster.ranking(key)[:3]]
            assert owned[0] == owned[1] == owned[2], f"owners of {key} differ, {self}"
            for name in cluster.ranking(key)[3:]:
                assert not cluster.nodes[name].held(key).known(), f"{name} kept {key}, {self}"
        for name in cluster.names:
            node = cluster.nodes[name]
            named = {digest for key in KEYS for digest in node.owned(key).chunk_digests()}
            assert named <= set(node.chunks.stored), f"{name} lacks chunks, {self}"
            # What a failed upload left at a node that was cut off goes at its next start.
            assert set(cluster.restart(name).chunks.stored) == named, f"chunks of {name}, {self}"

    def shown(self, name: str, key: str, **options: Any) -> frozenset[bytes]:
        versions = self.cluster.live(name, key, **options)
        ids = [v.meta["id"].encode() for v in versions]
        assert len(set(ids)) == len(ids), f"one write is shown twice, {self}"
        self._check_phantoms(key, frozenset(ids))
        for number, write in enumerate(ids):
            if options.get("r") == 1 and self.big:
                body = self.cluster.stream(name, key, number, **options)
                assert body == self.bodies[write], f"half a write, {self}"
        return frozenset(ids)

    def owed(self, key: str) -> set[bytes]:
        """Acknowledged versions that no submitted write had been shown."""
        seen = {w for at, shown in self.submitted.values() if at == key for w in shown}
        made = {w for w, (at, _) in self.acked.items() if at == key and w in self.bodies}
        return made - seen

    def __str__(self) -> str:
        return f"seed {self.seed}; " + "; ".join(self.faults)
