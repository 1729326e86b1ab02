"""`python -m tests.mutants`: does the simulator find every fault there is?

Each mutant runs the seeds that are known to find it (`tests.mutants.seeds`), and if none of them
does any more, the first ones in order, until one is violated. Before that the code as it is runs
them: a seed that is violated then shows nothing about a mutant and is left out. With `--first` or
`--seeds` those are run alone. Ends with 1 if a mutant survives, if a run does not come to its end,
or if the code as it is was violated.
"""

from __future__ import annotations

import argparse
import os
import sys

import attrs

import dynamo.node
import dynamo.sim.run
from dynamo.sim.logs import silence
from tests.mutants.hunt import SOUND, Hunt, Kill, hunt_all, slices
from tests.mutants.registry import MUTANTS
from tests.mutants.seeds import KNOWN

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
    how = {"jobs": asked.jobs, "cpu_per_seed": asked.cpu}
    first, many = asked.first or 1, asked.seeds or SEEDS
    rest = tuple(range(first, first + many))
    bad: set[int] = set()
    kills: dict[str, Kill] = {}
    if asked.first is None and asked.seeds is None:
        _hunt({name: KNOWN[name] for name in names}, kills, bad, how)
    left = [name for name in names if name not in kills or kills[name].word == "survived"]
    _hunt(dict.fromkeys(left, rest), kills, bad, how)
    print(_table(list(kills.values())))
    found = sum(kill.word == "caught" for kill in kills.values())
    print(f"{found} of {len(kills)} mutants were caught.")
    return 1 if bad or found < len(kills) else 0


def _hunt(
    seeds: dict[str, tuple[int, ...]], kills: dict[str, Kill], bad: set[int], how: dict[str, int]
) -> None:
    """Hunts each of these mutants with the seeds given for it. `kills` has what came of them, and
    `bad` the seeds that the code as it is does not pass."""
    if not seeds:
        return
    bad |= _sound(tuple(sorted({seed for own in seeds.values() for seed in own} - bad)), how)
    hunts = [Hunt(name, tuple(s for s in own if s not in bad)) for name, own in seeds.items()]
    for kill in hunt_all(hunts, **how):
        before = kills.get(kill.name, Kill(kill.name, "survived"))
        tried, cpu = before.tried + kill.tried, before.cpu + kill.cpu
        kills[kill.name] = attrs.evolve(kill, tried=tried, cpu=cpu)
        print(_line(kill), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="this one; may be repeated")
    parser.add_argument("--seeds", type=int, metavar="MAX", help="try so many, and no known ones")
    parser.add_argument("--first", type=int, metavar="SEED", help="the first of them")
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
    lines = ["", "| Mutant | Seed | Tried | Caught by | Expected | CPU s |"]
    lines.append("|---|---:|---:|---|---|---:|")
    for kill in sorted(kills, key=lambda kill: kill.name):
        expected = ", ".join(MUTANTS[kill.name].invariants)
        caught = kill.invariant if kill.word == "caught" else f"**{kill.word}**"
        of = f"{kill.seed or '-'} | {kill.tried}"
        lines.append(f"| {kill.name} | {of} | {caught} | {expected} | {kill.cpu:.0f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
