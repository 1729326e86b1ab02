"""Clients that know what they must read: each owns its keys, and checks every answer.

    load = Load(ports, clients=16, objects=200_000, large=20, rate=400)
    load.fill(); load.begin(); ...; before = load.lap(); ...; during = load.stop(); load.verify()

The bucket is to be strict, with W+R above N: then what a client reads is what it wrote last,
through whichever node, and a listing of keys that nobody changes meanwhile is exactly those. Every
request goes to one of the nodes at random. A key is changed with the context of a read just before
it. One whose change failed may have been changed or not: it is counted and never used again.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from clients import body_of, filler

BUCKET = "/v1/buckets/changes"
GROUP = 50
"""Keys of a client that have a prefix in common, and are listed together."""

SIZE, LARGE = 1024, 5 << 20
ANSWER_S = 60.0
DRAIN_S = 120.0
KINDS = (("get", 40), ("put", 30), ("delete", 10), ("list", 18), ("large", 2))
LARGE_PUT_SHARE = 0.2
FIRST_KEPT = 5


@dataclass
class Found:
    """What clients saw in a stretch of time. `latencies`: of listings and small objects, in s;
    `told`: the first few things that went wrong."""

    requests: int = 0
    seconds: float = 0.0
    failed: int = 0
    wrong: int = 0
    missing: int = 0
    listings: int = 0
    incomplete: int = 0
    told: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list, repr=False)

    @property
    def bad(self) -> int:
        return self.failed + self.wrong + self.missing + self.incomplete

    def share(self, part: float) -> float:
        """The latency that this part of the requests is below, in milliseconds."""
        times = sorted(self.latencies) or [0.0]
        return times[min(len(times) - 1, int(part * len(times)))] * 1000

    def tell(self, text: str) -> None:
        if len(self.told) < FIRST_KEPT:
            self.told.append(text)


class Load:
    """All clients, on a loop in a thread of their own; called from another. Together they send
    `rate` requests a second at most while they run."""

    def __init__(
        self, ports: Sequence[int], *, clients: int, objects: int, large: int, rate: float
    ) -> None:
        self.ports = list(ports)
        self.pause = clients / rate
        self.found = Found()
        self.inflight: dict[int, int] = {}
        self.running = False
        self.small, self.big = filler(SIZE), filler(LARGE)
        each, more = divmod(objects, clients)
        large_each, large_more = divmod(large, clients)
        self.clients = [
            Client(self, n, each + (n < more), large_each + (n < large_more))
            for n in range(clients)
        ]
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self._tasks: list[asyncio.Task[None]] = []
        self._began = 0.0

    def fill(self) -> Found:
        """Stores all objects."""
        return self._all("fill", Client.fill)

    def verify(self) -> Found:
        """Reads every key and lists every group once."""
        return self._all("verify", Client.verify)

    def begin(self) -> None:
        """Starts the clients, or a new stretch of time."""
        self._call(self._begin())

    def lap(self) -> Found:
        """What was seen since the stretch began; another begins."""
        return self._call(self._lap())

    def stop(self) -> Found:
        """Lets every client finish what it does."""
        self.running = False
        self._call(self._stopped())
        return self.lap()

    def use(self, ports: Sequence[int]) -> None:
        """From now on these nodes are asked; returns when no others are any more."""
        self._call(self._use(list(ports)))

    @property
    def expected(self) -> int:
        """How many objects there are, as far as is known."""
        return sum(1 for c in self.clients for seq in c.held.values() if seq)

    @property
    def retired(self) -> int:
        """Keys that are not used any more, as a change of them failed."""
        return sum(len(c.retired) for c in self.clients)

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def _all(self, what: str, do: Any) -> Found:
        async def together() -> None:
            await asyncio.gather(*(do(client) for client in self.clients))

        self.lap()
        self._call(together())
        return self.lap()

    async def _begin(self) -> None:
        await self._lap()
        if not self.running:
            self.running = True
            self._tasks = [asyncio.ensure_future(client.run()) for client in self.clients]

    async def _lap(self) -> Found:
        found, self.found = self.found, Found()
        found.seconds = self.loop.time() - self._began
        self._began = self.loop.time()
        return found

    async def _stopped(self) -> None:
        await asyncio.gather(*self._tasks)

    async def _use(self, ports: list[int]) -> None:
        gone = set(self.ports) - set(ports)
        self.ports = ports
        until = self.loop.time() + DRAIN_S
        while any(self.inflight.get(port) for port in gone):
            if self.loop.time() > until:
                raise SystemExit(f"Requests to a node are not answered within {DRAIN_S:.0f} s.")
            await asyncio.sleep(0.01)


class Failed(Exception):
    """A request without an answer, or with one it should not have."""


class Client:
    """Keys under its own prefix, what it last stored under each, and a connection to each node."""

    def __init__(self, load: Load, number: int, objects: int, large: int) -> None:
        self.load = load
        self.rng = random.Random(f"strict {number}")
        self.keys = [f"{number}/{i // GROUP}/{i % GROUP}" for i in range(objects)]
        self.large = [f"{number}/large/{i}" for i in range(large)]
        self.held: dict[str, int] = dict.fromkeys((*self.keys, *self.large), 0)
        self.etags: dict[str, str] = {}
        self.retired: set[str] = set()
        self._seq = 0
        self._connections: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def fill(self) -> None:
        for key in self.held:
            await self._change(key, "PUT", b"")

    async def verify(self) -> None:
        for key in self.held:
            await self._guarded(self._get(key))
        for prefix in sorted({key.rpartition("/")[0] for key in self.held}):
            await self._guarded(self._list(prefix + "/"))

    async def run(self) -> None:
        kinds, weights = zip(*KINDS, strict=True)
        while self.load.running:
            began = self.load.loop.time()
            await self._guarded(self._once(self.rng.choices(kinds, weights)[0]))
            took = self.load.loop.time() - began
            await asyncio.sleep(max(0.0, self.load.pause * self.rng.uniform(0.5, 1.5) - took))

    async def _once(self, kind: str) -> None:
        if kind == "large" and self.large:
            key = self.rng.choice(self.large)
            kind = "put" if self.rng.random() < LARGE_PUT_SHARE else "get"
        else:
            key = self.rng.choice(self.keys)
        if kind == "list":
            await self._list(key.rpartition("/")[0] + "/")
            return
        context = await self._get(key)
        if context is not None and kind == "put":
            await self._change(key, "PUT", context)
        elif context is not None and kind == "delete" and self.held[key]:
            await self._change(key, "DELETE", context)

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Failed as failed:
            self.load.found.failed += 1
            self.load.found.tell(str(failed))

    # What is asked, and what must come of it.

    async def _get(self, key: str) -> bytes | None:
        """Reads a key; the context for its next change, None if there is to be none."""
        if key in self.retired:
            return None
        seq, found = self.held[key], self.load.found
        status, head, body = await self._ask("GET", f"{BUCKET}/objects/{key}", ok=(200, 300, 404))
        if status == 404 and seq:
            found.missing += 1
            found.tell(f"{key} is not there; it was stored")
        elif status == 300 or (status == 200 and (not seq or body != self._body(key, seq))):
            found.wrong += 1
            found.tell(f"{key} is another than was {'stored' if seq else 'deleted'} ({status})")
        else:
            return head.get(b"x-dynamo-context", b"")
        self.retired.add(key)  # counted once
        return None

    async def _change(self, key: str, method: str, context: bytes) -> None:
        self._seq += 1
        seq = self._seq if method == "PUT" else 0
        more = b"X-Dynamo-Context: %s\r\n" % context if context else b""
        body = self._body(key, seq) if seq else b""
        try:
            path = f"{BUCKET}/objects/{key}"
            _, head, _ = await self._ask(method, path, body, more, ok=(200, 204))
        except Failed as failed:
            self.retired.add(key)
            self.load.found.failed += 1
            self.load.found.tell(str(failed))
        else:
            self.held[key] = seq
            self.etags[key] = head.get(b"etag", b"").decode().strip('"')

    async def _list(self, prefix: str) -> None:
        found = self.load.found
        query = f"{BUCKET}/objects?prefix={quote(prefix, safe='')}&limit=1000"
        _, _, body = await self._ask("GET", query, ok=(200,))
        listed = [(o["key"], o["etag"]) for o in json.loads(body)["objects"]]
        wanted = [
            (key, self.etags[key])
            for key, seq in self.held.items()
            if seq and key.startswith(prefix) and key not in self.retired
        ]
        found.listings += 1
        if [pair for pair in listed if pair[0] not in self.retired] != sorted(wanted):
            found.incomplete += 1
            odd = sorted(set(listed) ^ set(wanted))[:3]
            found.tell(f"{prefix} lists {len(listed)} of {len(wanted)}; differing: {odd}")

    def _body(self, key: str, seq: int) -> bytes:
        large = "/large/" in key
        rest = self.load.big if large else self.load.small
        return body_of(f"{key}#{seq}", LARGE if large else SIZE, rest)

    # Requests.

    async def _ask(
        self, method: str, path: str, body: bytes = b"", more: bytes = b"", *, ok: Sequence[int]
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        port = self.rng.choice(self.load.ports)
        inflight, began = self.load.inflight, self.load.loop.time()
        inflight[port] = inflight.get(port, 0) + 1
        self.load.found.requests += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                status, head, data = await self._exchange(port, method, path, body, more)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self._connections.pop(port, None)
            raise Failed(f"{method} {path} by {port}: {type(error).__name__} {error}") from None
        finally:
            inflight[port] -= 1
        if len(body) + len(data) < LARGE:
            self.load.found.latencies.append(self.load.loop.time() - began)
        if status not in ok:
            text = data[:300].decode("utf-8", "replace")
            raise Failed(f"{method} {path} by {port}: {status} {text}")
        return status, head, data

    async def _exchange(
        self, port: int, method: str, path: str, body: bytes, more: bytes
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        kept = self._connections.get(port)
        if kept is None or kept[0].at_eof() or kept[1].is_closing():
            self._connections[port] = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = self._connections[port]
        length = b"Content-Length: %d\r\n" % len(body) if method != "GET" else b""
        line = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
        writer.write(b"".join((line, more, length, b"\r\n", body)))
        await writer.drain()
        first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        head = {name.lower(): value for name, _, value in (one.partition(b": ") for one in lines)}
        size = int(head.get(b"content-length", 0))
        data = await reader.readexactly(size)
        if head.get(b"connection", b"").lower() == b"close":
            del self._connections[port]
            writer.close()
        return int(first[9:12]), head, data
