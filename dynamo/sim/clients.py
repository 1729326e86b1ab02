"""The clients of a run: they do what the plan says and write down what they get.

Each has a machine of its own and, for each key, a memory of what it last read: the context and
the ids of the versions that came with it. A write that is to be `seen` and finds none reads first.
A client has a few operations under way at most; what comes while it is stuck with a node is left
out, as people give up too.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred

from dynamo.errors import DynamoError
from dynamo.sim import wording
from dynamo.sim.client import Answer, Caller
from dynamo.sim.doings import DOINGS, read_key, where
from dynamo.sim.history import History, Memory, Outcomes, Place, Read
from dynamo.sim.plan import Operation, Plan
from dynamo.sim.reactor import Reactor
from dynamo.sim.workload import BUCKETS
from dynamo.sim.world import API_PORT, World

PATIENCE_S = 12.0
"""How long a client waits for an answer: a little more than a node takes at most."""

UNDER_WAY_MAX = 8
TO_ONE_NODE_MAX = 3
SETUP_S = 60.0


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
        end = self._world.schedule.now + SETUP_S
        for name, properties in BUCKETS.items():
            request = wording.put_bucket(name, properties)
            while (answer := self._wait_for(request)).status not in (200, 201):
                if self._world.schedule.now > end:
                    raise DynamoError(f"Bucket {name} could not be made: {answer}.")
                self._world.run_for(0.5)

    def _wait_for(self, request: bytes) -> Answer:
        """The first node's answer; time passes until it is there."""
        got: list[Answer] = []
        self.ask(self._world.names[0], request).addCallback(got.append)
        schedule = self._world.schedule
        schedule.run_while(lambda: not got, schedule.now + 2 * PATIENCE_S)
        return got[0]

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
        self.now = world.schedule.seconds
        self.memory: dict[Place, Memory] = {}

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
        done = Deferred.fromCoroutine(DOINGS[operation.kind](self, operation))
        done.addBoth(self._over, entry)
        # What goes wrong here is the simulator's own fault, and ends the run.
        done.addErrback(lambda f: self._world.schedule.callLater(0.0, f.raiseException))

    def _over(self, result: Any, entry: str) -> Any:
        self.busy[entry] -= 1
        if not self.busy[entry]:
            del self.busy[entry]
        return result

    async def request(
        self, operation: Operation, request: bytes, *, target: str = "", head: bool = False
    ) -> Answer:
        """One request of an operation; what became of it is noted."""
        timeout = operation.options.get("timeout")
        patience = float(timeout) + 2.0 if timeout else PATIENCE_S
        begun = self.now()
        answer = await self.ask(operation.entry, request, head=head, seconds=patience)
        if self.history.watcher is not None:
            self.history.watcher.ended(
                Outcomes(
                    operation.kind,
                    operation.entry,
                    target or f"{operation.bucket}/{operation.key}",
                    begun,
                    self.now(),
                    answer.status,
                    answer.failed,
                    float(timeout) if timeout else PATIENCE_S,
                    answer.body.decode("utf-8", "replace") if answer.status >= 500 else "",
                    answer.stale,
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
        return await read_key(self, operation, whole)

    def saw(
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
            self.now(),
            shown,
            newest,
            None if r is None else int(r),
            operation.options.get("quorum"),
        )
        if context and not newest:
            place = (operation.bucket, operation.key)
            self.memory[place] = Memory(context, shown, begun)
        self.history.add(read)
        return read

    def named(self, operation: Operation, etag: str) -> str:
        """The id of the write whose bytes have this ETag; "" and a complaint if there is none."""
        write = self.history.by_etag.get(etag)
        if write is None or write.place != (operation.bucket, operation.key):
            of = f"{write.id} of {write.place}" if write is not None else "nobody's bytes"
            self.wrong("I2", f"{operation.entry} showed {of} (ETag {etag}) as {where(operation)}")
            return ""
        return write.id

    def whole(
        self, operation: Operation, answer: Answer, etag: str, span: tuple[int, int] | None = None
    ) -> frozenset[str]:
        """The id of the version whose bytes these are, as a set; verified."""
        name = self.named(operation, etag)
        if not name:
            return frozenset()
        body = self.history.writes[name].body
        if span is not None:
            body = body[span[0] : span[1] + 1]
        if answer.body != body:
            self.wrong(
                "I13",
                f"{operation.entry} gave {len(answer.body)} B that are not the {len(body)} B of "
                f"{name} for {where(operation)}",
            )
        elif self.history.watcher is not None:
            self.history.watcher.held("I13")
        return frozenset((name,))

    def wrong(self, invariant: str, text: str) -> None:
        if self.history.watcher is not None:
            self.history.watcher.wrong(invariant, text)
