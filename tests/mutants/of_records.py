"""Faults in what a record keeps: dots, contexts, siblings, stamps."""

from __future__ import annotations

from tests.mutants.patch import Edit, Mutant

RECORD = "dynamo.core.record:Record"
COPIES = "dynamo.storage.copies:Copies"

MUTANTS = (
    Mutant(
        "latest-for-siblings",
        "Merging keeps the newest of two concurrent versions and drops the other.",
        ("I1",),
        (Edit(f"{RECORD}.merge", "    if latest:\n", "    if True:\n"),),
    ),
    Mutant(
        "merge-drops-a-side",
        "Merging keeps what is held here and takes nothing from the other side.",
        ("I1", "I6"),
        (
            Edit(
                f"{RECORD}.merge",
                "for dot in {**mine, **theirs}\n",
                "for dot in mine\n",
            ),
        ),
    ),
    Mutant(
        "merge-ignores-context",
        "Merging keeps a version that the other side has seen and dropped: the deleted return.",
        ("I3", "I6"),
        (
            Edit(
                f"{RECORD}.merge",
                "        and (dot in theirs or dot[1] > other.context.get(dot[0], 0))\n",
                "",
            ),
        ),
    ),
    Mutant(
        "merge-forgets-context",
        "The merge of two records knows only one's context, so that old versions count as news.",
        ("I3", "I6"),
        (
            Edit(
                f"{RECORD}.merge",
                "union = _join(self.context, other.context)",
                "union = dict(self.context)",
            ),
        ),
    ),
    Mutant(
        "retry-makes-a-sibling",
        "A write that is tried again gets a second dot and is shown beside itself.",
        ("I11",),
        (
            Edit(
                f"{RECORD}.put",
                "    if draft is not None and any(v.write == draft.write for v in self.versions):\n"
                "        return self\n",
                "",
            ),
            Edit(
                f"{RECORD}.live",
                "other = shown.get(version.write)",
                "other = shown.get(version.id.encode())",
            ),
            Edit(
                f"{RECORD}.live",
                "shown[version.write] = version",
                "shown[version.id.encode()] = version",
            ),
        ),
    ),
    Mutant(
        "put-keeps-what-it-covers",
        "A write does not drop the versions its context covers: siblings pile up.",
        ("I11", "I8"),
        (
            Edit(
                f"{RECORD}.put",
                "kept = [v for v in self.versions if v.counter > seen.get(v.actor, 0)]",
                "kept = list(self.versions)",
            ),
        ),
    ),
    Mutant(
        "dot-counted-from-context",
        "A dot follows the client's context instead of what is known here: it is given out twice.",
        ("I5", "I1"),
        (
            Edit(
                f"{RECORD}.put",
                "counter = max(union.get(actor, 0), floor) + 1",
                "counter = seen.get(actor, 0) + 1",
            ),
        ),
    ),
    Mutant(
        "delete-drops-unseen",
        "A delete removes versions that its client has not seen.",
        ("I1",),
        (Edit(f"{RECORD}.put", "return _record(union, kept)\n", "return _record(union, [])\n"),),
    ),
    Mutant(
        "context-ignored",
        "A write with a context is done as one without: it replaces what its client never saw.",
        ("I1",),
        (
            Edit(
                "dynamo.coordinator.writes:Writer.coordinate",
                "        context=context,\n",
                "        context=None,\n",
            ),
        ),
    ),
    Mutant(
        "tombstone-forgotten",
        "A delete removes the row, and with it what was known of the deleted versions.",
        ("I3", "I5"),
        (
            Edit(
                "dynamo.storage.hints:keep",
                "    txn.put(table, row, KEEPING[table].encode(row, new))\n",
                "    if new.versions:\n"
                "        txn.put(table, row, KEEPING[table].encode(row, new))\n"
                "    else:\n"
                "        txn.delete(table, row)\n",
            ),
        ),
    ),
    Mutant(
        "stamp-below-what-it-replaces",
        "A write's stamp is the node's clock alone: where the latest wins, it may lose to what it "
        "replaces though it was acknowledged.",
        ("I8", "I1"),
        (
            Edit(
                "dynamo.storage.copies:_written",
                "stamp=max([stamp, last + 1, *(v.stamp + 1 for v in known.versions)]),",
                "stamp=stamp,",
            ),
        ),
    ),
)
