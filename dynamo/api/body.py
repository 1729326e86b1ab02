"""A request's body, as a `dynamo.coordinator.requests.ByteSource`.

`Whole` holds a small body that came with its request. `Arriving` is fed by the connection and
lets in no more than a bound beyond what its reader asked for: past it the sender is paused, and
reading resumes it. Neither ever spools to a file.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.defer import Deferred

from dynamo.coordinator.requests import ByteSource
from dynamo.errors import BadRequest, TooLarge

UNREAD_MAX = 256 * 1024


class Sender(Protocol):
    """The side of the connection that bytes come from."""

    def pause_sender(self) -> None:
        """Let nothing more in for now."""

    def resume_sender(self) -> None:
        """Let more in."""

    def invite_sender(self) -> None:
        """The body is wanted: a client that waits to be asked may send it."""


class Whole:
    """A body that is all here."""

    __slots__ = ("_at", "_data", "length")

    def __init__(self, data: bytes) -> None:
        self.length: int | None = len(data)
        self._data = data
        self._at = 0

    async def read(self, size: int) -> bytes:
        """See `ByteSource`."""
        start = self._at
        self._at = stop = start + size
        return self._data if start == 0 and stop >= len(self._data) else self._data[start:stop]


class Arriving:
    """A body on its way. One reader at a time."""

    def __init__(self, length: int | None, sender: Sender, unread_max: int = UNREAD_MAX) -> None:
        self.length = length
        self._sender = sender
        self._unread_max = unread_max
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._error: BaseException | None = None
        self._paused = False
        self._waiter: Deferred[None] | None = None
        self._wanted = 0

    async def read(self, size: int) -> bytes:
        """See `ByteSource`."""
        if self._held < size and not self._ended and self._error is None:
            assert self._waiter is None, "one reader at a time"
            self._waiter, self._wanted = Deferred(self._forget), size
            waiter = self._waiter
            self._sender.invite_sender()
            self._resume()
            await waiter
        if self._error is not None:
            raise self._error
        data = self._take(size)
        if self._held <= self._unread_max // 2:
            self._resume()
        return data

    def feed(self, data: bytes) -> None:
        """The next bytes from the connection."""
        if self._ended or self._error is not None:
            return
        self._pieces.append(data)
        self._held += len(data)
        if self._waiter is not None and self._held >= self._wanted:
            self._wake()
        if self._held > max(self._unread_max, self._wanted) and not self._paused:
            self._paused = True
            self._sender.pause_sender()

    def end(self) -> None:
        """All bytes have come."""
        self._ended = True
        self._wake()

    def fail(self, error: BaseException) -> None:
        """No more will come. Does nothing to a body that is complete."""
        if self._ended or self._error is not None:
            return
        self._error = error
        self._pieces.clear()
        self._held = 0
        self._wake()

    def _take(self, size: int) -> bytes:
        pieces = self._pieces
        if pieces and len(pieces[0]) == size:
            self._held -= size
            return pieces.popleft()
        taken: list[bytes] = []
        while size and pieces:
            piece = pieces.popleft()
            if len(piece) > size:
                pieces.appendleft(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
            self._held -= len(piece)
        return b"".join(taken)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        self._wanted = 0
        if waiter is not None:
            waiter.callback(None)

    def _forget(self, _: Deferred[None]) -> None:
        self._waiter = None
        self._wanted = 0

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._sender.resume_sender()


def incomplete() -> BadRequest:
    """The sender stopped in the middle."""
    return BadRequest("incomplete_body", "The body ended before all announced bytes had come.")


async def read_all(body: ByteSource, limit: int, what: str = "body") -> bytes:
    """A body that must be small, as bytes. Raises `TooLarge` past `limit`."""
    if body.length is not None and body.length > limit:
        raise TooLarge(what, limit)
    data = await body.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(what, limit)
    return data
