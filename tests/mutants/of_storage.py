"""Faults between a node and its disk: commits, chunks, dots that outlive the disk."""

from __future__ import annotations

from tests.mutants.patch import Edit, Mutant

COPIES = "dynamo.storage.copies:Copies"
LEDGER = "dynamo.storage.ledger"

MUTANTS = (
    Mutant(
        "acknowledge-before-fsync",
        "A commit is answered when its jobs have run, before it is on disk.",
        ("I10", "I1"),
        (
            Edit(
                "dynamo.storage.committer:Committer._begin",
                "self._run(lambda: self._engine.commit(jobs)).addCallbacks(\n"
                "        self._committed, self._failed, callbackArgs=ends, errbackArgs=ends\n"
                "    )",
                "early = lambda: self._committed(self._engine.commit(jobs), *ends)\n"
                "    self._run(early).addErrback(self._failed, *ends)",
            ),
        ),
    ),
    Mutant(
        "sends-before-it-stores",
        "A coordinator sends out a dot that is not on its disk yet.",
        ("I5", "I10"),
        (
            Edit(
                f"{COPIES}.coordinate",
                "return stored.addErrback(self._met_damage, incarnation, key)",
                "from tests.mutants.shadow import foresee\n"
                "    return foresee(self.engine, job, stored)",
            ),
        ),
    ),
    Mutant(
        "batch-loses-its-last",
        "Of merges that arrive together the last is acknowledged and not done.",
        ("I10", "I6"),
        (
            Edit(
                f"{COPIES}.merge_all",
                "outcomes.append(self._merge(txn, effects, *one))",
                "outcomes.append("
                "self._merge(txn, effects, *one) if one is not many[-1] else one[2])",
            ),
        ),
    ),
    Mutant(
        "actor-kept-after-a-wipe",
        "A node whose disk was emptied signs as before: it gives out dots a second time.",
        ("I5", "I1"),
        (
            Edit(
                "dynamo.cluster.naming:_unused",
                "if seen else name",
                "if False else name",
            ),
        ),
    ),
    Mutant(
        "rollback-unnoticed",
        "A node whose disk was put back to an earlier state signs as before.",
        ("I5", "I1"),
        (
            Edit(
                "dynamo.core.sightings:rolled_back",
                "return any(",
                "return False and any(",
            ),
        ),
    ),
    Mutant(
        "hand-kept",
        "A stand-in's copy leaves the disk and the node goes on signing with the same hand.",
        ("I5", "I1"),
        (
            Edit(
                f"{LEDGER}:leaves",
                "if signs_as(txn, actor) in record.context:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "chunks-unverified",
        "Bytes are stored and served whatever their digest is.",
        ("I13",),
        (
            Edit(
                "dynamo.storage.chunks:verify",
                "if digest_of(data) != digest:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "chunk-freed-too-early",
        "A chunk is freed when one record still refers to it.",
        ("I1", "I13"),
        (Edit(f"{LEDGER}:refer", "if left > 0:", "if left > 1:"),),
    ),
    Mutant(
        "discard-without-looking",
        "The chunks of an upload that failed are freed although a record refers to them.",
        ("I1", "I13"),
        (
            Edit(
                f"{COPIES}.discard",
                "if not ledger.references(txn, digest):",
                "if True:",
            ),
        ),
    ),
    Mutant(
        "chunks-never-freed",
        "Chunks that nothing refers to stay on the disk.",
        ("I6",),
        (Edit(f"{COPIES}._committed", "if effects.unused:", "if False:"),),
    ),
    Mutant(
        "record-without-chunks",
        "A record is stored although chunks it names are missing.",
        ("I1", "I6"),
        (
            Edit(
                f"{COPIES}.require_chunks",
                "if any(v.chunks for v in new.versions):",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "rows-unverified",
        "A row of the store is taken for what was stored whatever its checksum says.",
        ("I13", "I1"),
        (
            Edit(
                "dynamo.wire.codec:unseal",
                "if data[1:_SEAL] != _checksum(table, row, form, said):",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "damage-is-not-found",
        "A node whose record of a key is damaged answers as if it had nothing of it.",
        ("I8", "I9"),
        (Edit("dynamo.storage.broken:require", "if kept.was is not None:", "if False:"),),
    ),
)
