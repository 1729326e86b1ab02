"""How each kind of operation is done, request by request, and what is noted of it."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgspec

from dynamo.sim import wording
from dynamo.sim.client import Answer, request_bytes
from dynamo.sim.history import (
    BucketChange,
    Listing,
    Memory,
    Outcome,
    Read,
    Write,
    body_of,
)
from dynamo.sim.plan import Operation
from dynamo.sim.workload import BUCKETS

if TYPE_CHECKING:
    from dynamo.sim.clients import Client

PAGE = 7
PAGES_MAX = 50


async def read_key(client: Client, operation: Operation, whole: bool) -> Read | Answer:
    bucket, key, options = operation.bucket, operation.key, operation.options
    begun = client.now()
    request = wording.on_object(b"GET", bucket, key, options, [])
    answer = await client.request(operation, request)
    shown: frozenset[str]
    if answer.status == 200:
        shown = client.whole(operation, answer, answer.header(b"etag").strip('"'))
    elif answer.status == 300:
        versions = msgspec.json.decode(answer.body)["versions"]
        ids = [client.named(operation, version["etag"]) for version in versions]
        if len(set(ids)) < len(ids):
            client.wrong("I11", f"{operation.entry} showed a write twice: {where(operation)} {ids}")
        shown = frozenset(i for i in ids if i)
        if whole:
            for version in versions:
                await _one_version(client, operation, version)
    elif answer.status == 404 and answer.header(b"x-dynamo-context"):
        shown = frozenset()
    else:
        return answer
    return client.saw(operation, begun, shown, answer.header(b"x-dynamo-context"))


async def _one_version(client: Client, operation: Operation, version: dict[str, Any]) -> None:
    """One of several versions; it may have been replaced meanwhile."""
    options = {**operation.options, "version": version["id"]}
    request = wording.on_object(b"GET", operation.bucket, operation.key, options, [])
    answer = await client.request(operation, request)
    if answer.status == 200:
        client.whole(operation, answer, version["etag"])


async def _get(client: Client, operation: Operation) -> None:
    await read_key(client, operation, operation.number % 2 == 0)


async def _head(client: Client, operation: Operation) -> None:
    bucket, key, options = operation.bucket, operation.key, operation.options
    begun = client.now()
    request = wording.on_object(b"HEAD", bucket, key, options, [])
    answer = await client.request(operation, request, head=True)
    if answer.status == 200:
        name = client.named(operation, answer.header(b"etag").strip('"'))
        size = answer.header(b"content-length")
        if name and size != str(len(client.history.writes[name].body)):
            client.wrong("I13", f"{operation.entry} told {size} B of {name}, {where(operation)}")
        client.saw(
            operation, begun, frozenset((name,) if name else ()), answer.header(b"x-dynamo-context")
        )
    elif answer.status == 404 and answer.header(b"x-dynamo-context"):
        client.saw(operation, begun, frozenset(), answer.header(b"x-dynamo-context"))


async def _range(client: Client, operation: Operation) -> None:
    first = operation.number % 30
    last = first + operation.number % 50
    headers = [(b"Range", b"bytes=%d-%d" % (first, last))]
    bucket, key, options = operation.bucket, operation.key, operation.options
    request = wording.on_object(b"GET", bucket, key, options, headers)
    answer = await client.request(operation, request)
    if answer.status == 206:
        client.whole(operation, answer, answer.header(b"etag").strip('"'), (first, last))
    elif answer.status == 200:
        client.whole(operation, answer, answer.header(b"etag").strip('"'))


async def _open(client: Client, operation: Operation) -> None:
    begun = client.now()
    request = wording.get_file(operation.bucket, operation.key)
    answer = await client.request(operation, request)
    if answer.status == 200:
        shown = client.whole(operation, answer, answer.header(b"etag").strip('"'))
        newest = bool(answer.header(b"x-dynamo-siblings"))
        client.saw(operation, begun, shown, answer.header(b"x-dynamo-context"), newest)


async def _look(client: Client, operation: Operation) -> None:
    given = {"name": operation.key, "bucket": operation.bucket}
    await client.request(operation, wording.fields(b"/read/file/", **given))


async def _list(client: Client, operation: Operation) -> None:
    begun, after = client.now(), ""
    entries: list[tuple[str, str]] = []
    limit = 1000 if operation.number % 2 else PAGE
    for _ in range(PAGES_MAX):
        options = {**operation.options, "limit": str(limit)}
        if after:
            options["start_after"] = after
        answer = await client.request(operation, wording.get_page(operation.bucket, options))
        if answer.status != 200:
            return
        page = msgspec.json.decode(answer.body)
        entries += [(entry["key"], entry["etag"]) for entry in page["objects"]]
        after = page["next"]
        if not after:
            break
    else:
        return
    if client.history.watcher is not None:
        r = operation.options.get("r")
        client.history.watcher.listed(
            Listing(
                operation.bucket,
                operation.entry,
                begun,
                client.now(),
                tuple(entries),
                None if r is None else int(r),
                operation.options.get("quorum"),
            )
        )


async def _buckets(client: Client, operation: Operation) -> None:
    await client.request(operation, request_bytes(b"GET", b"/v1/buckets", []))


async def _write(client: Client, operation: Operation) -> None:
    place = (operation.bucket, operation.key)
    memory: Memory | None = None
    if operation.kind == "create":
        memory = Memory("", frozenset(), client.now())
    elif operation.seen:
        if place not in client.memory:
            await read_key(client, operation, False)
        memory = client.memory.get(place)
        if memory is None:
            return  # Nothing was read, so there is nothing it could say it has seen.
    deletes = operation.kind in ("delete", "erase")
    w = operation.options.get("w")
    write = Write(
        f"w{operation.number}",
        *place,
        client.number,
        operation.entry,
        client.now(),
        deletes,
        None if memory is None else memory.seen,
        "" if memory is None else memory.context,
        0.0 if memory is None else memory.since,
        None if w is None else int(w),
        operation.options.get("quorum"),
        b"" if deletes else body_of(f"w{operation.number}", operation.size),
    )
    client.history.begin(write)
    answer = await client.request(operation, _write_request(operation, write))
    if answer.status == 200 and operation.kind == "put":
        told = msgspec.json.decode(answer.body)
        write.version = told["id"]
        if told["etag"] != write.etag:
            client.wrong("I2", f"{write.id} was stored as {told['etag']}, {where(operation)}")
    if operation.number % 4 or answer.status == 400:
        client.memory.pop(place, None)
    client.history.end(write, client.now(), outcome_of(answer), answer.status)


async def _conditional(client: Client, operation: Operation) -> None:
    """A write that must not be done: its bytes are in no history."""
    headers = [(b"If-None-Match", b"*") if operation.number % 2 else (b"If-Match", b'"x"')]
    bucket, key = operation.bucket, operation.key
    body = body_of(f"never{operation.number}", min(operation.size, 1000))
    request = wording.on_object(b"PUT", bucket, key, {}, headers, body)
    answer = await client.request(operation, request)
    if answer.status == 501 and client.history.watcher is not None:
        client.history.watcher.held("I14")
    elif not answer.failed:
        told = f"{operation.entry} answered a conditional write of {where(operation)}"
        client.wrong("I14", f"{told} with {answer.status}")


async def _spoilt(client: Client, operation: Operation) -> None:
    """A write whose bytes are not those it tells the digest of: they were spoilt on their way, it
    must not be done."""
    bucket, key = operation.bucket, operation.key
    body = body_of(f"never{operation.number}", operation.size)
    headers = [(b"Content-MD5", b64encode(bytes(16)))]
    request = wording.on_object(b"PUT", bucket, key, {}, headers, body)
    answer = await client.request(operation, request)
    if 200 <= answer.status < 300:
        client.wrong("I2", f"{operation.entry} took spoilt bytes for {where(operation)}")


async def _bucket(client: Client, operation: Operation) -> None:
    begun, name = client.now(), operation.bucket
    if operation.kind == "bucket_put":
        request = wording.put_bucket(name, BUCKETS["plain"])
    else:
        path = b"/create/bucket/" if operation.kind == "bucket_create" else b"/delete/bucket/"
        request = wording.fields(path, name=name)
    client.history.begin_change(name)
    answer = await client.request(operation, request)
    deletes = operation.kind == "bucket_delete"
    outcome = outcome_of(answer)
    client.history.change(BucketChange(name, deletes, begun, client.now(), outcome))


def outcome_of(answer: Answer) -> Outcome:
    """What a client knows of a write that was answered so."""
    if 200 <= answer.status < 300:
        return "acked"
    if 400 <= answer.status < 500 or answer.status == 501 or not answer.sent:
        return "refused"
    return "unknown"


def _write_request(operation: Operation, write: Write) -> bytes:
    bucket, key, options = operation.bucket, operation.key, operation.options
    given = {"bucket": bucket, "name": key}
    if operation.kind == "create":
        return wording.form(b"/create/file/", write.body, **given)
    if operation.kind in ("update", "erase"):
        if write.context:
            given["context"] = write.context
        if operation.kind == "erase":
            return wording.fields(b"/delete/file/", **given)
        return wording.form(b"/update/file/", write.body, **given)
    headers = [(b"X-Dynamo-Context", write.context.encode())] if write.context else []
    if operation.kind == "delete":
        return wording.on_object(b"DELETE", bucket, key, options, headers)
    headers.append((b"X-Dynamo-Meta-id", write.id.encode()))
    return wording.on_object(b"PUT", bucket, key, options, headers, write.body)


def where(operation: Operation) -> str:
    return f"{operation.bucket}/{operation.key[:40]}"


DOINGS: dict[str, Any] = {
    "create": _write,
    "update": _write,
    "erase": _write,
    "put": _write,
    "delete": _write,
    "look": _look,
    "open": _open,
    "get": _get,
    "head": _head,
    "range": _range,
    "list": _list,
    "buckets": _buckets,
    "conditional": _conditional,
    "spoilt": _spoilt,
    "bucket_create": _bucket,
    "bucket_put": _bucket,
    "bucket_delete": _bucket,
}
