"""News waiting to be passed on (SWIM §4.1, infection-style dissemination).

One item for each member: newer news replaces older. What was sent least goes first, then what is
largest and still fits, then what is newest; an item that was sent `limit` times is dropped.
"""

from __future__ import annotations

import heapq
import math

from dynamo.core.members import Update
from dynamo.core.messages import size

QUEUE_MAX = 4096
"""Items held; those sent most often give way. A full exchange brings what was dropped."""

MISFITS_MAX = 8
"""Items that did not fit after which a packet is taken to be full."""

_Key = tuple[bool, int, int, int, str]


def retransmit_limit(multiplier: int, members: int) -> int:
    """How often one member passes an item on: lambda * ceil(log10(n + 1))."""
    return multiplier * math.ceil(math.log10(members + 1))


class Rumours:
    """The queue. `dropped` counts items that left it unsent for lack of room."""

    def __init__(self, limit: int = QUEUE_MAX) -> None:
        self._limit = limit
        self._items: dict[str, tuple[_Key, Update]] = {}
        self._heap: list[_Key] = []
        self._count = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def add(self, update: Update, *, first: bool = False) -> None:
        """Queues news about a member in place of what is queued about it; `first` puts it
        before everything else, however often it was sent."""
        name = update.member.name
        if name not in self._items and len(self._items) >= self._limit:
            self._drop_some()
        self._count += 1
        self._put((not first, 0, -size(update), -self._count, name), update)

    def forget(self, name: str) -> None:
        """Drops what is queued about a member."""
        self._items.pop(name, None)

    def clear(self) -> None:
        """Drops all: there is nobody to tell."""
        self._items.clear()
        self._heap.clear()

    def take(self, room: int, limit: int) -> list[Update]:
        """The next items that fit into `room` bytes, counted as sent once more."""
        taken: list[tuple[_Key, Update]] = []
        misfits: list[_Key] = []
        while self._heap and len(misfits) < MISFITS_MAX:
            key = heapq.heappop(self._heap)
            held = self._items.get(key[4])
            if held is None or held[0] != key:
                continue
            if -key[2] > room:
                misfits.append(key)
                continue
            room += key[2]
            taken.append(held)
        for key in misfits:
            heapq.heappush(self._heap, key)
        for key, update in taken:
            self._sent(key, update, limit)
        return [update for _, update in taken]

    def _sent(self, key: _Key, update: Update, limit: int) -> None:
        later, sent, negative_size, age, name = key
        if sent + 1 >= limit:
            del self._items[name]
        else:
            self._put((later, sent + 1, negative_size, age, name), update)

    def _put(self, key: _Key, update: Update) -> None:
        self._items[key[4]] = (key, update)
        heapq.heappush(self._heap, key)
        if len(self._heap) > 2 * len(self._items) + 64:
            self._heap = sorted(held for held, _ in self._items.values())

    def _drop_some(self) -> None:
        """Makes room for a while: finding the worst takes a look at all."""
        worst = sorted(self._items.values(), key=lambda item: item[0][:2])
        count = max(1, self._limit // 16)
        for key, _ in worst[-count:]:
            del self._items[key[4]]
        self.dropped += count
