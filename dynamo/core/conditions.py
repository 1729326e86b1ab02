"""Conditional GET and HEAD: what RFC 9110 §13.2.2 says to answer, in that order.

ETags here are the header's text, quotes included. Dates are compared in whole seconds, as HTTP
dates have no finer grain; a date that does not parse is ignored (§13.1.3, §13.1.4).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_tz
from typing import Literal

from dynamo.errors import CallersFault

_TAG = re.compile(r'\s*(?:(W/)?("[^"]*")|\*)\s*(?:,|\Z)')

Outcome = Literal["serve", "not_modified", "failed"]


class PreconditionFailed(CallersFault):
    """`If-Match` or `If-Unmodified-Since` does not hold."""

    code = "precondition_failed"


def evaluate(
    etag: str,
    modified_s: int | None,
    *,
    if_match: str | None = None,
    if_unmodified_since: str | None = None,
    if_none_match: str | None = None,
    if_modified_since: str | None = None,
) -> Outcome:
    """What to answer a GET or HEAD of something with this ETag and time of change."""
    if if_match is not None:
        if not _any_match(if_match, etag, weak=False):
            return "failed"
    elif if_unmodified_since is not None and modified_s is not None:
        limit = parse_date(if_unmodified_since)
        if limit is not None and modified_s > limit:
            return "failed"
    if if_none_match is not None:
        return "not_modified" if _any_match(if_none_match, etag, weak=True) else "serve"
    if if_modified_since is not None and modified_s is not None:
        limit = parse_date(if_modified_since)
        if limit is not None and modified_s <= limit:
            return "not_modified"
    return "serve"


def strong_match(tag: str, etag: str) -> bool:
    """Strong comparison (§8.8.3.2): equal, and neither is weak."""
    return tag == etag and not etag.startswith("W/")


def parse_date(text: str) -> int | None:
    """Seconds since the epoch of an HTTP date, or None."""
    try:
        parsed = parsedate_tz(text)
        if parsed is None or parsed[9]:
            return None
        return int(datetime(*parsed[:6], tzinfo=UTC).timestamp())
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def _any_match(header: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of ETags, or `*`, names `etag`. A malformed list names nothing."""
    at = 0
    while at < len(header):
        found = _TAG.match(header, at)
        if found is None:
            return False
        mark, tag = found.groups()
        if tag is None:
            return True
        if (weak or mark is None) and tag == etag.removeprefix("W/"):
            return weak or not etag.startswith("W/")
        at = found.end()
    return False
