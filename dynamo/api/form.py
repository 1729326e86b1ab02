"""Forms as they come: fields in memory, a file as a stream.

`Form` yields the parts of a `multipart/form-data` body in their order; a file part is a
`ByteSource` to be read before the next part is asked for. What is read of the body is what the
reader of the parts wants, so a file of any size passes in pieces and the sender waits for its
reader. Number and size of the fields are bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

import attrs
from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from dynamo.api.body import read_all
from dynamo.api.parameters import read_pairs
from dynamo.api.request import Request
from dynamo.coordinator.requests import ByteSource
from dynamo.errors import BadRequest, TooLarge

PARTS_MAX = 32
FIELD_BYTES_MAX = 20 * 1024
URLENCODED_BYTES_MAX = 256 * 1024
BOUNDARY_CHARS_MAX = 200
_READ_BYTES = 64 * 1024


@attrs.define(eq=False)
class Part:
    """One part of a form. `filename` is None for a plain field.

    As a `ByteSource` its end is known only when its boundary has come.
    """

    name: str
    filename: str | None
    content_type: str
    _form: Form
    length: int | None = None
    _held: deque[bytes] = attrs.field(factory=deque, init=False)
    _ended: bool = attrs.field(default=False, init=False)

    async def read(self, size: int) -> bytes:
        """See `ByteSource`."""
        taken: list[bytes] = []
        while size:
            if not self._held and not await self._more():
                break
            piece = self._held.popleft()
            if len(piece) > size:
                self._held.appendleft(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
        return b"".join(taken)

    async def skip(self) -> None:
        """Reads the part to its end and drops it."""
        self._held.clear()
        while await self._more():
            self._held.clear()

    async def _more(self) -> bool:
        if self._ended:
            return False
        event = await self._form.event()
        if event is None:
            self._ended = True
            return False
        assert isinstance(event, bytes | bytearray)
        self._held.append(bytes(event))
        return True


class Form:
    """The parts of one multipart body."""

    def __init__(self, body: ByteSource, boundary: str) -> None:
        self._body = body
        self._events: deque[MultipartSegment | bytes | None] = deque()
        self._finished = False
        try:
            self._parser = PushMultipartParser(boundary, max_segment_count=PARTS_MAX)
        except MultipartError as error:
            raise _bad(error) from None

    async def parts(self) -> AsyncIterator[Part]:
        """The parts in order. Whatever of a part was not read is skipped."""
        while not await self._at_end():
            segment = await self.event()
            assert isinstance(segment, MultipartSegment)
            part = Part(segment.name or "", segment.filename, _type_of(segment), self)
            yield part
            await part.skip()

    async def event(self) -> MultipartSegment | bytes | None:
        """The parser's next event: a part's head, bytes of it, or None for its end."""
        if await self._at_end():
            raise BadRequest("bad_form", "The form ended inside a part.")
        return self._events.popleft()

    async def _at_end(self) -> bool:
        while not self._events and not self._finished:
            data = await self._body.read(_READ_BYTES)
            try:
                if data:
                    self._events.extend(self._parser.parse(data))
                else:
                    self._finished = True
                    self._parser.close()
            except ParserLimitReached as error:
                raise BadRequest("bad_form", f"The form is past a limit: {error}.") from None
            except MultipartError as error:
                raise _bad(error) from None
        return not self._events


def multipart_boundary(request: Request) -> str | None:
    """The boundary of a multipart form; None if the request is not one."""
    kind, options = parse_options_header(request.header(b"content-type") or "")
    if kind != "multipart/form-data":
        return None
    boundary = options.get("boundary", "")
    if not boundary or len(boundary) > BOUNDARY_CHARS_MAX:
        raise BadRequest("bad_form", "The multipart Content-Type has no usable boundary.")
    return str(boundary)


async def read_field(part: Part) -> bytes:
    """A plain field's value. Raises `TooLarge`."""
    return await read_all(part, FIELD_BYTES_MAX, f"form field {part.name!r}")


async def read_fields(request: Request) -> dict[str, bytes]:
    """The plain fields of either kind of form; files among them are skipped."""
    fields: dict[str, bytes] = {}
    boundary = multipart_boundary(request)
    if boundary is not None:
        async for part in Form(request.body, boundary).parts():
            if part.filename is None:
                add_field(fields, part.name, await read_field(part))
        return fields
    data = await read_all(request.body, URLENCODED_BYTES_MAX, "form")
    kind, _ = parse_options_header(request.header(b"content-type") or "")
    if data and kind != "application/x-www-form-urlencoded":
        raise BadRequest(
            "bad_form", "Send multipart/form-data or application/x-www-form-urlencoded."
        )
    for name, value in read_pairs(data, "bad_form"):
        if len(value) > FIELD_BYTES_MAX:
            raise TooLarge("form field", FIELD_BYTES_MAX)
        add_field(fields, name.decode("utf-8", "replace"), value)
    return fields


def add_field(fields: dict[str, bytes], name: str, value: bytes) -> None:
    """Adds a field that must not be there yet."""
    if name in fields:
        raise BadRequest("bad_form", f"The field {name!r} is there twice.")
    fields[name] = value


def _type_of(segment: MultipartSegment) -> str:
    for name, value in segment.headerlist:
        if name == "Content-Type":
            return str(value).strip()
    return ""


def _bad(error: MultipartError) -> BadRequest:
    return BadRequest("bad_form", f"The form is not valid multipart: {error}.")
