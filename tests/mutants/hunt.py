"""Runs seeds against code with a fault in it, each hunt in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import attrs

from dynamo.sim.schedule import Schedule
from dynamo.sim.tally import Tally
from tests.mutants.patch import applied
from tests.mutants.registry import MUTANTS

SOUND = ""
"""Stands for the code without any fault, in place of a mutant's name."""

Word = Literal["caught", "survived", "failed"]


@attrs.frozen
class Hunt:
    """The name of a mutant, or `SOUND`, and the seeds to try, in order, until one is violated."""

    name: str
    seeds: tuple[int, ...]


@attrs.frozen
class Kill:
    """What came of a hunt. `tried`: how many seeds were run. `invariant` and `text` are those of
    the first violation, in the run of `seed`; `cpu` is in seconds.

    "failed" means that a run did not come to its end: it raised, or took more than its time.
    """

    name: str
    word: Word
    tried: int = 0
    seed: int = 0
    invariant: str = ""
    text: str = ""
    cpu: float = 0.0


def hunt(what: Hunt) -> Kill:
    """Runs the seeds one after the other, in this process."""
    from dynamo.sim.run import plan, run

    began = time.process_time()
    fault: AbstractContextManager[None] = nullcontext()
    if what.name != SOUND:
        fault = applied(MUTANTS[what.name])
    with fault:
        for tried, seed in enumerate(what.seeds, 1):
            with suppress(Found), stopping_at_the_first() as violations:
                run(plan(seed))
            if violations:
                cpu = time.process_time() - began
                return Kill(what.name, "caught", tried, seed, *violations[0], cpu)
    return Kill(what.name, "survived", len(what.seeds), cpu=time.process_time() - began)


class Found(Exception):
    """A run needs no end: something is violated."""


@contextmanager
def stopping_at_the_first() -> Iterator[list[tuple[str, str]]]:
    """Within it a run that finds a violation raises `Found` before its next event. Gives the
    violations: invariant and text."""
    violations: list[tuple[str, str]] = []
    broken, step = Tally.broken, Schedule._step

    def note(tally: Tally, invariant: str, at: float, text: str) -> None:
        violations.append((invariant, text))
        broken(tally, invariant, at, text)

    def stop(schedule: Schedule) -> None:
        if violations:
            raise Found
        step(schedule)

    Tally.broken, Schedule._step = note, stop  # type: ignore[method-assign]
    try:
        yield violations
    finally:
        Tally.broken, Schedule._step = broken, step  # type: ignore[method-assign]


def hunt_all(
    hunts: Iterable[Hunt], *, jobs: int, cpu_per_seed: int, do: Callable[[Hunt], Kill] = hunt
) -> Iterator[Kill]:
    """What came of each, in the order they end. `cpu_per_seed`: seconds after which a hunt is given
    up, for each of its seeds."""
    context = multiprocessing.get_context("fork")
    waiting = list(reversed(list(hunts)))
    running: dict[Connection, tuple[Any, Hunt]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            what = waiting.pop()
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(
                target=_child, args=(theirs, what, cpu_per_seed, do), daemon=True
            )
            child.start()
            theirs.close()
            running[ours] = (child, what)
        for ready in wait(list(running)):
            assert isinstance(ready, Connection)
            child, what = running.pop(ready)
            try:
                kill = ready.recv()
            except EOFError:
                kill = Kill(what.name, "failed", text="the process took too long, or was killed")
            child.join()
            ready.close()
            yield kill


def _child(answer: Connection, what: Hunt, cpu_per_seed: int, do: Callable[[Hunt], Kill]) -> None:
    used = int(time.process_time())
    most = used + cpu_per_seed * len(what.seeds)
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    try:
        kill = do(what)
    except Exception as error:
        kill = Kill(what.name, "failed", text=f"{type(error).__name__}: {error}")
    answer.send(kill)
    answer.close()


def slices(name: str, seeds: Sequence[int], size: int) -> list[Hunt]:
    """One hunt for each few of the seeds, to be had at the same time."""
    return [Hunt(name, tuple(seeds[at : at + size])) for at in range(0, len(seeds), size)]
