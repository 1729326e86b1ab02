"""The first lines of an HTTP/1 request, as a value.

Pure: bytes in, `Head` out, or `BadHead`. Strict where a lenient reading would let two readers
of the same bytes disagree (RFC 9112 §2.2, §5, §6.3): no bare CR or LF, no folded lines, no
space before the colon, one Content-Length of digits alone, no Content-Length beside a
Transfer-Encoding.
"""

from __future__ import annotations

import re

import attrs

from dynamo.errors import BadRequest

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_METHOD = rb"[A-Z][A-Z-]{0,19}"
_REQUEST_LINE = re.compile(rb"(" + _METHOD + rb") ([!-~\x80-\xff]+) HTTP/1\.([0-9])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\x00\r\n]*)")
_PLAUSIBLE = re.compile(
    rb"\r?|" + _METHOD + rb"(?: [!-~\x80-\xff]*(?: [HTP/.0-9]{0,8}(?:\r(?:\n.*)?)?)?)?", re.DOTALL
)
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://[^/?#]*")

FIELDS_MAX = 200
LENGTH_DIGITS_MAX = 18


@attrs.define(slots=True, kw_only=True)
class Head:
    """`fields` is keyed by lower-case name; repeated fields are joined by a comma.

    `length` is the announced body length in bytes, None for a chunked body.
    """

    method: bytes
    path: bytes
    query: bytes
    http10: bool
    fields: dict[bytes, bytes]
    length: int | None

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may be used again (HTTP/1.0 ones never are)."""
        if self.http10:
            return False
        options = self.fields.get(b"connection")
        return options is None or b"close" not in _words(options)

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for "100 Continue" before it sends the body."""
        expect = self.fields.get(b"expect")
        return expect is not None and not self.http10 and expect.lower() == b"100-continue"


class BadHead(BadRequest):
    """What came is not the beginning of an HTTP/1 request."""

    def __init__(self, detail: str) -> None:
        super().__init__("bad_request", detail)


def plausible(start: bytes) -> bool:
    """Whether more bytes could still make a request of this beginning."""
    return _PLAUSIBLE.fullmatch(start) is not None


def parse(block: bytes) -> Head:
    """The head in `block`, which ends before the empty line."""
    lines = block.split(b"\r\n")
    first = _REQUEST_LINE.fullmatch(lines[0])
    if first is None:
        raise BadHead("The request line is not METHOD TARGET HTTP/1.1.")
    method, target, minor = first.groups()
    fields = _fields(lines)
    path, _, query = _origin_form(target).partition(b"?")
    return Head(
        method=method,
        path=path,
        query=query,
        http10=minor == b"0",
        fields=fields,
        length=_length(fields),
    )


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    if len(lines) > FIELDS_MAX:
        raise BadRequest("headers_too_large", f"More than {FIELDS_MAX} header fields.")
    fields: dict[bytes, bytes] = {}
    match = _FIELD.fullmatch
    for line in lines[1:]:
        found = match(line)
        if found is None:
            raise BadHead("A header line is not a name, a colon and a value.")
        name, value = found.groups()
        name = name.lower()
        if name in fields:
            value = _again(name, fields[name], value)
        fields[name] = value.rstrip(b" \t")
    return fields


def _again(name: bytes, earlier: bytes, value: bytes) -> bytes:
    """What two fields of one name mean together (RFC 9110 §5.3)."""
    if name in (b"content-length", b"transfer-encoding", b"host"):
        raise BadHead(f"There is more than one {name.decode()} field.")
    return earlier + b", " + value


def _origin_form(target: bytes) -> bytes:
    """The path and query of a target; a proxy's absolute form names the same (§3.2.2)."""
    if target[:1] == b"/":
        return target
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        return target
    rest = target[absolute.end() :]
    return rest if rest[:1] == b"/" else b"/" + rest


def _length(fields: dict[bytes, bytes]) -> int | None:
    length = fields.get(b"content-length")
    encoding = fields.get(b"transfer-encoding")
    if encoding is not None:
        if length is not None:
            raise BadHead("Both Content-Length and Transfer-Encoding are given.")
        if encoding.lower() != b"chunked":
            raise BadHead("The only transfer encoding understood is chunked.")
        return None
    if length is None:
        return 0
    if not length.isdigit() or len(length) > LENGTH_DIGITS_MAX:
        raise BadHead("Content-Length is not a number.")
    return int(length)


def _words(value: bytes) -> list[bytes]:
    return [word.strip().lower() for word in value.split(b",")]
