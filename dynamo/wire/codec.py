"""Records, hints and bucket states as bytes.

Everything stored begins with one format byte, so that a later version can tell what it reads.
Equal values encode to equal bytes: maps and versions are kept sorted by `dynamo.core`.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from dynamo.core.buckets import Bucket
from dynamo.core.members import Member
from dynamo.core.record import Record
from dynamo.errors import Corrupt

FORMAT = b"\x01"

T = TypeVar("T")
_encode = msgspec.msgpack.Encoder().encode


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """That an absent owner has to be told about one key.

    `sequence` changes each time there is news for the same target and key, so that a hint is
    dropped only if nothing was added while it was being delivered.
    """

    sequence: int
    incarnation: bytes
    key: bytes


class Codec(Generic[T]):
    """Encodes and decodes one type; a wrong format byte or shape raises `Corrupt`."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind.__name__ if isinstance(kind, type) else str(kind)
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def encode(self, value: T) -> bytes:
        return FORMAT + _encode(value)

    def decode(self, data: bytes) -> T:
        if data[:1] != FORMAT:
            raise Corrupt(f"A {self._kind} has the unknown format {data[:1].hex() or 'none'}.")
        try:
            return self._decode(memoryview(data)[1:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Corrupt(f"A {self._kind} does not decode: {error}.") from error


RECORD: Codec[Record] = Codec(Record)
HINT: Codec[Hint] = Codec(Hint)
BUCKET: Codec[Bucket] = Codec(Bucket)
ACTORS: Codec[dict[str, str]] = Codec(dict[str, str])
REMEMBERED: Codec[list[Member]] = Codec(list[Member])
