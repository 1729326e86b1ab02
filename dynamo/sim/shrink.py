"""Makes a failing plan smaller, as long as it still violates the same invariant.

Delta debugging (Zeller & Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE
TSE 2002) over the faults, then the operations, then how long things last; again and again until
nothing more can go, or the runs allowed are used up. Fewer events draw other chance from the
network, so a violation may be lost by any removal and found again by another: what is left need not
be the smallest plan there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import attrs
import msgspec

from dynamo.sim.plan import Fault, Operation, Plan

T = TypeVar("T")

TAIL_S = 2.0
"""How long a plan goes on after the last thing in it."""
BRIEF_S = 0.05
"""Durations are not halved below this."""


class Spent(Exception):
    """No more runs are allowed."""


class Shrinker:
    """`fails(plan)` runs a plan and says whether it still fails; asked `runs_max` times at most,
    and not after `expired()`. `runs` counts. `told(plan)` hears of each smaller plan; `best` is the
    last of them."""

    def __init__(
        self,
        fails: Callable[[Plan], bool],
        *,
        runs_max: int,
        expired: Callable[[], bool] = lambda: False,
        told: Callable[[Plan], object] = lambda plan: None,
    ) -> None:
        self._fails = fails
        self._runs_max = runs_max
        self._expired = expired
        self._told = told
        self.runs = 0
        self.best: Plan | None = None

    def shrink(self, plan: Plan) -> Plan:
        """The smallest failing plan found; `plan` itself is taken to fail."""
        self.best = plan
        try:
            while True:
                before = self.best
                for less in (self._fewer_faults, self._fewer_operations, self._shorter):
                    for smaller in less(self.best):
                        self.best = smaller
                        self._told(smaller)
                if self.best == before:
                    break
        except Spent:
            pass
        return self.best

    def _try(self, plan: Plan) -> bool:
        if self.runs >= self._runs_max or self._expired():
            raise Spent
        self.runs += 1
        return self._fails(plan)

    def _fewer_faults(self, plan: Plan) -> Iterator[Plan]:
        def with_these(faults: Sequence[Fault]) -> Plan:
            return attrs.evolve(plan, faults=tuple(faults))

        for faults in subsets(plan.faults, lambda faults: self._try(with_these(faults))):
            yield with_these(faults)

    def _fewer_operations(self, plan: Plan) -> Iterator[Plan]:
        def with_these(operations: Sequence[Operation]) -> Plan:
            return attrs.evolve(plan, operations=tuple(operations))

        for some in subsets(plan.operations, lambda some: self._try(with_these(some))):
            yield with_these(some)

    def _shorter(self, plan: Plan) -> Iterator[Plan]:
        for number in range(len(plan.faults)):
            while plan.faults[number].seconds / 2 >= BRIEF_S:
                fault = plan.faults[number]
                shorter = attrs.evolve(fault, seconds=round(fault.seconds / 2, 3))
                faults = (*plan.faults[:number], shorter, *plan.faults[number + 1 :])
                smaller = attrs.evolve(plan, faults=faults)
                if not self._try(smaller):
                    break
                plan = smaller
                yield plan
        ends = [fault.at + fault.seconds for fault in plan.faults]
        last = max([*ends, *(operation.at for operation in plan.operations)], default=0.0)
        cut = attrs.evolve(plan, seconds=round(last + TAIL_S, 3))
        if cut.seconds < plan.seconds and self._try(cut):
            yield cut


def subsets(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> Iterator[Sequence[T]]:
    """Ever smaller parts of `items` that fail (ddmin), the last one 1-minimal."""
    items, parts = list(items), 1
    while items:
        size = -(-len(items) // parts)
        for start in range(0, len(items), size):
            rest = items[:start] + items[start + size :]
            if fails(rest):
                items, parts = rest, max(parts - 1, 1)
                yield items
                break
        else:
            if size == 1:
                return
            parts = min(parts * 2, len(items))


def to_json(plan: Plan) -> bytes:
    """A plan as a file."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=1)


def from_json(data: bytes) -> Plan:
    """The plan of a file. Raises `ValueError`."""
    return msgspec.json.decode(data, type=Plan)


def in_words(plan: Plan) -> list[str]:
    """A plan as lines, by time."""
    lines = [(fault.at, f"{_fault(fault)}") for fault in plan.faults]
    lines += [(operation.at, _operation(operation)) for operation in plan.operations]
    head = f"seed {plan.seed}: {plan.size} nodes, {plan.clients} clients, {plan.seconds:g} s"
    return [head, *(f"{at:8.3f} {text}" for at, text in sorted(lines, key=lambda line: line[0]))]


def _fault(fault: Fault) -> str:
    lasting = f" for {fault.seconds:g} s" if fault.seconds else ""
    return f"{fault.kind} {', '.join(fault.targets)} {fault.amount:g}{lasting}"


def _operation(operation: Operation) -> str:
    more = [f"{operation.size} B"] if operation.size else []
    more += ["with what was seen"] if operation.seen else []
    more += [f"{name}={value}" for name, value in operation.options.items()]
    where = f"{operation.bucket}/{operation.key}" if operation.key else operation.bucket
    text = f"c{operation.client + 1} {operation.kind} {where} at {operation.entry}"
    return f"{text} ({', '.join(more)})" if more else text
