"""Faults in buckets and listings."""

from __future__ import annotations

from tests.mutants.patch import Edit, Mutant

BUCKETS = "dynamo.coordinator.buckets:Buckets"
LISTING = "dynamo.coordinator.listing"

MUTANTS = (
    Mutant(
        "incarnation-ignored",
        "Every generation of a bucket's name has the same incarnation: a deleted bucket's files "
        "return with the name, and the reaper frees the living.",
        ("I3", "I1"),
        (
            Edit(
                "dynamo.core.buckets:_incarnation",
                'text = f"{generation}:{name}".encode()',
                "text = name.encode()",
            ),
        ),
    ),
    Mutant(
        "bucket-answered-early",
        "Making or deleting a bucket is answered before the other members know.",
        ("I3", "I9"),
        (
            Edit(
                f"{BUCKETS}.make",
                "await self._tell_all(new)",
                "Deferred.fromCoroutine(self._tell_all(new)).addErrback(lambda _: None); "
                "await self.table.merge([new])",
            ),
        ),
    ),
    Mutant(
        "buckets-not-exchanged",
        "A member that comes back does not ask what became of the buckets meanwhile.",
        ("I3", "I6"),
        (
            Edit(
                "dynamo.cluster.peers:Peers._converse",
                "if hello.buckets != self._buckets.digest():",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "page-drops-its-last",
        "A page that is not the last of its listing lacks its last key.",
        ("I12",),
        (
            Edit(
                f"{LISTING}:_collect",
                "return Page(objects=tuple(objects), prefixes=tuple(prefixes), next=last)",
                "return Page(objects=tuple(objects[:-1]), prefixes=tuple(prefixes), next=last)",
            ),
        ),
    ),
    Mutant(
        "listing-hears-one",
        "A listing shows what the first node says of a key instead of the merge.",
        ("I12", "I3"),
        (
            Edit(
                f"{LISTING}:Merge.next",
                "record = known if record is EMPTY else record.merge(known, latest=self.latest)",
                "record = known if record is EMPTY else record",
            ),
        ),
    ),
    Mutant(
        "listing-ignores-awaiting",
        "A node that still awaits hints takes part in a listing without those who keep them.",
        ("I12", "I9"),
        (
            Edit(
                f"{LISTING}:Scan.fetch",
                "if lacking:",
                "if False:",
            ),
        ),
    ),
)
