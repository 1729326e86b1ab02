"""Grace periods: when everything that was under way at some moment has ended.

As in read-copy-update (McKenney and Slingwine, "Read-Copy Update", 1998): who may carry an old
state about says when it begins and when it is through, and whoever has taken a state away waits
until all that began before have ended, without naming them.
"""

from __future__ import annotations

import attrs


@attrs.define
class Grace:
    """What is under way on this node that carries records from one place to another.

    One piece of work may be held by several: by who read and by every message made of it.
    """

    _epoch: int = 1
    _held: dict[int, int] = attrs.field(factory=dict)

    def enter(self, since: int = 0) -> int:
        """Begins a piece of work, or holds once more the one that began at `since`; returns when
        it began, for `leave`."""
        since = since or self._epoch
        self._held[since] = self._held.get(since, 0) + 1
        return since

    def leave(self, since: int) -> None:
        """One that held it is through."""
        left = self._held[since] - 1
        if left:
            self._held[since] = left
        else:
            del self._held[since]

    def mark(self) -> int:
        """A moment: what begins from here on began after it."""
        self._epoch += 1
        return self._epoch

    def passed(self, mark: int) -> bool:
        """Whether nothing is under way any more that began before the moment."""
        return all(since >= mark for since in self._held)
