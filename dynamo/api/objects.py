"""Answering a GET or HEAD with one version of a file: conditions, ranges, bytes.

The bytes are in the answer's one write if they are at hand. Otherwise they are streamed at the
client's pace, and the first piece is awaited before the head is sent, so that a failure before
it is still told by its status; after it the connection is broken off, as a short body must
never look complete.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from wsgiref.handlers import format_date_time

from dynamo.api.errors import Answer
from dynamo.api.request import Request
from dynamo.coordinator.requests import Coordinator, Found
from dynamo.core.clock import wall_ms_of
from dynamo.core.conditions import PreconditionFailed, evaluate
from dynamo.core.ranges import applies, parse_range
from dynamo.core.record import Version
from dynamo.errors import MissingChunks, QuorumNotMet
from dynamo.wire.context import encode_context

UNTYPED = "application/octet-stream"

LOOKS_MAX = 3
"""How often a file is looked for whose bytes are gone each time."""

_CONDITIONAL = (b"if-none-match", b"if-match", b"if-modified-since", b"if-unmodified-since")
_ACCEPTS = (b"Accept-Ranges", b"bytes")
# What strangers stored is shown by browsers under this node's own origin, console and all.
_NO_SNIFFING = (b"X-Content-Type-Options", b"nosniff")
_SANDBOX = (b"Content-Security-Policy", b"sandbox")
_REBORN = re.compile(r"(~[0-9]+)+\Z")

Headers = list[tuple[bytes, bytes]]


class Replaced(MissingChunks):
    """A version went, with its chunks, between being found and being read; nothing was sent."""


async def look_again(answer: Callable[[], Awaitable[Answer | None]]) -> Answer | None:
    """Answers with what is there, though it may be replaced while it is looked at."""
    for _ in range(LOOKS_MAX - 1):
        try:
            return await answer()
        except Replaced:
            continue
    return await answer()


async def serve(
    request: Request,
    coordinator: Coordinator,
    found: Found,
    version: Version,
    content_type: str,
    more: Headers,
) -> Answer | None:
    """Answers with `version`; None when the answer was streamed."""
    etag = f'"{version.etag}"'
    modified_s = wall_ms_of(version.stamp) // 1000
    modified = format_date_time(modified_s)
    headers = [
        (b"ETag", etag.encode()),
        (b"Last-Modified", modified.encode()),
        *more,
    ]
    fields = request.head.fields
    for name in _CONDITIONAL:
        if name in fields:
            if _not_modified(request, etag, modified_s):
                return Answer(304, headers)
            break
    headers += ((b"Content-Type", header_value(content_type)), _ACCEPTS, _NO_SNIFFING, _SANDBOX)
    start, stop, status = 0, version.size, 200
    if b"range" in fields and request.method == b"GET":
        span = None
        if applies(request.header(b"if-range"), etag, modified):
            span = parse_range(request.header(b"range") or "", version.size)
        if span is not None:
            start, stop = span
            status = 206
            told = b"bytes %d-%d/%d" % (start, stop - 1, version.size)
            headers.append((b"Content-Range", told))
    if not version.stripped and not version.chunks:
        body = version.body if status == 200 else version.body[start:stop]
        return Answer(status, headers, body)
    headers.append((b"Content-Length", b"%d" % (stop - start)))
    if request.method == b"HEAD" or start == stop:
        request.begin(status, headers)
        return None
    await _stream(
        request, status, headers, coordinator.stream(found, version, start, stop), stop - start
    )
    return None


async def _stream(
    request: Request, status: int, headers: Headers, pieces: AsyncIterator[bytes], size: int
) -> None:
    left, dropped = size, False
    try:
        async for piece in pieces:
            if left == size:
                request.begin(status, headers)
            left -= len(piece)
            if left < 0:
                break
            await request.send(piece)
    except MissingChunks as error:
        if left == size:
            raise Replaced(error.digests) from error
        raise
    except GeneratorExit:
        # Nobody will go on with it, nor with what it waits for: an iterator amid that has no close.
        dropped = True
        raise
    finally:
        close: Any = getattr(pieces, "aclose", None)
        if close is not None and not dropped:
            await close()
    if left:
        raise QuorumNotMet("read", 0, 1, "the bytes found are not as many as were announced")


def _not_modified(request: Request, etag: str, modified_s: int) -> bool:
    outcome = evaluate(
        etag,
        modified_s,
        if_match=request.header(b"if-match"),
        if_unmodified_since=request.header(b"if-unmodified-since"),
        if_none_match=request.header(b"if-none-match"),
        if_modified_since=request.header(b"if-modified-since"),
    )
    if outcome == "failed":
        raise PreconditionFailed("The file is not the one the precondition names.")
    return outcome == "not_modified"


def found_headers(found: Found) -> Headers:
    """Who answered, and the context a write should carry."""
    return [
        (b"X-Dynamo-Coordinator", header_value(found.coordinator)),
        (b"X-Dynamo-Replicas", header_value(", ".join(found.replicas))),
        (b"X-Dynamo-Context", context_token(found).encode()),
    ]


def context_token(found: Found) -> str:
    """The context of what was found, for the client to carry."""
    return encode_context(found.record.context, found.bucket.incarnation, found.key)


def node_of(actor: str) -> str:
    """The node behind an actor: the same name, less the count of its replaced disks."""
    return _REBORN.sub("", actor)


def timestamp(wall_ms: int) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(wall_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{wall_ms % 1000:03d}Z"


def header_value(text: str) -> bytes:
    """Text as a header's value; what would end the line or the value becomes a space."""
    if text.isprintable():
        return text.encode()
    return text.encode().translate(_LINE_ENDS)


_LINE_ENDS = bytes(32 if byte in (0, 10, 13) else byte for byte in range(256))
