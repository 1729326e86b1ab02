"""Conditional reads: RFC 9110 §13.2.2, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.conditions import evaluate, parse_date

ETAG = '"a"'
AT = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
BEFORE = "Tue, 14 Nov 2023 22:13:19 GMT"
AFTER = "Tue, 14 Nov 2023 22:13:21 GMT"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, "serve"),
        ({"if_match": '"a"'}, "serve"),
        ({"if_match": '"b", "a"'}, "serve"),
        ({"if_match": "*"}, "serve"),
        ({"if_match": '"b"'}, "failed"),
        ({"if_match": 'W/"a"'}, "failed"),
        ({"if_match": "a"}, "failed"),
        ({"if_match": ""}, "failed"),
        ({"if_match": '"a", if broken'}, "serve"),
        ({"if_none_match": '"a"'}, "not_modified"),
        ({"if_none_match": 'W/"a"'}, "not_modified"),
        ({"if_none_match": '"x","y" , "a"'}, "not_modified"),
        ({"if_none_match": "*"}, "not_modified"),
        ({"if_none_match": '"b"'}, "serve"),
        ({"if_none_match": "a"}, "serve"),
        ({"if_none_match": ""}, "serve"),
        ({"if_modified_since": DATE}, "not_modified"),
        ({"if_modified_since": AFTER}, "not_modified"),
        ({"if_modified_since": BEFORE}, "serve"),
        ({"if_modified_since": "yesterday"}, "serve"),
        ({"if_modified_since": ""}, "serve"),
        ({"if_unmodified_since": DATE}, "serve"),
        ({"if_unmodified_since": AFTER}, "serve"),
        ({"if_unmodified_since": BEFORE}, "failed"),
        ({"if_unmodified_since": "yesterday"}, "serve"),
        # Precedence: a tag goes before a date, If-Match before If-None-Match.
        ({"if_match": '"a"', "if_unmodified_since": BEFORE}, "serve"),
        ({"if_match": '"b"', "if_unmodified_since": AFTER}, "failed"),
        ({"if_none_match": '"b"', "if_modified_since": DATE}, "serve"),
        ({"if_none_match": '"a"', "if_modified_since": BEFORE}, "not_modified"),
        ({"if_match": '"a"', "if_none_match": '"a"'}, "not_modified"),
        ({"if_match": '"b"', "if_none_match": '"a"'}, "failed"),
        ({"if_unmodified_since": AFTER, "if_modified_since": DATE}, "not_modified"),
    ],
)
def test_a_condition_is_decided(conditions: dict[str, str], expected: str) -> None:
    assert evaluate(ETAG, AT, **conditions) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DATE, AT),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", AT),
        ("Tue Nov 14 22:13:20 2023", AT),
        ("Tue, 14 Nov 2023 22:13:20 +0100", None),
        ("Tue, 99 Nov 2023 99:99:99 GMT", None),
        ("GMT", None),
        ("", None),
    ],
)
def test_a_date_is_read_or_ignored(text: str, expected: int | None) -> None:
    assert parse_date(text) == expected


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_header_does_harm(one: str, other: str) -> None:
    for name in ("if_match", "if_none_match", "if_modified_since", "if_unmodified_since"):
        assert evaluate(ETAG, AT, **{name: one}) in ("serve", "not_modified", "failed")
    assert parse_date(other + " GMT") is None or isinstance(parse_date(other + " GMT"), int)
