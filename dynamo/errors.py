"""What can go wrong, and whose fault it is.

    DynamoError
    ├── CallersFault        the request is wrong; sending it again will not help
    │   ├── BadRequest          a name, number, header, context or body that is not one
    │   ├── NoSuchBucket, NoSuchFile
    │   ├── BucketExists, FileExists
    │   ├── NoSuchMember
    │   ├── Refused             a change of the ring that cannot be, as things stand
    │   ├── TooLarge            past a limit of this node
    │   └── NotOffered          understood and deliberately not done (conditional writes)
    ├── Unavailable         the request is right; a retry may help
    │   ├── QuorumNotMet        too few replicas answered
    │   ├── Overloaded          a bounded queue is full
    │   └── NotReady            this node cannot serve yet
    ├── PeerFault           another node
    │   ├── PeerUnreachable     gave no answer
    │   └── PeerBroke           answered what the protocol does not allow
    └── StorageFault        this node's disk
        ├── StorageFull         no room
        ├── MissingChunks       a record refers to chunks that are not here
        └── Corrupt             bytes that do not match their digest or format

Errors carry data; `code` is the stable word that clients see and `str(error)` the one
sentence. Which HTTP status an error has is known to `dynamo.api.errors` and
`dynamo.replica.server` alone.
"""

from __future__ import annotations


class DynamoError(Exception):
    """Anything this package raises on purpose."""

    code = "internal"


class CallersFault(DynamoError):
    """The request cannot be done as sent."""


class BadRequest(CallersFault):
    """Something in the request is not what it must be; `code` says which kind of thing."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class NoSuchBucket(CallersFault):
    code = "no_such_bucket"

    def __init__(self, bucket: str) -> None:
        super().__init__(f"There is no bucket named {bucket!r}.")
        self.bucket = bucket


class NoSuchFile(CallersFault):
    code = "no_such_file"

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"Bucket {bucket!r} has no file named {key!r}.")
        self.bucket, self.key = bucket, key


class BucketExists(CallersFault):
    code = "bucket_exists"

    def __init__(self, bucket: str) -> None:
        super().__init__(f"A bucket named {bucket!r} exists already.")
        self.bucket = bucket


class FileExists(CallersFault):
    code = "file_exists"

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(
            f"Bucket {bucket!r} has a file named {key!r} already; POST /update/file/ replaces it."
        )
        self.bucket, self.key = bucket, key


class NoSuchMember(CallersFault):
    code = "no_such_member"

    def __init__(self, member: str) -> None:
        super().__init__(f"The ring has no member named {member!r}.")
        self.member = member


class Refused(CallersFault):
    """A change of the ring that cannot be; `code` says why and the sentence what to do."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class TooLarge(CallersFault):
    """`what` (a body, a field, a batch) is over `limit` bytes."""

    code = "too_large"

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"The {what} is larger than the {limit} bytes this node accepts.")
        self.what, self.limit = what, limit


class NotOffered(CallersFault):
    code = "not_implemented"


class Unavailable(DynamoError):
    """The cluster cannot do this now."""


class QuorumNotMet(Unavailable):
    """`answered` of the `needed` replicas did `operation`; `why` names the others' faults."""

    code = "quorum_not_met"

    def __init__(self, operation: str, answered: int, needed: int, why: str = "") -> None:
        tail = f" ({why})" if why else ""
        super().__init__(
            f"The {operation} needs {needed} replicas and {answered} answered in time{tail}."
        )
        self.operation, self.answered, self.needed, self.why = operation, answered, needed, why


class Overloaded(Unavailable):
    """The bounded queue `queue` is full."""

    code = "overloaded"

    def __init__(self, queue: str) -> None:
        super().__init__(f"This node is busy: its {queue} is full. Try again in a moment.")
        self.queue = queue


class NotReady(Unavailable):
    code = "not_ready"


class PeerFault(DynamoError):
    """Another node did not do its part; `peer` is its name."""

    code = "peer_fault"

    def __init__(self, peer: str, detail: str) -> None:
        super().__init__(f"{peer}: {detail}")
        self.peer, self.detail = peer, detail


class PeerUnreachable(PeerFault):
    """No answer. `sent` is False when the peer certainly never saw the request."""

    code = "peer_unreachable"

    def __init__(self, peer: str, detail: str, sent: bool = True) -> None:
        super().__init__(peer, detail)
        self.sent = sent


class PeerBroke(PeerFault):
    code = "peer_broke_protocol"


class StorageFault(DynamoError):
    """This node's disk could not do what was asked."""

    code = "storage_fault"


class StorageFull(StorageFault):
    code = "storage_full"

    def __init__(self, detail: str = "The disk of this node is full.") -> None:
        super().__init__(detail)


class MissingChunks(StorageFault):
    """A record names these chunks (digests) and they are not on this node's disk."""

    code = "missing_chunks"

    def __init__(self, digests: tuple[bytes, ...]) -> None:
        super().__init__(f"{len(digests)} chunks of the record are not on this node.")
        self.digests = digests


class Corrupt(StorageFault):
    code = "corrupt"
