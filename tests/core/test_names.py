"""Names are kept exactly as sent, or refused."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.names import (
    check_bucket,
    check_key,
    decode_path,
    decode_text,
    encode_key,
    encode_segment,
)
from dynamo.errors import BadRequest

KEYS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=60)


@pytest.mark.parametrize(
    "name", ["a", " b9", "..", ".", "ü" * 127, "a" * 255, "a\\b", "a%2Fb", "☃"]
)
def test_a_bucket_may_be_called(name: str) -> None:
    assert check_bucket(name) == name


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "missing_field"),
        ("a/b", "bad_name"),
        ("../evil", "bad_name"),
        ("/etc", "bad_name"),
        ("a\0b", "bad_name"),
        ("a\nb", "bad_name"),
        ("a\x7fb", "bad_name"),
        ("a\x85b", "bad_name"),
        ("a" * 256, "bad_name"),
        ("ü" * 128, "bad_name"),
        ("\ud800", "bad_name"),
    ],
)
def test_a_bucket_may_not_be_called(name: str, code: str) -> None:
    with pytest.raises(BadRequest) as raised:
        check_bucket(name)
    assert raised.value.code == code


@pytest.mark.parametrize("key", ["a", "/", "..", "a//b", "/a/", "a\nb", " ", "é" * 512, "a" * 1024])
def test_a_file_may_be_called(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("", "missing_field"),
        ("a\0", "bad_name"),
        ("a" * 1025, "bad_name"),
        ("é" * 513, "bad_name"),
        ("\udfff", "bad_name"),
    ],
)
def test_a_file_may_not_be_called(key: str, code: str) -> None:
    with pytest.raises(BadRequest) as raised:
        check_key(key)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (b"a%20b", "a b"),
        (b"a+b", "a+b"),
        (b"a%2Fb%2f", "a/b/"),
        (b"%2e%2E", ".."),
        (b"%252F", "%2F"),
        (b"a//b/../c", "a//b/../c"),
        (b"%C3%A9\xc3\xa9", "éé"),
        (b"%25", "%"),
        (b"", ""),
    ],
)
def test_a_path_is_decoded_once(encoded: bytes, expected: str) -> None:
    assert decode_path(encoded) == expected


@pytest.mark.parametrize(
    "encoded", [b"%", b"%4", b"%zz", b"a%2", b"%ff", b"%c3", b"\xff", b"%C0%AF"]
)
def test_a_path_that_is_no_name_is_refused(encoded: bytes) -> None:
    with pytest.raises(BadRequest) as raised:
        decode_path(encoded)
    assert raised.value.code == "bad_name"


def test_text_must_be_utf8() -> None:
    assert decode_text("é".encode()) == "é"
    with pytest.raises(BadRequest):
        decode_text(b"\xe9")


@given(KEYS)
def test_an_encoded_key_gives_the_key_back(key: str) -> None:
    """And no client that normalises paths changes it, unless it is nothing but dots."""
    encoded = encode_key(key)
    assert decode_path(encoded.encode()) == key
    assert encoded.isascii()
    assert "?" not in encoded
    assert "#" not in encoded
    assert posixpath.normpath("/f/b/" + encoded) == "/f/b/" + encoded


@given(KEYS)
def test_an_encoded_segment_is_one_segment(name: str) -> None:
    encoded = encode_segment(name)
    assert unquote_to_bytes(encoded).decode() == name
    assert "/" not in encoded
    assert encoded not in (".", "..")


def test_slashes_stay_readable_where_they_can() -> None:
    assert encode_key("a/b c.txt") == "a/b%20c.txt"
    assert encode_key("a/../b") == "a%2F%2E%2E%2Fb"
