"""Evidence about members: what each kind changes, and that order does not matter.

The names follow memberlist's state tests (state_test.go), which this takes as a conformance list.
"""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.core.dissemination import Post
from dynamo.core.effects import MemberChanged, PersistIncarnation, SendDatagram
from dynamo.core.members import (
    INCARNATION_MAX,
    META_BYTES_MAX,
    Liveness,
    Member,
    Role,
    Update,
    check,
    flaw,
)
from dynamo.core.profiles import LAN
from dynamo.core.swim import Swim
from dynamo.core.verdicts import MEMBERS_MAX
from dynamo.errors import BadRequest, TooLarge
from tests.support.swim_machine import CLUSTER, Bed, events, record, told

ALIVE, SUSPECT, DEAD, LEFT = Liveness


def test_alive_new() -> None:
    """An unknown member that is alive is taken in, announced, and passed on."""
    bed = Bed()
    effects = bed.hear(Update(record("b")))
    assert events(effects) == [("joined", "b")]
    assert record("b") in told(effects + bed.run(0.5))


def test_alive_after_suspect() -> None:
    """A higher incarnation clears a suspicion and stops its clock."""
    bed = Bed().know(record("b", 1, SUSPECT))
    effects = bed.hear(Update(record("b", 2)))
    assert events(effects) == [("cleared", "b")]
    bed.know(record("c"))
    assert bed.liveness("b") == "alive"


def test_alive_idempotent() -> None:
    """The same news twice is news once."""
    bed = Bed().know(record("b"))
    assert events(bed.hear(Update(record("b")))) == []


def test_alive_change_of_description() -> None:
    """A member may change what it says of itself, under a new incarnation only."""
    bed = Bed().know(record("b"))
    changed = record("b", 2, weight=2.0, role=Role.ACTIVE, meta=b"m")
    assert events(bed.hear(Update(changed))) == [("changed", "b")]
    assert bed.swim.member("b") == changed
    bed.hear(Update(record("b", 2, weight=9.0)))
    assert bed.swim.member("b") == changed


def test_alive_about_oneself_is_outdone() -> None:
    """Own records from before the disk was restored from a backup do not win."""
    bed = Bed()
    effects = bed.hear(Update(record("me", 7)))
    assert bed.swim.me.incarnation == 8
    assert PersistIncarnation(8) in effects


def test_alive_with_another_address_and_the_same_incarnation_is_ignored() -> None:
    """Proof of a move is a higher incarnation."""
    bed = Bed().know(record("b"))
    bed.hear(Update(record("b", 1, address="thief:1")))
    assert bed.swim.member("b") == record("b")
    bed.hear(Update(record("b", 2, address="b2:1")))
    assert bed.swim.member("b") == record("b", 2, address="b2:1")


@pytest.mark.parametrize("gone", [DEAD, LEFT])
def test_name_reclaimed_by_another_identity(gone: Liveness) -> None:
    """A new process under the name of one that is gone takes it with a higher incarnation."""
    bed = Bed().know(record("b", 1, gone))
    effects = bed.hear(Update(record("b", 1025, identity=9, address="new:1")))
    assert events(effects) == [("replaced", "b")]
    assert bed.liveness("b") == "alive"


@pytest.mark.parametrize("liveness", [SUSPECT, DEAD, LEFT])
def test_row_6_only_alive_evidence_adds(liveness: Liveness) -> None:
    """piko 314, atomix 962: accusations of strangers are not taken up."""
    bed = Bed()
    assert events(bed.hear(Update(record("ghost", 5, liveness)))) == []
    assert bed.liveness("ghost") == "unknown"


def test_suspect_twice_is_one_suspicion() -> None:
    """A second accusation by the same accuser adds nothing."""
    bed = Bed().know(record("b"))
    assert events(bed.hear(Update(record("b", 1, SUSPECT), "x"))) == [("suspected", "b")]
    before = bed.swim.pending
    assert events(bed.hear(Update(record("b", 1, SUSPECT), "x"))) == []
    assert bed.swim.pending == before


def test_suspect_of_an_old_incarnation_is_ignored() -> None:
    """What was said of an earlier incarnation is answered already."""
    bed = Bed().know(record("b", 5))
    assert events(bed.hear(Update(record("b", 4, SUSPECT), "x"))) == []
    assert bed.liveness("b") == "alive"


@pytest.mark.parametrize("liveness", [SUSPECT, DEAD, LEFT])
def test_refute(liveness: Liveness) -> None:
    """Whoever is accused rises above the accusation, on disk first, and is a bit less sure."""
    bed = Bed().know(record("b"))
    effects = bed.hear(Update(record("me", 4, liveness), "b")) + bed.run(0)
    assert bed.swim.me == record("me", 5)
    kinds = [type(e) for e in effects]
    assert kinds.index(PersistIncarnation) < kinds.index(SendDatagram)
    assert told(effects)[0] == record("me", 5)
    assert bed.swim.health == 1


def test_dead_at_once_by_word_of_others() -> None:
    """A verdict is final for its incarnation."""
    bed = Bed().know(record("b"))
    assert events(bed.hear(Update(record("b", 1, DEAD), "x"))) == [("failed", "b")]


def test_dead_of_an_old_incarnation_is_ignored() -> None:
    """The member refuted it already."""
    bed = Bed().know(record("b", 5))
    assert events(bed.hear(Update(record("b", 4, DEAD), "x"))) == []


def test_dead_twice_is_one_failure() -> None:
    """No second event, and no new rumour."""
    bed = Bed().know(record("b", 1, DEAD))
    assert events(bed.hear(Update(record("b", 1, DEAD), "y"))) == []


def test_left_is_not_a_failure() -> None:
    """A leave outranks suspicion and death of the incarnation before it."""
    bed = Bed().know(record("b", 1, SUSPECT))
    assert events(bed.hear(Update(record("b", 2, LEFT)))) == [("left", "b")]
    assert events(bed.hear(Update(record("b", 1, DEAD), "x"))) == []


def test_alive_replay_after_dead() -> None:
    """Old news does not raise the dead, and earns the accusation back."""
    bed = Bed().know(record("b", 1, DEAD), record("c"))
    bed.run(30)
    assert bed.swim.pending == 0
    effects = bed.hear(Update(record("b", 1))) + bed.run(0.01)
    assert bed.liveness("b") == "dead"
    assert record("b", 1, DEAD) in told(effects)


def test_row_5_stale_alive_does_not_resurrect() -> None:
    """al8n/memberlist 197: alive 1, dead 1, dead 10, alive 2 in every order end the same."""
    story = [record("b", 1), record("b", 1, DEAD), record("b", 10, DEAD), record("b", 2)]
    for order in itertools.permutations(story):
        bed = Bed().know(record("b", 0))
        for member in order:
            bed.hear(Update(member, "x"))
        assert bed.swim.member("b") == record("b", 10, DEAD), order


evidence = st.lists(
    st.builds(
        lambda i, who, liveness: record("b", i, liveness, identity=who),
        st.integers(0, 4),
        st.integers(1, 2),
        st.sampled_from(Liveness),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(evidence, st.randoms(use_true_random=False))
def test_row_5_any_order_of_evidence_ends_the_same(story: list[Member], rnd: random.Random) -> None:
    """The table is a join of a lattice: its result depends on what was heard alone, and at no
    step does what is held go down."""
    results = set()
    for _ in range(4):
        bed, held = Bed().know(record("b", 0, identity=1)), (-1, -1, -1)
        rnd.shuffle(story)
        for member in story:
            bed.hear(Update(member, "x"))
            now_held = bed.swim.member("b")
            assert now_held is not None
            assert now_held.order >= held
            held = now_held.order
        results.add(held)
    assert len(results) == 1


def test_merge_state() -> None:
    """In an exchange alive 2 beats suspect 1, remote suspect and dead become suspect, and what
    is unknown is added, dead ones as dead."""
    bed = Bed().know(record("a", 1, SUSPECT), record("b"), record("c"))
    remote = [record("a", 2), record("b", 1, SUSPECT), record("c", 1, DEAD), record("d")]
    bed.exchange(*remote, record("e", 3, DEAD), record("f", 1, LEFT))
    believed = {name: bed.liveness(name) for name in "abcdef"}
    assert believed == {
        "a": "alive",
        "b": "suspect",
        "c": "suspect",
        "d": "alive",
        "e": "dead",
        "f": "unknown",
    }


def test_row_4_restart_outlives_a_verdict() -> None:
    """memberlist 311: a verdict about a number above the restarted one is out-jumped at once."""
    bed = Bed(incarnation=1)
    assert bed.swim.me.incarnation == 2
    bed.hear(Update(record("me", 100, DEAD), "b"))
    assert bed.swim.me.incarnation == 101
    assert bed.swim.me.liveness is ALIVE


def test_row_8_incarnation_survives_a_restart() -> None:
    """habitat 5581: a restart begins above the number on disk, so nothing is to be refuted."""
    bed = Bed(incarnation=41)
    assert bed.effects[0] == PersistIncarnation(42)
    bed.hear(Update(record("me", 41, DEAD), "b"))
    assert bed.swim.me.incarnation == 42


def test_row_6_left_member_is_not_resurrected_by_a_peer_that_lags() -> None:
    """atomix 962, chitchat 23: the tombstone refuses suspicion and life of its incarnation."""
    bed = Bed().know(record("b", 3, LEFT))
    bed.exchange(record("b", 3), record("b", 3, SUSPECT), record("b", 2, DEAD))
    assert bed.liveness("b") == "left"


def test_row_7_churn_leaves_bounded_state() -> None:
    """memberlist 253, moby 41416: names that left or died do not pile up."""
    bed = Bed()
    for i in range(5000):
        name = f"job-{i}"
        liveness = LEFT if i % 2 else DEAD
        bed.hear(Update(record(name)), Update(record(name, 2, liveness), "x"))
        assert bed.swim.pending <= 4096
    assert len(bed.swim.state().members) <= 2 * 1.25 * LAN.tombstone_max + 1


def test_a_stopped_member_is_not_forgotten() -> None:
    """It owns data and will be back, however long it takes; and newcomers hear of it, by a full
    exchange alone. One that left for good, or never served, is only a tombstone."""
    bed = Bed()
    stopped, went, never = (
        record(name, 2, Liveness.LEFT, role=role)
        for name, role in (("s", Role.ACTIVE), ("w", Role.LEAVING), ("n", Role.JOINING))
    )
    assert events(bed.hear(Update(stopped), Update(went), Update(never))) == []
    assert events(bed.exchange(stopped, went, never)) == [("left", "s")]
    bed.run(LAN.tombstone_seconds * 2)
    assert bed.liveness("s") == "left"
    assert events(bed.hear(Update(record("s", 3)))) == [("returned", "s")]


def test_tombstones_end() -> None:
    """A member that left is forgotten after `tombstone_seconds`, and then may come new."""
    bed = Bed().know(record("b", 2, LEFT))
    bed.run(LAN.tombstone_seconds * 1.2)
    assert bed.liveness("b") == "unknown"
    assert ("reaped", "b") in events(bed.effects)


def test_remove_takes_a_dead_member_out() -> None:
    """An operator's removal ends a dead member and never a running one."""
    bed = Bed().know(record("b", 1, DEAD), record("c"))
    assert events(bed.swim.remove(bed.now, "b")) == [("left", "b")]
    assert events(bed.swim.remove(bed.now, "c")) == []
    assert events(bed.swim.remove(bed.now, "nobody")) == []


def test_row_22_bulky_records_are_the_callers_error() -> None:
    """memberlist 191, CASSANDRA-20058: too much meta is refused, not truncated or lost."""
    bed = Bed()
    with pytest.raises(TooLarge):
        bed.swim.describe(bed.now, meta=b"x" * (META_BYTES_MAX + 1))
    with pytest.raises(TooLarge):
        check(record("b", zone="z" * 600))
    with pytest.raises(BadRequest):
        check(record("b", weight=float("nan")))
    bed.swim.describe(bed.now, meta=b"x" * META_BYTES_MAX)
    assert bed.swim.me.meta == b"x" * META_BYTES_MAX


def test_describe_raises_the_incarnation() -> None:
    """A change of oneself is a statement of its own, on disk before it is told."""
    bed = Bed()
    effects = bed.swim.describe(bed.now, role=Role.ACTIVE, weight=2.0)
    assert effects[0] == PersistIncarnation(2)
    assert (bed.swim.me.role, bed.swim.me.weight) == (Role.ACTIVE, 2.0)
    assert bed.swim.describe(bed.now, role=Role.ACTIVE) == []


@pytest.mark.parametrize(
    "member",
    [
        record("b", -1),
        record("b", INCARNATION_MAX),
        record("b", identity=2**32),
        record("b", weight=-1.0),
        record("b", weight=float("inf")),
        record("x" * 129),
        record("b", address="a" * 261),
        Member("", 1, "a:1"),
        Member("b", 1, ""),
    ],
)
def test_records_that_cannot_be(member: Member) -> None:
    """A record from outside is refused before it touches anything."""
    bed = Bed()
    assert flaw(member)
    bed.hear(Update(member))
    bed.exchange(member)
    assert len(bed.swim.members()) == 1
    assert bed.swim.counts["bad_member"] == 2


def test_words_for_people() -> None:
    """What /v1/cluster shows."""
    assert [x.word for x in Liveness] == ["alive", "suspect", "dead", "left"]
    assert [x.word for x in Role] == ["joining", "active", "leaving"]


def test_row_26_order_needs_no_wall_clock() -> None:
    """CASSANDRA-10969, Scylla 5164: time may start anywhere; only differences count."""
    for start in (0.0, 3e8, -3e8):
        swim = Swim(LAN, record("me"), CLUSTER, random.Random(1))
        swim.join(start, [])
        swim.exchange(start, Bed().know(record("b")).swim.state())
        assert swim.wake_at - start <= LAN.probe_interval
        assert swim.me.incarnation == 2


def test_changes_carry_what_was_before() -> None:
    """The caller can tell a transition without keeping the view itself."""
    bed = Bed().know(record("b"))
    (change,) = [
        e for e in bed.hear(Update(record("b", 1, SUSPECT), "x")) if isinstance(e, MemberChanged)
    ]
    assert (change.before, change.member) == (record("b"), record("b", 1, SUSPECT))
    assert "herald" in change.cause


def test_row_18_membership_news_is_bounded_when_alone() -> None:
    """serf 78, alertmanager 1409: with nobody to tell, nothing waits."""
    bed = Bed().know(record("b"))
    bed.hear(Update(record("b", 1, LEFT)))
    bed.run(5)
    assert bed.swim.pending == 0
    assert isinstance(bed.swim._post, Post)


def test_the_table_is_bounded() -> None:
    """Row 19: a flood of names fills neither table nor queue."""
    bed = Bed()
    for i in range(MEMBERS_MAX + 50):
        bed.hear(Update(record(f"flood-{i}")))
    assert len(bed.swim.members()) == MEMBERS_MAX + 1
    assert bed.swim.counts["members_full"] == 50
    assert bed.swim.pending <= 4096
    assert bed.swim.counts["rumours_dropped"] > 0


def test_a_number_that_cannot_be_outdone_is_refused() -> None:
    """An accusation at the end of the number line would leave no room to refute it."""
    bed = Bed()
    bed.hear(Update(record("me", INCARNATION_MAX - 1, SUSPECT), "x"))
    assert bed.swim.me.incarnation == 1


def test_row_20_no_call_runs_inside_the_protocol() -> None:
    """antrea 4469: what happened is a returned value; nothing can block or re-enter a step."""
    bed = Bed()
    effects = bed.hear(Update(record("b")))
    assert isinstance(effects, list)
    assert not any(callable(effect) for effect in effects)


def test_one_member_by_name() -> None:
    """The own record included."""
    bed = Bed().know(record("b"))
    assert bed.swim.member("me") == bed.swim.me
    assert bed.swim.member("b") == record("b")
    assert bed.swim.member("c") is None
