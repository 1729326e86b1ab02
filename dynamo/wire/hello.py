"""What a node says of itself when it is asked who it is."""

from __future__ import annotations

import msgspec

from dynamo.core.refilling import Progress
from dynamo.core.sightings import Origin
from dynamo.core.transfers import Moved
from dynamo.errors import PeerBroke


class Hello(msgspec.Struct, frozen=True):
    """Who a node is and what it knows; the body of GET /peer/hello, as JSON.

    `cluster_name`, `partitions` and `format` must agree between members. `actor` is empty until
    the node has one; `actors` is the last actor it saw under each member's name. `boot` changes
    with each start of the process. `hints` says how many hints it holds for each member, `buckets`
    is a digest of all bucket states, `seen` what it saw of all members' disks. `refill` says how
    far it is with taking back what it lost, None if it lost nothing. `layout` and `birth` are the
    version and the birth of the layout it goes by, `moved` how far it is with what it will own.
    """

    name: str
    cluster_name: str
    partitions: int
    zone: str
    weight: float
    api: str
    cluster: str
    actor: str
    boot: str
    joined: bool
    actors: dict[str, str]
    hints: dict[str, int]
    buckets: str
    objects: int
    bytes: int
    format: int = 1
    seen: dict[str, tuple[Origin, ...]] = {}
    refill: Progress | None = None
    layout: int = 0
    birth: int = 0
    moved: Moved = Moved()


_hello = msgspec.json.Decoder(Hello)


def encode_hello(hello: Hello) -> bytes:
    """A hello as JSON: readable with curl."""
    return msgspec.json.encode(hello)


def decode_hello(data: bytes) -> Hello:
    """The hello in an answer's body; `PeerBroke` if it is not one."""
    try:
        return _hello.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerBroke("peer", f"said no proper hello: {error}") from error
