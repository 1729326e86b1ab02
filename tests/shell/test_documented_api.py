"""The documented operations, row by row of the contract, and every kind of bad input."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from dynamo.api.documented import DocumentedFace
from dynamo.api.site import Site, site
from dynamo.errors import NotReady, Overloaded, PeerUnreachable, QuorumNotMet, StorageFull
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.http import (
    Client,
    Clock,
    Errors,
    Response,
    logged_errors,
    multipart,
    request_bytes,
)

__all__ = ["logged_errors"]

URLENCODED = "application/x-www-form-urlencoded"
LARGE = bytes(range(256)) * 1000
CLOCKS = {"n1": {"n1": 1}, "n2": {"n1": 1}, "n3": {"n1": 1}}


@pytest.fixture
def coordinator() -> FakeCoordinator:
    fake = FakeCoordinator()
    fake.bucket("b")
    return fake


@pytest.fixture
def client(coordinator: FakeCoordinator) -> Client:
    return Client(make_site(coordinator))


def make_site(coordinator: FakeCoordinator) -> Site:
    face = DocumentedFace(coordinator, lambda: {"n1": "Live", "n2": "Down"})
    return site(face.app, reactor=Clock(), body_limit=1 << 24)


def post(client: Client, path: str, **fields: str) -> Response:
    body = urlencode(fields).encode()
    return client.ask("POST", path, body, {"Content-Type": URLENCODED})


def send_file(
    client: Client, path: str, data: bytes, order: str = "name bucket file", **fields: str
) -> Response:
    given = {"name": "f", "bucket": "b", **fields}
    parts = [
        ("file", data, "x.bin") if field == "file" else (field, given[field].encode(), None)
        for field in order.split()
    ]
    body, kind = multipart(*parts)
    return client.ask("POST", path, body, {"Content-Type": kind})


def failure(response: Response) -> tuple[int, str]:
    told = response.json()
    assert told["status"] == "Failure"
    assert set(told) == {"status", "error", "detail"}
    assert response.headers["content-type"] == "application/json"
    return response.status, told["error"]


# Success.


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_five_in_a_row(client: Client, slash: str) -> None:
    """Create, read, update, delete: with and without the trailing slash."""
    done = {"status": "Success", "node": "n1"}
    assert post(client, "/create/bucket" + slash, name="c").json() == done
    made = send_file(client, "/create/file" + slash, b"one", bucket="c")
    assert (made.status, made.json()) == (200, {**done, "vector_clocks": CLOCKS})

    read = post(client, "/read/file" + slash, name="f", bucket="c").json()
    assert (read["status"], read["node"], read["url"]) == ("Success", "n1", "/file/c/f")
    assert read["vector_clocks"] == CLOCKS
    assert client.ask("GET", read["url"]).body == b"one"

    changed = send_file(client, "/update/file" + slash, b"two", bucket="c")
    assert changed.json()["vector_clocks"]["n2"] == {"n1": 2}
    assert client.ask("GET", read["url"]).body == b"two"

    assert post(client, "/delete/file" + slash, name="f", bucket="c").json() == done
    assert client.ask("GET", read["url"]).status == 404
    assert post(client, "/delete/bucket" + slash, name="c").json() == done
    assert failure(post(client, "/delete/bucket" + slash, name="c")) == (404, "no_such_bucket")


@pytest.mark.parametrize("path", ["/status", "/status/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_status_names_every_member(client: Client, method: str, path: str) -> None:
    assert client.ask(method, path).json() == {"n1": "Live", "n2": "Down"}


def test_fields_may_come_as_multipart(client: Client) -> None:
    body, kind = multipart(("name", b"c", None))
    assert client.ask("POST", "/create/bucket/", body, {"Content-Type": kind}).status == 200


@pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=len)
@pytest.mark.parametrize(
    "order", ["name bucket file", "file name bucket", "name file bucket", "bucket name file"]
)
def test_fields_come_before_or_after_the_file(
    client: Client, coordinator: FakeCoordinator, data: bytes, order: str
) -> None:
    assert send_file(client, "/create/file/", data, order).status == 200
    assert coordinator.content("b", "f") == [data]
    assert send_file(client, "/update/file/", data + b"!", order).status == 200
    assert coordinator.content("b", "f") == [data + b"!"]


@pytest.mark.parametrize(
    ("path", "order", "staged"),
    [
        ("/create/file/", "name bucket file", False),
        ("/create/file/", "name file bucket", True),
        ("/update/file/", "name bucket file", True),
        ("/update/file/", "name bucket context file", False),
        ("/update/file/", "name bucket file context", True),
    ],
)
def test_a_large_file_is_staged_only_if_a_field_may_still_come(
    client: Client, coordinator: FakeCoordinator, path: str, order: str, staged: bool
) -> None:
    context = ""
    if path == "/update/file/":
        coordinator.file("b", "f", b"old")
        context = post(client, "/read/file/", name="f", bucket="b").json()["context"]
    coordinator.calls.clear()

    response = send_file(client, path, LARGE, order, context=context)

    assert response.status == 200
    operations = [name for name, _ in coordinator.calls]
    assert ("stage" in operations) is staged
    assert coordinator.content("b", "f") == [LARGE]


def test_an_update_with_a_context_leaves_what_it_has_not_seen(
    client: Client, coordinator: FakeCoordinator
) -> None:
    coordinator.file("b", "f", b"one")
    context = post(client, "/read/file/", name="f", bucket="b").json()["context"]
    coordinator.file("b", "f", b"unseen", actor="n2")

    order = "name bucket file context"
    assert send_file(client, "/update/file/", b"two", order, context=context).status == 200

    assert sorted(coordinator.content("b", "f")) == [b"two", b"unseen"]
    response = client.ask("GET", "/file/b/f")
    assert (response.body, response.headers["x-dynamo-siblings"]) == (b"two", "2")


def test_a_delete_with_a_context_leaves_what_it_has_not_seen(
    client: Client, coordinator: FakeCoordinator
) -> None:
    coordinator.file("b", "f", b"one")
    context = post(client, "/read/file/", name="f", bucket="b").json()["context"]
    coordinator.file("b", "f", b"unseen", actor="n2")
    deleted = post(client, "/delete/file/", name="f", bucket="b", context=context)
    assert deleted.status == 200
    assert coordinator.content("b", "f") == [b"unseen"]


@pytest.mark.parametrize(
    "name",
    ["a b.txt", "a/b/c", "..", "../../etc/passwd", "/abs", "a//b", "x/", "100%", "a%2Fb", "a?b#c",
     "é☃", "a+b", "a\nb", "a&b=c;d", '"q"', "\\"],
)  # fmt: skip
def test_any_name_comes_back_by_its_url(
    client: Client, coordinator: FakeCoordinator, name: str
) -> None:
    fields = urlencode({"name": name, "bucket": "b"}).encode()
    assert coordinator.file("b", name, b"bytes of " + name.encode())

    url = client.ask("POST", "/read/file/", fields, {"Content-Type": URLENCODED}).json()["url"]

    assert url.isascii()
    assert client.ask("GET", url).body == b"bytes of " + name.encode()


@pytest.mark.parametrize("bucket", ["a b", "%2F", "ü", "..", "?#"])
def test_any_bucket_comes_back_by_its_url(client: Client, bucket: str) -> None:
    assert post(client, "/create/bucket/", name=bucket).status == 200
    assert send_file(client, "/create/file/", b"x", bucket=bucket).status == 200
    url = post(client, "/read/file/", name="f", bucket=bucket).json()["url"]
    assert client.ask("GET", url).body == b"x"


@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=40)
)
@settings(max_examples=30)
def test_a_name_is_kept_exactly(name: str) -> None:
    fake = FakeCoordinator()
    fake.bucket("b")
    client = Client(make_site(fake))
    assert send_file(client, "/create/file/", b"x", name=name).status == 200
    assert fake.content("b", name) == [b"x"]


# GET /file/.


@pytest.mark.parametrize(
    ("stored", "name", "told"),
    [
        ("text/x-test", "f.png", "text/x-test"),
        ("", "f.png", "image/png"),
        ("application/octet-stream", "f.html", "text/html"),
        ("", "dir.png/f", "application/octet-stream"),
        ("", "f", "application/octet-stream"),
        ("a\r\nEvil: b", "f", "a  Evil: b"),
    ],
)
def test_the_type_is_the_stored_one_or_the_names(
    client: Client, coordinator: FakeCoordinator, stored: str, name: str, told: str
) -> None:
    coordinator.file("b", name, b"x", content_type=stored)
    assert client.ask("GET", f"/file/b/{name}").headers["content-type"] == told


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({}, 200, b"0123456789"),
        ({"Range": "bytes=2-4"}, 206, b"234"),
        ({"Range": "bytes=-2"}, 206, b"89"),
        ({"Range": "bytes=2-4,6-7"}, 200, b"0123456789"),
        ({"Range": "bytes=x"}, 200, b"0123456789"),
        ({"Range": "bytes=2-4", "If-Range": '"no"'}, 200, b"0123456789"),
        ({"If-None-Match": '"no"'}, 200, b"0123456789"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reads_with_ranges(
    client: Client,
    coordinator: FakeCoordinator,
    method: str,
    headers: dict[str, str],
    status: int,
    body: bytes,
) -> None:
    version = coordinator.file("b", "f", b"0123456789")
    response = client.ask(method, "/file/b/f", None, headers)
    if method == "HEAD":
        status, body = 200, b"0123456789"
    assert response.status == status
    assert response.headers["content-length"] == str(len(body))
    assert response.body == (b"" if method == "HEAD" else body)
    assert response.headers["etag"] == f'"{version.etag}"'
    assert response.headers["accept-ranges"] == "bytes"
    assert "x-dynamo-siblings" not in response.headers


def test_a_file_that_is_known_is_not_sent_again(
    client: Client, coordinator: FakeCoordinator
) -> None:
    coordinator.file("b", "f", b"x")
    etag = client.ask("GET", "/file/b/f").headers["etag"]
    response = client.ask("GET", "/file/b/f", None, {"If-None-Match": etag})
    assert (response.status, response.body, response.headers["etag"]) == (304, b"", etag)
    response = client.ask("GET", "/file/b/f", None, {"If-Match": '"other"'})
    assert failure(response) == (412, "precondition_failed")


def test_a_range_past_the_end_is_refused(client: Client, coordinator: FakeCoordinator) -> None:
    coordinator.file("b", "f", b"0123456789")
    response = client.ask("GET", "/file/b/f", None, {"Range": "bytes=10-"})
    assert failure(response) == (416, "unsatisfiable_range")
    assert response.headers["content-range"] == "bytes */10"


def test_what_strangers_stored_runs_nowhere(client: Client, coordinator: FakeCoordinator) -> None:
    coordinator.file("b", "f.html", b"<script>")
    headers = client.ask("GET", "/file/b/f.html").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "sandbox"


def test_a_large_file_streams(client: Client, coordinator: FakeCoordinator) -> None:
    coordinator.file("b", "f", LARGE)
    assert client.ask("GET", "/file/b/f").body == LARGE
    response = client.ask("GET", "/file/b/f", None, {"Range": "bytes=1000-200000"})
    assert response.body == LARGE[1000:200001]
    assert coordinator.streams_closed == 2


# Failure.


@pytest.mark.parametrize(
    "path",
    ["/create/bucket/", "/delete/bucket/", "/create/file/", "/update/file/", "/delete/file/",
     "/read/file/"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_not_offered(client: Client, path: str, method: str) -> None:
    response = client.ask(method, path)
    assert (response.status, response.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert failure(response) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/file"), ("GET", "/file/"), ("GET", "/file/b"), ("POST", "/create"),
     ("POST", "/create//bucket/"), ("GET", "/%73tatus")],
)  # fmt: skip
def test_other_paths_are_not_served(client: Client, method: str, path: str) -> None:
    assert failure(client.ask(method, path)) == (404, "no_such_route")


FIELDS = {
    "/create/bucket/": ["name"],
    "/delete/bucket/": ["name"],
    "/delete/file/": ["name", "bucket"],
    "/read/file/": ["name", "bucket"],
}


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_a_missing_field_is_named(client: Client, path: str, how: str) -> None:
    for missing in FIELDS[path]:
        fields = dict.fromkeys(FIELDS[path], "b")
        if how == "absent":
            del fields[missing]
        else:
            fields[missing] = ""
        response = post(client, path, **fields)
        assert failure(response) == (400, "missing_field")
        assert repr(missing) in response.json()["detail"]


@pytest.mark.parametrize("path", ["/create/file/", "/update/file/"])
@pytest.mark.parametrize("size", [3, len(LARGE)])
@pytest.mark.parametrize("missing", ["name", "bucket", "file"])
def test_a_file_needs_all_its_fields(
    client: Client, coordinator: FakeCoordinator, path: str, missing: str, size: int
) -> None:
    order = " ".join(f for f in ("name", "file", "bucket") if f != missing)
    response = send_file(client, path, LARGE[:size], order)
    assert failure(response) == (400, "missing_field")
    assert repr(missing) in response.json()["detail"]
    assert "put" not in [name for name, _ in coordinator.calls]


@pytest.mark.parametrize("path", ["/create/file/", "/update/file/"])
@pytest.mark.parametrize("filename", [None, ""])
def test_a_file_must_be_one(client: Client, path: str, filename: str | None) -> None:
    body, kind = multipart(("name", b"f", None), ("bucket", b"b", None), ("file", b"x", filename))
    response = client.ask("POST", path, body, {"Content-Type": kind})
    assert failure(response) == (400, "missing_field")
    assert failure(post(client, path, name="f", bucket="b", file="x")) == (400, "missing_field")


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("/create/bucket/", {"name": "b"}, (409, "bucket_exists")),
        ("/create/bucket/", {"name": "a/b"}, (400, "bad_name")),
        ("/create/bucket/", {"name": "a\0"}, (400, "bad_name")),
        ("/create/bucket/", {"name": "x" * 256}, (400, "bad_name")),
        ("/delete/bucket/", {"name": "none"}, (404, "no_such_bucket")),
        ("/delete/file/", {"name": "none", "bucket": "b"}, (404, "no_such_file")),
        ("/delete/file/", {"name": "f", "bucket": "none"}, (404, "no_such_bucket")),
        ("/delete/file/", {"name": "f", "bucket": "b", "context": "zz"}, (400, "bad_context")),
        ("/delete/file/", {"name": "x" * 1025, "bucket": "b"}, (400, "bad_name")),
        ("/read/file/", {"name": "none", "bucket": "b"}, (404, "no_such_file")),
        ("/read/file/", {"name": "f", "bucket": "none"}, (404, "no_such_bucket")),
        ("/read/file/", {"name": "f", "bucket": "../b"}, (400, "bad_name")),
        ("/read/file/", {"name": "a\0b", "bucket": "b"}, (400, "bad_name")),
    ],
)
def test_what_a_form_may_ask_wrongly(
    client: Client, path: str, fields: dict[str, str], expected: tuple[int, str]
) -> None:
    assert failure(post(client, path, **fields)) == expected
    assert not client.closed


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("/create/file/", {"name": "there"}, (409, "file_exists")),
        ("/create/file/", {"bucket": "none"}, (404, "no_such_bucket")),
        ("/create/file/", {"name": "x" * 1025}, (400, "bad_name")),
        ("/create/file/", {"bucket": "a/b"}, (400, "bad_name")),
        ("/update/file/", {"name": "none"}, (404, "no_such_file")),
        ("/update/file/", {"bucket": "none"}, (404, "no_such_bucket")),
        ("/update/file/", {"name": "there", "context": "zz"}, (400, "bad_context")),
    ],
)
@pytest.mark.parametrize("size", [3, len(LARGE)])
def test_what_a_file_form_may_ask_wrongly(
    client: Client,
    coordinator: FakeCoordinator,
    path: str,
    fields: dict[str, str],
    expected: tuple[int, str],
    size: int,
) -> None:
    coordinator.file("b", "there", b"old")
    order = "name bucket context file" if "context" in fields else "name bucket file"
    assert failure(send_file(client, path, LARGE[:size], order, **fields)) == expected
    assert coordinator.content("b", "there") == [b"old"]


def test_another_files_context_is_refused(client: Client, coordinator: FakeCoordinator) -> None:
    coordinator.file("b", "f", b"x")
    coordinator.file("b", "g", b"x")
    context = post(client, "/read/file/", name="g", bucket="b").json()["context"]
    response = post(client, "/delete/file/", name="f", bucket="b", context=context)
    assert failure(response) == (400, "bad_context")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/file/none/f", (404, "no_such_bucket")),
        ("/file/b/none", (404, "no_such_file")),
        ("/file/b/%ff", (400, "bad_name")),
        ("/file/b/%zz", (400, "bad_name")),
        ("/file/b/a%00", (400, "bad_name")),
        ("/file/a%2Fb/f", (400, "bad_name")),
        ("/file/b/" + "x" * 1025, (400, "bad_name")),
        ("/file/b/", (400, "missing_field")),
    ],
)
def test_what_a_url_may_ask_wrongly(client: Client, path: str, expected: tuple[int, str]) -> None:
    assert failure(client.ask("GET", path)) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (QuorumNotMet("write", 1, 2), (503, "quorum_not_met")),
        (Overloaded("commit queue"), (503, "overloaded")),
        (NotReady("joining"), (503, "not_ready")),
        (StorageFull(), (507, "storage_full")),
        (PeerUnreachable("n2", "refused"), (503, "peer_unreachable")),
    ],
)
def test_what_the_cluster_cannot_do_is_told(
    client: Client, coordinator: FakeCoordinator, error: Exception, expected: tuple[int, str]
) -> None:
    coordinator.fail = error
    response = post(client, "/create/bucket/", name="c")
    assert failure(response) == expected
    assert response.json()["detail"] == str(error)


def test_too_few_replicas_are_counted(client: Client, coordinator: FakeCoordinator) -> None:
    coordinator.fail = QuorumNotMet("write", 1, 2)
    detail = send_file(client, "/create/file/", b"x").json()["detail"]
    assert "2 replicas" in detail
    assert "1 answered" in detail


def test_a_mistake_of_ours_is_not_told(
    client: Client, coordinator: FakeCoordinator, logged_errors: Errors
) -> None:
    coordinator.fail = ZeroDivisionError("inside")
    assert failure(post(client, "/create/bucket/", name="c")) == (500, "internal")
    assert len(logged_errors) == 1
    logged_errors.clear()


# Forms that are none.

WHOLE, KIND = multipart(("name", b"f", None), ("bucket", b"b", None), ("file", b"abc", "x"))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (WHOLE[:-1] + b"", KIND.replace("frontier", "other")),
        (WHOLE[:-6], KIND),
        (WHOLE[:60], KIND),
        (b"", KIND),
        (b"garbage", KIND),
        (WHOLE, "multipart/form-data"),
        (WHOLE, "multipart/form-data; boundary="),
        (WHOLE, "multipart/form-data; boundary=" + "x" * 300),
        (WHOLE.replace(b"form-data", b"attachment"), KIND),
        (WHOLE.replace(b"Content-Disposition", b"Content Disposition"), KIND),
        (WHOLE.replace(b'name="name"', b'name="bucket"'), KIND),
        (b"{}", "application/json"),
        (b"name=f&name=f", URLENCODED),
        (b"&".join(b"f%d=1" % at for at in range(40)), URLENCODED),
        (multipart(*[(f"f{at}", b"x", None) for at in range(40)])[0], KIND),
    ],
)
@pytest.mark.parametrize("path", ["/create/file/", "/read/file/"])
def test_a_broken_form_is_refused(
    client: Client, coordinator: FakeCoordinator, path: str, body: bytes, kind: str
) -> None:
    response = client.ask("POST", path, body, {"Content-Type": kind})
    assert failure(response) == (400, "bad_form")
    assert coordinator.content("b", "f") == []


def test_a_field_past_its_bound_is_refused(client: Client) -> None:
    response = post(client, "/create/bucket/", name="x" * 30_000)
    assert failure(response) == (413, "too_large")
    body, kind = multipart(("name", b"x" * 30_000, None))
    response = client.ask("POST", "/create/bucket/", body, {"Content-Type": kind})
    assert failure(response) == (413, "too_large")
    data = urlencode({"name": "x" * 300_000}).encode()
    client.send(request_bytes("POST", "/create/bucket/", data, {"Content-Type": URLENCODED}))
    assert client.responses()[-1].status == 413


@pytest.mark.parametrize("field", ["name", "bucket"])
def test_a_field_must_be_utf8(client: Client, field: str) -> None:
    given = {"name": b"f", "bucket": b"b", field: b"\xff"}
    body = b"&".join(
        name.encode() + b"=" + value.replace(b"\xff", b"%FF") for name, value in given.items()
    )
    response = client.ask("POST", "/read/file/", body, {"Content-Type": URLENCODED})
    assert failure(response) == (400, "bad_name")
    body, kind = multipart(*[(name, value, None) for name, value in given.items()])
    response = client.ask("POST", "/read/file/", body, {"Content-Type": kind})
    assert failure(response) == (400, "bad_name")


@pytest.mark.parametrize("order", ["name bucket file", "file name bucket"])
def test_a_form_that_breaks_off_behind_the_file_stores_nothing(
    client: Client, coordinator: FakeCoordinator, order: str
) -> None:
    """Its bytes went to the coordinator as they came, and its end was never told."""
    parts = [
        ("file", LARGE, "x") if name == "file" else (name, b"b", None) for name in order.split()
    ]
    body, kind = multipart(*parts)
    data = request_bytes("POST", "/create/file/", body, {"Content-Type": kind})
    client.send(data[:-4])
    client.half_close()
    assert failure(client.responses()[0]) == (400, "incomplete_body")
    assert coordinator.content("b", "b") == []


@pytest.mark.parametrize("data", [b"x", LARGE], ids=len)
def test_a_second_file_is_refused(
    client: Client, coordinator: FakeCoordinator, data: bytes
) -> None:
    body, kind = multipart(
        ("name", b"f", None), ("bucket", b"b", None), ("file", data, "x"), ("file", b"", "y")
    )
    response = client.ask("POST", "/create/file/", body, {"Content-Type": kind})
    assert failure(response) == (400, "bad_form")
    assert coordinator.content("b", "f") == []


def test_other_fields_and_files_are_passed_over(
    client: Client, coordinator: FakeCoordinator
) -> None:
    body, kind = multipart(
        ("extra", b"1", None),
        ("other", LARGE, "y"),
        ("name", b"f", None),
        ("bucket", b"b", None),
        ("file", b"abc", "x"),
        ("more", LARGE, "z"),
    )
    assert client.ask("POST", "/create/file/", body, {"Content-Type": kind}).status == 200
    assert coordinator.content("b", "f") == [b"abc"]


@given(seed=st.integers(0, 2**32), size=st.sampled_from([0, 10, 70_000, 200_000]))
@settings(max_examples=25)
def test_a_form_cut_anywhere_is_the_same_form(seed: int, size: int) -> None:
    rng = random.Random(seed)
    fake = FakeCoordinator()
    fake.bucket("b")
    client = Client(make_site(fake))
    data = (b"--frontier\r\n" + rng.randbytes(50)) * (size // 62)
    parts = [
        ("name", b"f", None),
        ("bucket", b"b", None),
        ("file", data.replace(b"\n--f", b""), "x"),
    ]
    rng.shuffle(parts)
    body, kind = multipart(*parts)
    raw = request_bytes("POST", "/create/file/", body, {"Content-Type": kind})

    while raw:
        cut = rng.choice([1, 10, 1000, 40_000, 100_000])
        client.send(raw[:cut])
        raw = raw[cut:]

    assert client.responses()[0].status == 200
    assert fake.content("b", "f") == [data.replace(b"\n--f", b"")]


def test_a_large_file_is_never_all_in_memory(client: Client, coordinator: FakeCoordinator) -> None:
    """While the coordinator does not read, the sender is told to wait."""
    coordinator.hold = hold = Deferred()
    body, kind = multipart(("name", b"f", None), ("bucket", b"b", None), ("file", LARGE * 20, "x"))
    data = request_bytes("POST", "/create/file/", body, {"Content-Type": kind})
    at = 0
    while not client.wire.paused:
        client.send(data[at : at + 30_000])
        at += 30_000
    assert at < 500_000

    coordinator.hold = None
    hold.callback(None)
    while at < len(data):
        client.send(data[at : at + 30_000])
        at += 30_000

    assert client.responses()[0].status == 200
    assert coordinator.content("b", "f") == [LARGE * 20]


def test_a_client_that_vanishes_stores_nothing(client: Client, coordinator: Any) -> None:
    body, kind = multipart(("name", b"f", None), ("bucket", b"b", None), ("file", LARGE, "x"))
    client.send(request_bytes("POST", "/create/file/", body, {"Content-Type": kind})[:-10])
    client.vanish()
    assert coordinator.content("b", "f") == []
