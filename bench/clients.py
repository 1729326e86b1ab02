"""The load: clients in closed loops over kept connections, in a process of their own.

    python bench/clients.py SPEC        SPEC is JSON, see `Spec`; prints one JSON object

Each client sends a request, waits for all of the answer, sends the next. An object's bytes follow
from its key and size, so a reader knows what it must get; of a sample it compares the digests.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from dataclasses import asdict, dataclass, field

SAMPLE_EVERY = 32
STAMP = 32
LATE_S = 60.0
"""Longest that answers are waited for after the last request."""


@dataclass
class Spec:
    """What is to be sent. The run ends after `seconds`, or after `requests` if that is not 0.

    `method`: PUT makes new objects PREFIX/CLIENT-NUMBER, GET reads at random among `stored`
    (prefix, clients, objects of each client); POST sends to `path` alone and stands for the unit.
    """

    ports: list[int]
    method: str
    path: str
    clients: int
    size: int
    seconds: float
    prefix: str = ""
    stored: list[tuple[str, int, int]] = field(default_factory=list)
    requests: int = 0


@dataclass
class Result:
    """What came of it. Times in milliseconds; `each`: objects that every client has stored."""

    operations: int
    seconds: float
    errors: int
    first_error: str
    verified: int
    each: int
    p50: float
    p99: float
    p999: float
    longest: float


def filler(size: int) -> bytes:
    """What bodies of a size have in common: bytes that do not compress."""
    return random.Random(size).randbytes(max(0, size - STAMP))


def body_of(key: str, size: int, rest: bytes) -> bytes:
    """The bytes of an object: a stamp made of its key, and the filler."""
    return hashlib.blake2b(key.encode(), digest_size=STAMP // 2).hexdigest().encode()[:size] + rest


class Run:
    """All clients together."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.loop = asyncio.get_running_loop()
        self.rest = filler(spec.size)
        self.latencies: list[float] = []
        self.errors = self.verified = 0
        self.first_error = ""
        self.done = [0] * spec.clients
        self.left = spec.requests or 1 << 62
        self.open = spec.clients
        self.finished = self.loop.create_future()
        self.began = self.ended = self.loop.time()
        self.until = self.began + (1e9 if spec.requests else spec.seconds)

    async def go(self) -> Result:
        spec = self.spec
        self.clients = [Client(self, number) for number in range(spec.clients)]
        await asyncio.gather(*(client.connect() for client in self.clients))
        limit = LATE_S + (3600 * 6 if spec.requests else spec.seconds)
        try:
            await asyncio.wait_for(self.finished, limit)
        except TimeoutError:
            self.fault(f"{self.open} clients were never answered")
        times = sorted(self.latencies) or [0.0]

        def share(part: float) -> float:
            return times[min(len(times) - 1, int(part * len(times)))] * 1000

        return Result(
            operations=len(self.latencies),
            seconds=self.ended - self.began,
            errors=self.errors,
            first_error=self.first_error,
            verified=self.verified,
            each=min(self.done),
            p50=share(0.5),
            p99=share(0.99),
            p999=share(0.999),
            longest=times[-1] * 1000,
        )

    def more(self) -> bool:
        """Whether another request is to be sent."""
        self.left -= 1
        return self.left >= 0 and self.loop.time() < self.until

    def end(self) -> None:
        """A client has nothing more to do."""
        self.open -= 1
        if not self.open and not self.finished.done():
            self.finished.set_result(None)

    def fault(self, text: str) -> None:
        """Something went wrong."""
        self.errors += 1
        self.first_error = self.first_error or text


class Client(asyncio.Protocol):
    """One connection and its loop."""

    transport: asyncio.Transport

    def __init__(self, run: Run, number: int) -> None:
        spec = run.spec
        self.run, self.number = run, number
        self.port = spec.ports[number % len(spec.ports)]
        self.rng = random.Random(f"{spec.prefix}:{number}:{spec.method}")
        self.host = f" HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n".encode()
        self.length = b"Content-Length: %d\r\n\r\n" % spec.size
        self.weights = [clients * each for _, clients, each in spec.stored]
        self.head = b""
        self.pieces: list[bytes] = []
        self.missing = -1
        self.status = 0
        self.key = ""
        self.sent_at = 0.0
        self.over = False

    async def connect(self) -> None:
        await self.run.loop.create_connection(lambda: self, "127.0.0.1", self.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 30)
        self.next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over:
            self.over = True
            self.run.fault(f"connection lost: {error}")
            self.run.end()

    def next(self) -> None:
        if not self.run.more():
            self.over = True
            self.run.end()
            self.transport.close()
            return
        spec = self.run.spec
        self.head, self.pieces, self.missing = b"", [], -1
        self.sent_at = self.run.loop.time()
        if spec.method == "GET":
            self.key = self.pick()
            request = f"GET {spec.path}{self.key}".encode() + self.host + b"\r\n"
        elif spec.method == "PUT":
            self.key = f"{spec.prefix}/{self.number}-{self.run.done[self.number]}"
            line = f"PUT {spec.path}{self.key}".encode()
            body = body_of(self.key, spec.size, self.run.rest)
            request = b"".join((line, self.host, self.length, body))
        else:
            body = body_of("", spec.size, self.run.rest)
            request = b"".join((b"POST ", spec.path.encode(), self.host, self.length, body))
        self.transport.write(request)

    def pick(self) -> str:
        prefix, clients, each = self.rng.choices(self.run.spec.stored, self.weights)[0]
        return f"{prefix}/{self.rng.randrange(clients)}-{self.rng.randrange(each)}"

    def data_received(self, data: bytes) -> None:
        if self.missing < 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self.head[:end].lower(), self.head[end + 4 :]
            self.status = int(head[9:12])
            at = head.find(b"\r\ncontent-length:")
            self.missing = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        self.pieces.append(data)
        self.missing -= len(data)
        if self.missing <= 0:
            self.answered()

    def answered(self) -> None:
        run = self.run
        run.ended = run.loop.time()
        if not 200 <= self.status < 300:
            text = b"".join(self.pieces)[:200].decode("utf-8", "replace")
            run.fault(f"{self.status} {self.key} {text}")
            self.next()
            return
        run.latencies.append(run.ended - self.sent_at)
        run.done[self.number] += 1
        if run.spec.method == "GET" and run.done[self.number] % SAMPLE_EVERY == 1:
            self.verify()
        self.next()

    def verify(self) -> None:
        wanted = body_of(self.key, self.run.spec.size, self.run.rest)
        got = hashlib.sha256(b"".join(self.pieces)).digest()
        if got == hashlib.sha256(wanted).digest():
            self.run.verified += 1
        else:
            self.run.fault(f"{self.key} has other bytes than were put")


async def main() -> None:
    print(json.dumps(asdict(await Run(Spec(**json.loads(sys.argv[1]))).go())))


if __name__ == "__main__":
    asyncio.run(main())
