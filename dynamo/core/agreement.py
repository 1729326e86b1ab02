"""How the members agree on the next layout, whoever proposes it, whoever is away.

Each version is decided once, by the members of the ring before it: Paxos (Lamport, "Paxos Made
Simple", 2001), an instance a version. An acceptor promises and accepts on its disk before it says
so. A proposer that finds another's value accepted carries that one through, and proposes its own
for the version after. Most members have to be there to change the ring; nothing else needs them.

A member whose disk was lost or put back may have forgotten what it said. It tells so with its vote,
which then counts only if all vote: who remembers a decision is among them, if anybody does.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

import attrs
import msgspec

from dynamo.core.layout import Layout

Ballot = tuple[int, str]
"""A round and who proposes in it."""

NO_BALLOT: Ballot = (0, "")


class Promise(msgspec.Struct, frozen=True, array_like=True):
    """What an acceptor has said of the layout `version`, and must keep to: no ballot below
    `promised`; `accepted` is the last it accepted, and `value` what that was."""

    version: int = 0
    promised: Ballot = NO_BALLOT
    accepted: Ballot = NO_BALLOT
    value: Layout | None = None

    def about(self, version: int) -> Promise:
        """What it has said of this version; nothing if it is a later one."""
        return self if self.version == version else Promise(version)

    def prepare(self, ballot: Ballot) -> Promise | None:
        """After a promise to heed no lower ballot; None if it or a higher one was promised: it may
        come again from a proposer that forgot that it asked for another value by it."""
        if ballot <= self.promised:
            return None
        return msgspec.structs.replace(self, promised=ballot)

    def accept(self, ballot: Ballot, value: Layout) -> Promise | None:
        """After accepting a value; None if a higher ballot was promised."""
        if ballot < self.promised:
            return None
        return Promise(self.version, ballot, ballot, value)


@attrs.define
class Proposal:
    """One ballot for one version. `electors` decide: `needed` of those that have not `forgot` what
    they may have said before, or all of them."""

    version: int
    ballot: Ballot
    value: Layout
    electors: frozenset[str]
    needed: int
    heard: bool = False
    """Whether enough have promised; from then on `choice` stands."""
    _promises: dict[str, Promise] = attrs.field(factory=dict)
    _accepts: set[str] = attrs.field(factory=set)
    _forgot: set[str] = attrs.field(factory=set)

    def promise(self, name: str, promise: Promise, *, forgot: bool = False) -> None:
        """An elector has promised."""
        if name in self.electors and not self.heard:
            self._promises[name] = promise
            self._note(name, forgot)
            self.heard = self._enough(self._promises.keys())

    def accept(self, name: str, *, forgot: bool = False) -> None:
        """An elector has accepted."""
        if name in self.electors:
            self._accepts.add(name)
            self._note(name, forgot)

    @property
    def decided(self) -> bool:
        return self._enough(self._accepts)

    def _note(self, name: str, forgot: bool) -> None:
        if forgot:
            self._forgot.add(name)

    def _enough(self, names: Set[str]) -> bool:
        return names >= self.electors or len(names - self._forgot) >= self.needed

    @property
    def choice(self) -> Layout:
        """What to ask them to accept: the value that may be decided already, or the own one."""
        last = max(self._promises.values(), key=lambda p: p.accepted)
        return last.value if last.value is not None else self.value


def electors(layout: Layout, value: Layout, proposer: str) -> tuple[frozenset[str], int]:
    """Who decides on the layout after `layout`, and how many of them it takes.

    The members of a ring, most of them. Of two, either takes out the other alone: whoever asks for
    that says that the other is gone for good. One that takes itself out needs the other, or both
    could leave at once, each by a layout of its own. A cluster is founded by those that are in it.
    """
    ring = layout if layout.version else value
    names = frozenset(m.name for m in ring.members)
    left = names & {m.name for m in value.next_members}
    if len(names) == 2 and left == {proposer}:
        names = left
    return names, len(names) // 2 + 1


def next_ballot(name: str, seen: Iterable[Ballot]) -> Ballot:
    """A ballot of this proposer's above all it has seen."""
    return (max([0, *(ballot[0] for ballot in seen)]) + 1, name)
