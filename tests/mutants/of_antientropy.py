"""Faults in anti-entropy: owners that differ are not found, or not mended."""

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
)
