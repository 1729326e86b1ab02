"""The clients of a run: they do what the plan says and write down what they get.

Each has a machine of its own and, for each key, a memory of what it last read: the context and
the ids of the versions that came with it. A write that is to be `seen` and finds none reads first.
A client has a few operations under way at most; what comes while it is stuck with a node is left
out, as people give up too.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred

from dynamo.errors import DynamoError
from dynamo.sim import wording
from dynamo.sim.client import Answer, Caller
from dynamo.sim.history import (
    BucketChange,
    History,
    Listing,
    Outcome,
    Outcomes,
    Place,
    Read,
    Write,
    body_of,
)
from dynamo.sim.plan import Operation, Plan
from dynamo.sim.reactor import Reactor
from dynamo.sim.workload import BUCKETS, is_known
from dynamo.sim.world import API_PORT, World

PATIENCE_S = 12.0
"""How long a client waits for an answer: a little more than a node takes at most."""

UNDER_WAY_MAX = 8
TO_ONE_NODE_MAX = 3
PAGE = 7
PAGES_MAX = 50
SETUP_S = 60.0


@attrs.frozen
class Memory:
    """What a client last read of a key, and when it began to."""

    context: str
    seen: frozenset[str]
    since: float


class Clients:
    """All of them. `counts` says how many operations there were, by kind, and how many were
    `skipped`."""

    def __init__(self, world: World, plan: Plan, history: History) -> None:
        self.counts: Counter[str] = Counter()
        self._world = world
        self._plan = plan
        self._clients = [
            Client(world, history, number, self.counts) for number in range(plan.clients)
        ]

    def prepare(self) -> None:
        """Makes the buckets; time passes. Raises `DynamoError` if there are none in the end."""
        world, client = self._world, self._clients[0]
        end = world.schedule.now + SETUP_S
        for name, properties in BUCKETS.items():
            request = wording.put_bucket(name, properties)
            made: list[Answer] = []
            while not (made and made[-1].status in (200, 201)):
                if world.schedule.now > end:
                    raise DynamoError(f"Bucket {name} could not be made: {made[-1:]}.")
                client.ask(world.names[0], request).addCallback(made.append)
                seen = len(made)
                world.schedule.run_while(lambda seen=seen: len(made) == seen, end + 1)  # type: ignore[misc]
                if made[-1].status not in (200, 201):
                    world.run_for(0.5)

    def begin(self) -> None:
        """From now on the plan's operations happen, each at its time."""
        for operation in self._plan.operations:
            client = self._clients[operation.client % len(self._clients)]
            self._world.schedule.callLater(operation.at, client.perform, operation)

    def idle(self) -> bool:
        """Whether no operation is under way."""
        return not any(client.busy for client in self._clients)

    def ask(self, node: str, request: bytes) -> Deferred[Answer]:
        """A request by the first of them, outside the plan."""
        return self._clients[0].ask(node, request)

    async def look(self, node: str, place: Place, options: dict[str, str]) -> Read | Answer:
        """A read by the first of them, outside the plan."""
        return await self._clients[0].get(node, place, options, whole=True)


class Client:
    """One client on its machine. `busy`: how many operations it has under way, by node."""

    def __init__(self, world: World, history: History, number: int, counts: Counter[str]) -> None:
        self.number = number
        self.history = history
        self.busy: Counter[str] = Counter()
        self._counts = counts
        self._world = world
        reactor = Reactor(world.client_machine(f"c{number + 1}", number + 1))
        self._caller = Caller(reactor)
        self._now = world.schedule.seconds
        self._memory: dict[Place, Memory] = {}

    def ask(
        self, node: str, request: bytes, *, head: bool = False, seconds: float = PATIENCE_S
    ) -> Deferred[Answer]:
        """Sends a request to a node."""
        place = (self._world.hosts[node].machine.ip, API_PORT)
        return self._caller.ask(place, request, head=head, seconds=seconds)

    def perform(self, operation: Operation) -> None:
        """Begins an operation, unless this client has its hands full."""
        entry = operation.entry
        if self.busy[entry] >= TO_ONE_NODE_MAX or self.busy.total() >= UNDER_WAY_MAX:
            self._counts["skipped"] += 1
            return
        self.busy[entry] += 1
        self._counts[operation.kind] += 1
        done = Deferred.fromCoroutine(_DOINGS[operation.kind](self, operation))
        done.addBoth(self._over, entry)

    def _over(self, result: Any, entry: str) -> Any:
        self.busy[entry] -= 1
        if not self.busy[entry]:
            del self.busy[entry]
        return result

    async def _request(
        self, operation: Operation, request: bytes, *, target: str = "", head: bool = False
    ) -> Answer:
        """One request of an operation; what became of it is noted."""
        timeout = operation.options.get("timeout")
        patience = float(timeout) + 2.0 if timeout else PATIENCE_S
        begun = self._now()
        answer = await self.ask(operation.entry, request, head=head, seconds=patience)
        if self.history.watcher is not None:
            self.history.watcher.ended(
                Outcomes(
                    operation.kind,
                    operation.entry,
                    target or f"{operation.bucket}/{operation.key}",
                    begun,
                    self._now(),
                    answer.status,
                    answer.failed,
                    float(timeout) if timeout else PATIENCE_S,
                )
            )
        return answer

    # Reading.

    async def get(
        self, node: str, place: Place, options: dict[str, str], *, whole: bool
    ) -> Read | Answer:
        """Reads all versions of a key; the answer if it is none. `whole`: siblings' bytes too."""
        operation = Operation(
            number=0, at=0.0, client=self.number, kind="get", entry=node,
            bucket=place[0], key=place[1], options=options,
        )  # fmt: skip
        return await self._get(operation, whole)

    async def _get(self, operation: Operation, whole: bool) -> Read | Answer:
        bucket, key, options = operation.bucket, operation.key, operation.options
        begun = self._now()
        request = wording.on_object(b"GET", bucket, key, options, [])
        answer = await self._request(operation, request)
        shown: frozenset[str]
        if answer.status == 200:
            shown = self._whole(operation, answer, answer.header(b"etag").strip('"'))
        elif answer.status == 300:
            versions = msgspec.json.decode(answer.body)["versions"]
            ids = [self._named(operation, version["etag"]) for version in versions]
            if len(set(ids)) < len(ids):
                self._wrong(
                    "I11", f"{operation.entry} showed a write twice: {_at(operation)} {ids}"
                )
            shown = frozenset(i for i in ids if i)
            if whole:
                for version in versions:
                    await self._one(operation, version)
        elif answer.status == 404 and answer.header(b"x-dynamo-context"):
            shown = frozenset()
        else:
            return answer
        return self._saw(operation, begun, shown, answer.header(b"x-dynamo-context"))

    async def _one(self, operation: Operation, version: dict[str, Any]) -> None:
        """One of several versions; it may have been replaced meanwhile."""
        options = {**operation.options, "version": version["id"]}
        request = wording.on_object(b"GET", operation.bucket, operation.key, options, [])
        answer = await self._request(operation, request)
        if answer.status == 200:
            self._whole(operation, answer, version["etag"])

    def _saw(
        self,
        operation: Operation,
        begun: float,
        shown: frozenset[str],
        context: str,
        newest: bool = False,
    ) -> Read:
        r = operation.options.get("r")
        read = Read(
            operation.bucket,
            operation.key,
            self.number,
            operation.entry,
            begun,
            self._now(),
            shown,
            newest,
            None if r is None else int(r),
            operation.options.get("quorum"),
        )
        if context and not newest:
            place = (operation.bucket, operation.key)
            self._memory[place] = Memory(context, shown, begun)
        self.history.add(read)
        return read

    def _named(self, operation: Operation, etag: str) -> str:
        """The id of the write whose bytes have this ETag; "" and a complaint if there is none."""
        write = self.history.by_etag.get(etag)
        if write is None or write.place != (operation.bucket, operation.key):
            of = f"{write.id} of {write.place}" if write is not None else "nobody's bytes"
            self._wrong("I2", f"{operation.entry} showed {of} (ETag {etag}) as {_at(operation)}")
            return ""
        return write.id

    def _whole(
        self, operation: Operation, answer: Answer, etag: str, span: tuple[int, int] | None = None
    ) -> frozenset[str]:
        """The id of the version whose bytes these are, as a set; verified."""
        name = self._named(operation, etag)
        if not name:
            return frozenset()
        body = self.history.writes[name].body
        if span is not None:
            body = body[span[0] : span[1] + 1]
        if answer.body != body:
            self._wrong(
                "I13",
                f"{operation.entry} gave {len(answer.body)} B that are not the {len(body)} B of "
                f"{name} for {_at(operation)}",
            )
        elif self.history.watcher is not None:
            self.history.watcher.held("I13")
        return frozenset((name,))

    def _wrong(self, invariant: str, text: str) -> None:
        if self.history.watcher is not None:
            self.history.watcher.wrong(invariant, text)

    async def do_get(self, operation: Operation) -> None:
        await self._get(operation, operation.number % 2 == 0)

    async def do_head(self, operation: Operation) -> None:
        bucket, key, options = operation.bucket, operation.key, operation.options
        begun = self._now()
        request = wording.on_object(b"HEAD", bucket, key, options, [])
        answer = await self._request(operation, request, head=True)
        if answer.status == 200:
            name = self._named(operation, answer.header(b"etag").strip('"'))
            size = answer.header(b"content-length")
            if name and size != str(len(self.history.writes[name].body)):
                self._wrong("I13", f"{operation.entry} told {size} B of {name}, {_at(operation)}")
            self._saw(operation, begun, frozenset((name,)), answer.header(b"x-dynamo-context"))
        elif answer.status == 404 and answer.header(b"x-dynamo-context"):
            self._saw(operation, begun, frozenset(), answer.header(b"x-dynamo-context"))

    async def do_range(self, operation: Operation) -> None:
        first = operation.number % 30
        last = first + operation.number % 50
        headers = [(b"Range", b"bytes=%d-%d" % (first, last))]
        bucket, key, options = operation.bucket, operation.key, operation.options
        request = wording.on_object(b"GET", bucket, key, options, headers)
        answer = await self._request(operation, request)
        if answer.status == 206:
            self._whole(operation, answer, answer.header(b"etag").strip('"'), (first, last))
        elif answer.status == 200:
            self._whole(operation, answer, answer.header(b"etag").strip('"'))

    async def do_open(self, operation: Operation) -> None:
        begun = self._now()
        request = wording.get_file(operation.bucket, operation.key)
        answer = await self._request(operation, request)
        if answer.status == 200:
            shown = self._whole(operation, answer, answer.header(b"etag").strip('"'))
            newest = bool(answer.header(b"x-dynamo-siblings"))
            self._saw(operation, begun, shown, answer.header(b"x-dynamo-context"), newest)

    async def do_look(self, operation: Operation) -> None:
        given = {"name": operation.key, "bucket": operation.bucket}
        await self._request(operation, wording.fields(b"/read/file/", **given))

    async def do_list(self, operation: Operation) -> None:
        begun, after = self._now(), ""
        entries: list[tuple[str, str]] = []
        limit = 1000 if operation.number % 2 else PAGE
        for _ in range(PAGES_MAX):
            options = {**operation.options, "limit": str(limit)}
            if after:
                options["start_after"] = after
            answer = await self._request(operation, wording.get_page(operation.bucket, options))
            if answer.status != 200:
                return
            page = msgspec.json.decode(answer.body)
            entries += [(entry["key"], entry["etag"]) for entry in page["objects"]]
            after = page["next"]
            if not after:
                break
        else:
            return
        if self.history.watcher is not None:
            r = operation.options.get("r")
            self.history.watcher.listed(
                Listing(
                    operation.bucket,
                    operation.entry,
                    begun,
                    self._now(),
                    tuple(entries),
                    None if r is None else int(r),
                    operation.options.get("quorum"),
                )
            )

    async def do_buckets(self, operation: Operation) -> None:
        await self._request(operation, wording.request_bytes(b"GET", b"/v1/buckets", []))

    # Writing.

    async def do_write(self, operation: Operation) -> None:
        place = (operation.bucket, operation.key)
        memory: Memory | None = None
        if operation.kind == "create":
            memory = Memory("", frozenset(), self._now())
        elif operation.seen:
            if place not in self._memory:
                await self._get(operation, False)
            memory = self._memory.get(place)
            if memory is None:
                return  # Nothing was read, so there is nothing it could say it has seen.
        deletes = operation.kind in ("delete", "erase")
        w = operation.options.get("w")
        write = Write(
            f"w{operation.number}",
            *place,
            self.number,
            operation.entry,
            self._now(),
            deletes,
            None if memory is None else memory.seen,
            "" if memory is None else memory.context,
            0.0 if memory is None else memory.since,
            None if w is None else int(w),
            operation.options.get("quorum"),
            b"" if deletes else body_of(f"w{operation.number}", operation.size),
        )
        self.history.begin(write)
        answer = await self._request(operation, _write_request(operation, write))
        if answer.status == 200 and operation.kind == "put":
            told = msgspec.json.decode(answer.body)
            write.version = told["id"]
            if told["etag"] != write.etag:
                self._wrong("I2", f"{write.id} was stored as {told['etag']}, {_at(operation)}")
        if operation.number % 4 or answer.status == 400:
            self._memory.pop(place, None)
        self.history.end(write, self._now(), outcome_of(answer), answer.status)

    async def do_conditional(self, operation: Operation) -> None:
        """A write that must not be done: its bytes are in no history."""
        headers = [(b"If-None-Match", b"*") if operation.number % 2 else (b"If-Match", b'"x"')]
        bucket, key = operation.bucket, operation.key
        body = body_of(f"never{operation.number}", min(operation.size, 1000))
        request = wording.on_object(b"PUT", bucket, key, {}, headers, body)
        answer = await self._request(operation, request)
        if answer.status == 501 and self.history.watcher is not None:
            self.history.watcher.held("I14")
        elif not answer.failed:
            told = f"{operation.entry} answered a conditional write of {_at(operation)}"
            self._wrong("I14", f"{told} with {answer.status}")

    async def do_bucket(self, operation: Operation) -> None:
        begun, name = self._now(), operation.bucket
        if operation.kind == "bucket_put":
            request = wording.put_bucket(name, BUCKETS["plain"])
        else:
            path = b"/create/bucket/" if operation.kind == "bucket_create" else b"/delete/bucket/"
            request = wording.fields(path, name=name)
        answer = await self._request(operation, request)
        deletes = operation.kind == "bucket_delete"
        outcome = outcome_of(answer)
        self.history.change(BucketChange(name, deletes, begun, self._now(), outcome))


def outcome_of(answer: Answer) -> Outcome:
    """What a client knows of a write that was answered so."""
    if 200 <= answer.status < 300:
        return "acked"
    if 400 <= answer.status < 500 or answer.status == 501 or not answer.sent:
        return "refused"
    return "unknown"


def _write_request(operation: Operation, write: Write) -> bytes:
    bucket, key, options = operation.bucket, operation.key, operation.options
    given = {"bucket": bucket, "name": key}
    if operation.kind == "create":
        return wording.form(b"/create/file/", write.body, **given)
    if operation.kind in ("update", "erase"):
        if write.context:
            given["context"] = write.context
        if operation.kind == "erase":
            return wording.fields(b"/delete/file/", **given)
        return wording.form(b"/update/file/", write.body, **given)
    headers = [(b"X-Dynamo-Context", write.context.encode())] if write.context else []
    if operation.kind == "delete":
        return wording.on_object(b"DELETE", bucket, key, options, headers)
    headers.append((b"X-Dynamo-Meta-id", write.id.encode()))
    return wording.on_object(b"PUT", bucket, key, options, headers, write.body)


def _at(operation: Operation) -> str:
    return f"{operation.bucket}/{operation.key[:40]}"


_DOINGS: dict[str, Any] = {
    "create": Client.do_write,
    "update": Client.do_write,
    "erase": Client.do_write,
    "put": Client.do_write,
    "delete": Client.do_write,
    "look": Client.do_look,
    "open": Client.do_open,
    "get": Client.do_get,
    "head": Client.do_head,
    "range": Client.do_range,
    "list": Client.do_list,
    "buckets": Client.do_buckets,
    "conditional": Client.do_conditional,
    "bucket_create": Client.do_bucket,
    "bucket_put": Client.do_bucket,
    "bucket_delete": Client.do_bucket,
}
