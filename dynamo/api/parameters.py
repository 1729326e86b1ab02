"""What a client may say beside path and body: query parameters and request headers.

Nothing is ignored: a parameter that is unknown, twice there or not what it must be is answered
with 400 `bad_parameter`, so that a misspelt `?w=` never passes for a default.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from dynamo.api.request import Request
from dynamo.coordinator.requests import Options, Upload
from dynamo.errors import BadRequest, NotOffered, TooLarge

READ_OPTIONS = frozenset(("n", "r", "timeout", "quorum"))
WRITE_OPTIONS = frozenset(("n", "r", "w", "timeout", "quorum"))
NO_PARAMETERS: frozenset[str] = frozenset()

REPLICAS_MAX = 1024
TIMEOUT_SECONDS_MAX = 3600.0
PARAMETERS_MAX = 32
META_BYTES_MAX = 8192
CONTENT_TYPE_CHARS_MAX = 255
META_PREFIX = b"x-dynamo-meta-"

_DEFAULTS = Options()
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_CONDITIONS = (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")


def read_pairs(encoded: bytes, what: str) -> list[tuple[bytes, bytes]]:
    """The decoded pairs of an `application/x-www-form-urlencoded` text."""
    pieces = [piece for piece in encoded.split(b"&") if piece]
    if len(pieces) > PARAMETERS_MAX:
        raise BadRequest(what, f"There are more than {PARAMETERS_MAX} fields.")
    pairs = []
    for piece in pieces:
        name, _, value = piece.replace(b"+", b" ").partition(b"=")
        pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    return pairs


def read_query(request: Request, allowed: frozenset[str]) -> dict[str, str]:
    """The query's parameters, all of which must be in `allowed`."""
    query = request.head.query
    if not query:
        return {}
    given: dict[str, str] = {}
    for raw_name, raw_value in read_pairs(query, "bad_parameter"):
        try:
            name, value = raw_name.decode(), raw_value.decode()
        except UnicodeDecodeError:
            raise _bad("The query is not valid UTF-8.") from None
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise _bad(f"There is no parameter {name!r} here; known are: {known}.")
        if name in given:
            raise _bad(f"The parameter {name!r} is given twice.")
        given[name] = value
    return given


def read_options(given: Mapping[str, str]) -> Options:
    """The quorum parameters among `given`."""
    if not given:
        return _DEFAULTS
    return Options(
        n=None if "n" not in given else read_count("n", given["n"], REPLICAS_MAX),
        r=_quorum_size(given, "r"),
        w=_quorum_size(given, "w"),
        quorum=_quorum_kind(given),
        timeout=_timeout(given),
    )


def read_count(name: str, text: str, most: int) -> int:
    """A whole number from 1 to `most`."""
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= most:
        raise _bad(f"{name} must be a whole number from 1 to {most}.")
    return int(text)


def refuse_conditional_write(fields: Mapping[bytes, bytes]) -> None:
    """Conditional and partial writes are not offered; ignoring one would lose data."""
    for name in _CONDITIONS:
        if name in fields:
            raise NotOffered("Conditional writes are not offered; send X-Dynamo-Context instead.")
    if b"content-range" in fields:
        raise BadRequest("bad_header", "A part of a file cannot be written (Content-Range).")


def read_upload(request: Request) -> Upload:
    """The request's body with what its headers say of it."""
    fields = request.head.fields
    content_type = _text(fields.get(b"content-type", b""))
    if len(content_type) > CONTENT_TYPE_CHARS_MAX:
        raise BadRequest("bad_header", "The Content-Type is too long.")
    md5, sha256 = fields.get(b"content-md5"), fields.get(b"x-dynamo-sha256")
    return Upload(
        body=request.body,
        content_type=content_type,
        meta=_meta(fields),
        md5=None if md5 is None else _digest(md5, _from_base64, 16, "Content-MD5"),
        sha256=None if sha256 is None else _digest(sha256, bytes.fromhex, 32, "X-Dynamo-SHA256"),
    )


def _meta(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    meta: dict[str, str] = {}
    size = 0
    for name, value in fields.items():
        if name.startswith(META_PREFIX):
            size += len(name) - len(META_PREFIX) + len(value)
            meta[name[len(META_PREFIX) :].decode("ascii")] = _text(value)
    if size > META_BYTES_MAX:
        raise TooLarge("metadata", META_BYTES_MAX)
    if "" in meta:
        raise BadRequest("bad_header", "An X-Dynamo-Meta- header has no name after the prefix.")
    return meta


def _digest(value: bytes, decode: Any, size: int, name: str) -> bytes:
    try:
        digest: bytes = decode(value.decode("ascii"))
    except (ValueError, binascii.Error):
        digest = b""
    if len(digest) != size:
        raise BadRequest("bad_digest", f"{name} is not the text of {size} bytes.")
    return digest


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadRequest("bad_header", "A header to be stored is not valid UTF-8.") from None


def _quorum_size(given: Mapping[str, str], name: str) -> int | Literal["quorum"] | None:
    text = given.get(name)
    if text is None:
        return None
    return "quorum" if text == "quorum" else read_count(name, text, REPLICAS_MAX)


def _quorum_kind(given: Mapping[str, str]) -> Literal["sloppy", "strict"] | None:
    text = given.get("quorum")
    if text is None:
        return None
    if text == "sloppy":
        return "sloppy"
    if text == "strict":
        return "strict"
    raise _bad("quorum must be sloppy or strict.")


def _timeout(given: Mapping[str, str]) -> float | None:
    text = given.get("timeout")
    if text is None:
        return None
    seconds = float(text) if DECIMAL.fullmatch(text) else math.nan
    if not 0 < seconds <= TIMEOUT_SECONDS_MAX:
        raise _bad(f"timeout must be a number of seconds above 0, at most {TIMEOUT_SECONDS_MAX}.")
    return seconds


def _bad(detail: str) -> BadRequest:
    return BadRequest("bad_parameter", detail)
