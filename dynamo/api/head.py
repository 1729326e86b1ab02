"""The first lines of an HTTP/1 request, as a value.

Bytes in, `Head` out, or `BadHead`. They are read by llhttp, Node's parser (package httptools),
which is strict where a lenient reading would let two readers of the same bytes disagree: a bare CR
or LF, a space before the colon, two lengths, a length beside a transfer encoding (RFC 9112 §2.2,
§5, §6.3).
"""

from __future__ import annotations

import re

import attrs
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from dynamo.errors import BadRequest

FIELDS_MAX = 200
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


@attrs.define(slots=True, kw_only=True)
class Head:
    """`fields` is keyed by lower-case name; repeated fields are joined by a comma.

    `length` is the announced body length in bytes, None for a chunked body. `keep_alive`: the
    connection may be used again (HTTP/1.0 ones never are).
    """

    method: bytes
    path: bytes
    query: bytes
    http10: bool
    fields: dict[bytes, bytes]
    length: int | None
    keep_alive: bool

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for "100 Continue" before it sends the body."""
        expect = self.fields.get(b"expect")
        return expect is not None and not self.http10 and expect.lower() == b"100-continue"


class BadHead(BadRequest):
    """What came is not the beginning of an HTTP/1 request."""

    def __init__(self, detail: str) -> None:
        super().__init__("bad_request", detail)


class _Seen:
    """What the parser calls back with."""

    __slots__ = ("fields", "target", "times")

    def __init__(self) -> None:
        self.target = b""
        self.fields: dict[bytes, bytes] = {}
        self.times = 0

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.times += 1
        name = name.lower()
        earlier = self.fields.get(name)
        # What two fields of one name mean together (RFC 9110 §5.3).
        self.fields[name] = value if earlier is None else earlier + b", " + value


def parse(block: bytes) -> Head:
    """The head in `block`, which ends before the empty line."""
    seen, parser = _read(block + b"\r\n\r\n")
    version = parser.get_http_version()
    if not seen.target or not version.startswith("1."):
        raise BadHead("The request line is not METHOD TARGET HTTP/1.1.")
    if b"," in seen.fields.get(b"host", b""):
        raise BadHead("There is more than one Host.")
    if seen.times > FIELDS_MAX:
        raise BadRequest("headers_too_large", f"More than {FIELDS_MAX} header fields.")
    path, _, query = _origin_form(seen.target).partition(b"?")
    return Head(
        method=parser.get_method(),
        path=path,
        query=query,
        http10=version == "1.0",
        fields=seen.fields,
        length=_length(seen.fields),
        keep_alive=version != "1.0" and b"close" not in _words(seen.fields.get(b"connection")),
    )


def check(start: bytes) -> None:
    """Raises `BadHead` if nothing that could still follow makes a request of this beginning."""
    _read(start)


def target(block: bytes) -> bytes:
    """What a head that cannot be read asks for, as far as can be seen; "/" if it cannot."""
    words = block.partition(b"\r\n")[0].split(b" ")
    return words[1] if len(words) > 1 and words[1].startswith(b"/") else b"/"


def _read(data: bytes) -> tuple[_Seen, HttpRequestParser]:
    if not data.isascii():
        # Many clients send a name in a path as it was typed; llhttp wants it escaped.
        line, end, rest = data.partition(b"\r\n")
        data = _BEYOND_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], line) + end + rest
    seen = _Seen()
    parser = HttpRequestParser(seen)
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        pass  # offered by the client and not taken up
    except HttpParserError as error:
        raise BadHead(f"This is no HTTP/1.1 request: {error}.") from None
    return seen, parser


def _origin_form(target: bytes) -> bytes:
    """The path and query of a target; a proxy's absolute form names the same (RFC 9112 §3.2.2)."""
    if target[:1] == b"/" or b"://" not in target:
        return target
    _, _, rest = target.partition(b"://")
    slash = rest.find(b"/")
    return rest[slash:] if slash >= 0 else b"/"


def _words(value: bytes | None) -> list[bytes]:
    return [] if value is None else [word.strip().lower() for word in value.split(b",")]


def _length(fields: dict[bytes, bytes]) -> int | None:
    encoding = fields.get(b"transfer-encoding")
    if encoding is not None:
        if encoding.lower() != b"chunked":
            raise BadHead("The only transfer encoding understood is chunked.")
        return None
    try:
        return int(fields.get(b"content-length", b"0"))
    except ValueError:
        raise BadHead("Content-Length is not a number.") from None
