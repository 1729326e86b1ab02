"""Faults in hints, handoff and read repair: what was missed does not arrive, or too much does."""

from __future__ import annotations

from tests.mutants.patch import Edit, Mutant

HANDOFF = "dynamo.background.handoff:Handoff._deliver"
REPAIR = "dynamo.coordinator.repair:Repairer.mend"

MUTANTS = (
    Mutant(
        "hint-skipped",
        "A coordinator does not note which owners its write has missed.",
        ("I6",),
        (
            Edit(
                "dynamo.storage.copies:Copies.coordinate",
                "for target in missed_by:",
                "for target in ():",
            ),
        ),
    ),
    Mutant(
        "stand-in-without-hint",
        "A stand-in keeps a copy and does not note for whom.",
        ("I6",),
        (
            Edit(
                "dynamo.storage.copies:Copies.hold_for",
                "        hints.note(txn, effects, target, incarnation, key)\n",
                "",
            ),
        ),
    ),
    Mutant(
        "late-owner-without-hint",
        "An owner that failed during a write gets no hint where no stand-in is left.",
        ("I6",),
        (
            Edit(
                "dynamo.coordinator.writes:Spread._help",
                "    half.kept.add(owner)\n    self._note",
                "    half.kept.add(owner)\n    return\n    self._note",
            ),
        ),
    ),
    Mutant(
        "handoff-drops-unacknowledged",
        "Hints are dropped when they were sent, whether the owner took them or not.",
        ("I6", "I1"),
        (
            Edit(
                HANDOFF,
                "taken = [hint for hint, (ok, _) in zip(hints, outcomes, strict=True) if ok]",
                "taken = hints",
            ),
        ),
    ),
    Mutant(
        "handoff-to-another",
        "Handoff delivers to another member than the one the hint is for.",
        ("I6", "I1"),
        (
            Edit(
                HANDOFF,
                "replica = self.view.replica(target)",
                "replica = self.view.replica(min(\n"
                "        (m.name for m in self.view.ring.members\n"
                "         if m.name not in (target, self.view.name)), default=target))",
            ),
        ),
    ),
    Mutant(
        "hint-dropped-though-changed",
        "A hint is dropped on an acknowledgement although there was news since it was sent.",
        ("I6",),
        (
            Edit(
                "dynamo.storage.hints:drop",
                "if now is None or now.sequence != hint.sequence:",
                "if now is None:",
            ),
        ),
    ),
    Mutant(
        "no-read-repair",
        "A read that finds a stale owner leaves it so.",
        ("I6",),
        (
            Edit(
                REPAIR, "    record = answers.record\n", "    return\n    record = answers.record\n"
            ),
        ),
    ),
    Mutant(
        "repair-writes-the-stale-back",
        "Read repair sends the stale owner's versions, under the context of the newest.",
        ("I1",),
        (
            Edit(
                REPAIR,
                "merge = messages.Merge(incarnation, key, record, terms.latest)",
                "stale = next(k for k in records if not k.same_versions(record))\n"
                "    stale = tuple(v for v in stale.versions if not v.stripped)\n"
                "    stale = type(record)(record.context, stale)\n"
                "    merge = messages.Merge(incarnation, key, stale, terms.latest)",
            ),
        ),
    ),
)
