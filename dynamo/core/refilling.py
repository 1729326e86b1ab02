"""What a node whose disk was lost has not got back yet, and how far it is.

Such a node owns keys it knows nothing of, and must not say of them that there is nothing. For each
partition it owns there are the other owners, and with each of them a pair. A pair is *whole* once
everything the other held of the partition, at one moment since the disk was lost, is here. What
came later came as any write does. Until then an answer of this node's says no more than an answer
together with the other owner's would.

Nothing here is kept over a restart: after one, pairs count as not whole until they are compared,
which costs little where there is nothing to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from dynamo.core.exchanges import Pair

WINDOW = 10
"""How many seconds the rates are taken over, about."""


class Progress(msgspec.Struct, frozen=True):
    """How far a refill is. `bytes` were taken since the node started; `seconds_left` is None while
    nothing can be said of it."""

    partitions_done: int
    partitions_left: int
    bytes: int
    bytes_per_second: float
    seconds_left: float | None


class Refilling:
    """The pairs of the node `me`. `bytes` and `keys`: what it took from others so far."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._whole: set[Pair] = set()
        self._lacking: dict[int, list[Pair]] | None = None
        self._partitions = 0
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=WINDOW + 1)
        self.bytes = 0
        self.keys = 0

    def expect(self, pairs: Iterable[Pair]) -> None:
        """These are all the pairs there are, from here on; what was whole stays so."""
        lacking: dict[int, list[Pair]] = {}
        partitions = set()
        for pair in pairs:
            partitions.add(pair[0])
            if pair not in self._whole:
                lacking.setdefault(pair[0], []).append(pair)
        self._lacking, self._partitions = lacking, len(partitions)

    def begin_anew(self) -> None:
        """Nothing counts as whole any more."""
        self._whole.clear()
        self._lacking = None

    def took(self, pair: Pair) -> None:
        """All that the other owner held is here."""
        self._whole.add(pair)
        if self._lacking is not None and pair in self._lacking.get(pair[0], ()):
            self._lacking[pair[0]].remove(pair)
            if not self._lacking[pair[0]]:
                del self._lacking[pair[0]]

    def whole(self, pair: Pair) -> bool:
        """Whether all that the other owner held is here."""
        return pair in self._whole

    def lacks(self, partition: int, copies: int, owners: Sequence[str]) -> tuple[str, ...]:
        """Those of a partition's owners that may hold what is not here; nobody if this node is
        not one of them."""
        if self._me not in owners:
            return ()
        return tuple(
            [o for o in owners if o != self._me and (partition, o, copies) not in self._whole]
        )

    @property
    def done(self) -> bool:
        """Whether everything expected is whole; not before it is known what that is."""
        return self._lacking is not None and not self._lacking

    @property
    def left(self) -> int:
        """Partitions with a pair that is not whole."""
        return len(self._lacking) if self._lacking is not None else 0

    @property
    def version(self) -> int:
        """Changes with every pair that becomes whole."""
        return len(self._whole)

    def lacking(self) -> Iterator[list[Pair]]:
        """The pairs that are not whole, partition by partition as they were given; valid until one
        becomes whole."""
        return iter((self._lacking or {}).values())

    def tenths(self) -> int:
        """How many tenths of the partitions are whole."""
        return 10 * (self._partitions - self.left) // self._partitions if self._partitions else 0

    def mark(self, now: float) -> None:
        """Takes note of where things stand at a time, in seconds; for the rates."""
        if not self._marks or now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self.bytes, self._partitions - self.left))

    def progress(self, now: float) -> Progress:
        """How far it is at this time."""
        done, rate, left_s = self._partitions - self.left, 0.0, None
        if self._marks:
            since, size, had = self._marks[0]
            seconds = max(now - since, 0.001)
            rate = round((self.bytes - size) / seconds, 1)
            if done > had:
                left_s = round(self.left * seconds / (done - had), 1)
        return Progress(done, self.left, self.bytes, rate, left_s)
