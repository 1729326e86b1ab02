"""The documented operations: form fields in, `{"status": "Success", …}` out.

A file's bytes go to the coordinator as they come wherever the fields that name it came before
it. Its end is told only when the whole form has been read, so a form that breaks off behind the
file stores nothing. Where a field may still follow (the name, the bucket, an update's context)
the file is staged first.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from dynamo.api.body import Whole
from dynamo.api.errors import Answer, json_answer
from dynamo.api.form import Form, Part, add_field, multipart_boundary, read_field, read_fields
from dynamo.api.objects import UNTYPED, context_token, found_headers, look_again, serve
from dynamo.api.parameters import CONTENT_TYPE_CHARS_MAX
from dynamo.api.request import Request
from dynamo.api.site import Face
from dynamo.coordinator.requests import ByteSource, Coordinator, Options, Upload, Written
from dynamo.core.buckets import Properties
from dynamo.core.names import (
    check_bucket,
    check_key,
    decode_path,
    decode_text,
    encode_key,
    encode_segment,
)
from dynamo.core.record import Context
from dynamo.errors import BadRequest, NoSuchFile
from dynamo.wire.context import decode_context

Fields = Mapping[str, bytes]

_OPTIONS = Options()
_TYPES = mimetypes.MimeTypes()


class DocumentedFace:
    """`status`: every known member's name and whether it is "Live" or "Down"."""

    app = Face()

    def __init__(self, coordinator: Coordinator, status: Callable[[], Mapping[str, str]]) -> None:
        self._coordinator = coordinator
        self._status = status

    @app.route("/create/bucket/", methods=["POST"])
    async def create_bucket(self, request: Request) -> Answer:
        name = _bucket(await read_fields(request), "name")
        node, _ = await self._coordinator.create_bucket(name, Properties())
        return json_answer({"status": "Success", "node": node})

    @app.route("/delete/bucket/", methods=["POST"])
    async def delete_bucket(self, request: Request) -> Answer:
        name = _bucket(await read_fields(request), "name")
        node, _ = await self._coordinator.delete_bucket(name)
        return json_answer({"status": "Success", "node": node})

    @app.route("/create/file/", methods=["POST"])
    async def create_file(self, request: Request) -> Answer:
        return await self._store(request, "absent")

    @app.route("/update/file/", methods=["POST"])
    async def update_file(self, request: Request) -> Answer:
        return await self._store(request, "present")

    @app.route("/delete/file/", methods=["POST"])
    async def delete_file(self, request: Request) -> Answer:
        fields = await read_fields(request)
        bucket, key = _place(fields)
        request.foreground = True
        context = await self._context(fields, bucket, key)
        written = await self._coordinator.delete(
            bucket, key, context=context, options=_OPTIONS, expect="present"
        )
        return json_answer({"status": "Success", "node": written.coordinator})

    @app.route("/read/file/", methods=["POST"])
    async def read_file(self, request: Request) -> Answer:
        bucket, key = _place(await read_fields(request))
        request.foreground = True
        found = await self._coordinator.get(bucket, key, options=_OPTIONS)
        if not found.record.live():
            raise NoSuchFile(bucket, key)
        told = {
            "status": "Success",
            "node": found.coordinator,
            "url": f"/file/{encode_segment(bucket)}/{encode_key(key)}",
            "context": context_token(found),
            "vector_clocks": found.clocks,
        }
        return json_answer(told)

    @app.route("/file/<bucket>/<rest:key>", methods=["GET"])
    async def file(self, request: Request, bucket: str, key: str) -> Answer | None:
        name = check_bucket(decode_path(bucket.encode()))
        path = check_key(decode_path(key.encode()))
        request.foreground = True
        return await look_again(lambda: self._answer(request, name, path))

    async def _answer(self, request: Request, name: str, path: str) -> Answer | None:
        found = await self._coordinator.get(name, path, options=_OPTIONS)
        live = found.record.live()
        if not live:
            raise NoSuchFile(name, path)
        headers = found_headers(found)
        if len(live) > 1:
            headers.append((b"X-Dynamo-Siblings", b"%d" % len(live)))
        newest = live[0]
        kind = newest.content_type
        if not kind or kind == UNTYPED:
            kind = _TYPES.guess_type(path.rpartition("/")[2])[0] or UNTYPED
        return await serve(request, self._coordinator, found, newest, kind, headers)

    @app.route("/status/", methods=["GET", "POST"])
    async def status(self, request: Request) -> Answer:
        return json_answer(dict(self._status()))

    async def _store(self, request: Request, expect: Literal["absent", "present"]) -> Answer:
        boundary = multipart_boundary(request)
        if boundary is None:
            _place(await read_fields(request))
            raise _missing("file")
        request.foreground = True
        upload, written = None, None
        fields: dict[str, bytes] = {}
        form = Form(request.body, boundary)
        async for part in form.parts():
            if part.filename is None or part.name != "file":
                await _note(fields, part)
                continue
            if upload is not None or not part.filename:
                raise _missing("file") if upload is None else _two_files()
            upload = _upload(part, part)
            if isinstance(request.body, Whole):
                upload = _upload(part, Whole(await part.read(request.body.length or 0)))
            elif _complete(fields, expect):
                last = _UntilFormEnds(part, lambda: _rest(form, fields))
                written = await self._put(fields, expect, _upload(part, last))
                break
            else:
                upload = await self._coordinator.stage(upload)
        if written is None:
            _place(fields)
            if upload is None:
                raise _missing("file")
            written = await self._put(fields, expect, upload)
        clocks = written.clocks
        told = {"status": "Success", "node": written.coordinator, "vector_clocks": clocks}
        return json_answer(told)

    async def _put(
        self, fields: Fields, expect: Literal["absent", "present"], upload: Upload
    ) -> Written:
        bucket, key = _place(fields)
        context: Context | None = {}
        if expect == "present":
            context = await self._context(fields, bucket, key)
        return await self._coordinator.put(
            bucket, key, upload, context=context, options=_OPTIONS, expect=expect
        )

    async def _context(self, fields: Fields, bucket: str, key: str) -> Context | None:
        token = fields.get("context")
        if not token:
            return None
        found = await self._coordinator.find_bucket(bucket)
        return decode_context(token.decode("latin-1"), found.incarnation, key)


class _UntilFormEnds:
    """A file part whose end is told when `finish` has read the rest of the form."""

    def __init__(self, part: Part, finish: Callable[[], Awaitable[None]]) -> None:
        self.length = part.length
        self._part = part
        self._finish: Callable[[], Awaitable[None]] | None = finish

    async def read(self, size: int) -> bytes:
        """See `ByteSource`."""
        data = await self._part.read(size)
        finish = self._finish
        if len(data) < size and finish is not None:
            self._finish = None
            await finish()
        return data


async def _rest(form: Form, fields: dict[str, bytes]) -> None:
    """Reads what follows the file."""
    async for part in form.parts():
        if part.name == "file" and part.filename is not None:
            raise _two_files()
        await _note(fields, part)


async def _note(fields: dict[str, bytes], part: Part) -> None:
    if part.filename is None:
        add_field(fields, part.name, await read_field(part))
    else:
        await part.skip()


def _complete(fields: Fields, expect: str) -> bool:
    """Whether no field that could still come would change the write."""
    return "name" in fields and "bucket" in fields and (expect == "absent" or "context" in fields)


def _upload(part: Part, body: ByteSource) -> Upload:
    if len(part.content_type) > CONTENT_TYPE_CHARS_MAX:
        raise BadRequest("bad_form", "The file's Content-Type is too long.")
    return Upload(body=body, content_type=part.content_type)


def _place(fields: Fields) -> tuple[str, str]:
    """The bucket and the key that the fields name."""
    key = fields.get("name")
    if not key:
        raise _missing("name")
    return _bucket(fields, "bucket"), check_key(decode_text(key))


def _bucket(fields: Fields, field: str) -> str:
    name = fields.get(field)
    if not name:
        raise _missing(field)
    return check_bucket(decode_text(name))


def _missing(field: str) -> BadRequest:
    kind = "as a file with a file name" if field == "file" else "and not empty"
    return BadRequest("missing_field", f"The form field {field!r} must be sent, {kind}.")


def _two_files() -> BadRequest:
    return BadRequest("bad_form", "There is more than one file in the form.")
