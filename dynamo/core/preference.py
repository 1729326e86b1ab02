"""Who is asked for one key, given who is healthy (Dynamo §4.6).

The ring's ranking says who owns a key and who stands in, in which order; liveness says who is
there. An owner that is not gets the next healthy node on the ring as stand-in, whose copy carries
a hint. Where there is none left, the owner is `missed` and the coordinator keeps the hint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import attrs

from dynamo.core.quorum import Quorums


@attrs.frozen
class Target:
    """A node to ask; `stand_in_for` is the absent owner, "" if the node owns the key itself."""

    name: str
    stand_in_for: str = ""


@attrs.frozen
class Preference:
    """The preference list for one operation.

    `targets`: the first N healthy. `missed`: absent owners without a stand-in. `spares`: healthy
    nodes further down, for whoever turns out late. `owners`: the first N of the ring. `whole`: all
    owners are well, so that they are the targets. `beside`: the same by the other ring that a write
    has to reach, while the ring changes.
    """

    owners: tuple[str, ...]
    targets: tuple[Target, ...]
    missed: tuple[str, ...]
    spares: tuple[str, ...]
    whole: bool = False
    beside: Preference | None = None

    @property
    def halves(self) -> tuple[Preference, ...]:
        """By each ring that a write has to reach."""
        return (self,) if self.beside is None else (self, self.beside)

    def owned_by(self, name: str) -> bool:
        """Whether a node is an owner by any ring."""
        return any(name in half.owners for half in self.halves)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All targets by any ring."""
        return tuple(dict.fromkeys(t.name for half in self.halves for t in half.targets))

    def missed_with(self, coordinator: str) -> list[str]:
        """The absent owners for whom a coordinator keeps a hint: those without a stand-in, and
        those it stands in for, or the first if it is no target at all."""
        if self.whole and self.beside is None and coordinator in self.owners:
            return []
        found = [owner for half in self.halves for owner in half.missed]
        mine = [target for half in self.halves if (target := half.target(coordinator)) is not None]
        found += [target.stand_in_for for target in mine if target.stand_in_for]
        if not mine and not self.owned_by(coordinator):
            found.append(self.owners[0])
        return list(dict.fromkeys(found))

    def quorums(self, w: int) -> Quorums:
        """The targets that a write needs: W by each ring."""
        found = self._quorums.get(w)
        if found is None:
            found = self._quorums[w] = Quorums(
                tuple(
                    (frozenset(t.name for t in half.targets), min(w, len(half.targets)))
                    for half in self.halves
                )
            )
        return found

    @cached_property
    def _quorums(self) -> dict[int, Quorums]:
        """Those that were asked for: a list is made once and used for every write."""
        return {}

    def target(self, name: str) -> Target | None:
        """How `name` is to be asked, None if it is not."""
        for target in self.targets:
            if target.name == name:
                return target
        return None


def prefer(
    ranking: Sequence[str],
    n: int,
    healthy: Callable[[str], bool],
    strict: bool,
    doubtful: Callable[[str], bool] = lambda name: False,
) -> Preference:
    """The preference list over `ranking` for `n` copies; `strict` allows no stand-ins.

    An owner that is `doubtful` (suspected, or silent just now) is asked, with a stand-in beside
    it, after those that are well.
    """
    owners = tuple(ranking[:n])
    if all(healthy(name) for name in owners):
        spares = () if strict else tuple(x for x in ranking[n : n + n] if healthy(x))
        return Preference(owners, tuple(Target(name) for name in owners), (), spares, whole=True)
    stand_ins = iter(()) if strict else (x for x in ranking[n:] if healthy(x))
    targets, beside, doubted, missed = [], [], [], []
    for owner in owners:
        if healthy(owner):
            targets.append(Target(owner))
            continue
        stand_in = next(stand_ins, None)
        if stand_in is not None:
            beside.append(Target(stand_in, owner))
        if doubtful(owner):
            doubted.append(Target(owner))
        elif stand_in is None:
            missed.append(owner)
    # Owners that are well come first: they coordinate, and they are asked first.
    return Preference(owners, (*targets, *beside, *doubted), tuple(missed), tuple(stand_ins))
