"""A bucket's keys in order, page by page.

Enough nodes are asked that every partition is heard R times; each scans its keys in order, and
the scans are merged as far as all of them have come. What is listed is what a read of each key
would find: the merge of R records with a live version in it. A key that was written before the
page was begun and not deleted since is on it, whichever nodes came and went meanwhile: a node that
awaits hints is listed with those who keep them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs
import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from dynamo.coordinator.requests import Listed, Page
from dynamo.coordinator.terms import Terms
from dynamo.core.clock import wall_ms_of
from dynamo.core.cover import cover
from dynamo.core.record import EMPTY, Record
from dynamo.errors import DynamoError, QuorumNotMet
from dynamo.ports import ClusterView
from dynamo.wire import messages

FETCH = 1000
FETCH_GROUPED = 100
PATIENCE_S = 2.0
"""How long one node may take over one fetch before the others have to do without it."""

RETRY_S = 0.1
RETRY_FOR_S = 1.0
"""How long it is tried again where too few nodes are of use."""

AFTER_ALL = b"\xff"
"""UTF-8 has no such byte: appended to a prefix it sorts behind every key with that prefix."""


@attrs.define(eq=False)
class Lister:
    """Lists buckets on behalf of this node's clients."""

    view: ClusterView
    clock: IReactorTime
    _covers: dict[object, tuple[str, ...] | None] = attrs.field(factory=dict)

    async def page(
        self,
        incarnation: bytes,
        terms: Terms,
        *,
        prefix: str,
        delimiter: str,
        start_after: str,
        limit: int,
    ) -> Page:
        """At most `limit` entries after `start_after`; raises `QuorumNotMet`."""
        avoided: set[str] = set()
        aside: set[str] = set()
        until = self.clock.seconds() + min(terms.timeout, RETRY_FOR_S)
        while True:
            nodes = self._cover(terms, frozenset(avoided))
            if nodes is None:
                if not avoided or self.clock.seconds() >= until:
                    why = f"no use: {', '.join(sorted(avoided))}"
                    raise QuorumNotMet("listing", 0, terms.r, why)
                # A member that has just come makes others wait for what it keeps, or know of.
                await deferLater(self.clock, RETRY_S)  # type: ignore[arg-type]
                avoided.clear()
                continue
            beside = tuple(sorted(aside - avoided - set(nodes)))
            scans = self._scans(incarnation, terms, nodes, beside, prefix, start_after, delimiter)
            merge = Merge(scans, terms.latest)
            try:
                return await _collect(merge, prefix, delimiter, start_after, limit)
            except _NoUse as failed:
                avoided.add(failed.node)
            except _Awaits as waits:
                # Whoever keeps hints for a node is asked too: to do without the node would be to
                # do without what it has.
                if waits.names & avoided:
                    avoided.add(waits.node)
                aside |= waits.names

    def _cover(self, terms: Terms, avoided: frozenset[str]) -> tuple[str, ...] | None:
        """Who is asked. Owners in doubt are, before stand-ins, which have nothing of what was
        written before."""
        ring, view = self.view.ring, self.view
        names = [m.name for m in ring.members if m.name not in avoided]
        healthy = frozenset([name for name in names if view.is_healthy(name)])
        there = healthy.union([name for name in names if view.is_doubtful(name)])
        case = (ring.version, healthy, there, terms.n, terms.r, terms.strict)
        if case not in self._covers:
            if len(self._covers) > 64:
                self._covers.clear()
            rankings = [ring.ranking(p) for p in range(ring.partitions)]
            found = None
            for asked, strict in ((healthy, True), (there, True), (there, terms.strict)):
                if found is None:
                    of = asked.__contains__
                    found = cover(rankings, terms.n, terms.r, of, strict, view.name)
            self._covers[case] = found
        return self._covers[case]

    def _scans(
        self,
        incarnation: bytes,
        terms: Terms,
        nodes: tuple[str, ...],
        beside: tuple[str, ...],
        prefix: str,
        start_after: str,
        delimiter: str,
    ) -> list[Scan]:
        grouped = bool(delimiter)
        return [
            Scan(
                self.view,
                self.clock,
                node,
                None if node in beside else frozenset((*nodes, *beside)),
                messages.Scan(
                    incarnation,
                    start_after.encode(),
                    prefix.encode(),
                    FETCH_GROUPED if grouped else FETCH,
                    terms.strict,
                ),
                min(terms.timeout, PATIENCE_S),
            )
            for node in (*nodes, *beside)
        ]


class _NoUse(Exception):
    """A node cannot take part in this listing."""

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self.node = node


class _Awaits(Exception):
    """A node's answer counts only with those of others, which were not asked."""

    def __init__(self, node: str, names: frozenset[str]) -> None:
        super().__init__(node)
        self.node = node
        self.names = names


class Scan:
    """One node's keys, fetched as needed. `nodes`: who is asked in all; None if this one does not
    count itself and is asked for what it keeps for others."""

    def __init__(
        self,
        view: ClusterView,
        clock: IReactorTime,
        node: str,
        nodes: frozenset[str] | None,
        first: messages.Scan,
        timeout: float,
    ) -> None:
        self._view = view
        self._clock = clock
        self._node = node
        self._nodes = nodes
        self._next = first
        self._timeout = timeout
        self._done = False
        self.entries: deque[tuple[bytes, Record]] = deque()

    @property
    def dry(self) -> bool:
        """Whether it has to fetch before anything can be said of its next key."""
        return not self.entries and not self._done

    async def fetch(self) -> None:
        """Gets the next keys; raises `_NoUse` if the node does not give them, and `_Awaits` if they
        count only with those of others."""
        asked = self._view.replica(self._node).call(self._next)
        asked.addTimeout(self._timeout, self._clock, _timed_out(self._node))
        try:
            reply = await asked
        except DynamoError:
            raise _NoUse(self._node) from None
        assert isinstance(reply, messages.ScanReply)
        lacking = frozenset(reply.awaiting) - (self._nodes or frozenset(reply.awaiting))
        if lacking:
            raise _Awaits(self._node, lacking)
        self.entries.extend(reply.entries)
        self._done = reply.done
        if reply.entries:
            self._move(reply.entries[-1][0])

    def skip(self, group: bytes) -> None:
        """Drops what begins with `group`, also what was not fetched yet."""
        while self.entries and self.entries[0][0].startswith(group):
            self.entries.popleft()
        if not self.entries and not self._done:
            self._move(max(self._next.after, group + AFTER_ALL))

    def _move(self, after: bytes) -> None:
        scan = self._next
        self._next = msgspec.structs.replace(scan, after=after)


@attrs.define(eq=False)
class Merge:
    """Several nodes' scans as one."""

    scans: list[Scan]
    latest: bool

    async def next(self) -> tuple[bytes, Record] | None:
        """The next key with all that is known of it; None at the end."""
        for scan in [s for s in self.scans if s.dry]:
            await scan.fetch()
        heads = [s.entries[0][0] for s in self.scans if s.entries]
        if not heads:
            return None
        key = min(heads)
        record = EMPTY
        for scan in self.scans:
            if scan.entries and scan.entries[0][0] == key:
                _, known = scan.entries.popleft()
                record = known if record is EMPTY else record.merge(known, latest=self.latest)
        return key, record.newest() if self.latest else record

    def skip(self, group: bytes) -> None:
        """Goes on behind every key that begins with `group`."""
        for scan in self.scans:
            scan.skip(group)


async def _collect(merge: Merge, prefix: str, delimiter: str, start_after: str, limit: int) -> Page:
    objects: list[Listed] = []
    prefixes: list[str] = []
    last = ""
    while (found := await merge.next()) is not None:
        key, record = found[0].decode(), found[1]
        live = record.live()
        if not live:
            continue
        group = _group(key, prefix, delimiter)
        if group and group == start_after:
            merge.skip(group.encode())
            continue
        if len(objects) + len(prefixes) >= limit:
            return Page(objects=tuple(objects), prefixes=tuple(prefixes), next=last)
        if group:
            prefixes.append(group)
            merge.skip(group.encode())
            last = group
        else:
            newest = live[0]
            modified = wall_ms_of(newest.stamp)
            objects.append(
                Listed(
                    key=key,
                    size=newest.size,
                    etag=newest.etag,
                    modified_ms=modified,
                    content_type=newest.content_type,
                )
            )
            last = key
    return Page(objects=tuple(objects), prefixes=tuple(prefixes), next=None)


def _group(key: str, prefix: str, delimiter: str) -> str:
    """The common prefix a key is listed under; "" if it is listed itself."""
    if not delimiter:
        return ""
    end = key.find(delimiter, len(prefix))
    return key[: end + len(delimiter)] if end >= 0 else ""


def _timed_out(node: str) -> Callable[[object, float], object]:
    def late(result: object, seconds: float) -> object:
        raise _NoUse(node)

    return late
