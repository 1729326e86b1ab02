"""Records, hints and bucket states as bytes.

Everything stored begins with one format byte, so that a later version can tell what it reads.
Equal values encode to equal bytes: maps and versions are kept sorted by `dynamo.core`.

Rows on disk carry a checksum besides, over what they say and where they lie: the store below has
none of its own, so a flipped bit, or a row that turns up under another key, would be believed. It
is CRC-32 (ISO 3309, as in zlib): sure to notice any burst of up to 32 bits, cheap beside a read.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import Generic, TypeVar

import msgspec

from dynamo.core.agreement import Promise
from dynamo.core.buckets import Bucket
from dynamo.core.layout import Layout
from dynamo.core.members import Member
from dynamo.core.record import Record
from dynamo.core.sightings import Origin
from dynamo.errors import Corrupt

FORMAT = b"\x01"
ROW_FORMAT = b"\x02"
BROKEN_FORMAT = b"\x03"
_SEAL = 5
"""Bytes of a row in front of what it says: the format, and the checksum."""

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


class Broken(msgspec.Struct, frozen=True, array_like=True):
    """In a record's place after its row was found damaged, until others have told what was there.

    `known` is what was merged since; it is kept, but it is not an answer to anybody. `was` are
    the bytes of the damaged row. `alone`: there is nobody who could tell.
    """

    known: Record
    was: bytes
    alone: bool = False


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a walk through everything on a disk has come: behind this key of this part."""

    part: int = 0
    incarnation: bytes = b""
    key: bytes = b""


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


def seal(table: str, row: bytes, said: bytes, form: bytes = ROW_FORMAT) -> bytes:
    """What is stored in `row` of `table` to say `said`."""
    return form + _checksum(table, row, form, said) + said


def unseal(table: str, row: bytes, data: bytes, form: bytes = ROW_FORMAT) -> memoryview:
    """What a stored row says; raises `Corrupt` if it is not what was stored there."""
    if data[:1] != form:
        raise Corrupt(f"A row of {table} has the unknown format {data[:1].hex() or 'none'}.")
    said = memoryview(data)[_SEAL:]
    if data[1:_SEAL] != _checksum(table, row, form, said):
        raise Corrupt(f"A row of {table} is not what was stored there: its checksum differs.")
    return said


def _checksum(table: str, row: bytes, form: bytes, said: bytes | memoryview) -> bytes:
    return zlib.crc32(said, zlib.crc32(row, _begun(table, form))).to_bytes(4)


@cache
def _begun(table: str, form: bytes) -> int:
    """The checksum up to where the rows of a table differ: CRC-32 goes on from there."""
    return zlib.crc32(b"%b%b " % (form, table.encode()))


class RowCodec(Generic[T]):
    """Encodes and decodes the values of one table, sealed; anything else raises `Corrupt`."""

    def __init__(self, kind: type[T], table: str, form: bytes = ROW_FORMAT) -> None:
        self._kind = kind.__name__
        self._table = table
        self._form = form
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def encode(self, row: bytes, value: T) -> bytes:
        return seal(self._table, row, _encode(value), self._form)

    def decode(self, row: bytes, data: bytes) -> T:
        said = unseal(self._table, row, data, self._form)
        try:
            return self._decode(said)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Corrupt(f"A {self._kind} does not decode: {error}.") from error


KEEPING: dict[str, RowCodec[Record]] = {
    "records": RowCodec(Record, "records"),
    "held": RowCodec(Record, "held"),
}
"""The rows of records, by table."""
BREAKING: dict[str, RowCodec[Broken]] = {
    table: RowCodec(Broken, table, BROKEN_FORMAT) for table in KEEPING
}
"""What stands in such a row when it was found damaged, by table."""
HINT: RowCodec[Hint] = RowCodec(Hint, "hints")
STATE: RowCodec[Bucket] = RowCodec(Bucket, "buckets")
SIGHTING: RowCodec[Origin] = RowCodec(Origin, "meta")
BUCKET: Codec[Bucket] = Codec(Bucket)
ACTORS: Codec[dict[str, str]] = Codec(dict[str, str])
REMEMBERED: Codec[list[Member]] = Codec(list[Member])
PLACE: Codec[Place] = Codec(Place)
LAYOUT: Codec[Layout] = Codec(Layout)
PROMISE: Codec[Promise] = Codec(Promise)
