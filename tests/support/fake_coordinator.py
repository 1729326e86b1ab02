"""The coordinator's port over a dict: one process, no replicas, all rules of the data model.

`replicas` are said to have answered every time. Bodies above `inline_max` are kept apart and
come by `stream`, in pieces of `piece` bytes. `fail` makes the next operation raise.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Literal

import msgspec
from twisted.internet.defer import Deferred

from dynamo.api.body import Whole
from dynamo.coordinator.requests import Found, Listed, Options, Page, Upload, Written
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.clock import HybridClock, wall_ms_of
from dynamo.core.record import EMPTY, Context, Draft, Record, Version
from dynamo.errors import (
    BadRequest,
    BucketExists,
    FileExists,
    MissingChunks,
    NoSuchBucket,
    NoSuchFile,
    QuorumNotMet,
    TooLarge,
)

WALL_MS = 1_700_000_000_000


class FakeCoordinator:
    """See the module."""

    def __init__(
        self,
        name: str = "n1",
        *,
        replicas: tuple[str, ...] = ("n1", "n2", "n3"),
        inline_max: int = 64 * 1024,
        piece: int = 32 * 1024,
        object_max: int = 1 << 40,
        read_size: int = 1 << 20,
    ) -> None:
        self.name = name
        self.replicas = replicas
        self.inline_max, self.piece = inline_max, piece
        self.object_max, self.read_size = object_max, read_size
        self.calls: list[tuple[str, Options | None]] = []
        self.fail: BaseException | None = None
        self.fail_stream_after: int | None = None
        self.replaced: list[bytes] = []
        self.hold: Deferred[None] | None = None
        self.streams_closed = 0
        self.cancelled = 0
        self._buckets: dict[str, Bucket] = {}
        self._records: dict[tuple[bytes, str], Record] = {}
        self._bytes: dict[bytes, bytes] = {}
        self._clock = HybridClock()
        self._writes = 0

    # Buckets.

    async def create_bucket(self, name: str, properties: Properties) -> tuple[str, Bucket]:
        await self._enter("create_bucket", None)
        if name in self._buckets and self._buckets[name].exists:
            raise BucketExists(name)
        return self.name, self._make(name, properties)

    async def put_bucket(self, name: str, properties: Properties) -> tuple[str, Bucket, bool]:
        await self._enter("put_bucket", None)
        old = self._buckets.get(name)
        if old is None or not old.exists:
            return self.name, self._make(name, properties), True
        self._buckets[name] = old.change(self._clock.tick(WALL_MS), properties)
        return self.name, self._buckets[name], False

    async def delete_bucket(self, name: str) -> tuple[str, Bucket]:
        await self._enter("delete_bucket", None)
        self._buckets[name] = self._bucket(name).delete(self._clock.tick(WALL_MS))
        return self.name, self._buckets[name]

    async def find_bucket(self, name: str) -> Bucket:
        await self._enter("find_bucket", None)
        return self._bucket(name)

    async def list_buckets(self) -> list[Bucket]:
        await self._enter("list_buckets", None)
        return sorted((b for b in self._buckets.values() if b.exists), key=lambda b: b.name)

    # Files.

    async def put(
        self,
        bucket: str,
        key: str,
        upload: Upload,
        *,
        context: Context | None = None,
        options: Options,
        expect: Literal["any", "absent", "present"] = "any",
    ) -> Written:
        await self._enter("put", options)
        found = self._bucket(bucket)
        self._expect(bucket, key, expect)
        data = await self._read(upload)
        return self._write(found, key, self._draft(data, upload), context)

    async def stage(self, upload: Upload) -> Upload:
        await self._enter("stage", None)
        data = await self._read(upload)
        return Upload(
            body=Whole(data),
            content_type=upload.content_type,
            meta=upload.meta,
            md5=upload.md5,
            sha256=upload.sha256,
        )

    async def delete(
        self,
        bucket: str,
        key: str,
        *,
        context: Context | None = None,
        options: Options,
        expect: Literal["any", "present"] = "any",
    ) -> Written:
        await self._enter("delete", options)
        found = self._bucket(bucket)
        self._expect(bucket, key, expect)
        return self._write(found, key, None, context)

    async def get(self, bucket: str, key: str, *, options: Options) -> Found:
        await self._enter("get", options)
        found = self._bucket(bucket)
        record = self._records.get((found.incarnation, key), EMPTY)
        return Found(
            bucket=found,
            key=key,
            coordinator=self.name,
            replicas=self.replicas,
            record=record,
            clocks={replica: dict(record.context) for replica in self.replicas},
        )

    async def stream(
        self, found: Found, version: Version, start: int, stop: int
    ) -> AsyncIterator[bytes]:
        try:
            if self.replaced:
                data = self.replaced.pop(0)
                draft = self._draft(data, Upload(body=Whole(data)))
                self._write(found.bucket, found.key, draft, None)
                raise MissingChunks((b"gone",))
            data = self._bytes[version.write][start:stop]
            for at in range(0, len(data), self.piece):
                if self.fail_stream_after is not None and at >= self.fail_stream_after:
                    raise QuorumNotMet("read", 0, 1, "every holder failed")
                if self.hold is not None:
                    await self.hold
                yield data[at : at + self.piece]
        finally:
            self.streams_closed += 1

    async def list(
        self,
        bucket: str,
        *,
        prefix: str,
        delimiter: str,
        start_after: str,
        limit: int,
        options: Options,
    ) -> Page:
        await self._enter("list", options)
        incarnation = self._bucket(bucket).incarnation
        names: dict[str, Version | None] = {}
        for (place, key), record in self._records.items():
            if place == incarnation and record.live() and key.startswith(prefix):
                cut = key.find(delimiter, len(prefix)) if delimiter else -1
                shown = key if cut < 0 else key[: cut + len(delimiter)]
                names.setdefault(shown, record.live()[0] if cut < 0 else None)
        after = start_after.encode()
        ordered = sorted(n for n in names if n.encode() > after)
        page, more = ordered[:limit], len(ordered) > limit
        objects = []
        for name in page:
            version = names[name]
            if version is not None:
                modified = wall_ms_of(version.stamp)
                objects.append(
                    Listed(key=name, size=version.size, etag=version.etag, modified_ms=modified)
                )
        return Page(
            objects=tuple(objects),
            prefixes=tuple(name for name in page if names[name] is None),
            next=page[-1] if more else None,
        )

    # For tests.

    def bucket(self, name: str, **properties: object) -> Bucket:
        """Makes a bucket."""
        return self._make(name, Properties(**properties))  # type: ignore[arg-type]

    def file(
        self, bucket: str, key: str, data: bytes, *, actor: str | None = None, **fields: object
    ) -> Version:
        """Stores a file as a create through `actor` does: beside whatever is there."""
        draft = self._draft(data, Upload(body=Whole(data)))
        draft = msgspec.structs.replace(draft, **fields)
        written = self._write(self._bucket(bucket), key, draft, {}, actor)
        assert written.version is not None
        return written.version

    def content(self, bucket: str, key: str) -> list[bytes]:
        """The bytes of the live versions, newest first."""
        record = self._records.get((self._bucket(bucket).incarnation, key), EMPTY)
        return [v.body if not v.chunks else self._bytes[v.write] for v in record.live()]

    def record(self, bucket: str, key: str) -> Record:
        return self._records.get((self._bucket(bucket).incarnation, key), EMPTY)

    # Inside.

    async def _enter(self, operation: str, options: Options | None) -> None:
        self.calls.append((operation, options))
        error, self.fail = self.fail, None
        if error is not None:
            raise error
        if self.hold is not None and operation != "find_bucket":
            try:
                await self.hold
            except BaseException:
                self.cancelled += 1
                raise

    def _make(self, name: str, properties: Properties) -> Bucket:
        old = self._buckets.get(name, Bucket(name))
        self._buckets[name] = old.create(self._clock.tick(WALL_MS), WALL_MS, properties)
        return self._buckets[name]

    def _bucket(self, name: str) -> Bucket:
        bucket = self._buckets.get(name)
        if bucket is None or not bucket.exists:
            raise NoSuchBucket(name)
        return bucket

    def _expect(self, bucket: str, key: str, expect: str) -> None:
        live = self.record(bucket, key).live()
        if expect == "absent" and live:
            raise FileExists(bucket, key)
        if expect == "present" and not live:
            raise NoSuchFile(bucket, key)

    async def _read(self, upload: Upload) -> bytes:
        pieces = []
        size = 0
        while True:
            piece = await upload.body.read(self.read_size)
            size += len(piece)
            if size > self.object_max:
                raise TooLarge("object", self.object_max)
            pieces.append(piece)
            if len(piece) < self.read_size:
                break
        data = b"".join(pieces)
        for claimed, digest in ((upload.md5, "md5"), (upload.sha256, "sha256")):
            if claimed is not None and claimed != hashlib.new(digest, data).digest():
                raise BadRequest("digest_mismatch", f"The {digest} sent is not the body's.")
        return data

    def _draft(self, data: bytes, upload: Upload) -> Draft:
        self._writes += 1
        write = b"w%d" % self._writes
        large = len(data) > self.inline_max
        self._bytes[write] = data
        return Draft(
            write=write,
            size=len(data),
            etag=hashlib.md5(data).hexdigest(),
            content_type=upload.content_type,
            meta=dict(upload.meta),
            body=b"" if large else data,
            chunk_size=1 << 20 if large else 0,
            chunks=(hashlib.sha256(data).digest(),) if large else (),
        )

    def _write(
        self,
        bucket: Bucket,
        key: str,
        draft: Draft | None,
        context: Context | None,
        actor: str | None = None,
    ) -> Written:
        actor = actor or self.name
        place = (bucket.incarnation, key)
        latest = bucket.properties.conflicts == "latest"
        stamp = self._clock.tick(WALL_MS)
        record = self._records.get(place, EMPTY).put(
            draft, actor=actor, stamp=stamp, context=context, latest=latest
        )
        self._records[place] = record
        made = [v for v in record.versions if draft is not None and v.write == draft.write]
        return Written(
            coordinator=self.name,
            clocks={replica: dict(record.context) for replica in self.replicas},
            replicas=self.replicas,
            context=record.context,
            version=made[0] if made else None,
        )
