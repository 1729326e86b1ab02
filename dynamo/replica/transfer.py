"""Getting records and chunks from those who have them to those who lack them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from dynamo.errors import MissingChunks, PeerFault, StorageFault
from dynamo.ports import ClusterView, Replica
from dynamo.wire import messages

ASK_MAX = 1000

Fetch = Callable[[bytes], Awaitable[bytes]]


async def fetch(digest: bytes, holders: Sequence[Replica]) -> bytes:
    """A chunk from the first of `holders` that gives it whole; `MissingChunks` if none does."""
    for holder in holders:
        try:
            return await holder.read_chunk(digest)
        except (StorageFault, PeerFault):
            continue
    raise MissingChunks((digest,))


async def supply(target: Replica, digests: Sequence[bytes], source: Fetch) -> int:
    """Sends `target` those of the chunks it lacks, one after another; returns the bytes sent.

    Raises what the target or the source does.
    """
    sent = 0
    for i in range(0, len(digests), ASK_MAX):
        reply = await target.call(messages.ChunksMissing(tuple(digests[i : i + ASK_MAX])))
        assert isinstance(reply, messages.ChunksReply)
        for digest in reply.digests:
            data = await source(digest)
            await target.write_chunk(digest, data)
            sent += len(data)
    return sent


async def deliver(view: ClusterView, target: Replica, merge: messages.Merge) -> None:
    """Has `target` merge a record, sending first the chunks it says it lacks.

    Raises what the target does, or `MissingChunks` if nobody has them.
    """
    try:
        await target.call(merge)
        return
    except MissingChunks as error:
        lacking = error.digests
    holders = [view.replica(view.name), *others(view, target.name)]
    await supply(target, lacking, lambda digest: fetch(digest, holders))
    await target.call(merge)


def others(view: ClusterView, target: str) -> list[Replica]:
    """The members of both rings besides this node and `target`, those that are well first."""
    known = [*view.ring.members, *(() if view.beside is None else view.beside.members)]
    names = list(dict.fromkeys([m.name for m in known]))
    names = [name for name in names if name not in (view.name, target)]
    names.sort(key=lambda name: not view.is_healthy(name))
    return [view.replica(name) for name in names]
