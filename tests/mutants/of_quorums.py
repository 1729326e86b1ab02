"""Faults in who is asked and whose answers count."""

from __future__ import annotations

from tests.mutants.patch import Edit, Mutant

WRITES = "dynamo.coordinator.writes"
READS = "dynamo.core.quorum:ReadTally"

MUTANTS = (
    Mutant(
        "w-minus-one",
        "A write is answered one acknowledgement early.",
        ("I10", "I9"),
        (
            Edit(
                "dynamo.core.quorum:WriteTally.verdict",
                "if len(self.acks) >= self.needed:",
                "if len(self.acks) >= self.needed - 1:",
            ),
        ),
    ),
    Mutant(
        "r-minus-one",
        "A read is content with one answer less.",
        ("I8", "I9"),
        (
            Edit(
                "dynamo.coordinator.reads:Poll.__init__",
                "        terms.r,\n        spare=",
                "        max(1, terms.r - 1),\n        spare=",
            ),
        ),
    ),
    Mutant(
        "awaiting-ignored",
        "A node that still awaits hints counts as any other, though it knows nothing of what it "
        "missed.",
        ("I8", "I9"),
        (
            Edit(
                f"{READS}.counted",
                "if n not in self.aside and all(a in self.records for a in self.awaiting[n])",
                "if n not in self.aside",
            ),
        ),
    ),
    Mutant(
        "stand-ins-outvote",
        "Stand-ins count like owners although the owner that is left has not been heard.",
        ("I8", "I9"),
        (
            Edit(
                f"{READS}.verdict",
                "if sum(name not in self.stand_ins for name in counted) >= self.needed:",
                "if True:",
            ),
        ),
    ),
    Mutant(
        "held-copy-unread",
        "A stand-in does not look at the copies it holds for others when it is asked.",
        ("I8", "I9"),
        (Edit("dynamo.storage.copies:Copies.read", "if self.hints.any():", "if False:"),),
    ),
    Mutant(
        "strict-is-sloppy",
        "A strict quorum takes stand-ins.",
        ("I9",),
        (
            Edit(
                "dynamo.coordinator.preferences:Preferences._prefer",
                "view.is_healthy, strict,",
                "view.is_healthy, False,",
            ),
        ),
    ),
    Mutant(
        "owners-not-distinct",
        "The preference list names the first owner twice: a key has one copy less.",
        ("I6", "I10"),
        (
            Edit(
                "dynamo.core.preference:prefer",
                "owners = tuple(ranking[:n])",
                "owners = (*ranking[: max(1, n - 1)], ranking[0])[:n]",
            ),
        ),
    ),
    Mutant(
        "owners-by-viewer",
        "Each node ranks the owners in an order of its own.",
        ("I1", "I6", "I8"),
        (
            Edit(
                "dynamo.coordinator.preferences:Preferences._prefer",
                "ring.ranking(partition), n,",
                "_turned(ring.ranking(partition), view.name), n,",
            ),
            Edit(
                "dynamo.coordinator.preferences:Preferences._prefer",
                "    view = self.view\n",
                "    from tests.mutants.shadow import turned as _turned\n    view = self.view\n",
            ),
        ),
    ),
    Mutant(
        "timers-leak",
        "A read that is done does not cancel its timer, which goes on for ever.",
        ("I18",),
        (
            Edit(
                "dynamo.coordinator.reads:Poll._judge",
                "        timer.cancel()\n",
                "        pass\n",
            ),
            Edit(
                "dynamo.coordinator.reads:Poll._late",
                "        self._judge(final=True)\n        return\n",
                "        self._judge(final=True)\n"
                "        self._reader.clock.callLater(LATE_S, self._late)\n"
                "        return\n",
            ),
            Edit(
                "dynamo.coordinator.reads:Poll._late",
                "    if not self._judge():\n",
                "    if not self._judge() or True:\n",
            ),
        ),
    ),
    Mutant(
        "conditional-write-ignored",
        "A write with If-Match or If-None-Match is done as if it had none.",
        ("I14",),
        (
            Edit(
                "dynamo.api.parameters:refuse_conditional_write",
                "for name in _CONDITIONS:",
                "for name in ():",
            ),
        ),
    ),
)
