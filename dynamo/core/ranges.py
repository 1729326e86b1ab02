"""Byte ranges of RFC 9110 §14.

One range is answered; a request for several, or one that is malformed or in another unit, is
answered with the whole, as §14.2 allows. A range that lies past the end is `Unsatisfiable`.
"""

from __future__ import annotations

import re

from dynamo.core.conditions import strong_match
from dynamo.errors import CallersFault

_SINGLE = re.compile(r"[Bb][Yy][Tt][Ee][Ss]=[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII)
_DIGITS_MAX = 18


class Unsatisfiable(CallersFault):
    """The range has no byte in common with the `size` bytes there are."""

    code = "unsatisfiable_range"

    def __init__(self, size: int) -> None:
        super().__init__(f"The range lies outside the {size} bytes there are.")
        self.size = size


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """The bytes [start, stop) that `header` asks of `size` bytes; None: all of them."""
    found = _SINGLE.fullmatch(header)
    if found is None:
        return None
    first, last = found.groups()
    if len(first) > _DIGITS_MAX or len(last) > _DIGITS_MAX:
        return _far(first, size)
    if not first:
        return _suffix(last, size)
    start = int(first)
    stop = int(last) + 1 if last else size
    if stop <= start and last:
        return None
    if start >= size:
        raise Unsatisfiable(size)
    return start, min(stop, size)


def applies(if_range: str | None, etag: str, modified: str | None) -> bool:
    """Whether `If-Range` lets the range be answered (§13.1.5): by strong ETag or exact date."""
    if if_range is None:
        return True
    if if_range[:1] in ('"', "W"):
        return strong_match(if_range, etag)
    return modified is not None and if_range == modified


def _suffix(last: str, size: int) -> tuple[int, int] | None:
    if not last:
        return None
    count = int(last)
    if count == 0 or size == 0:
        raise Unsatisfiable(size)
    return max(0, size - count), size


def _far(first: str, size: int) -> tuple[int, int]:
    """A range with a number beyond any file's size."""
    if not first:
        if size == 0:
            raise Unsatisfiable(size)
        return 0, size
    if len(first) > _DIGITS_MAX or int(first) >= size:
        raise Unsatisfiable(size)
    return int(first), size
