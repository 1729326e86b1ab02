"""`python -m dynamo.sim`: runs seeds, tells one as a story, or makes a failing one smaller."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from dynamo.sim import run as running
from dynamo.sim.crew import Crash, over_seeds
from dynamo.sim.logs import silence
from dynamo.sim.plan import Plan
from dynamo.sim.report import Report, failure, summary
from dynamo.sim.screen import Bar
from dynamo.sim.shrink import Shrinker, from_json, in_words, to_json

SHRINK_RUNS = 300
SHRINK_SECONDS = 600.0
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help tells what there is)\n")


def main(arguments: Sequence[str]) -> int:
    """Does what the command line says; gives the exit status."""
    parser = _arguments()
    given = parser.parse_args(arguments)
    asked = [given.seeds, given.seed, given.plan, given.shrink or None]
    if given.shrink is True and given.seed is None and given.plan is None:
        parser.error("--shrink needs a seed: --shrink N")
    if type(given.shrink) is int:
        given.seed = given.shrink
    if all(what is None for what in asked):
        parser.error("give --seeds COUNT, --seed N or --plan FILE")
    if given.seeds is not None and (given.seed is not None or given.plan is not None):
        parser.error("--seeds runs many; it goes with neither --seed, --shrink nor --plan")
    if given.seeds is not None:
        return _sweep(range(given.start, given.start + given.seeds), given.jobs)
    silence()
    plan = _plan(parser, given.plan) if given.plan is not None else running.plan(given.seed)
    if given.shrink:
        return _shrink(plan, given.out or f"seed-{plan.seed}.json", given.runs)
    return _story(plan, traced=given.trace)


def _arguments() -> _Parser:
    parser = _Parser("python -m dynamo.sim", description=__doc__)
    parser.add_argument("--seeds", type=_positive, metavar="COUNT", help="run so many seeds")
    parser.add_argument("--start", type=int, default=1, metavar="FIRST", help="the first of them")
    parser.add_argument(
        "--jobs", type=_positive, default=os.cpu_count() or 1, help="processes: %(default)s"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="run one seed")
    parser.add_argument("--trace", action="store_true", help="tell its events in virtual time")
    parser.add_argument("--plan", metavar="FILE", help="run a plan that --shrink has saved")
    parser.add_argument(
        "--shrink", nargs="?", type=int, const=True, metavar="N", help="make a failing run smaller"
    )
    parser.add_argument("--out", metavar="FILE", help="where --shrink saves: seed-N.json")
    parser.add_argument(
        "--runs", type=_positive, default=SHRINK_RUNS, help="runs --shrink may use: %(default)s"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return number


def _plan(parser: _Parser, path: str) -> Plan:
    try:
        return from_json(Path(path).read_bytes())
    except OSError as error:
        parser.error(f"{path} cannot be read: {error.strerror}")
    except ValueError as error:
        parser.error(f"{path} is not a plan: {error}")


def _sweep(seeds: Sequence[int], jobs: int) -> int:
    report, began = Report(), time.perf_counter()
    bar = Bar(len(seeds))
    interrupted = False
    try:
        for outcome in over_seeds(seeds, min(jobs, len(seeds)), running.run_seed, silence):
            report.add(outcome)
            failed = isinstance(outcome, Crash) or bool(outcome.tally.violations)
            bar.step(outcome.seed, failed=failed)
    except KeyboardInterrupt:
        interrupted = True
    bar.close()
    for line in report.lines(time.perf_counter() - began):
        print(line)
    if interrupted:
        print(f"interrupted after {report.seeds} of {len(seeds)} seeds")
        return INTERRUPTED
    return 1 if report.failed or report.untested else 0


def _story(plan: Plan, *, traced: bool) -> int:
    write: Callable[[str], object] | None = print if traced else None
    outcome = running.run(plan, traced=traced, write=write)
    if traced:
        if outcome.tally.violations:
            for line in failure(outcome.seed, tuple(outcome.tally.violations)):
                print(line)
        print(f"trace sha256:{outcome.digest}")
    else:
        for line in summary(outcome):
            print(line)
    return 1 if outcome.tally.violations else 0


def _shrink(plan: Plan, out: str, runs: int) -> int:
    violations = running.run(plan).tally.violations
    if not violations:
        print(f"seed {plan.seed} violates nothing; there is nothing to make smaller")
        return 0
    wanted = violations[0].invariant
    print(f"seed {plan.seed} violates {wanted}: {violations[0].text}")
    until = time.perf_counter() + SHRINK_SECONDS
    shrinker = Shrinker(
        lambda plan: _violates(plan, wanted),
        runs_max=runs,
        expired=lambda: time.perf_counter() > until,
        told=lambda plan: print(
            f"  {len(plan.faults)} faults, {len(plan.operations)} operations", file=sys.stderr
        ),
    )
    small = plan
    try:
        small = shrinker.shrink(plan)
    except KeyboardInterrupt:
        small = shrinker.best or plan
    Path(out).write_bytes(to_json(small))
    for line in in_words(small):
        print(line)
    for violation in running.run(small).tally.violations:
        print(f"{violation.invariant} at {violation.at:.3f} s: {violation.text}")
    print(f"saved after {shrinker.runs} runs: python -m dynamo.sim --plan {out} --trace")
    return 1


def _violates(plan: Plan, invariant: str) -> bool:
    found = running.run(plan).tally.violations
    return any(violation.invariant == invariant for violation in found)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
