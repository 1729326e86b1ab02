"""All members but oneself, who is to be probed next, and who may be picked at random.

The probe order is a shuffled list walked round and round (SWIM §4.3): a newcomer is inserted at a
random place, and the list is shuffled again at each wrap, so that nobody waits for a probe by one
member longer than 2n - 1 periods. Those that left stay as tombstones, in bounded number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import attrs

from dynamo.core.members import Liveness, Member


@attrs.define
class Entry:
    """One member's record and what only this node knows of it. `since` is when its liveness
    last changed; `vouched` when it last answered something that this node asked."""

    member: Member
    since: float
    accuser: str = ""
    vouched: float = float("-inf")
    asked: float = float("-inf")
    told: float = float("-inf")
    blocked: bool = False


class Table:
    """The members by name. It decides nothing about them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self._next = 0
        self._counts = dict.fromkeys(Liveness, 0)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, name: str) -> Entry | None:
        """The entry of that name."""
        return self._entries.get(name)

    def count(self, liveness: Liveness) -> int:
        """How many have this liveness."""
        return self._counts[liveness]

    @property
    def running(self) -> int:
        """How many, with oneself, are believed to run."""
        return 1 + self._counts[Liveness.ALIVE] + self._counts[Liveness.SUSPECT]

    def put(self, member: Member, now: float) -> Entry:
        """Stores a record; a member of a new name gets a random place in the probe order."""
        entry = self._entries.get(member.name)
        if entry is None:
            entry = self._entries[member.name] = Entry(member, now)
            place = self._rng.randrange(len(self._order) + 1)
            self._order.insert(place, member.name)
            self._next += place < self._next
        else:
            self._counts[entry.member.liveness] -= 1
            if entry.member.liveness is not member.liveness:
                entry.since = now
            if entry.member.identity != member.identity:
                entry.vouched, entry.blocked = float("-inf"), False
            entry.member = member
        self._counts[member.liveness] += 1
        return entry

    def remove(self, name: str) -> None:
        """Forgets a member altogether."""
        entry = self._entries.pop(name)
        self._counts[entry.member.liveness] -= 1
        place = self._order.index(name)
        del self._order[place]
        self._next -= place < self._next

    def next_target(self) -> Entry | None:
        """The next running member in the probe order; None if there is none."""
        for _ in range(len(self._order) + 1):
            if self._next >= len(self._order):
                self._rng.shuffle(self._order)
                self._next = 0
            if not self._order:
                return None
            entry = self._entries[self._order[self._next]]
            self._next += 1
            if entry.member.running:
                return entry
        return None

    def sample(self, count: int, wanted: Callable[[Entry], bool]) -> list[Entry]:
        """Up to `count` different members that are `wanted`, at random."""
        found: dict[str, Entry] = {}
        if len(self._order) > 4 * count:
            for _ in range(3 * count):
                name = self._order[self._rng.randrange(len(self._order))]
                if wanted(self._entries[name]):
                    found[name] = self._entries[name]
                if len(found) == count:
                    return list(found.values())
        fitting = [self._entries[name] for name in self._order if wanted(self._entries[name])]
        return self._rng.sample(fitting, min(count, len(fitting)))
