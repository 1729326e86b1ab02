"""A context token is given back whole or refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo.errors import BadRequest
from dynamo.wire.context import (
    COUNTER_LIMIT,
    TOKEN_CHARS_MAX,
    decode_context,
    encode_context,
)

PLACE = b"12345678"
CONTEXTS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.integers(1, COUNTER_LIMIT - 1),
    max_size=8,
)


def refused(token: str, incarnation: bytes = PLACE, key: str = "k") -> None:
    with pytest.raises(BadRequest) as raised:
        decode_context(token, incarnation, key)
    assert raised.value.code == "bad_context"


@given(CONTEXTS, st.binary(min_size=8, max_size=8), st.text(st.characters(codec="utf-8")))
def test_a_token_gives_its_context_back(
    context: dict[str, int], incarnation: bytes, key: str
) -> None:
    token = encode_context(context, incarnation, key)
    assert decode_context(token, incarnation, key) == context
    assert all(c.isascii() and (c.isalnum() or c in "-_") for c in token)


def test_equal_contexts_have_equal_tokens() -> None:
    one = encode_context({"a": 1, "b": 2}, PLACE, "k")
    assert one == encode_context({"b": 2, "a": 1}, PLACE, "k")


def test_a_token_belongs_to_its_file() -> None:
    token = encode_context({"n1": 3}, PLACE, "k")
    refused(token, PLACE, "other")
    refused(token, b"87654321", "k")


@pytest.mark.parametrize(
    "token", ["", "a", "AQ", "!!!!", "é", "\0", "=", "AAAA" * 100, "A" * (TOKEN_CHARS_MAX + 1)]
)
def test_garbage_is_refused(token: str) -> None:
    refused(token)


@given(CONTEXTS, st.data())
def test_a_changed_token_is_refused(context: dict[str, int], data: st.DataObject) -> None:
    token = encode_context(context, PLACE, "k")
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    refused(base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode())


@given(st.text(max_size=60))
def test_no_text_does_harm(token: str) -> None:
    refused(token)


@pytest.mark.parametrize(
    "context",
    [{"n1": 0}, {"n1": -1}, {"n1": COUNTER_LIMIT}, {"": 1}, {"x" * 300: 1}],
)
def test_a_counter_that_cannot_be_is_refused(context: dict[str, int]) -> None:
    """Even behind a right check: a forged one must not poison a record for good."""
    refused(encode_context(context, PLACE, "k"))


def test_another_format_is_refused() -> None:
    token = encode_context({"n1": 3}, PLACE, "k")
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[0] = 2
    refused(base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode())
