"""Whether anything happened to a key between two questions about it.

Somebody who asks about keys twice, and gets the same answer, does not know that it was the answer
all the time between. So a node that is asked takes note of the keys, and of what is done to them.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

Key = tuple[bytes, bytes]
"""Incarnation and key."""


@attrs.define
class Watches:
    """The keys somebody watches. Who begins a new round gives up the last one, so that there are
    at most as many keys as rounds of all askers have; a key is watched for the last who asked."""

    _watched: dict[Key, tuple[str, int]] = attrs.field(factory=dict)
    _asked: dict[str, tuple[int, tuple[Key, ...]]] = attrs.field(factory=dict)

    def begin(self, asker: str, number: int, keys: Iterable[Key]) -> None:
        """From here on these are watched for `asker`, as its round `number`."""
        before, old = self._asked.get(asker, (0, ()))
        for key in old:
            if self._watched.get(key) == (asker, before):
                del self._watched[key]
        taken = tuple(keys)
        self._asked[asker] = (number, taken)
        for key in taken:
            self._watched[key] = (asker, number)

    def touched(self, incarnation: bytes, key: bytes) -> None:
        """Something is done to a key, or is about to be."""
        if self._watched:
            self._watched.pop((incarnation, key), None)

    def intact(self, asker: str, number: int, key: Key) -> bool:
        """Whether a key has been watched for that round without a break, and not been touched."""
        return self._watched.get(key) == (asker, number)

    def __len__(self) -> int:
        return len(self._watched)
