"""Faults in what mends without being asked: anti-entropy, scrub, mending, refill, reaping."""

from __future__ import annotations

from tests.mutants.patch import Edit, Mutant

MUTANTS = (
    Mutant(
        "owners-never-compared",
        "Anti-entropy does nothing.",
        ("I6",),
        (
            Edit(
                "dynamo.background.antientropy:AntiEntropy.step",
                "    now = self.seconds()\n",
                "    return False\n    now = self.seconds()\n",
            ),
        ),
    ),
    Mutant(
        "tree-skips-leaves",
        "Of the nodes of a tree that differ those with even numbers are passed over.",
        ("I6",),
        (
            Edit(
                "dynamo.core.merkle:Shape.differing",
                "if self.hash(leaves, level, node) != theirs",
                "if node % 2 and self.hash(leaves, level, node) != theirs",
            ),
        ),
    ),
    Mutant(
        "tree-blind-to-context",
        "A fingerprint covers no context: records with the same versions look equal, whatever else "
        "they know.",
        ("I6", "I3"),
        (
            Edit(
                "dynamo.core.merkle:fingerprint",
                "_encode((context, dots))",
                "_encode(dots)",
            ),
        ),
    ),
    Mutant(
        "tree-out-of-step",
        "Trees are counted once and not told of commits.",
        ("I6",),
        (Edit("dynamo.storage.copies:Copies._committed", "if effects.moved:", "if False:"),),
    ),
    Mutant(
        "mending-pulls-only",
        "Who finds that two owners differ takes what it lacks and gives nothing.",
        ("I6",),
        (
            Edit(
                "dynamo.background.divergence:Divergence._mend",
                "    if not mine.same_versions(theirs):\n        await deliver(view, peer",
                "    if False:\n        await deliver(view, peer",
            ),
        ),
    ),
    Mutant(
        "odd-partitions-never-compared",
        "Of two owners the one that is to ask about the odd partitions does not.",
        ("I6",),
        (
            Edit(
                "dynamo.background.antientropy:AntiEntropy._asks",
                "return (partition % 2 == 0) == (self.around.view.name < peer)",
                "return partition % 2 == 0 and self.around.view.name < peer",
            ),
        ),
    ),
    Mutant(
        "scrub-idle",
        "Nothing is read again, so that damage nobody meets stays.",
        ("I6", "I9"),
        (
            Edit(
                "dynamo.background.scrub:Scrub.step",
                "    now = self.clock.seconds()\n    if",
                "    return False\n    now = self.clock.seconds()\n    if",
            ),
        ),
    ),
    Mutant(
        "mended-by-the-first",
        "A damaged record counts as mended once any one owner has said what it knows.",
        ("I9", "I1"),
        (
            Edit(
                "dynamo.background.mending:Mender._mend_held",
                "tally = ReadTally(min(len(asked), len(owners) - needed + 1))",
                "tally = ReadTally(1)",
            ),
        ),
    ),
    Mutant(
        "refill-counts-too-early",
        "A node that has lost its disk answers as if it had everything back.",
        ("I9", "I1"),
        (
            Edit(
                "dynamo.replica.wholeness:Wholeness.awaits",
                "if self.identity.whole:",
                "if True:",
            ),
        ),
    ),
    Mutant(
        "reaped-without-those-away",
        "A tombstone goes when all members that are there agree, whoever is away.",
        ("I3", "I7"),
        (
            Edit(
                "dynamo.background.tombstones:TombstoneReaper.step",
                "    names = self._names()\n",
                "    names = [name for name in self._names() if self.view.is_healthy(name)]\n",
            ),
        ),
    ),
)
