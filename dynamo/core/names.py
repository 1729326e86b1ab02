"""What may name a bucket and a file.

A bucket: 1 to 255 bytes of UTF-8 without `/` and control characters. A file's key: 1 to 1024
bytes of UTF-8 without NUL. Both are kept exactly as sent; no character of a key means anything.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from dynamo.errors import BadRequest

BUCKET_BYTES_MAX = 255
KEY_BYTES_MAX = 1024

_FORBIDDEN = re.compile(r"[/\x00-\x1f\x7f-\x9f]")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def check_bucket(name: str) -> str:
    """The name, if it may name a bucket."""
    if not name:
        raise BadRequest("missing_field", "The bucket's name is empty.")
    if _FORBIDDEN.search(name):
        raise _bad("A bucket's name has no slash and no control characters.")
    if _size(name) > BUCKET_BYTES_MAX:
        raise _bad(f"A bucket's name has at most {BUCKET_BYTES_MAX} bytes of UTF-8.")
    return name


def check_key(key: str) -> str:
    """The key, if it may name a file."""
    if not key:
        raise BadRequest("missing_field", "The file's name is empty.")
    if "\0" in key:
        raise _bad("A file's name has no NUL character.")
    if _size(key) > KEY_BYTES_MAX:
        raise _bad(f"A file's name has at most {KEY_BYTES_MAX} bytes of UTF-8.")
    return key


def decode_text(raw: bytes) -> str:
    """Bytes that must be UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _bad("A name is not valid UTF-8.") from None


def decode_path(encoded: bytes) -> str:
    """A stretch of a URL's path, percent-decoded exactly once."""
    if b"%" in encoded:
        if _BROKEN_ESCAPE.search(encoded):
            raise _bad("A percent sign in the path is not followed by two hexadecimal digits.")
        encoded = unquote_to_bytes(encoded)
    return decode_text(encoded)


def encode_segment(name: str) -> str:
    """The name as one segment of a URL's path: a slash in it is escaped, and so are dots that
    a client would take for a directory."""
    if name in (".", ".."):
        return "%2E" * len(name)
    return quote(name, safe="")


def encode_key(key: str) -> str:
    """The key as the rest of a URL's path, from which `decode_path` gives it back.

    Slashes stay, so that links look like paths, unless a client would normalise them away.
    """
    segments = key.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        return quote(key, safe="").replace(".", "%2E")
    return quote(key, safe="/")


def _size(name: str) -> int:
    try:
        return len(name.encode())
    except UnicodeEncodeError:
        raise _bad("A name is not valid Unicode.") from None


def _bad(detail: str) -> BadRequest:
    return BadRequest("bad_name", detail)
