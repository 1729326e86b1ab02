"""What has to be pulled for a coming ring, against plain definitions over all owners and W."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from dynamo.core.exchanges import Pair
from dynamo.core.ring import Member, Ring
from dynamo.core.transfers import Needs, gained, needs, untaken

NAMES = ("n1", "n2", "n3", "n4", "n5", "n6")
PARTITIONS = 8
CLASSES = (2, 3)


def ring_of(names: set[str]) -> Ring:
    return Ring([Member(name) for name in sorted(names)], PARTITIONS, 3)


rings = st.sets(st.sampled_from(NAMES), min_size=1).map(ring_of)
some = st.sets(st.sampled_from(NAMES))


def asked(
    ring: Ring, coming: Ring, me: str, there: set[str], taken: set[Pair] | None = None
) -> Needs:
    had = taken or set()
    return needs(
        ring, coming, me, CLASSES, there=lambda n: n in there, taken=lambda pair: pair in had
    )


@given(rings, rings, st.sampled_from(NAMES), some)
def test_every_owner_that_is_there_is_pulled_from(
    ring: Ring, coming: Ring, me: str, there: set[str]
) -> None:
    found = asked(ring, coming, me, there)
    for partition in range(PARTITIONS):
        for copies in CLASSES:
            owners = ring.owners(partition, copies)
            got = {o for p, o, c in found.pairs if (p, c) == (partition, copies)}
            new = coming.owners(partition, copies)
            if me in new and (me not in owners or len(new) < len(owners)):
                assert got >= (set(owners) & there) - {me}
                assert got <= set(owners)
                if partition not in found.waiting:
                    assert got <= there, "nobody is waited for that need not be"
            else:
                assert not got, "there are as many who may lack something as before"
    assert me not in {owner for _, owner, _ in found.pairs}


@given(rings, rings, st.sampled_from(NAMES), some)
def test_what_w_owners_acknowledged_is_found_with_who_is_pulled_from(
    ring: Ring, coming: Ring, me: str, there: set[str]
) -> None:
    """Of a partition that does not wait: any majority of the owners that are not gone for good has
    a member that is pulled from."""
    found = asked(ring, coming, me, there)
    there = there | {me}
    staying = {member.name for member in coming.members}
    for partition, copies in gained(ring, coming, me, CLASSES):
        owners = ring.owners(partition, copies)
        counted = [o for o in owners if o in there or o in staying]
        sources = {o for p, o, c in found.pairs if (p, c) == (partition, copies)} & there
        sources |= {me} & set(owners)
        enough = all(
            set(quorum) & sources for quorum in combinations(counted, len(counted) // 2 + 1)
        )
        # Half of an even number would meet every majority too; no write is known to have had one.
        most = len(sources) > len(counted) // 2 or not counted
        if partition not in found.waiting:
            assert most
            assert enough or not counted
    for partition, missed in found.waiting.items():
        assert missed
        assert not set(missed) & there
        assert set(missed) <= staying, "who is taken out for good is not waited for"
        of_it = [c for p, c in gained(ring, coming, me, CLASSES) if p == partition]
        short = []
        for copies in of_it:
            owners = ring.owners(partition, copies)
            counted = [o for o in owners if o in there or o in staying]
            if len([o for o in counted if o in there]) <= len(counted) // 2 and counted:
                short.append(copies)
        assert short
        pairs = {(o, c) for p, o, c in found.pairs if p == partition}
        for name in missed:
            assert any((name, copies) in pairs for copies in short)


@given(rings, rings, st.sampled_from(NAMES), some, some)
def test_who_was_pulled_from_counts_though_it_is_gone(
    ring: Ring, coming: Ring, me: str, there: set[str], later: set[str]
) -> None:
    first = asked(ring, coming, me, there)
    had = {pair for pair in first.pairs if pair[1] in there}
    then = asked(ring, coming, me, there & later, had)
    if not first.waiting:
        assert then.waiting == {}
        assert set(then.pairs) <= had, "nothing is left to do"


@given(rings, st.sampled_from(NAMES), some)
def test_a_ring_that_does_not_change_needs_nothing(ring: Ring, me: str, there: set[str]) -> None:
    assert asked(ring, ring, me, there) == Needs((), {})


@given(rings, rings, some, some)
def test_reads_do_not_go_over_to_those_who_took_nothing(
    ring: Ring, coming: Ring, there: set[str], synced: set[str]
) -> None:
    """Nothing is in the way just when each partition that changes hands is with one of its coming
    owners, or was with nobody who could ever give it."""
    missed = untaken(ring, coming, CLASSES, there=there.__contains__, synced=synced.__contains__)
    staying = {member.name for member in coming.members}
    stranded = {
        coming.owners(partition, copies)
        for partition in range(PARTITIONS)
        for copies in CLASSES
        if set(coming.owners(partition, copies)) != set(old := ring.owners(partition, copies))
        and not set(coming.owners(partition, copies)) & synced
        and set(old) & (there | staying)
    }
    assert (missed in stranded) if stranded else missed == ()


def test_the_only_copy_is_waited_for_until_it_is_given_up() -> None:
    ring, coming = ring_of({"n1", "n2", "n3"}), ring_of({"n1", "n3"})
    there, synced = {"n1", "n2"}, {"n1"}

    def missed(ring: Ring, coming: Ring, there: set[str], synced: set[str]) -> tuple[str, ...]:
        return untaken(ring, coming, (1,), there=there.__contains__, synced=synced.__contains__)

    assert missed(ring, coming, there, synced) == ("n3",), "n2 must not go with what n3 is to own"
    assert missed(ring, coming, there, synced | {"n3"}) == ()
    assert missed(ring, coming, {"n1"}, synced) == (), "what n2 had went with it"
    assert missed(ring, ring_of({"n1"}), there, synced) == (), "n3 is given up as well"
