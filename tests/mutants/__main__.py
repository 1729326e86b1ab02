"""`python -m tests.mutants`: does the simulator find every fault there is?

First the code as it is runs all seeds: a seed that is violated then shows nothing about a mutant
and is left out. Then each mutant runs them until one is violated. Ends with 1 if a mutant survives,
if a run does not come to its end, or if the code as it is was violated.
"""

from __future__ import annotations

import argparse
import os
import sys

import dynamo.node
import dynamo.sim.run
from dynamo.sim.logs import silence
from tests.mutants.hunt import SOUND, Hunt, Kill, hunt_all, slices
from tests.mutants.registry import MUTANTS

SEEDS = 60
CPU_PER_SEED_S = 120
TEXT_CHARS = 110

LOADED = (dynamo.node, dynamo.sim.run)
"""All of the node is imported before anything is patched, and once for all hunts."""


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    asked = _parser().parse_args(arguments)
    names = asked.only or sorted(MUTANTS)
    unknown = [name for name in names if name not in MUTANTS]
    if unknown:
        sys.exit(f"There is no mutant {unknown[0]!r}; --list names them.")
    if asked.list:
        for name in names:
            print(f"{name:32} {MUTANTS[name].breaks}")
        return 0
    silence()
    first, last = asked.first, asked.first + asked.seeds
    how = {"jobs": asked.jobs, "cpu_per_seed": asked.cpu}
    seeds = tuple(range(first, last))
    bad = _sound(seeds, how)
    left = tuple(seed for seed in seeds if seed not in bad)
    kills = []
    for kill in hunt_all([Hunt(name, left) for name in names], **how):
        print(_line(kill), flush=True)
        kills.append(kill)
    print(_table(kills))
    found = sum(kill.word == "caught" for kill in kills)
    print(f"{found} of {len(kills)} mutants were caught within {len(left)} seeds.")
    return 1 if bad or found < len(kills) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="this one; may be repeated")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="MAX", help="how many to try")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--cpu", type=int, default=CPU_PER_SEED_S, help="CPU seconds for a seed")
    parser.add_argument("--list", action="store_true", help="name the mutants and end")
    return parser


def _sound(seeds: tuple[int, ...], how: dict[str, int]) -> set[int]:
    """The seeds that the code as it is does not pass, which ought to be none."""
    bad: set[int] = set()
    cpu = 0.0
    for kill in hunt_all(slices(SOUND, seeds, 1), **how):
        cpu += kill.cpu
        if kill.word == "caught":
            bad.add(kill.seed)
            print(f"Without a mutant, seed {kill.seed}: {kill.invariant}: {kill.text}", flush=True)
        elif kill.word == "failed":
            print(f"Without a mutant, a run failed: {kill.text}", flush=True)
            bad.add(0)
    passed = len(seeds) - len(bad)
    print(
        f"The code as it is passed {passed} of {len(seeds)} seeds in {cpu:.0f} CPU s.", flush=True
    )
    return bad


def _line(kill: Kill) -> str:
    text = " ".join(kill.text.split())[:TEXT_CHARS]
    if kill.word == "caught":
        return f"{kill.name:32} seed {kill.seed}, {kill.invariant}: {text}"
    return f"{kill.name:32} {kill.word.upper()} {text}"


def _table(kills: list[Kill]) -> str:
    lines = ["", "| Mutant | Seeds | Caught by | Expected | CPU s |", "|---|---:|---|---|---:|"]
    for kill in sorted(kills, key=lambda kill: kill.name):
        expected = ", ".join(MUTANTS[kill.name].invariants)
        caught = kill.invariant if kill.word == "caught" else f"**{kill.word}**"
        lines.append(f"| {kill.name} | {kill.tried} | {caught} | {expected} | {kill.cpu:.0f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
