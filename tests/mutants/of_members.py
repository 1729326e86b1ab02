"""Faults in what members believe of each other."""

from __future__ import annotations

from tests.mutants.patch import Edit, Mutant

MUTANTS = (
    Mutant(
        "refutation-ignored",
        "A graver word about a member always wins, whatever the incarnation: nobody ever returns.",
        ("I15", "I6"),
        (
            Edit(
                "dynamo.core.verdicts:Verdicts.learn",
                "if heard.order > entry.member.order:",
                "if heard.liveness > entry.member.liveness:",
            ),
        ),
    ),
    Mutant(
        "accused-does-not-refute",
        "A member that hears itself accused says nothing.",
        ("I15", "I6"),
        (
            Edit(
                "dynamo.core.claims:Claims._hear_of_me",
                "    local.rise(heard.incarnation + 1)\n",
                "    return\n",
            ),
        ),
    ),
    Mutant(
        "suspect-is-dead-for-ever",
        "A member that was suspected once is held dead for good.",
        ("I15", "I6"),
        (
            Edit(
                "dynamo.cluster.peers:Peers.take",
                "    known.member = member\n",
                "    if known.member.liveness is not Liveness.ALIVE:\n"
                "        member = member.become(Liveness.DEAD)\n"
                "    known.member = member\n",
            ),
        ),
    ),
    Mutant(
        "dead-lose-ownership",
        "A member that is held dead loses its place in the ring until it is back.",
        ("I16", "I1"),
        (
            Edit(
                "dynamo.cluster.membership:Membership.changed",
                "    self.layouts.poke()\n",
                "    self.layouts.poke()\n"
                "    is_there = self.layouts.followers.is_there\n"
                "    there = [m for m in self.ring.members if is_there(m.name)]\n"
                "    self.ring = Ring(there, self.ring.partitions, self.ring.copies)\n"
                "    self.epoch += 1\n",
            ),
        ),
    ),
)
