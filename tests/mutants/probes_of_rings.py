"""The probes of the mutants in `tests.mutants.of_rings`; see `tests.mutants.probes`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred

from dynamo.api.peer import PeerFace
from dynamo.coordinator.preferences import Preferences
from dynamo.core import agreement
from dynamo.core.agreement import Promise, Proposal
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.layout import Layout
from dynamo.core.members import Liveness
from dynamo.core.ring import Member
from dynamo.core.sightings import Origin
from dynamo.errors import DynamoError, QuorumNotMet
from dynamo.wire import messages
from tests.mutants.probes import PROBES, probe
from tests.shell.test_clearing import clear
from tests.shell.test_layouts import removed_and_back
from tests.shell.test_many_members import Told, followers
from tests.shell.test_transfer import cluster_of, fill, owners_to_be, transfer
from tests.support.cluster import TestCluster
from tests.support.disk import record
from tests.support.shells import Shell, World
from tests.support.swim_machine import record as told_of

__all__ = ["PROBES"]

FOUR = tuple(Member(f"n{number}") for number in range(1, 5))


@probe("cleared-without-looking")
def _() -> bool:
    cluster = TestCluster(4)
    cluster.found(*cluster.names)
    *owners, last = cluster.ranking("k")
    incarnation = cluster.nodes[last].table.get("b").incarnation
    cluster.wait(cluster.nodes[last].copies.merge(incarnation, b"k", record("1")))
    clear(cluster, last)
    return all(cluster.nodes[name].owned("k").known() for name in owners)


def changing(used: int) -> Shell:
    """A member of three that goes by `used` while a fourth is coming by layout 7."""
    world = World()
    n1, *_ = world.form("n1", "n2", "n3")
    n1.view.layouts._take(Layout(7, 1, FOUR[:3], FOUR, True))
    n1.view.layouts.used = used
    return n1


@probe("switch-before-synced")
def _() -> bool:
    return "Still taking over" in "".join(changing(7).view.layouts.waits_for())


@probe("next-before-all-use-the-last")
def _() -> bool:
    return "Not yet going by layout 7: n1" in "".join(changing(6).view.layouts.waits_for())


@probe("reads-by-the-coming-ring")
def _() -> bool:
    return changing(7).view.layouts.ring.members == FOUR[:3]


def coming() -> TestCluster:
    """Three nodes with a few files, to which a fourth comes."""
    cluster = cluster_of(3, 4)
    fill(cluster, 12)
    cluster.change(*cluster.names)
    return cluster


@probe("double-write-forgotten")
def _() -> bool:
    cluster = coming()
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    return Preferences(cluster.nodes["n1"].view).of(incarnation, b"k", 3, False).beside is not None


@probe("w-of-the-old-ring-only")
def _() -> bool:
    cluster = cluster_of(3, 6)
    cluster.change("n4", "n5", "n6")
    for name in ("n5", "n6"):
        cluster.link("n1", name).delay = 3.0
    try:
        cluster.put("n1", "k", options={"quorum": "strict", "timeout": 1.0})
    except QuorumNotMet:
        return True
    return False


@probe("pulled-before-all-use-it")
def _() -> bool:
    cluster = coming()
    cluster.nodes["n2"].changing.used = 1
    return transfer(cluster) == []


@probe("synced-before-pulling")
def _() -> bool:
    cluster = coming()
    transfer(cluster)
    keys = [f"k{i}" for i in range(12)]
    return all(cluster.nodes[n].owned(k).known() for k in keys for n in owners_to_be(cluster, k))


@probe("hints-not-passed-on")
def _() -> bool:
    cluster = cluster_of(3, 4)
    a, _, c = cluster.ranking("k")
    cluster.cut(c)
    cluster.put(a, "k")
    cluster.pass_time(1)
    cluster.change(*cluster.names)
    cluster.nodes[a].transfer.passing.appeared()
    transfer(cluster, *[name for name in cluster.names if name != c])
    return cluster.nodes[a].transfer.passing.passed > 0


@probe("hints-of-the-gone-dropped")
def _() -> bool:
    cluster = TestCluster(4)
    cluster.found(*cluster.names)
    a, _, c, d = cluster.ranking("k")
    cluster.cut(c)
    cluster.cut(d)
    cluster.put(a, "k")
    cluster.pass_time(1)
    cluster.heal(d)
    cluster.change(*[name for name in cluster.names if name != c])
    cluster.switch()
    cluster.end()
    with suppress(DynamoError):
        cluster.run(cluster.nodes[a].handoff.step())
    return cluster.nodes[d].owned("k").known()


@probe("stale-sender-accepted")
def _() -> bool:
    nobody: Any = None
    face = PeerFace(nobody, nobody, nobody, nobody, nobody, layout=lambda: (9, 9))
    return face._why_not(Origin("n1", 1, "boot", 1, 1, 1, 3), {messages.Read}) != ""


@probe("removed-member-speaks")
def _() -> bool:
    _, back = removed_and_back()
    return back.view.layouts.used < back.view.layout.version


@probe("removed-member-serves")
def _() -> bool:
    _, back = removed_and_back()
    return not back.view.joined


@probe("back-without-refill")
def _() -> bool:
    world = World()
    n1, *_ = world.form("n1", "n2", "n3")
    n1.buckets.merge([Bucket("b").create(1, 1, Properties())])
    world.run(1)
    now = n1.view.layout
    later = Layout(now.version + 3, now.birth, now.members[:2])
    n1.disk.delay = 0.5
    Deferred.fromCoroutine(n1.view.layouts.adopt(later))
    world.run(0.5)
    return n1.book.layout == later and n1.identity.refilling


@probe("only-copy-left-behind")
def _() -> bool:
    layout = Layout(7, 1, FOUR, FOUR[:3], True)
    told = {m.name: told_of(m.name, layout=7, synced=7) for m in FOUR}
    told["n3"] = told_of("n3", layout=7, synced=6, liveness=Liveness.DEAD)
    return not followers(Told(told, copies=frozenset({1})), layout).all_ready(layout)


@probe("half-is-most")
def _() -> bool:
    layout = Layout(1, 1, FOUR)
    return agreement.electors(layout, Layout(2, 1, FOUR, FOUR[:3], True), "n1")[1] == 3


@probe("own-value-put-through")
def _() -> bool:
    mine, theirs = Layout(2, 1, FOUR), Layout(2, 1, FOUR[:3])
    proposal = Proposal(2, (2, "n1"), mine, frozenset(("n1",)), 1)
    proposal.promise("n1", Promise(2, (1, "n2"), (1, "n2"), theirs))
    return proposal.choice == theirs
