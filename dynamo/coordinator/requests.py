"""What the faces ask of the coordinator and what they get back.

A face turns HTTP into these values and these values into HTTP, and knows nothing else of the
cluster. `Coordinator` is the port; `dynamo.coordinator.door` implements it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Literal, Protocol

import attrs

from dynamo.core.buckets import Bucket, Properties
from dynamo.core.record import Context, Record, Version


class ByteSource(Protocol):
    """A body as it arrives."""

    @property
    def length(self) -> int | None:
        """Bytes announced, None if unknown (chunked)."""

    async def read(self, size: int) -> bytes:
        """The next bytes, exactly `size` of them unless the end comes first; b"" at the end.

        Reading is what lets more in: nobody reading means the sender waits.
        Raises `BadRequest("incomplete_body")` if the sender stopped before the end.
        """


@attrs.frozen(kw_only=True)
class Options:
    """What one request wants other than its bucket's properties. None: as the bucket says.

    `timeout` is in seconds.
    """

    n: int | None = None
    r: int | Literal["quorum"] | None = None
    w: int | Literal["quorum"] | None = None
    quorum: Literal["sloppy", "strict"] | None = None
    timeout: float | None = None


@attrs.frozen(kw_only=True)
class Upload:
    """A body to store and what the client says of it.

    `md5` and `sha256` (raw digests) are what the client claims; a mismatch stores nothing.
    """

    body: ByteSource
    content_type: str = ""
    meta: Mapping[str, str] = attrs.field(factory=dict)
    md5: bytes | None = None
    sha256: bytes | None = None


@attrs.frozen(kw_only=True)
class Written:
    """An acknowledged write.

    `clocks`: per replica that acknowledged, its context for the key after the operation.
    `replicas`: who acknowledged, in order. `version` is None for a delete.
    """

    coordinator: str
    clocks: Mapping[str, Context]
    replicas: tuple[str, ...]
    context: Context
    version: Version | None


@attrs.frozen(kw_only=True)
class Found:
    """What R replicas together know of a key.

    `record.live()` are the versions to show (already only the newest where the bucket's rule is
    `latest`); empty means there is no such file, and `record.context` is still what a write
    should carry. Versions may be stripped of their bytes; `Coordinator.stream` finds those.
    """

    bucket: Bucket
    key: str
    coordinator: str
    replicas: tuple[str, ...]
    record: Record
    clocks: Mapping[str, Context]


@attrs.frozen(kw_only=True)
class Listed:
    """One file in a listing. `modified_ms` is wall milliseconds since the epoch."""

    key: str
    size: int
    etag: str
    modified_ms: int
    content_type: str = ""


@attrs.frozen(kw_only=True)
class Page:
    """A stretch of a bucket's keys in byte order of their UTF-8.

    `next`: hand it in as `start_after` to go on; None when the listing is complete.
    """

    objects: tuple[Listed, ...]
    prefixes: tuple[str, ...]
    next: str | None


class Coordinator(Protocol):
    """Every operation a client can ask for, from any node. `name` is this node's."""

    name: str

    async def create_bucket(self, name: str, properties: Properties) -> tuple[str, Bucket]:
        """Makes a bucket; answers when every live member knows it, with who coordinated.

        Raises `BucketExists`, `QuorumNotMet`.
        """

    async def put_bucket(self, name: str, properties: Properties) -> tuple[str, Bucket, bool]:
        """Makes a bucket or changes its properties; the flag says it is new."""

    async def delete_bucket(self, name: str) -> tuple[str, Bucket]:
        """Deletes a bucket and with it all its files. Raises `NoSuchBucket`."""

    async def find_bucket(self, name: str) -> Bucket:
        """The bucket; `NoSuchBucket` only after a quorum said so."""

    async def list_buckets(self) -> list[Bucket]:
        """All buckets by name."""

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
        """Stores a body. `context` as in `dynamo.core.record.Record.put`.

        `expect` other than "any" asks a read quorum first: "absent" raises `FileExists`,
        "present" raises `NoSuchFile`. Raises `NoSuchBucket`, `TooLarge`, `QuorumNotMet`,
        `StorageFull`, `BadRequest("digest_mismatch")`.
        """

    async def stage(self, upload: Upload) -> Upload:
        """Takes a whole body in before its bucket and key are known (a form whose file comes
        first), keeping large ones as chunks on this node's disk; the result goes into `put`."""

    async def delete(
        self,
        bucket: str,
        key: str,
        *,
        context: Context | None = None,
        options: Options,
        expect: Literal["any", "present"] = "any",
    ) -> Written:
        """Deletes what `context` covers, or all that the coordinator holds."""

    async def get(self, bucket: str, key: str, *, options: Options) -> Found:
        """Asks R replicas and merges what they hold. Raises `NoSuchBucket`, `QuorumNotMet`."""

    def stream(self, found: Found, version: Version, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes [start, stop) of one of `found`'s versions, verified, piece by piece.

        Holders that fail are replaced; raises `QuorumNotMet` when none is left.
        """

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
        """Keys after `start_after` that begin with `prefix`, at most `limit` entries
        (objects and prefixes together)."""
