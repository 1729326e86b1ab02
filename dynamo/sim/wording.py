"""Requests in bytes: how each kind of operation is put to a node."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from dynamo.core.buckets import Properties
from dynamo.core.names import encode_key, encode_segment
from dynamo.sim.client import request_bytes

_BOUNDARY = b"simulated-form-boundary"
_FORM = [(b"Content-Type", b"multipart/form-data; boundary=" + _BOUNDARY)]
_FIELDS = [(b"Content-Type", b"application/x-www-form-urlencoded")]

Headers = list[tuple[bytes, bytes]]


def fields(path: bytes, **given: str) -> bytes:
    """A form without a file."""
    body = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items())
    return request_bytes(b"POST", path, _FIELDS, body.encode())


def form(path: bytes, file: bytes, **given: str) -> bytes:
    """A form with a file, which comes last."""
    parts = []
    for name, value in given.items():
        head = b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
        parts.append(head % (_BOUNDARY, name.encode()) + value.encode() + b"\r\n")
    head = (
        b'--%s\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n"
    )
    parts.append(head % _BOUNDARY + file + b"\r\n--" + _BOUNDARY + b"--\r\n")
    return request_bytes(b"POST", path, _FORM, b"".join(parts))


def on_object(
    method: bytes,
    bucket: str,
    key: str,
    options: Mapping[str, str],
    headers: Headers,
    body: bytes = b"",
) -> bytes:
    """A request of the resource face for one object."""
    path = f"/v1/buckets/{encode_segment(bucket)}/objects/{encode_key(key)}"
    return request_bytes(method, _target(path, options), headers, body)


def get_file(bucket: str, key: str) -> bytes:
    """The documented face's GET."""
    path = f"/file/{encode_segment(bucket)}/{encode_key(key)}"
    return request_bytes(b"GET", path.encode(), [])


def get_page(bucket: str, options: Mapping[str, str]) -> bytes:
    """One page of a listing."""
    path = f"/v1/buckets/{encode_segment(bucket)}/objects"
    return request_bytes(b"GET", _target(path, options), [])


def put_bucket(bucket: str, properties: Properties) -> bytes:
    """Makes a bucket, or sees that it is there."""
    told = {
        "n": properties.n,
        "r": properties.r,
        "w": properties.w,
        "conflicts": properties.conflicts,
        "quorum": properties.quorum,
    }
    path = f"/v1/buckets/{encode_segment(bucket)}".encode()
    return request_bytes(b"PUT", path, [], msgspec.json.encode(told))


def _target(path: str, options: Mapping[str, str]) -> bytes:
    if not options:
        return path.encode()
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
    return f"{path}?{query}".encode()
