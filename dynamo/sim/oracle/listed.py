"""What lists when all is quiet is what GETs, and every node counts its keys right."""

from __future__ import annotations

import attrs
import msgspec
from twisted.internet.defer import Deferred

from dynamo.sim import wording
from dynamo.sim.client import Answer, request_bytes
from dynamo.sim.history import Place
from dynamo.sim.oracle.live import name
from dynamo.sim.oracle.rest import RestChecks
from dynamo.sim.workload import BUCKETS

WHOLE, PAGE, PAGES_MAX = 1000, 3, 50
"""How many keys are asked for at once, and how many pages a listing has at most."""


@attrs.define(eq=False)
class ListingChecks:
    """See the module. It asks as `rest` does."""

    rest: RestChecks

    def listings(self, shown: dict[Place, frozenset[str]]) -> None:
        """I12: what lists is what GETs, page by page and at every node, and the cluster's own
        counts agree."""
        work = [
            (node, bucket, WHOLE if (number + turn) % 3 == 0 else PAGE)
            for number, bucket in enumerate(BUCKETS)
            for turn, node in enumerate(self.rest.world.running())
        ]
        for node, bucket, listed in self._listed(work):
            there = {key: ids for (of, key), ids in shown.items() if of == bucket and ids}
            for key in sorted({*listed, *there}):
                if (key in listed) != (key in there):
                    told = (
                        "is listed and does not GET" if key in listed else "GETs and is not listed"
                    )
                    self._broken(f"{name((bucket, key))} {told} at {node}")
                elif not self._is_among(listed[key], there[key]):
                    told = f"lists with ETag {listed[key][:12]} and GETs as {sorted(there[key])}"
                    self._broken(f"{name((bucket, key))} {told} at {node}")
                else:
                    self.rest.live.tally.held("I12")
        self._totals()

    def _is_among(self, etag: str, ids: frozenset[str]) -> bool:
        write = self.rest.live.history.by_etag.get(etag)
        return write is not None and write.id in ids

    def _listed(self, work: list[tuple[str, str, int]]) -> list[tuple[str, str, dict[str, str]]]:
        """Each node's listing of a bucket, in pages of so many keys: key to ETag."""
        found: list[tuple[str, str, dict[str, str]]] = []
        for node, bucket, limit in work:
            got: list[dict[str, str] | None] = []
            self.list_bucket(node, bucket, limit).addCallback(got.append)
            schedule = self.rest.world.schedule
            schedule.run_while(lambda got=got: not got, schedule.now + 60.0)  # type: ignore[misc]
            if got and got[0] is not None:
                found.append((node, bucket, got[0]))
        return found

    def list_bucket(
        self, node: str, bucket: str, limit: int, *, must: bool = True, r: int | None = None
    ) -> Deferred[dict[str, str] | None]:
        """One listing to its last page, None for one that failed; `must`: it should not."""
        options = {"limit": str(limit)} if r is None else {"limit": str(limit), "r": str(r)}
        asked = Deferred.fromCoroutine(self._pages(node, bucket, options, must))
        asked.addErrback(lambda f: self.rest.world.schedule.callLater(0.0, f.raiseException))
        return asked

    async def _pages(
        self, node: str, bucket: str, options: dict[str, str], must: bool
    ) -> dict[str, str] | None:
        listed: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            for _ in range(2):
                answer = await self.rest.clients.ask(node, wording.get_page(bucket, options))
                if not answer.stale:
                    break
            if answer.status != 200:
                told = answer.failed or answer.status
                if must:
                    self._broken(f"{node} answers {told} to a listing of {bucket} at rest")
                return None
            page = msgspec.json.decode(answer.body)
            listed.update((entry["key"], entry["etag"]) for entry in page["objects"])
            if not page["next"]:
                break
            options["start_after"] = page["next"]
        return listed

    def _totals(self) -> None:
        """Each node counts itself right. What it tells of others is what they said last, which may
        be from before the last hints came."""
        for node in self.rest.world.running():
            answer = self._ask(node, request_bytes(b"GET", b"/v1/cluster", []))
            if answer is None or answer.status != 200:
                self._broken(f"{node} does not tell /v1/cluster at rest")
                continue
            for member in msgspec.json.decode(answer.body)["members"]:
                if member["name"] == node:
                    self._count(node, (member["objects"], member["bytes"]))

    def _count(self, node: str, told: tuple[int, int]) -> None:
        kept = self.rest.registry.mirrors[node].records.values()
        live = [r for r in kept if any(not v.deleted for v in r.versions)]
        size = sum(v.size for r in kept for v in r.versions)
        if told == (len(live), size):
            self.rest.live.tally.held("I12")
        elif self.rest.doubtful(node):
            # What a damaged row counted for is not known until the next start counts anew.
            self.rest.live.excused["totals after damage"] += 1
        else:
            there = f"it has {len(live)} objects and {size} bytes"
            self._broken(f"{node} counts {told}, and {there}")

    def _ask(self, node: str, request: bytes) -> Answer | None:
        schedule = self.rest.world.schedule
        got: list[Answer] = []
        for _ in range(2):
            got.clear()
            self.rest.clients.ask(node, request).addCallback(got.append)
            schedule.run_while(lambda: not got, schedule.now + 30.0)
            if not (got and got[0].stale):
                break
        return got[0] if got else None

    def _broken(self, text: str) -> None:
        self.rest.live.tally.broken("I12", self.rest.live.now(), text)
