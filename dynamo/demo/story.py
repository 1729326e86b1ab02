"""The demo's steps in order: ports, nodes, ready, joined, a file in, the file out, then wait.

Whatever goes wrong on the way is told in a sentence; the nodes are stopped and the exit status
is 1. Ctrl-C and SIGTERM stop the nodes at any point, by way of the reactor's shutdown.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from dynamo.demo.children import Child, Children
from dynamo.demo.client import Client
from dynamo.demo.ports import first_obstacle
from dynamo.demo.screen import Screen

START_SECONDS = 60.0
POLL_SECONDS = 0.1
NEWS_SECONDS = 5.0
BUCKET, KEY = "demo", "hello.txt"
CONTENT = b"Hello from a store without a leader: any node takes this, any node gives it back.\n"


class DemoFailed(Exception):
    """A step did not work; the text is a sentence. `child` is whose log to show."""

    def __init__(self, text: str, child: Child | None = None) -> None:
        super().__init__(text)
        self.child = child


class Story:
    """One run of the demo."""

    def __init__(self, reactor: Any, children: Sequence[Child], screen: Screen) -> None:
        self._reactor, self._screen = reactor, screen
        self._nodes = Children(reactor, children)
        self._client = Client(reactor)

    async def run(self) -> int:
        """Runs until told to stop, or until there is nothing left to run: the exit status."""
        trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self._interrupted)
        try:
            await self._start()
            await self._first_file()
        except DemoFailed as error:
            if self._nodes.stopping:
                return 0  # it failed because it was told to stop, and the shutdown does the rest
            self._reactor.removeSystemEventTrigger(trigger)
            await self._fail(error)
            return 1
        self._say_what_next()
        await self._until_none_is_left()
        self._reactor.removeSystemEventTrigger(trigger)
        self._screen.fault("No node is left; nothing more to do here.")
        return 1

    async def _start(self) -> None:
        obstacle = await first_obstacle(self._reactor, self._nodes.all)
        if obstacle is not None:
            raise DemoFailed(obstacle)
        self._nodes.start()
        for child in self._nodes.all:
            self._screen.note(f"{child.name} is starting, pid {child.pid}, log {child.log}")
        for child in self._nodes.all:
            await self._until(f"{child.name} to be ready", partial(self._ready, child))
            self._screen.step(f"{child.name} is ready")
        await self._until("the nodes to find each other", self._joined)
        self._screen.step(f"the {len(self._nodes.all)} nodes have found each other")

    async def _until(self, what: str, check: Callable[[], Awaitable[str]]) -> None:
        """Asks `check` until it has nothing to object, saying now and then what it waits for."""
        begin = news = self._reactor.seconds()
        while objection := await check():
            if self._nodes.stopping:
                raise DemoFailed("Stopped before the end.")
            for child in self._nodes.all:
                if child.ended is not None:
                    raise DemoFailed(f"{child.name} ended at the start ({child.ended}).", child)
            now = self._reactor.seconds()
            if now - begin > START_SECONDS:
                raise DemoFailed(f"Waited {START_SECONDS:.0f} s for {what}: {objection}.")
            if now - news > NEWS_SECONDS:
                news = now
                self._screen.note(f"waiting for {what}: {objection}")
            await deferLater(self._reactor, POLL_SECONDS)

    async def _ready(self, child: Child) -> str:
        reply = await self._client.ask("GET", f"{child.url}/readyz")
        return "" if reply.status == 200 else f"{child.name} says {reply}"

    async def _joined(self) -> str:
        wanted = {child.name for child in self._nodes.all}
        for child in self._nodes.all:
            reply = await self._client.ask("GET", f"{child.url}/v1/cluster")
            if reply.status != 200:
                return f"{child.name} says {reply}"
            alive = _alive(reply.body)
            if not wanted <= alive:
                return f"{child.name} does not see {', '.join(sorted(wanted - alive))} yet"
        return ""

    async def _first_file(self) -> None:
        first, second = self._nodes.all[0], self._nodes.all[1 % len(self._nodes.all)]
        await self._put(first, f"/v1/buckets/{BUCKET}", b"", f"bucket {BUCKET} made")
        path = f"/v1/buckets/{BUCKET}/objects/{KEY}"
        await self._put(first, path, CONTENT, f"{KEY} ({len(CONTENT)} bytes) stored")
        reply = await self._client.ask("GET", second.url + path)
        if reply.status != 200:
            raise DemoFailed(f"{second.name} did not give {KEY} back: {reply}", second)
        if reply.body != CONTENT:
            raise DemoFailed(f"{second.name} gave back other bytes than were stored.", second)
        self._screen.step(f"{KEY} read back through {second.name}: the same bytes")

    async def _put(self, child: Child, path: str, body: bytes, done: str) -> None:
        reply = await self._client.ask("PUT", child.url + path, body)
        if not reply.ok:
            raise DemoFailed(f"{child.name} refused PUT {path}: {reply}", child)
        self._screen.step(f"{done} through {child.name}")

    def _say_what_next(self) -> None:
        show, nodes = self._screen.plain, self._nodes.all
        one, other, last = nodes[0].url, nodes[1 % len(nodes)].url, nodes[-1]
        show()
        show(f"{len(nodes)} nodes are running; Ctrl-C stops them.", heading=True)
        for child in nodes:
            show(f"  {child.name}       {child.url}  pid {child.pid}, log {child.log}")
        show(f"  members  {one}/v1/cluster")
        show(f"  metrics  {one}/metrics")
        show()
        show("Try next:", heading=True)
        show(f"  curl {other}/v1/buckets/{BUCKET}/objects/{KEY}")
        show(f"  curl -T Makefile {last.url}/v1/buckets/{BUCKET}/objects/some/Makefile")
        show(f"  curl '{other}/v1/buckets/{BUCKET}/objects?prefix=some/'")
        show(f"  curl -F name=photos {one}/create/bucket/")
        show(f"  curl -F bucket=photos -F name=note -F file=@Makefile {other}/create/file/")
        show(f"  kill -9 {last.pid}; curl {one}/status/    # one node less, nothing lost")
        show()

    def _until_none_is_left(self) -> Deferred[None]:
        over: Deferred[None] = Deferred()

        def lost(child: Child) -> None:
            left = self._nodes.running()
            names = " and ".join(other.name for other in left) or "none"
            self._screen.fault(f"{child.name} ended ({child.ended}); still running: {names}.")
            self._screen.plain(f"  its log: {child.log}; start it again: {shlex.join(child.argv)}")
            if not left:
                over.callback(None)

        self._nodes.watch(lost)
        return over

    def _interrupted(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop("stopping the nodes; Ctrl-C again kills them"))

    async def _stop(self, text: str) -> None:
        running = self._nodes.running()
        self._nodes.stopping = True
        if running:
            self._nodes.kill_on_second_interrupt()
            self._screen.note(text)
            await self._nodes.stop()
            self._screen.step("all nodes have stopped")

    async def _fail(self, error: DemoFailed) -> None:
        self._screen.fault(str(error))
        if error.child is not None:
            self._screen.plain(f"The last lines of {error.child.log}:")
            for line in error.child.last_lines():
                self._screen.plain(f"  {line}")
        await self._stop("stopping the nodes")


def _alive(body: bytes) -> set[str]:
    """The names that a `/v1/cluster` answer lists as alive."""
    try:
        members = json.loads(body)["members"]
        return {str(member["name"]) for member in members if member["liveness"] == "alive"}
    except (ValueError, KeyError, TypeError):
        return set()
