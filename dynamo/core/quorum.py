"""Counting answers: a write that needs W, a read that needs R.

Both tallies are values that are told what happened and say `won`, `lost` or `pending`; lost is
known as soon as it is certain. Who is asked, and when somebody is late, is the coordinator's
affair (Dynamo §4.5; the shape follows riak_kv's put and get cores).
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Literal

import attrs

from dynamo.core.record import EMPTY, Context, Record

Verdict = Literal["pending", "won", "lost"]


def majority(n: int) -> int:
    """More than half of `n`."""
    return n // 2 + 1


@attrs.frozen
class Quorums:
    """So many of each of some groups of nodes, which may overlap: (names, how many of them)."""

    groups: tuple[tuple[frozenset[str], int], ...]

    @classmethod
    def of(cls, names: Iterable[str], needed: int) -> Quorums:
        """So many of one group."""
        return cls(((frozenset(names), needed),))

    def met(self, names: Set[str]) -> bool:
        """Whether these are enough of every group."""
        return all(len(group & names) >= needed for group, needed in self.groups)

    def besides(self, name: str) -> Quorums:
        """What is needed besides this one."""
        return Quorums(
            tuple((group - {name}, needed - (name in group)) for group, needed in self.groups)
        )

    def short(self, names: Set[str]) -> tuple[int, int]:
        """How many there are of how many, of the group that lacks most."""
        return min(
            ((len(group & names), needed) for group, needed in self.groups),
            key=lambda found: found[0] - found[1],
        )


@attrs.define
class WriteTally:
    """Acknowledgements of one write.

    `needed`: W. `acks` maps each node that has it on disk to its context, in order of arrival.
    `open`: nodes asked that have not answered. `spare`: how many more could still be asked.
    """

    needed: int
    acks: dict[str, Context] = attrs.field(factory=dict)
    open: set[str] = attrs.field(factory=set)
    faults: dict[str, str] = attrs.field(factory=dict)
    spare: int = 0

    def ask(self, name: str) -> None:
        self.open.add(name)

    def ack(self, name: str, context: Context) -> None:
        self.open.discard(name)
        self.faults.pop(name, None)
        self.acks[name] = context

    def fail(self, name: str, why: str) -> None:
        self.open.discard(name)
        if name not in self.acks:
            self.faults[name] = why

    @property
    def verdict(self) -> Verdict:
        if len(self.acks) >= self.needed:
            return "won"
        if len(self.acks) + len(self.open) + self.spare < self.needed:
            return "lost"
        return "pending"

    def why(self) -> str:
        """The faults so far, as one clause."""
        return _clause(self.faults, self.open)


NOBODY: frozenset[str] = frozenset()


@attrs.define
class ReadTally:
    """Answers to one read.

    An answer names the members its node still awaits hints from. It counts towards R only when
    every one of those has answered this read as well: what the node has missed is then in the
    merge all the same. Otherwise its "not found" and its older versions would count for more than
    they know (an acknowledged write must stay readable, sloppy quorum or not).

    For the same reason `stand_ins` count only in the end. A stand-in has nothing of what was
    written before its owner went away. So while fewer than R owners have answered, every target
    has to have been asked (`unasked` is how many were not) and to have answered or failed, or to
    have been silent for longer than the caller is `patient`. Owners known to be `gone` are not
    waited for.

    Those in `aside` are asked only for what they keep for others; they never count themselves.
    """

    needed: int
    records: dict[str, Record] = attrs.field(factory=dict)
    awaiting: dict[str, frozenset[str]] = attrs.field(factory=dict)
    open: set[str] = attrs.field(factory=set)
    faults: dict[str, str] = attrs.field(factory=dict)
    spare: int = 0
    aside: set[str] = attrs.field(factory=set)
    stand_ins: frozenset[str] = NOBODY
    gone: frozenset[str] = NOBODY
    unasked: int = 0
    patient: bool = True

    def ask(self, name: str) -> None:
        self.open.add(name)

    def answer(self, name: str, record: Record, awaiting: Iterable[str] = ()) -> None:
        self.open.discard(name)
        self.records[name] = record
        self.awaiting[name] = frozenset(awaiting) if awaiting else NOBODY

    def fail(self, name: str, why: str) -> None:
        self.open.discard(name)
        self.faults[name] = why

    def counted(self) -> tuple[str, ...]:
        """The nodes whose answers count, in order of arrival."""
        if not (self.aside or any(self.awaiting.values())):
            return tuple(self.records)
        return tuple(
            n
            for n in self.records
            if n not in self.aside and all(a in self.records for a in self.awaiting[n])
        )

    @property
    def verdict(self) -> Verdict:
        counted = self.counted()
        if len(counted) >= self.needed:
            if not self.stand_ins:
                return "won"
            if sum(name not in self.stand_ins for name in counted) >= self.needed:
                return "won"
            if not self.unasked and not (self.patient and self.open - self.gone):
                return "won"
        return "pending" if self._possible() >= self.needed else "lost"

    def _possible(self) -> int:
        """How many answers may come to count at the very most, or at least as many as needed."""
        unknown = len(self.open - self.aside) + self.spare
        if unknown >= self.needed:
            return unknown
        for name, awaited in self.awaiting.items():
            if name not in self.aside:
                lacking = [a for a in awaited if a not in self.records and a not in self.open]
                unknown += all(self.spare and a not in self.faults for a in lacking)
        return unknown

    def merged(self, latest: bool) -> Record:
        """What the answers know together."""
        merged = EMPTY
        for record in self.records.values():
            merged = record if merged is EMPTY else merged.merge(record, latest=latest)
        return merged.newest() if latest else merged

    def why(self) -> str:
        """The faults so far, as one clause."""
        faults = dict(self.faults)
        for name in self.records:
            absent = sorted(self.awaiting[name] - set(self.records))
            if absent:
                faults[name] = f"counts only with {', '.join(absent)}"
        return _clause(faults, self.open)


def _clause(faults: dict[str, str], silent: set[str]) -> str:
    said = [f"{name}: {why}" for name, why in sorted(faults.items())]
    said += [f"{name}: no answer" for name in sorted(silent)]
    return "; ".join(said)
