"""Processes that run seeds, one at a time each, and say what came of them.

The parent hands each child its next seed, so that it knows which seed a child that dies, or never
ends, was at.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import attrs

SEED_S = 300.0
"""A run that takes longer than this on a real clock has no end."""

_BEGUN = "begun"
_spawn = multiprocessing.get_context("spawn")


@attrs.frozen
class Crash:
    """The simulator itself failed at a seed."""

    seed: int
    text: str


Work = Callable[[int], Any]
"""What a child does with a seed; a function of a module, so that a child can import it."""


@attrs.define(eq=False)
class _Child:
    process: Any
    pipe: Connection
    seed: int | None = None
    since: float = float("inf")
    """When it began with its seed, by a real clock."""


def over_seeds(
    seeds: Iterable[int],
    jobs: int,
    work: Work,
    begin: Callable[[], object],
    *,
    limit: float = SEED_S,
) -> Iterator[Any]:
    """What `work` gave for each seed, or a `Crash`, as they come. `begin` is called in each child
    before its first seed."""
    left = iter(seeds)
    children: list[_Child] = []
    try:
        for _ in range(jobs):
            children += _hire(work, begin, left)
        while children:
            wait([child.pipe for child in children], timeout=1.0)
            for child in list(children):
                result = _heard(child, limit)
                if result is None:
                    continue
                yield result
                if not child.process.is_alive() or child.pipe.closed:
                    children.remove(child)
                    children += _hire(work, begin, left)
                elif not _next(child, left):
                    children.remove(child)
                    _dismiss(child)
    finally:
        for child in children:
            child.process.kill()
            child.process.join()


def _hire(work: Work, begin: Callable[[], object], left: Iterator[int]) -> list[_Child]:
    """A child at its first seed; none if no seed is left."""
    seed = next(left, None)
    if seed is None:
        return []
    here, there = _spawn.Pipe()
    process = _spawn.Process(target=_live, args=(there, work, begin), daemon=True)
    process.start()
    there.close()
    child = _Child(process, here)
    _give(child, seed)
    return [child]


def _give(child: _Child, seed: int) -> None:
    child.seed, child.since = seed, float("inf")
    child.pipe.send(seed)


def _next(child: _Child, left: Iterator[int]) -> bool:
    seed = next(left, None)
    if seed is not None:
        _give(child, seed)
    return seed is not None


def _dismiss(child: _Child) -> None:
    child.pipe.close()
    child.process.join()


def _heard(child: _Child, limit: float) -> Any:
    """A result or a crash; None if the child is still at it."""
    assert child.seed is not None
    try:
        if child.pipe.poll():
            result = child.pipe.recv()
            if result != _BEGUN:
                return result
            child.since = time.perf_counter()
    except (EOFError, OSError):
        child.process.join()
        child.pipe.close()
        return Crash(child.seed, f"its process ended with status {child.process.exitcode}")
    if time.perf_counter() - child.since > limit:
        child.process.kill()
        child.process.join()
        child.pipe.close()
        return Crash(child.seed, f"no end after {limit:g} real seconds")
    return None


def _live(pipe: Connection, work: Work, begin: Callable[[], object]) -> None:
    # Ctrl-C reaches the whole group; the parent ends its children itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begin()
    while True:
        try:
            seed = pipe.recv()
        except EOFError:
            return
        pipe.send(_BEGUN)
        try:
            result = work(seed)
        except Exception:
            result = Crash(seed, traceback.format_exc())
        pipe.send(result)
