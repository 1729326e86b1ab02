"""Where a request's body ends: after its announced length, or its last chunk."""

from __future__ import annotations

# The decoder is private to twisted.web, which offers no other; writing a second one would be
# the greater risk.
from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError

from dynamo.errors import BadRequest, TooLarge


class Framing:
    """Takes bytes from the connection and gives back those of the body."""

    def __init__(self, length: int | None, limit: int) -> None:
        self._left = length or 0
        self._limit = limit
        self._pieces: list[bytes] = []
        self._rest: bytes | None = None
        self._decoder: _ChunkedTransferDecoder | None = None
        if length is None:
            self._decoder = _ChunkedTransferDecoder(self._pieces.append, self._ended)

    def receive(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Bytes of the body, and what came after its end: None while it has not ended.

        Raises `BadRequest` for broken chunks and `TooLarge` past the limit; nothing may be
        given to it afterwards.
        """
        if self._decoder is not None:
            return self._receive_chunks(self._decoder, data)
        if len(data) < self._left:
            self._left -= len(data)
            return data, None
        return data[: self._left], data[self._left :]

    def _receive_chunks(
        self, decoder: _ChunkedTransferDecoder, data: bytes
    ) -> tuple[bytes, bytes | None]:
        try:
            decoder.dataReceived(data)
        except _MalformedChunkedDataError:
            raise BadRequest("bad_chunking", "The body is not validly chunked.") from None
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._left += len(body)
        if self._left > self._limit:
            raise TooLarge("body", self._limit)
        return body, self._rest

    def _ended(self, rest: bytes) -> None:
        self._rest = rest
