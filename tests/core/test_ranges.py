"""Byte ranges: the bytes a client asked for, never others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.ranges import Unsatisfiable, applies, parse_range

HUGE = "9" * 40


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=0-", 10, (0, 10)),
        ("bytes=3-5", 10, (3, 6)),
        ("bytes=9-9", 10, (9, 10)),
        ("bytes=5-100", 10, (5, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-100", 10, (0, 10)),
        ("Bytes=0-1", 10, (0, 2)),
        ("bytes= 0-1 ", 10, (0, 2)),
        (f"bytes=0-{HUGE}", 10, (0, 10)),
        (f"bytes=-{HUGE}", 10, (0, 10)),
    ],
)
def test_one_range_is_answered(header: str, size: int, expected: tuple[int, int]) -> None:
    assert parse_range(header, size) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=5-3",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1-2,4-5",
        "bytes=0-0, -1",
        "items=0-1",
        "bytes=١-٢",
        "bytes=0x1-2",
        "bytes=1.0-2",
    ],
)
def test_anything_else_is_answered_with_the_whole(header: str) -> None:
    """Malformed, in another unit, or several: RFC 9110 §14.2 lets a server ignore each."""
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("bytes=10-", 10),
        ("bytes=10-20", 10),
        ("bytes=-0", 10),
        ("bytes=0-", 0),
        ("bytes=0-0", 0),
        ("bytes=-1", 0),
        (f"bytes={HUGE}-", 10),
        (f"bytes={HUGE}-{HUGE}", 10),
        (f"bytes=10-{HUGE}", 10),
        (f"bytes=-{HUGE}", 0),
    ],
)
def test_a_range_past_the_end_is_unsatisfiable(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable) as raised:
        parse_range(header, size)
    assert raised.value.size == size


@given(size=st.integers(0, 50), first=st.integers(0, 60), last=st.integers(0, 60))
def test_a_range_is_what_slicing_gives(size: int, first: int, last: int) -> None:
    data = bytes(range(size))
    try:
        span = parse_range(f"bytes={first}-{last}", size)
    except Unsatisfiable:
        assert first >= size
        return
    if span is None:
        assert last < first
    else:
        assert data[span[0] : span[1]] == data[first : last + 1] != b""


@given(header=st.text(max_size=30), size=st.integers(0, 10))
def test_no_header_does_harm(header: str, size: int) -> None:
    try:
        span = parse_range("bytes=" + header, size)
    except Unsatisfiable:
        return
    assert span is None or 0 <= span[0] < span[1] <= size


DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    ("if_range", "expected"),
    [
        (None, True),
        ('"a"', True),
        ('"b"', False),
        ('W/"a"', False),
        (DATE, True),
        ("Tue, 14 Nov 2023 22:13:21 GMT", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_if_range_compares_strongly(if_range: str | None, expected: bool) -> None:
    assert applies(if_range, '"a"', DATE) is expected
