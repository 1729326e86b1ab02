"""Every client operation, from any node: the `Coordinator` the faces call.

It puts the parts together and decides nothing of its own: terms from bucket and request, a write
through `Writer`, a read through `Reader`, bodies through `Bodies`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal

import attrs

from dynamo.coordinator.bodies import Bodies, Staged
from dynamo.coordinator.buckets import Buckets
from dynamo.coordinator.listing import Lister
from dynamo.coordinator.preferences import Preferences
from dynamo.coordinator.reads import Reader
from dynamo.coordinator.repair import Repairer
from dynamo.coordinator.requests import Found, Options, Page, Upload, Written
from dynamo.coordinator.terms import Defaults, Terms, settle
from dynamo.coordinator.writes import Writer
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.preference import Preference
from dynamo.core.quorum import Quorums
from dynamo.core.record import Context, Draft, Version
from dynamo.errors import FileExists, NoSuchFile, NotReady, QuorumNotMet
from dynamo.ports import ClusterView
from dynamo.wire import messages
from dynamo.wire.messages import BucketMake, Coordinate, CoordinateReply

WRITING = ("write", "delete")


@attrs.define(eq=False)
class Door:
    """See the module; the parts are made by the composition root."""

    name: str
    view: ClusterView
    preferences: Preferences
    defaults: Defaults
    buckets: Buckets
    writer: Writer
    reader: Reader
    repairer: Repairer
    bodies: Bodies
    lister: Lister

    async def create_bucket(self, name: str, properties: Properties) -> tuple[str, Bucket]:
        self._require_joined()
        made = await self.buckets.change(_make(name, "create", properties))
        return made.coordinator, made.bucket

    async def put_bucket(self, name: str, properties: Properties) -> tuple[str, Bucket, bool]:
        self._require_joined()
        made = await self.buckets.change(_make(name, "put", properties))
        return made.coordinator, made.bucket, made.new

    async def delete_bucket(self, name: str) -> tuple[str, Bucket]:
        self._require_joined()
        made = await self.buckets.change(_make(name, "delete", Properties()))
        return made.coordinator, made.bucket

    async def find_bucket(self, name: str) -> Bucket:
        self._require_joined()
        return await self.buckets.find(name)

    async def list_buckets(self) -> list[Bucket]:
        self._require_joined()
        states = self.buckets.table.states
        return [states[name] for name in sorted(states) if states[name].exists]

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
        found, terms = await self._settle(bucket, options, "write")
        raw, epoch = key.encode(), self.view.epoch
        if expect != "any":
            await self._expect(found, key, options, expect)
        preference = self.preferences.of(found.incarnation, raw, terms.n, terms.strict)
        for half in preference.halves:
            if len(half.targets) < min(terms.w, len(half.owners)) and not half.spares:
                gone = ", ".join(half.missed)
                raise QuorumNotMet("write", 0, terms.w, f"not alive: {gone}")
        names = preference.names
        needed = preference.quorums(terms.w)
        if isinstance(upload.body, Staged):
            draft = await self._hand_out(upload.body, names, needed)
        else:
            draft = await self.bodies.take(upload, names, needed)
        try:
            if self.view.epoch != epoch:  # The ring may have changed while the body came.
                terms = self._terms(found, options, "write")
            return await self._write(found, raw, draft, context, terms)
        except BaseException:
            self.bodies.discard(names, draft)
            raise

    async def stage(self, upload: Upload) -> Upload:
        self._require_joined()
        return attrs.evolve(upload, body=await self.bodies.stage(upload))

    async def delete(
        self,
        bucket: str,
        key: str,
        *,
        context: Context | None = None,
        options: Options,
        expect: Literal["any", "present"] = "any",
    ) -> Written:
        found, terms = await self._settle(bucket, options, "delete")
        if expect != "any":
            await self._expect(found, key, options, expect)
        return await self._write(found, key.encode(), None, context, terms)

    async def get(self, bucket: str, key: str, *, options: Options) -> Found:
        found, terms = await self._settle(bucket, options, "read")
        raw = key.encode()
        grace = self.repairer.grace
        since = grace.enter()
        try:
            answers = await self.reader.read(found.incarnation, raw, terms, True)
            self.repairer.mend(found.incarnation, raw, answers, terms, since)
        finally:
            grace.leave(since)
        return Found(
            bucket=found,
            key=key,
            coordinator=self.name,
            replicas=answers.replicas,
            record=answers.record,
            clocks={name: record.context for name, record in answers.records.items()},
        )

    def stream(self, found: Found, version: Version, start: int, stop: int) -> AsyncIterator[bytes]:
        ring = self.view.ring
        ranking = ring.ranking(ring.partition(found.bucket.incarnation, found.key.encode()))
        # Who answered holds it most likely; then everyone else it may have been written to.
        names = [*found.replicas, *(n for n in ranking if n not in found.replicas)]
        # This node before others, those that are well before those that may not be; but whoever
        # is thought to be gone is still asked when nobody else has it.
        names.sort(key=lambda name: (not self.view.is_healthy(name), name != self.name))
        holders = [self.view.replica(name) for name in names]
        return self.bodies.out(version, start, stop, holders)

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
        found, terms = await self._settle(bucket, options, "listing")
        # While it is under way nobody takes what it reads off an owner of before.
        grace = self.repairer.grace
        since = grace.enter()
        try:
            return await self.lister.page(
                found.incarnation,
                terms,
                prefix=prefix,
                delimiter=delimiter,
                start_after=start_after,
                limit=limit,
            )
        finally:
            grace.leave(since)

    async def inspect(
        self, bucket: str, key: str
    ) -> tuple[int, Preference, dict[str, messages.InspectReply | Exception]]:
        """Where a key lies and what each of its nodes holds right now."""
        found, terms = await self._settle(bucket, Options(), "look-up")
        raw = key.encode()
        ring = self.view.ring
        preference = self.preferences.of(found.incarnation, raw, terms.n, terms.strict)
        asked = [*preference.owners, *(t.name for t in preference.targets if t.stand_in_for)]
        replies: dict[str, messages.InspectReply | Exception] = {}
        for name in asked:
            call = self.view.replica(name).call(messages.Inspect(found.incarnation, raw))
            call.addTimeout(min(terms.timeout, 2.0), self.reader.clock)
            try:
                reply = await call
                assert isinstance(reply, messages.InspectReply)
                replies[name] = reply
            except Exception as error:
                replies[name] = error
        return ring.partition(found.incarnation, raw), preference, replies

    # Parts of the operations.

    def _require_joined(self) -> None:
        if not self.view.joined:
            raise NotReady(self.view.why_not_joined())

    async def _settle(self, bucket: str, options: Options, operation: str) -> tuple[Bucket, Terms]:
        self._require_joined()
        found = await self.buckets.find(bucket)
        return found, self._terms(found, options, operation)

    def _terms(self, bucket: Bucket, options: Options, operation: str) -> Terms:
        """What holds by the ring that reads go by, and for a write by the larger of both."""
        members = len(self.view.ring.members)
        if self.view.beside is not None and operation in WRITING:
            members = max(members, len(self.view.beside.members))
        return settle(options, bucket.properties, self.defaults, members, operation)

    async def _expect(
        self, bucket: Bucket, key: str, options: Options, expect: Literal["absent", "present"]
    ) -> None:
        terms = self._terms(bucket, options, "read")
        answers = await self.reader.read(bucket.incarnation, key.encode(), terms, False)
        there = bool(answers.record.live())
        if there and expect == "absent":
            raise FileExists(bucket.name, key)
        if not there and expect == "present":
            raise NoSuchFile(bucket.name, key)

    async def _hand_out(self, staged: Staged, names: Sequence[str], needed: Quorums) -> Draft:
        """Sends a staged body's chunks to those that will hold the record."""
        if staged.expiry.active():
            staged.expiry.cancel()
        try:
            await self.bodies.hand_out(staged.draft, names, needed)
        except BaseException:
            self.bodies.discard([self.name], staged.draft)
            raise
        if self.name not in names:
            self.bodies.discard([self.name], staged.draft)
        return staged.draft

    async def _write(
        self,
        bucket: Bucket,
        key: bytes,
        draft: Draft | None,
        context: Context | None,
        terms: Terms,
    ) -> Written:
        reply: CoordinateReply = await self.writer.write(
            Coordinate(
                bucket.incarnation,
                key,
                draft,
                None if context is None else dict(context),
                terms.n,
                terms.w,
                terms.strict,
                terms.latest,
                terms.timeout,
            )
        )
        return Written(
            coordinator=reply.coordinator,
            clocks=reply.clocks,
            replicas=reply.replicas,
            context=reply.context,
            version=reply.version,
        )


def _make(
    name: str, change: Literal["create", "put", "delete"], properties: Properties
) -> BucketMake:
    p = properties
    return BucketMake(name, change, p.n, p.r, p.w, p.conflicts, p.quorum)
