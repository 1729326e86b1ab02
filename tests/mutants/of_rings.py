"""Faults in how the ring changes: who decides it, who goes by it when, and what moves for it."""

from __future__ import annotations

from tests.mutants.patch import Edit, Mutant

LAYOUTS = "dynamo.cluster.layouts:Layouts"
TRANSFER = "dynamo.background.transfer:Transfer"

UNTAKEN = Edit(
    "dynamo.cluster.followers:Followers.all_ready",
    "return not self._untaken(layout)",
    "return True",
)
"""Nobody looks whether of what goes over one of its coming owners has it."""

SPEAKING = Edit(
    "dynamo.background.handoff:Handoff.step",
    "if self._is_gone(self.view.name):",
    "if False:",
)
"""A member that is in no ring any more hands over its hints. Alone it is no fault, for the others
refuse them; nor is it one alone that they would take them."""

MUTANTS = (
    Mutant(
        "cleared-without-looking",
        "What others own is dropped, whether they hold it or not.",
        ("I16", "I1"),
        (
            Edit(
                "dynamo.background.clearing:Clearing._show",
                "behind = [o for o, held in zip(owners, told, strict=True) "
                "if held.get(place) != mark]",
                "behind = []",
            ),
        ),
    ),
    Mutant(
        "switch-before-synced",
        "Reads go over to a ring of which some have not taken over what they will own.",
        ("I16", "I9"),
        (
            Edit(
                "dynamo.core.steps:lacking",
                'return "data" if coming and synced < layout.version else ""',
                'return ""',
            ),
            UNTAKEN,
        ),
    ),
    Mutant(
        "reads-by-the-coming-ring",
        "Reads go by the coming ring as soon as it is known.",
        ("I9", "I16"),
        (
            Edit(
                f"{LAYOUTS}._take",
                "self.ring = self._ring(layout.members, known)",
                "self.ring = self._ring(layout.next_members, known)",
            ),
        ),
    ),
    Mutant(
        "double-write-forgotten",
        "Writes go to the ring of reads alone while another is coming or going.",
        ("I16", "I9"),
        (
            Edit(
                "dynamo.coordinator.preferences:Preferences.of",
                "if self.view.beside is not None:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "w-of-the-old-ring-only",
        "A write is acknowledged when W owners of the ring there is have it.",
        ("I16", "I9"),
        (
            Edit(
                "dynamo.coordinator.writes:Spread._judge",
                'if all(verdict == "won" for verdict in verdicts):',
                'if verdicts[0] == "won":',
            ),
        ),
    ),
    Mutant(
        "next-before-all-use-the-last",
        "The next layout is decided while some still go by the one before the last.",
        ("I16", "I9"),
        (
            Edit(
                "dynamo.core.steps:lacking",
                "if uses < layout.version:",
                "if False:",
            ),
            Edit(
                "dynamo.cluster.followers:Followers.late",
                "return [",
                "return [] and [",
            ),
        ),
    ),
    Mutant(
        "pulled-before-all-use-it",
        "What was written before is pulled while some still write by the ring before.",
        ("I16", "I9"),
        (
            Edit(
                f"{TRANSFER}._is_late",
                "return self.changing.uses(name) < self._layout.version and self._is_there(name)",
                "return False",
            ),
        ),
    ),
    Mutant(
        "synced-before-pulling",
        "A node says that it has what it will own before it has pulled it.",
        ("I16", "I9"),
        (
            Edit(
                f"{TRANSFER}.step",
                "why = self._too_early()\n    if not why:",
                "why = self._too_early()\n    if False:",
            ),
        ),
    ),
    Mutant(
        "hints-not-passed-on",
        "What members that are away have missed is not told to those who will own it.",
        ("I16", "I1"),
        (
            Edit(
                "dynamo.background.passing:Passing.step",
                "found = self._next()",
                "found = []",
            ),
        ),
    ),
    Mutant(
        "hints-of-the-gone-dropped",
        "Hints for a member that is in no ring any more are dropped, and their copies.",
        ("I7", "I1"),
        (
            Edit(
                "dynamo.background.handoff:Handoff._resettle",
                "    view, ring = self.view, self.view.ring\n",
                "    return\n    view, ring = self.view, self.view.ring\n",
            ),
        ),
    ),
    Mutant(
        "stale-sender-accepted",
        "A removed member hands over its hints, and others take them, though it goes by a layout "
        "of long ago.",
        ("I16", "I3"),
        (
            Edit(
                "dynamo.api.peer:PeerFace._why_not",
                "if not compatible(mine, theirs, floor) and not kinds.isdisjoint(BY_RING):",
                "if False:",
            ),
            SPEAKING,
        ),
    ),
    Mutant(
        "removed-member-speaks",
        "A removed member that is back goes by the layout without it, and hands over its hints.",
        ("I16", "I3"),
        (
            Edit(
                f"{LAYOUTS}.say",
                "if not self._book.out and self.used",
                "if self.used",
            ),
            SPEAKING,
        ),
    ),
    Mutant(
        "removed-member-serves",
        "A removed member that is back with its old disk takes part again.",
        ("I16",),
        (
            Edit(
                f"{LAYOUTS}._adopt",
                "out = same and old.knows(me) and not layout.knows(me)",
                "out = False",
            ),
        ),
    ),
    Mutant(
        "back-without-refill",
        "Who was away while the ring changed counts as whole when it is back.",
        ("I16", "I9"),
        (
            Edit(
                f"{LAYOUTS}._adopt",
                "refill=gains",
                "refill=False",
            ),
        ),
    ),
    Mutant(
        "only-copy-left-behind",
        "Reads go over although none of the coming owners of some keys has taken them over.",
        ("I16",),
        (UNTAKEN,),
    ),
    Mutant(
        "half-is-most",
        "Half of the members decide on the next layout.",
        ("I16",),
        (
            Edit(
                "dynamo.core.agreement:electors",
                "return names, len(names) // 2 + 1",
                "return names, max(1, len(names) // 2)",
            ),
        ),
    ),
    Mutant(
        "own-value-put-through",
        "A proposer that finds another's value accepted puts its own through.",
        ("I16",),
        (
            Edit(
                "dynamo.core.agreement:Proposal.choice",
                "return last.value if last.value is not None else self.value",
                "return self.value",
            ),
        ),
    ),
)
