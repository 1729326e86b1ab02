"""One large object up and down, and what it does to the nodes' memory meanwhile."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.nodes import Process

PATH = "/v1/buckets/bench/objects/large"
BLOCK = 1 << 20
SAMPLE_S = 0.05
SILENCE_S = 60.0
KINDS = ("VmRSS", "RssAnon", "RssFile")


@dataclass
class Move:
    """One way. `growth`: bytes, by kind, of the node whose resident memory grew most."""

    name: str
    size: int
    seconds: float
    first_byte_s: float
    right: bool
    growth: dict[str, int]


class Watch:
    """Samples the nodes' memory in a thread until it is left."""

    def __init__(self, nodes: Sequence[Process]) -> None:
        self._nodes = nodes
        self._stop = threading.Event()
        self._before = [node.memory() for node in nodes]
        self._most = [dict.fromkeys(KINDS, 0) for _ in nodes]
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def growth(self) -> dict[str, int]:
        return max(self._most, key=lambda most: most["VmRSS"])

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            for node, before, most in zip(self._nodes, self._before, self._most, strict=True):
                now = node.memory()
                for kind in KINDS:
                    most[kind] = max(most[kind], now[kind] - before[kind])


def blocks(size: int) -> Iterator[bytes]:
    """The object's bytes; no two blocks are the same."""
    rest = random.Random(size).randbytes(BLOCK - 8)
    for number in range(size // BLOCK):
        yield number.to_bytes(8, "big") + rest


def move(nodes: Sequence[Process], size: int, say: Callable[[str], None]) -> list[Move]:
    """Up through the first node and down through the second; then it is deleted."""
    moves = []
    for name, way, node in (("upload", upload, nodes[0]), ("download", download, nodes[1])):
        say(f"{name} of {size >> 20} MiB")
        with Watch(nodes) as watch:
            began = time.monotonic()
            first, right = way(node.port, size)
            seconds = time.monotonic() - began
        moves.append(Move(name, size, seconds, first, right, watch.growth()))
    nodes[0].ask("DELETE", PATH)
    os.sync()
    return moves


def upload(port: int, size: int) -> tuple[float, bool]:
    """Seconds to the first byte of the answer, and whether it was a success."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S) as connection:
        head = f"PUT {PATH} HTTP/1.1\r\nHost: bench\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode())
        for block in blocks(size):
            connection.sendall(block)
        answer = connection.recv(65536)
    return time.monotonic() - began, answer.startswith(b"HTTP/1.1 200 ")


def download(port: int, size: int) -> tuple[float, bool]:
    """Seconds to the first byte of the body, and whether every byte was right."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S) as connection:
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(4096)
            if not piece:
                return 0.0, False
            head += piece
        head, _, held = head.partition(b"\r\n\r\n")
        if not held:
            held = connection.recv(4096)
        first = time.monotonic() - began
        right = head.startswith(b"HTTP/1.1 200 ")
        buffer = bytearray(held)
        for block in blocks(size):
            while len(buffer) < BLOCK:
                piece = connection.recv(1 << 18)
                if not piece:
                    return first, False
                buffer += piece
            right = right and buffer[:BLOCK] == block
            del buffer[:BLOCK]
    return first, right
