"""The resource face, row by row of the contract, and every kind of bad input."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from dynamo.api import objects
from dynamo.api.errors import PROBLEM_TYPE, STATUSES, status_of
from dynamo.api.resource import ResourceFace
from dynamo.api.site import Site, site
from dynamo.coordinator.requests import Options
from dynamo.errors import (
    Corrupt,
    DynamoError,
    MissingChunks,
    NotReady,
    Overloaded,
    PeerBroke,
    QuorumNotMet,
    StorageFull,
)
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.http import (
    Client,
    Clock,
    Errors,
    Response,
    chunked,
    logged_errors,
    read_responses,
    request_bytes,
)

__all__ = ["logged_errors"]

B = "/v1/buckets/b"
K = B + "/objects/k"
LARGE = bytes(range(256)) * 1000


@pytest.fixture
def coordinator() -> FakeCoordinator:
    fake = FakeCoordinator()
    fake.bucket("b")
    return fake


@pytest.fixture
def client(coordinator: FakeCoordinator) -> Client:
    return Client(make_site(coordinator))


def make_site(coordinator: FakeCoordinator) -> Site:
    return site(ResourceFace(coordinator).app, reactor=Clock(), body_limit=1 << 24)


def problem(response: Response) -> tuple[int, str]:
    told = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert set(told) == {"type", "title", "status", "detail", "code"}
    assert told["status"] == response.status
    assert told["type"] == PROBLEM_TYPE + told["code"]
    assert told["detail"]
    return response.status, told["code"]


# Buckets.


def test_a_bucket_from_making_to_deleting(client: Client) -> None:
    path = "/v1/buckets/new%20one"
    made = client.ask("PUT", path, b'{"n":3,"r":2,"w":"quorum","conflicts":"latest"}')
    expected = {
        "name": "new one",
        "created": "2023-11-14T22:13:20.000Z",
        "n": 3,
        "r": 2,
        "w": "quorum",
        "conflicts": "latest",
        "quorum": None,
    }
    assert (made.status, made.json()) == (201, expected)
    assert made.headers["x-dynamo-coordinator"] == "n1"
    assert client.ask("GET", path).json() == expected
    head = client.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")

    changed = client.ask("PUT", path)
    assert (changed.status, changed.json()["n"]) == (200, None)
    assert changed.json()["conflicts"] == "siblings"
    assert [b["name"] for b in client.ask("GET", "/v1/buckets").json()["buckets"]] == [
        "b",
        "new one",
    ]

    assert client.ask("DELETE", path).status == 204
    assert problem(client.ask("GET", path)) == (404, "no_such_bucket")
    assert problem(client.ask("DELETE", path)) == (404, "no_such_bucket")
    assert client.ask("HEAD", path).status == 404


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b'{"n":0}',
        b'{"n":-1}',
        b'{"n":1.5}',
        b'{"n":true}',
        b'{"n":"3"}',
        b'{"n":99999}',
        b'{"r":"all"}',
        b'{"w":0}',
        b'{"n":2,"w":3}',
        b'{"n":2,"r":3}',
        b'{"conflicts":"none"}',
        b'{"quorum":"lax"}',
        b'{"replicas":3}',
        b"[" * 3000,
    ],
)
def test_a_buckets_properties_must_be_right(
    client: Client, coordinator: FakeCoordinator, body: bytes
) -> None:
    assert problem(client.ask("PUT", "/v1/buckets/c", body)) == (400, "bad_properties")
    assert "put_bucket" not in [name for name, _ in coordinator.calls]


def test_a_buckets_properties_are_bounded(client: Client) -> None:
    assert problem(client.ask("PUT", "/v1/buckets/c", b" " * 5000)) == (413, "too_large")


@pytest.mark.parametrize("name", ["a%2Fb", "a%00", "%0A", "%ff", "%", "x" * 256])
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
@pytest.mark.parametrize("rest", ["", "/objects/k"])
def test_a_buckets_name_must_be_right(client: Client, method: str, name: str, rest: str) -> None:
    assert problem(client.ask(method, f"/v1/buckets/{name}{rest}", b"")) == (400, "bad_name")


# Listing.


def names(response: Response) -> list[str]:
    return [entry["key"] for entry in response.json()["objects"]]


def test_a_listing_is_in_order_and_says_what_it_lists(
    client: Client, coordinator: FakeCoordinator
) -> None:
    for key in ("b", "a/2", "a/1", "é", "a.txt"):
        coordinator.file("b", key, b"xyz")
    coordinator.file("b", "gone", b"")
    client.ask("DELETE", B + "/objects/gone")

    response = client.ask("GET", B + "/objects")

    assert names(response) == ["a.txt", "a/1", "a/2", "b", "é"]
    assert response.json()["objects"][0] == {
        "key": "a.txt",
        "size": 3,
        "etag": hashlib.md5(b"xyz").hexdigest(),
        "modified": "2023-11-14T22:13:20.000Z",
    }
    assert response.json()["next"] is None
    assert names(client.ask("GET", B + "/objects/")) == names(response)


def test_a_listing_by_prefix_delimiter_and_page(
    client: Client, coordinator: FakeCoordinator
) -> None:
    for key in ("a", "d/1", "d/2", "e/x/1", "f"):
        coordinator.file("b", key, b"")
    path = B + "/objects?delimiter=%2F"
    told = client.ask("GET", path).json()
    assert ([o["key"] for o in told["objects"]], told["prefixes"]) == (["a", "f"], ["d/", "e/"])
    assert names(client.ask("GET", B + "/objects?prefix=d/")) == ["d/1", "d/2"]

    seen, after = [], ""
    while True:
        page = client.ask("GET", f"{B}/objects?limit=2&start_after={quote(after, safe='')}").json()
        seen += [entry["key"] for entry in page["objects"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == ["a", "d/1", "d/2", "e/x/1", "f"]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=x", "limit=1.5", "limit=", "limit=١", "max=3", "w=1",
     "prefix=a&prefix=b", "prefix=%ff", "r=0", "&".join(f"a{n}=1" for n in range(40))],
)  # fmt: skip
def test_a_listings_parameters_must_be_right(client: Client, query: str) -> None:
    assert problem(client.ask("GET", f"{B}/objects?{query}")) == (400, "bad_parameter")


def test_a_listing_of_no_bucket(client: Client) -> None:
    assert problem(client.ask("GET", "/v1/buckets/none/objects")) == (404, "no_such_bucket")


# Objects.


def test_an_object_from_putting_to_deleting(client: Client) -> None:
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Dynamo-Meta-Colour": "grün"}
    put = client.ask("PUT", K, b"hello", headers)
    etag = hashlib.md5(b"hello").hexdigest()
    assert (put.status, put.headers["etag"]) == (200, f'"{etag}"')
    assert put.json() == {"id": "n1.1", "size": 5, "etag": etag}
    assert put.headers["x-dynamo-coordinator"] == "n1"
    assert put.headers["x-dynamo-replicas"] == "n1, n2, n3"

    for method in ("GET", "HEAD"):
        got = client.ask(method, K)
        assert (got.status, got.body) == (200, b"hello" if method == "GET" else b"")
        assert got.headers["content-length"] == "5"
        assert got.headers["content-type"] == "text/plain; charset=utf-8"
        assert got.headers["x-dynamo-meta-colour"] == "grün".encode().decode("latin-1")
        assert got.headers["etag"] == f'"{etag}"'
        assert got.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
        assert got.headers["x-dynamo-replicas"] == "n1, n2, n3"
        assert got.headers["x-dynamo-version"] == "n1.1"

    gone = client.ask("DELETE", K)
    assert (gone.status, gone.body) == (204, b"")
    assert gone.headers["x-dynamo-coordinator"] == "n1"
    missing = client.ask("GET", K)
    assert problem(missing) == (404, "no_such_file")
    assert missing.headers["x-dynamo-context"]
    assert client.ask("DELETE", K).status == 204
    assert client.ask("HEAD", K).status == 404


@pytest.mark.parametrize("size", [0, 1, 4096, 65_536, 65_537, 300_000])
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_any_size_streams_both_ways(
    client: Client, coordinator: FakeCoordinator, size: int, coding: str
) -> None:
    body = (LARGE * 2)[:size]
    if coding == "length":
        client.send(request_bytes("PUT", K, body))
    else:
        client.send(request_bytes("PUT", K, None, {"Transfer-Encoding": "chunked"}) + chunked(body))
    assert client.responses()[0].status == 200
    assert coordinator.content("b", "k") == [body]
    assert client.ask("GET", K).body == body


@given(key=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=50))
@settings(max_examples=40)
def test_a_key_is_kept_exactly(key: str) -> None:
    fake = FakeCoordinator()
    fake.bucket("b")
    client = Client(make_site(fake))
    path = f"{B}/objects/{quote(key, safe='/')}"
    assert client.ask("PUT", path, key.encode()).status == 200
    assert fake.content("b", key) == [key.encode()]
    assert client.ask("GET", path).body == key.encode()
    assert names(client.ask("GET", B + "/objects")) == [key]


@pytest.mark.parametrize(
    ("path", "key"),
    [("a/../b", "a/../b"), ("..", ".."), ("a//b", "a//b"), ("/a", "/a"), ("a/", "a/"),
     ("a%2Fb", "a/b"), ("%252F", "%2F"), ("a+b", "a+b"), ("%C3%A9", "é"),
     ("objects/x", "objects/x"), ("%2e%2e/%2E", "../."), ("a%0Ab", "a\nb"), ("a;v=1", "a;v=1"),
     ("a%3Fb", "a?b")],
)  # fmt: skip
def test_characters_of_a_path_are_just_characters(
    client: Client, coordinator: FakeCoordinator, path: str, key: str
) -> None:
    assert client.ask("PUT", f"{B}/objects/{path}", b"x").status == 200
    assert coordinator.content("b", key) == [b"x"]


@pytest.mark.parametrize("key", ["%ff", "%", "%zz", "%00", "x" * 1025, "%C0%AF", b"\xff"])
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE"])
def test_a_key_must_be_right(client: Client, method: str, key: str | bytes) -> None:
    raw = key if isinstance(key, bytes) else key.encode()
    response = client.ask(method, f"{B}/objects/".encode() + raw, b"")
    assert response.status == 400
    if method != "HEAD":
        assert problem(response) == (400, "bad_name")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_key_must_be_there(client: Client, method: str) -> None:
    assert problem(client.ask(method, B + "/objects/", b"")) == (400, "missing_field")


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_an_object_of_no_bucket(client: Client, method: str) -> None:
    path = "/v1/buckets/none/objects/k"
    assert problem(client.ask(method, path, b"")) == (404, "no_such_bucket")


# Digests and metadata.

MD5 = base64.b64encode(hashlib.md5(b"x").digest()).decode()
SHA = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Content-MD5": MD5}, 200),
        ({"X-Dynamo-SHA256": SHA}, 200),
        ({"X-Dynamo-SHA256": SHA.upper()}, 200),
        ({"Content-MD5": MD5, "X-Dynamo-SHA256": SHA}, 200),
        ({"Content-MD5": base64.b64encode(b"\0" * 16).decode()}, "digest_mismatch"),
        ({"X-Dynamo-SHA256": "0" * 64}, "digest_mismatch"),
        ({"Content-MD5": hashlib.md5(b"x").hexdigest()}, "bad_digest"),
        ({"Content-MD5": ""}, "bad_digest"),
        ({"Content-MD5": "!!!"}, "bad_digest"),
        ({"Content-MD5": "é"}, "bad_digest"),
        ({"X-Dynamo-SHA256": "00"}, "bad_digest"),
        ({"X-Dynamo-SHA256": "z" * 64}, "bad_digest"),
        ({"X-Dynamo-Meta-A": b"\xff"}, "bad_header"),
        ({"X-Dynamo-Meta-": "x"}, "bad_header"),
        ({"Content-Type": "x" * 300}, "bad_header"),
        ({"Content-Type": b"\xff"}, "bad_header"),
        ({"Content-Range": "bytes 0-0/5"}, "bad_header"),
    ],
)
def test_what_a_client_says_of_a_body_is_checked(
    client: Client,
    coordinator: FakeCoordinator,
    headers: dict[str, str],
    expected: int | str,
) -> None:
    response = client.ask("PUT", K, b"x", headers)
    if expected == 200:
        assert response.status == 200
    else:
        assert problem(response) == (400, expected)
        assert coordinator.content("b", "k") == []


def test_metadata_is_bounded(client: Client) -> None:
    response = client.ask("PUT", K, b"x", {"X-Dynamo-Meta-A": "x" * 8192})
    assert problem(response) == (413, "too_large")


def test_a_body_past_the_objects_limit(client: Client, coordinator: FakeCoordinator) -> None:
    coordinator.object_max = 100
    assert problem(client.ask("PUT", K, b"x" * 101)) == (413, "too_large")


# Options.


@pytest.mark.parametrize(
    ("method", "query", "expected"),
    [
        ("PUT", "", Options()),
        ("PUT", "?n=3&r=1&w=2&timeout=1.5", Options(n=3, r=1, w=2, timeout=1.5)),
        ("PUT", "?quorum=strict", Options(quorum="strict")),
        ("PUT", "?w=quorum&quorum=sloppy", Options(w="quorum", quorum="sloppy")),
        ("GET", "?r=quorum&n=5", Options(r="quorum", n=5)),
        ("GET", "?timeout=30", Options(timeout=30.0)),
        ("HEAD", "?r=1", Options(r=1)),
        ("DELETE", "?w=1", Options(w=1)),
    ],
)  # fmt: skip
def test_options_of_one_request(
    client: Client, coordinator: FakeCoordinator, method: str, query: str, expected: Options
) -> None:
    coordinator.file("b", "k", b"x")
    response = client.ask(method, K + query, b"x" if method == "PUT" else None)
    assert response.status in (200, 204)
    assert coordinator.calls[-1][1] == expected


BAD_OPTIONS = [
    *(f"{name}={value}" for name in "nrw" for value in ("0", "-1", "x", "", "1.5", "99999")),
    *(f"timeout={value}" for value in ("0", "-1", "x", "", "inf", "nan", "1e3", "99999")),
    "quorum=lax", "quorum=", "n=1&n=1", "foo=1", "N=1", "n", "=", "r=Quorum", "n=quorum",
]  # fmt: skip


@pytest.mark.parametrize("query", BAD_OPTIONS)
def test_options_must_be_right(client: Client, coordinator: FakeCoordinator, query: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        response = client.ask(method, f"{K}?{query}", b"")
        assert problem(response) == (400, "bad_parameter")
    assert coordinator.calls == []


def test_w_is_no_option_of_a_read_nor_version_of_a_write(client: Client) -> None:
    assert problem(client.ask("GET", K + "?w=1")) == (400, "bad_parameter")
    assert problem(client.ask("PUT", K + "?version=n1.1", b"")) == (400, "bad_parameter")
    assert problem(client.ask("GET", "/v1/buckets?x=1")) == (400, "bad_parameter")
    assert problem(client.ask("GET", B + "?x=1")) == (400, "bad_parameter")


# Versions.


def siblings(coordinator: FakeCoordinator) -> None:
    coordinator.file("b", "k", b"one", actor="n1")
    coordinator.file("b", "k", b"three", actor="n2~2")


def test_concurrent_versions_are_a_choice(client: Client, coordinator: FakeCoordinator) -> None:
    siblings(coordinator)

    response = client.ask("GET", K)

    assert response.status == 300
    told = response.json()
    assert told["context"] == response.headers["x-dynamo-context"]
    assert told["versions"] == [
        {
            "id": "n2~2.1",
            "node": "n2",
            "modified": "2023-11-14T22:13:20.000Z",
            "size": 5,
            "etag": hashlib.md5(b"three").hexdigest(),
            "clock": {"n2~2": 1},
        },
        {
            "id": "n1.1",
            "node": "n1",
            "modified": "2023-11-14T22:13:20.000Z",
            "size": 3,
            "etag": hashlib.md5(b"one").hexdigest(),
            "clock": {"n1": 1},
        },
    ]
    assert client.ask("HEAD", K).status == 300
    assert client.ask("GET", K + "?version=n1.1").body == b"one"
    assert client.ask("GET", K + "?version=n2~2.1").body == b"three"
    assert problem(client.ask("GET", K + "?version=n9.9")) == (404, "no_such_version")


def test_a_write_with_the_context_settles_a_conflict(
    client: Client, coordinator: FakeCoordinator
) -> None:
    siblings(coordinator)
    context = client.ask("GET", K).headers["x-dynamo-context"]
    coordinator.file("b", "k", b"unseen", actor="n3")

    assert client.ask("PUT", K, b"merged", {"X-Dynamo-Context": context}).status == 200

    assert sorted(coordinator.content("b", "k")) == [b"merged", b"unseen"]


def test_a_delete_with_the_context_deletes_what_was_seen(
    client: Client, coordinator: FakeCoordinator
) -> None:
    siblings(coordinator)
    context = client.ask("GET", K).headers["x-dynamo-context"]
    coordinator.file("b", "k", b"unseen", actor="n3")
    assert client.ask("DELETE", K, None, {"X-Dynamo-Context": context}).status == 204
    assert coordinator.content("b", "k") == [b"unseen"]


def test_a_write_without_a_context_replaces(client: Client, coordinator: FakeCoordinator) -> None:
    siblings(coordinator)
    assert client.ask("PUT", K, b"all").status == 200
    assert coordinator.content("b", "k") == [b"all"]


def test_the_context_of_nothing_makes_a_create(
    client: Client, coordinator: FakeCoordinator
) -> None:
    context = client.ask("GET", K).headers["x-dynamo-context"]
    coordinator.file("b", "k", b"meanwhile", actor="n2")
    assert client.ask("PUT", K, b"mine", {"X-Dynamo-Context": context}).status == 200
    assert len(coordinator.content("b", "k")) == 2


@pytest.mark.parametrize("token", ["", "x", "!!", "é", "A" * 20_000])
def test_a_context_must_be_one(client: Client, coordinator: FakeCoordinator, token: str) -> None:
    coordinator.file("b", "k", b"x")
    for method in ("PUT", "DELETE"):
        response = client.ask(method, K, b"", {"X-Dynamo-Context": token})
        assert problem(response) == (400, "bad_context")
    assert coordinator.content("b", "k") == [b"x"]


def test_a_context_is_of_this_file(client: Client, coordinator: FakeCoordinator) -> None:
    coordinator.file("b", "k", b"x")
    coordinator.file("b", "other", b"x")
    context = client.ask("GET", B + "/objects/other").headers["x-dynamo-context"]
    response = client.ask("PUT", K, b"", {"X-Dynamo-Context": context})
    assert problem(response) == (400, "bad_context")


# Conditions and ranges.


@pytest.mark.parametrize(
    "header", ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"]
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("path", [K, B])
def test_a_conditional_write_is_never_ignored(
    client: Client, coordinator: FakeCoordinator, path: str, method: str, header: str
) -> None:
    coordinator.file("b", "k", b"x")
    response = client.ask(method, path, b"", {header: "*"})
    assert problem(response) == (501, "not_implemented")
    assert coordinator.content("b", "k") == [b"x"]


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({"If-None-Match": "ETAG"}, 304, b""),
        ({"If-None-Match": "*"}, 304, b""),
        ({"If-None-Match": '"x"'}, 200, b"0123456789"),
        ({"If-Match": "ETAG"}, 200, b"0123456789"),
        ({"If-Match": '"x"'}, 412, None),
        ({"If-Modified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"}, 304, b""),
        ({"If-Unmodified-Since": "Tue, 14 Nov 2023 22:13:19 GMT"}, 412, None),
        ({"Range": "bytes=3-"}, 206, b"3456789"),
        ({"Range": "bytes=3-4", "If-Range": "ETAG"}, 206, b"34"),
        ({"Range": "bytes=3-4", "If-Range": "Tue, 14 Nov 2023 22:13:20 GMT"}, 206, b"34"),
        ({"Range": "bytes=3-4", "If-Range": "Tue, 14 Nov 2023 22:13:21 GMT"}, 200, b"0123456789"),
        ({"Range": "bytes=0-1,3-4"}, 200, b"0123456789"),
        ({"Range": "lines=1-2"}, 200, b"0123456789"),
        ({"Range": "bytes=99-"}, 416, None),
        ({"Range": "bytes=3-4", "If-None-Match": "ETAG"}, 304, b""),
    ],
)
@pytest.mark.parametrize("inline", [True, False])
def test_conditional_and_ranged_reads(
    client: Client,
    coordinator: FakeCoordinator,
    headers: dict[str, str],
    status: int,
    body: bytes | None,
    inline: bool,
) -> None:
    coordinator.inline_max = 100 if inline else 0
    coordinator.piece = 3
    etag = f'"{coordinator.file("b", "k", b"0123456789").etag}"'
    sent = {name: value.replace("ETAG", etag) for name, value in headers.items()}

    response = client.ask("GET", K, None, sent)

    assert response.status == status
    if body is not None:
        assert response.body == body
        assert response.headers["etag"] == etag
    if status == 206:
        first = b"0123456789".index(body or b"")
        told = f"bytes {first}-{first + len(body or b'') - 1}/10"
        assert response.headers["content-range"] == told
    if status == 416:
        assert response.headers["content-range"] == "bytes */10"


def test_an_empty_object_has_no_range(client: Client, coordinator: FakeCoordinator) -> None:
    coordinator.file("b", "k", b"")
    assert client.ask("GET", K, None, {"Range": "bytes=0-"}).status == 416
    assert client.ask("GET", K).body == b""


# Streams that fail, clients that go.


def test_a_stream_that_fails_before_its_first_byte_is_told(
    client: Client, coordinator: FakeCoordinator
) -> None:
    coordinator.file("b", "k", LARGE)
    coordinator.fail_stream_after = 0
    assert problem(client.ask("GET", K)) == (503, "quorum_not_met")
    assert not client.wire.aborted


def test_a_stream_may_be_dropped_while_it_waits_for_a_piece() -> None:
    """As a process drops it that ends: nothing is left that could be awaited then."""

    async def pieces() -> AsyncIterator[bytes]:
        await Deferred()
        yield b""

    nobody: Any = None
    stream = objects._stream(nobody, 200, [], pieces(), 10)
    stream.send(None)
    stream.close()


def test_a_file_that_is_replaced_while_it_is_looked_at(
    client: Client, coordinator: FakeCoordinator
) -> None:
    """Its chunks are freed with it: what is there by then is the answer."""
    coordinator.file("b", "k", LARGE)
    coordinator.replaced = [LARGE[::-1], b"new" * 100_000]
    answer = client.ask("GET", K)
    assert (answer.status, answer.body) == (200, b"new" * 100_000)


def test_a_file_whose_bytes_are_gone_is_not_looked_for_for_ever(
    client: Client, coordinator: FakeCoordinator
) -> None:
    coordinator.file("b", "k", LARGE)
    coordinator.replaced = [LARGE] * 10
    assert problem(client.ask("GET", K)) == (500, "missing_chunks")
    assert len(coordinator.replaced) == 7


def test_a_stream_that_fails_later_breaks_the_connection(
    client: Client, coordinator: FakeCoordinator
) -> None:
    coordinator.file("b", "k", LARGE)
    coordinator.fail_stream_after = 32 * 1024
    client.send(request_bytes("GET", K))
    assert client.wire.value().startswith(b"HTTP/1.1 200 OK")
    assert read_responses(client.wire.value()) == []
    assert client.wire.aborted
    assert coordinator.streams_closed == 1


@pytest.mark.parametrize("size", [200_000, 300_000])
def test_a_stream_of_another_length_breaks_the_connection(
    client: Client, coordinator: FakeCoordinator, size: int
) -> None:
    version = coordinator.file("b", "k", LARGE)
    coordinator._bytes[version.write] = (LARGE * 2)[:size]
    coordinator.file("b", "other", LARGE, size=300_000)
    path = K if size < len(LARGE) else B + "/objects/other"
    client.send(request_bytes("GET", path))
    assert client.wire.aborted


def test_a_client_that_leaves_a_stream_stops_it(
    client: Client, coordinator: FakeCoordinator
) -> None:
    coordinator.file("b", "k", LARGE)
    client.wire.always_full = True
    client.send(request_bytes("GET", K))
    assert len(client.wire.value()) < 2 * 32 * 1024
    client.vanish()
    assert coordinator.streams_closed == 1


def test_a_client_that_leaves_cancels_its_read(
    client: Client, coordinator: FakeCoordinator
) -> None:
    coordinator.hold = Deferred()
    client.send(request_bytes("GET", K))
    client.vanish()
    assert coordinator.cancelled == 1


def test_a_body_that_breaks_off_stores_nothing(
    client: Client, coordinator: FakeCoordinator
) -> None:
    client.send(request_bytes("PUT", K, LARGE)[:-1])
    client.half_close()
    assert problem(client.responses()[0]) == (400, "incomplete_body")
    assert coordinator.content("b", "k") == []


def test_an_upload_waits_for_the_coordinator(client: Client, coordinator: FakeCoordinator) -> None:
    coordinator.hold = hold = Deferred()
    data = request_bytes("PUT", K, LARGE * 8)
    at = 0
    while not client.wire.paused:
        client.send(data[at : at + 30_000])
        at += 30_000
    assert at < 400_000
    coordinator.hold = None
    hold.callback(None)
    while at < len(data):
        client.send(data[at : at + 30_000])
        at += 30_000
    assert client.responses()[0].status == 200
    assert coordinator.content("b", "k") == [LARGE * 8]


# Errors.


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (QuorumNotMet("read", 1, 2), (503, "quorum_not_met")),
        (Overloaded("queue"), (503, "overloaded")),
        (NotReady("joining"), (503, "not_ready")),
        (StorageFull(), (507, "storage_full")),
        (PeerBroke("n2", "sent noise"), (503, "peer_broke_protocol")),
        (MissingChunks((b"d",)), (500, "missing_chunks")),
        (Corrupt("bad digest"), (500, "corrupt")),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_the_cluster_cannot_do_is_told(
    client: Client,
    coordinator: FakeCoordinator,
    method: str,
    error: DynamoError,
    expected: tuple[int, str],
) -> None:
    coordinator.fail = error
    response = client.ask(method, K, b"")
    assert problem(response) == expected
    assert ("retry-after" in response.headers) is isinstance(error, Overloaded)


def test_a_mistake_of_ours_is_logged_and_not_told(
    client: Client, coordinator: FakeCoordinator, logged_errors: Errors
) -> None:
    coordinator.fail = KeyError("secret")
    response = client.ask("GET", K)
    assert problem(response) == (500, "internal")
    assert b"secret" not in response.body
    assert len(logged_errors) == 1
    logged_errors.clear()


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/buckets", "GET, HEAD"),
        ("POST", B, "DELETE, GET, HEAD, PUT"),
        ("DELETE", B + "/objects", "GET, HEAD"),
        ("POST", K, "DELETE, GET, HEAD, PUT"),
        ("PATCH", K, "DELETE, GET, HEAD, PUT"),
    ],
)
def test_other_methods_are_not_offered(client: Client, method: str, path: str, allow: str) -> None:
    response = client.ask(method, path, b"")
    assert problem(response) == (405, "method_not_allowed")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/none", B + "/none", "/v1//buckets", B + "//objects/k"]
)
def test_other_paths_are_not_served(client: Client, path: str) -> None:
    assert problem(client.ask("GET", path)) == (404, "no_such_route")


def test_every_error_has_a_status() -> None:
    """A class added to the tree is answered by what its base says; no client ever meets the
    configuration's."""
    pending: list[type[BaseException]] = [DynamoError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if kind is not DynamoError and kind.__module__ != "dynamo.config.values":
            assert any(base in STATUSES for base in kind.__mro__), kind
    assert status_of(RuntimeError()) is None
