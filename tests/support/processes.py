"""A cluster of real processes: `twistd -n dynamo`, each with its own file, ports, folder and log.

Every wait has a deadline and fails with what the nodes last said. Whatever was started is killed
in the end by its pid, and should the test run itself be killed, the kernel does it.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import attrs
import yaml
from treq.client import HTTPClient
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool, RequestTransmissionFailed, ResponseFailed

reactor: Any = global_reactor
T = TypeVar("T")

ROOT = Path(__file__).parents[2]
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
PORTS = range(20000, 32000)
"""Below those the kernel hands out, so that a node finds its port free again after a restart."""
PR_SET_PDEATHSIG = 1
START_S = 30.0
ASK_S = 15.0
POLL_S = 0.05
TAIL_CHARS = 2500

_libc = ctypes.CDLL(None)
_given: set[int] = set()
"""Ports given out already: their node may not have opened them yet."""


class GaveUp(AssertionError):
    """Something that had to happen did not happen in time."""


class NoAnswer(Exception):
    """A node did not answer a request."""


@attrs.frozen
class Answer:
    """A whole response. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The stable word of an error, in whichever of the two forms."""
        told = self.json()
        return str(told.get("code") or told.get("error"))


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, on TCP and UDP; never one twice."""
    found: list[int] = []
    candidates = random.sample(PORTS, len(PORTS))
    while len(found) < count:
        port = candidates.pop()
        if port in _given:
            continue
        with ExitStack() as stack:
            try:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    probe = stack.enter_context(socket.socket(socket.AF_INET, kind))
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        _given.add(port)
    return found


async def until(
    look: Callable[[], Awaitable[T]], what: str, seconds: float = START_S, pause: float = POLL_S
) -> T:
    """Looks again and again until what is seen is true, and returns it; `GaveUp` at the end."""
    deadline = reactor.seconds() + seconds
    seen: Any = None
    while reactor.seconds() < deadline:
        try:
            seen = await look()
        except NoAnswer as error:
            seen = error
        else:
            if seen:
                return seen
        await deferLater(reactor, pause)
    raise GaveUp(f"{what}: not within {seconds:g} s; last seen: {seen!r}")


class Client:
    """Asks nodes over kept connections; a request without an answer is `NoAnswer`."""

    def __init__(self) -> None:
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = 32
        self._pool.retryAutomatically = False
        self._http = HTTPClient(Agent(reactor, connectTimeout=5.0, pool=self._pool))

    async def ask(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = ASK_S,
    ) -> Answer:
        """One request and its whole answer."""
        exchange = Deferred.fromCoroutine(self._exchange(method, url, body, headers or {}))
        try:
            return await exchange.addTimeout(seconds, reactor)
        except DeferredTimeout:
            raise NoAnswer(f"{method} {url}: nothing for {seconds:g} s") from None
        except (ConnectError, ConnectionClosed, ResponseFailed, RequestTransmissionFailed) as error:
            raise NoAnswer(f"{method} {url}: {error!r}") from None

    async def _exchange(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        response = await self._http.request(
            method, url, data=body, headers=dict(headers), allow_redirects=False
        )
        told = {
            name.decode().lower(): ", ".join(v.decode() for v in values)
            for name, values in response.headers.getAllRawHeaders()
        }
        return Answer(response.code, told, await response.content())

    def close(self) -> Deferred[Any]:
        """Closes what is kept open."""
        return self._pool.closeCachedConnections()


class Process:
    """One node. `settings` are merged over the configuration it is given, section by section."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.data_dir = Path(settings.get("node", {}).get("data_dir", folder / name))
        self.log = folder / f"{name}.log"
        self.api, self.cluster = free_ports(2)
        self.url = f"http://127.0.0.1:{self.api}"
        self.conf = folder / f"{name}.yaml"
        self._settings = settings
        self._popen: subprocess.Popen[bytes] | None = None

    def configure(self, seeds: Sequence[int]) -> None:
        """Writes the node's file. `seeds` are cluster ports."""
        told: dict[str, dict[str, Any]] = {
            "node": {"name": self.name, "data_dir": str(self.data_dir), "zone": self.name},
            "listen": {
                "api": f"127.0.0.1:{self.api}",
                "cluster": f"127.0.0.1:{self.cluster}",
            },
            "cluster": {"name": "live", "seeds": [f"127.0.0.1:{port}" for port in seeds]},
        }
        for section, values in self._settings.items():
            told.setdefault(section, {}).update(values)
        self.conf.write_text(yaml.safe_dump(told))

    def start(self) -> None:
        """Starts the process; its log goes on where it was."""
        assert self._popen is None or self._popen.poll() is not None, f"{self.name} is running"
        with open(self.log, "ab") as out:
            self._popen = subprocess.Popen(
                [*TWISTD, "-n", "--pidfile=", "dynamo", "--conf", str(self.conf)],
                cwd=self.conf.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._popen is not None, f"{self.name} was never started"
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Signals the process."""
        assert self._popen is not None
        self._popen.send_signal(number)

    def kill(self) -> None:
        """kill -9, and gone when this returns; nothing if it has ended."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait(timeout=10)

    async def ended(self, seconds: float = START_S) -> int:
        """Waits until the process has ended by itself; its exit status, minus a signal's number."""

        async def look() -> tuple[int] | None:
            assert self._popen is not None
            status = self._popen.poll()
            return None if status is None else (status,)

        return (await until(look, f"{self.name} ends", seconds))[0]

    def log_text(self) -> str:
        """All it has printed so far, over all its starts."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""


class Cluster:
    """Nodes n1, n2, ... that have each other as seeds. `settings` hold for all of them, those
    in `own` for the one so named."""

    def __init__(
        self,
        folder: Path,
        names: Iterable[str] = ("n1", "n2", "n3"),
        settings: Mapping[str, Any] | None = None,
        own: Mapping[str, Mapping[str, Any]] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        self.nodes: dict[str, Process] = {}
        for name in names:
            merged: dict[str, dict[str, Any]] = {}
            for layer in (settings or {}, (own or {}).get(name, {})):
                for section, values in layer.items():
                    merged.setdefault(section, {}).update(values)
            self.nodes[name] = Process(name, folder, merged)
        ports = [node.cluster for node in self.nodes.values()] if seeds is None else seeds
        for node in self.nodes.values():
            node.configure(ports)
        self.client = Client()

    def __getitem__(self, name: str) -> Process:
        return self.nodes[name]

    async def start(self) -> None:
        """Starts all and waits until they serve and know each other."""
        for node in self.nodes.values():
            node.start()
        await self.together()

    async def together(self, *names: str, seconds: float = START_S) -> None:
        """Waits until these nodes (all, if none is named) are ready and know each other so."""
        everyone = names or tuple(self.nodes)

        async def look(name: str) -> bool:
            seen = await self.members(name)
            states = {(seen[n]["liveness"], seen[n]["role"]) for n in everyone if n in seen}
            return states == {("alive", "active")} and set(everyone) <= set(seen)

        for name in everyone:
            await self.ready(name, seconds)
        for name in everyone:
            await self._until(partial(look, name), f"{name} knows all members", seconds)

    async def ready(self, name: str, seconds: float = START_S) -> None:
        """Waits for 200 from /readyz."""

        async def look() -> bool:
            node = self.nodes[name]
            if not node.running:
                raise GaveUp(f"{name} has ended")
            return (await self.ask(name, "GET", "/readyz", seconds=2.0)).status == 200

        await self._until(look, f"{name} is ready", seconds)

    async def sees(self, name: str, other: str, *liveness: str, seconds: float = START_S) -> None:
        """Waits until node `name` believes that of `other`."""

        async def look() -> bool:
            return (await self.members(name)).get(other, {}).get("liveness") in liveness

        await self._until(look, f"{name} sees {other} {' or '.join(liveness)}", seconds)

    async def members(self, name: str) -> dict[str, dict[str, Any]]:
        """What /v1/cluster says, by member."""
        told = (await self.ask(name, "GET", "/v1/cluster", seconds=2.0)).json()
        return {member["name"]: member for member in told["members"]}

    async def no_hints(self, seconds: float = START_S) -> None:
        """Waits until no node holds anything for others, and all have heard so."""

        async def look() -> bool:
            seen = [await self.members(name) for name in self.nodes]
            return not any(member["hints"] for told in seen for member in told.values())

        await self._until(look, "no node holds hints", seconds)

    async def steady(self, seconds: float = START_S) -> None:
        """Waits until no node knows of a change of the ring."""

        async def look() -> bool:
            told = [await self.ask(name, "GET", "/v1/cluster") for name in self.nodes]
            return all(answer.json()["change"] is None for answer in told)

        await self._until(look, "the ring is steady", seconds)

    async def replicas(self, name: str, bucket: str, key: str) -> dict[str, dict[str, Any]]:
        """What each replica of a key holds right now, asked through `name`."""
        told = await self.ask(name, "GET", f"/v1/ring/{quote(bucket)}/{quote(key)}")
        assert told.status == 200, told
        return {replica["name"]: replica for replica in told.json()["replicas"]}

    async def own_copy(self, name: str, path: str, seconds: float = START_S) -> Answer:
        """What node `name` answers by itself to a read of an object it has. Where its disk is late,
        or its copy does not count alone yet, the question is put again."""

        async def look() -> Answer | None:
            answer = await self.ask(name, "GET", f"{path}?r=1")
            return answer if answer.headers.get("x-dynamo-replicas") == name else None

        return await until(look, f"{name} answers GET {path} by itself", seconds)

    async def ask(
        self,
        name: str,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = ASK_S,
    ) -> Answer:
        """One request to node `name`."""
        url = self.nodes[name].url + path
        return await self.client.ask(method, url, body, headers, seconds)

    async def post(self, node: str, path: str, /, **fields: str | bytes) -> Answer:
        """One of the documented operations: a form, multipart where a field is bytes (a file)."""
        body, kind = form(fields)
        return await self.ask(node, "POST", path, body, {"Content-Type": kind})

    def tracebacks(self) -> str:
        """What the logs say between a traceback and its end; "" is what a test wants."""
        found = []
        for node in self.nodes.values():
            before, mark, after = node.log_text().partition("Traceback (most recent call last)")
            if mark:
                found.append(f"--- {node.name}\n{before[-500:]}{mark}{after[:TAIL_CHARS]}")
        return "\n".join(found)

    async def close(self) -> None:
        """Kills all, and prints the ends of the logs, which a failed test then shows."""
        for node in self.nodes.values():
            node.kill()
            print(f"--- the log of {node.name} ends\n{node.log_text()[-TAIL_CHARS:]}")
        await self.client.close()

    async def _until(self, look: Callable[[], Awaitable[Any]], what: str, seconds: float) -> None:
        try:
            await until(look, what, seconds)
        except GaveUp as error:
            logs = "".join(f"\n--- {n.name}\n{n.log_text()[-800:]}" for n in self.nodes.values())
            raise GaveUp(f"{error}{logs}") from None


def form(fields: Mapping[str, str | bytes]) -> tuple[bytes, str]:
    """A form's body and Content-Type; a value of bytes is sent as a file."""
    if all(isinstance(value, str) for value in fields.values()):
        pairs = (f"{quote(name)}={quote(str(value), safe='')}" for name, value in fields.items())
        return "&".join(pairs).encode(), "application/x-www-form-urlencoded"
    boundary = "boundary0123456789"
    parts = []
    for name, value in fields.items():
        is_file = isinstance(value, bytes)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        head += '; filename="file"\r\n\r\n' if is_file else "\r\n\r\n"
        parts.append(head.encode() + (value if is_file else value.encode()) + b"\r\n")
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def gather(tasks: Iterable[Any]) -> Deferred[list[Any]]:
    """Runs coroutines at the same time; fires with their results, in order."""
    return gatherResults([Deferred.fromCoroutine(task) for task in tasks], consumeErrors=True)


def heed_signals() -> None:
    """For `preexec_fn`: a process ignores what the one that started it did, as a run of the tests
    in the background does interrupts and hang-ups."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _die_with_parent() -> None:
    heed_signals()
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
