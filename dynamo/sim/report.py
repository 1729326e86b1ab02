"""What runs came to, in lines: invariants, faults, totals, and how to have a failure again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dynamo.sim import faults
from dynamo.sim.crew import Crash
from dynamo.sim.oracle import INVARIANTS
from dynamo.sim.run import Outcome
from dynamo.sim.tally import Violation

ENOUGH_SEEDS = 100
"""From so many seeds on, everything has to have been put to the test."""

SHOWN_MAX = 5
"""Violations told of one seed."""
REPLAY = "python -m dynamo.sim --seed {seed} --trace"


class Report:
    """Sums up outcomes, in whatever order they come."""

    def __init__(self) -> None:
        self.seeds = 0
        self.exercised: Counter[str] = Counter()
        self.violated: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.failing: dict[int, tuple[Violation, ...]] = {}
        self.crashes: dict[int, str] = {}
        self.excused: Counter[str] = Counter()
        self._operations = 0
        self._virtual = 0.0
        self._node_seconds = 0.0
        self._cpu = 0.0

    def add(self, outcome: Outcome | Crash) -> None:
        """One seed is done."""
        self.seeds += 1
        if isinstance(outcome, Crash):
            self.crashes[outcome.seed] = outcome.text
            return
        self.exercised.update(outcome.tally.exercised)
        self.violated.update(v.invariant for v in outcome.tally.violations)
        self.injected.update(outcome.faults)
        self.excused.update(outcome.excused)
        self._operations += outcome.operations.total()
        self._virtual += outcome.seconds
        self._node_seconds += outcome.seconds * outcome.size
        self._cpu += outcome.cpu
        if outcome.tally.violations:
            self.failing[outcome.seed] = tuple(outcome.tally.violations)

    @property
    def failed(self) -> bool:
        """Whether anything was violated, or the simulator itself failed."""
        return bool(self.failing or self.crashes)

    @property
    def untested(self) -> bool:
        """Whether there were seeds enough to test everything, and something was not tested."""
        return self.seeds >= ENOUGH_SEEDS and bool(self.never())

    def never(self) -> list[str]:
        """What should have been put to the test and was not."""
        kinds = [kind for kind in faults.KINDS if kind not in faults.NOT_YET]
        missing = [f"invariant {name}" for name in _invariants() if not self.exercised[name]]
        return missing + [f"fault {kind}" for kind in kinds if not self.injected[kind]]

    def lines(self, real_seconds: float) -> Iterable[str]:
        """The whole report."""
        for name in dict.fromkeys((*_invariants(), *self.violated)):
            yield f"{name} exercised={self.exercised[name]} violated={self.violated[name]}"
        for name, about in INVARIANTS.items():
            if not about.exercised:
                yield f"{name} not yet: {about.why}"
        for kind in faults.KINDS:
            if kind not in faults.NOT_YET:
                yield f"fault {kind} injected={self.injected[kind]}"
        for kind, reason in faults.NOT_YET.items():
            yield f"fault {kind} not yet: {reason}"
        for reason, count in sorted(self.excused.items()):
            yield f"let pass, {reason}: {count}"
        yield (
            f"{self.seeds} seeds, {self._virtual / 3600:.2f} simulated hours "
            f"({self._node_seconds / 3600:.1f} of nodes), {self._operations} requests, "
            f"{real_seconds:.1f} s real, {self._cpu:.1f} s CPU"
        )
        for seed, violations in sorted(self.failing.items()):
            yield from failure(seed, violations)
        for seed, text in sorted(self.crashes.items()):
            yield f"seed {seed} could not be run: {text.strip()}"
            yield f"  {REPLAY.format(seed=seed)}"
        if self.seeds >= ENOUGH_SEEDS:
            for what in self.never():
                yield f"never put to the test: {what}"


def failure(seed: int, violations: tuple[Violation, ...]) -> Iterable[str]:
    """What one seed violated, and the command that shows it."""
    yield f"seed {seed} violates {', '.join(dict.fromkeys(v.invariant for v in violations))}"
    for violation in violations[:SHOWN_MAX]:
        yield f"  {violation.invariant} at {violation.at:.3f} s: {violation.text}"
    if len(violations) > SHOWN_MAX:
        yield f"  and {len(violations) - SHOWN_MAX} more"
    yield f"  {REPLAY.format(seed=seed)}"


def summary(outcome: Outcome) -> Iterable[str]:
    """What came of one run."""
    yield (
        f"seed {outcome.seed}: {outcome.size} nodes, {outcome.seconds:.1f} virtual seconds, "
        f"settled {outcome.settled_after:.1f} s after the last fault, {outcome.cpu:.2f} s CPU"
    )
    for what, count in sorted(outcome.operations.items()):
        yield f"request {what} {count}"
    for kind, count in sorted(outcome.faults.items()):
        yield f"fault {kind} injected={count}"
    violated = Counter(violation.invariant for violation in outcome.tally.violations)
    for name in dict.fromkeys((*_invariants(), *violated)):
        yield f"{name} exercised={outcome.tally.exercised[name]} violated={violated[name]}"
    if violated:
        yield from failure(outcome.seed, tuple(outcome.tally.violations))


def _invariants() -> tuple[str, ...]:
    return tuple(name for name, about in INVARIANTS.items() if about.exercised)
