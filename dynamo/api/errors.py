"""The one table from error to HTTP status, and the two ways an error is told.

The form face says `{"status": "Failure", "error": CODE, "detail": "one sentence"}`; everything
under `/v1` says `application/problem+json` (RFC 9457) with the same code. An exception that is
not in the table is this program's mistake: it is logged once, with its traceback, and the
client learns only `internal`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import attrs
import msgspec

from dynamo.core.conditions import PreconditionFailed
from dynamo.core.ranges import Unsatisfiable
from dynamo.errors import (
    BadRequest,
    BucketExists,
    CallersFault,
    DynamoError,
    FileExists,
    NoSuchBucket,
    NoSuchFile,
    NoSuchMember,
    NotOffered,
    Overloaded,
    PeerFault,
    Refused,
    StorageFault,
    StorageFull,
    TooLarge,
    Unavailable,
)

JSON = b"application/json"
PROBLEM = b"application/problem+json"
PROBLEM_TYPE = "urn:dynamo:problem:"

RETRY_AFTER_SECONDS = 1


class NoSuchRoute(CallersFault):
    """Nothing is served under this path."""

    code = "no_such_route"


class NoSuchVersion(CallersFault):
    """The file is there, and none of its versions has this id."""

    code = "no_such_version"


class NoSuchTask(CallersFault):
    """No background task has this name; `known` do."""

    code = "no_such_task"

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"There is no background task {name!r}; there is {', '.join(known)}.")
        self.name, self.known = name, known


class MethodNotAllowed(CallersFault):
    """The path is served, by other methods: `allowed`."""

    code = "method_not_allowed"

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not offered here; {', '.join(allowed)} is.")
        self.allowed = allowed


STATUSES: dict[type[BaseException], int] = {
    BadRequest: 400,
    NoSuchBucket: 404,
    NoSuchFile: 404,
    NoSuchMember: 404,
    NoSuchRoute: 404,
    NoSuchVersion: 404,
    NoSuchTask: 404,
    MethodNotAllowed: 405,
    BucketExists: 409,
    FileExists: 409,
    Refused: 409,
    PreconditionFailed: 412,
    TooLarge: 413,
    Unsatisfiable: 416,
    NotOffered: 501,
    Unavailable: 503,
    PeerFault: 503,
    StorageFull: 507,
    StorageFault: 500,
    CallersFault: 400,
}

STATUS_OF_CODE = {"request_timeout": 408, "headers_too_large": 431}
"""`BadRequest` codes that have a status of their own."""


@attrs.frozen
class Answer:
    """A whole response. Content-Length, Date and Server are added when it is sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""


def json_answer(
    value: Any, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None
) -> Answer:
    """`value` as JSON."""
    return Answer(status, [(b"Content-Type", JSON), *(headers or ())], msgspec.json.encode(value))


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error, None if it is one nobody meant to raise."""
    if isinstance(error, BadRequest) and error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    for kind in type(error).__mro__:
        if kind in STATUSES:
            return STATUSES[kind]
    return None


def answer_error(error: BaseException, path: bytes) -> Answer:
    """What the client of `path` is told."""
    status = status_of(error)
    if status is None or not isinstance(error, DynamoError):
        status, code, detail = 500, "internal", "This node made a mistake; its log says which."
    else:
        code, detail = error.code, str(error) or HTTPStatus(status).description
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, MethodNotAllowed):
        headers.append((b"Allow", ", ".join(error.allowed).encode()))
    if isinstance(error, Unsatisfiable):
        headers.append((b"Content-Range", b"bytes */%d" % error.size))
    if isinstance(error, Overloaded):
        headers.append((b"Retry-After", b"%d" % RETRY_AFTER_SECONDS))
    if path == b"/v1" or path.startswith(b"/v1/"):
        return _problem(status, code, detail, headers)
    told = {"status": "Failure", "error": code, "detail": detail}
    return json_answer(told, status, headers)


def _problem(status: int, code: str, detail: str, headers: list[tuple[bytes, bytes]]) -> Answer:
    told = {
        "type": PROBLEM_TYPE + code,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return Answer(status, [(b"Content-Type", PROBLEM), *headers], msgspec.json.encode(told))
