"""The resource face: buckets and objects under `/v1`.

The path names things, percent-decoded once; the query says how to replicate; headers carry
context, digests and metadata; errors are problem documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from dynamo.api.body import read_all
from dynamo.api.errors import Answer, NoSuchVersion, answer_error, json_answer
from dynamo.api.objects import (
    UNTYPED,
    Headers,
    context_token,
    found_headers,
    header_value,
    look_again,
    node_of,
    serve,
    timestamp,
)
from dynamo.api.parameters import (
    NO_PARAMETERS,
    READ_OPTIONS,
    REPLICAS_MAX,
    WRITE_OPTIONS,
    read_count,
    read_options,
    read_query,
    read_upload,
    refuse_conditional_write,
)
from dynamo.api.request import Request
from dynamo.api.site import Face
from dynamo.coordinator.requests import Coordinator, Found, Written
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.clock import wall_ms_of
from dynamo.core.names import check_bucket, check_key, decode_path
from dynamo.core.record import Context, Version
from dynamo.errors import BadRequest, NoSuchFile
from dynamo.wire.context import decode_context

LIST_LIMIT_MAX = 1000
PROPERTIES_BYTES_MAX = 4096

_GET_PARAMETERS = READ_OPTIONS | {"version"}
_LIST_PARAMETERS = READ_OPTIONS | {"prefix", "delimiter", "start_after", "limit"}

_Count = Annotated[int, msgspec.Meta(ge=1, le=REPLICAS_MAX)]


class _PropertiesBody(msgspec.Struct, forbid_unknown_fields=True):
    n: _Count | None = None
    r: _Count | Literal["quorum"] | None = None
    w: _Count | Literal["quorum"] | None = None
    conflicts: Literal["siblings", "latest"] = "siblings"
    quorum: Literal["sloppy", "strict"] | None = None


class ResourceFace:
    """See the module."""

    app = Face()

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    # Buckets.

    @app.route("/v1/buckets", methods=["GET"])
    async def list_buckets(self, request: Request) -> Answer:
        read_query(request, NO_PARAMETERS)
        buckets = await self._coordinator.list_buckets()
        return json_answer({"buckets": [_bucket_json(bucket) for bucket in buckets]})

    @app.route("/v1/buckets/<bucket>", methods=["PUT"])
    async def put_bucket(self, request: Request, bucket: str) -> Answer:
        name = _bucket_name(bucket)
        read_query(request, NO_PARAMETERS)
        refuse_conditional_write(request.head.fields)
        properties = await _properties(request)
        node, made, new = await self._coordinator.put_bucket(name, properties)
        headers = [(b"X-Dynamo-Coordinator", header_value(node))]
        return json_answer(_bucket_json(made), 201 if new else 200, headers)

    @app.route("/v1/buckets/<bucket>", methods=["GET"])
    async def get_bucket(self, request: Request, bucket: str) -> Answer:
        name = _bucket_name(bucket)
        read_query(request, NO_PARAMETERS)
        return json_answer(_bucket_json(await self._coordinator.find_bucket(name)))

    @app.route("/v1/buckets/<bucket>", methods=["DELETE"])
    async def delete_bucket(self, request: Request, bucket: str) -> Answer:
        name = _bucket_name(bucket)
        read_query(request, NO_PARAMETERS)
        refuse_conditional_write(request.head.fields)
        node, _ = await self._coordinator.delete_bucket(name)
        return Answer(204, [(b"X-Dynamo-Coordinator", header_value(node))])

    @app.route("/v1/buckets/<bucket>/objects", methods=["GET"])
    async def list_objects(self, request: Request, bucket: str) -> Answer:
        name = _bucket_name(bucket)
        given = read_query(request, _LIST_PARAMETERS)
        limit = read_count("limit", given.get("limit", str(LIST_LIMIT_MAX)), 10**9)
        page = await self._coordinator.list(
            name,
            prefix=given.get("prefix", ""),
            delimiter=given.get("delimiter", ""),
            start_after=given.get("start_after", ""),
            limit=min(limit, LIST_LIMIT_MAX),
            options=read_options(given),
        )
        objects = [
            {
                "key": listed.key,
                "size": listed.size,
                "etag": listed.etag,
                "modified": timestamp(listed.modified_ms),
            }
            for listed in page.objects
        ]
        return json_answer({"objects": objects, "prefixes": page.prefixes, "next": page.next})

    # Objects.

    @app.route("/v1/buckets/<bucket>/objects/<rest:key>", methods=["PUT"])
    async def put_object(self, request: Request, bucket: str, key: str) -> Answer:
        name, path = _bucket_name(bucket), check_key(decode_path(key.encode()))
        options = read_options(read_query(request, WRITE_OPTIONS))
        refuse_conditional_write(request.head.fields)
        upload = read_upload(request)
        request.foreground = True
        context = await self._context(request, name, path)
        written = await self._coordinator.put(name, path, upload, context=context, options=options)
        version = written.version
        assert version is not None, "a put makes a version"
        headers = [(b"ETag", b'"%s"' % version.etag.encode()), *_written_headers(written)]
        told = {"id": version.id, "size": version.size, "etag": version.etag}
        return json_answer(told, 200, headers)

    @app.route("/v1/buckets/<bucket>/objects/<rest:key>", methods=["DELETE"])
    async def delete_object(self, request: Request, bucket: str, key: str) -> Answer:
        name, path = _bucket_name(bucket), check_key(decode_path(key.encode()))
        options = read_options(read_query(request, WRITE_OPTIONS))
        refuse_conditional_write(request.head.fields)
        request.foreground = True
        context = await self._context(request, name, path)
        written = await self._coordinator.delete(name, path, context=context, options=options)
        return Answer(204, _written_headers(written))

    @app.route("/v1/buckets/<bucket>/objects/<rest:key>", methods=["GET"])
    async def get_object(self, request: Request, bucket: str, key: str) -> Answer | None:
        if not key:
            return await self.list_objects(request, bucket)
        name, path = _bucket_name(bucket), check_key(decode_path(key.encode()))
        given = read_query(request, _GET_PARAMETERS)
        request.foreground = True
        return await look_again(lambda: self._answer(request, name, path, given))

    async def _answer(
        self, request: Request, name: str, path: str, given: Mapping[str, str]
    ) -> Answer | None:
        wanted = given.get("version")
        found = await self._coordinator.get(name, path, options=read_options(given))
        headers = found_headers(found)
        live = found.record.live()
        if not live:
            missing = answer_error(NoSuchFile(name, path), request.path)
            return Answer(missing.status, [*missing.headers, *headers], missing.body)
        if wanted is not None:
            version = _pick(live, wanted)
        elif len(live) > 1:
            return _choices(found, live, headers)
        else:
            version = live[0]
        headers.append((b"X-Dynamo-Version", header_value(version.id)))
        for meta, value in version.meta.items():
            headers.append((b"X-Dynamo-Meta-" + header_value(meta), header_value(value)))
        kind = version.content_type or UNTYPED
        return await serve(request, self._coordinator, found, version, kind, headers)

    async def _context(self, request: Request, bucket: str, key: str) -> Context | None:
        token = request.header(b"x-dynamo-context")
        if token is None:
            return None
        found = await self._coordinator.find_bucket(bucket)
        return decode_context(token, found.incarnation, key)


def _bucket_name(encoded: str) -> str:
    return check_bucket(decode_path(encoded.encode()))


async def _properties(request: Request) -> Properties:
    data = await read_all(request.body, PROPERTIES_BYTES_MAX, "bucket's properties")
    if not data:
        return Properties()
    try:
        sent = msgspec.json.decode(data, type=_PropertiesBody)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest("bad_properties", f"The bucket's properties: {error}.") from None
    for size in (sent.r, sent.w):
        if isinstance(size, int) and sent.n is not None and size > sent.n:
            raise BadRequest("bad_properties", "r and w cannot be more than n.")
    return Properties(sent.n, sent.r, sent.w, sent.conflicts, sent.quorum)


def _bucket_json(bucket: Bucket) -> dict[str, Any]:
    properties = bucket.properties
    return {
        "name": bucket.name,
        "created": timestamp(bucket.created_ms),
        "n": properties.n,
        "r": properties.r,
        "w": properties.w,
        "conflicts": properties.conflicts,
        "quorum": properties.quorum,
    }


def _written_headers(written: Written) -> Headers:
    return [
        (b"X-Dynamo-Coordinator", header_value(written.coordinator)),
        (b"X-Dynamo-Replicas", header_value(", ".join(written.replicas))),
    ]


def _pick(live: tuple[Version, ...], wanted: str) -> Version:
    for version in live:
        if version.id == wanted:
            return version
    raise NoSuchVersion(f"The file has no version {wanted!r} now.")


def _choices(found: Found, live: tuple[Version, ...], headers: Headers) -> Answer:
    """300: the concurrent versions, and the context that covers them all."""
    versions = [
        {
            "id": version.id,
            "node": node_of(version.actor),
            "modified": timestamp(wall_ms_of(version.stamp)),
            "size": version.size,
            "etag": version.etag,
            "clock": {version.actor: version.counter},
        }
        for version in live
    ]
    return json_answer({"versions": versions, "context": context_token(found)}, 300, headers)
