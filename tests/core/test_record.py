"""Records against an oracle that keeps whole histories, and the laws their merge must obey."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.core.record import EMPTY, Draft, Record, Version
from dynamo.wire.codec import Codec

REPLICAS = ("a", "b", "c")
RECORD = Codec(Record)


def draft(number: int, body: bytes = b"") -> Draft:
    return Draft(write=b"w%d" % number, size=len(body), etag=str(number), body=body)


@dataclass
class History:
    """The oracle's copy: every write ever known of, and every one known to be overwritten."""

    known: frozenset[bytes] = frozenset()
    gone: frozenset[bytes] = frozenset()

    def alive(self) -> set[bytes]:
        return set(self.known - self.gone)

    def joined(self, other: History) -> History:
        return History(self.known | other.known, self.gone | other.gone)


@dataclass
class World:
    """Some replicas of one key, each as a record and as the oracle's history."""

    latest: bool = False
    records: dict[str, Record] = field(default_factory=lambda: dict.fromkeys(REPLICAS, EMPTY))
    histories: dict[str, History] = field(
        default_factory=lambda: dict.fromkeys(REPLICAS, History())
    )
    tokens: list[tuple[dict[str, int], History]] = field(default_factory=list)
    floors: dict[str, int] = field(default_factory=dict)
    hands: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REPLICAS, 1))
    dots: set[tuple[str, int]] = field(default_factory=set)
    stamps: dict[bytes, tuple[int, str, int]] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def put(self, at: str, token: int | None, stamp: int, *, delete: bool = False) -> None:
        """A write with the newest context read but `token`; None: no context; -1: a create."""
        old, history = self.records[at], self.histories[at]
        context: dict[str, int] | None
        if token is None:
            context, seen = None, history
        elif token < 0 or not self.tokens:
            context, seen = {}, History()
        else:
            context, seen = self.tokens[token % len(self.tokens)]
        number = next(self.numbers)
        stamp = max([stamp, *(v.stamp + 1 for v in old.versions)])
        actor = f"{at}~{self.hands[at]}"
        new = old.put(
            None if delete else draft(number),
            actor=actor,
            floor=self.floors.get(actor, 0),
            stamp=stamp,
            context=context,
            latest=self.latest,
        )
        made = {(v.actor, v.counter) for v in new.versions} - {
            (v.actor, v.counter) for v in old.versions
        }
        assert not made & self.dots, "a dot was given out twice"
        self.dots |= made
        self.records[at] = new
        known = history.known | seen.known
        if not delete:
            known |= {b"w%d" % number}
        self.histories[at] = History(known, history.gone | seen.known)

    def merge(self, at: str, other: str) -> None:
        self.records[at] = self.records[at].merge(self.records[other], latest=self.latest)
        self.histories[at] = self.histories[at].joined(self.histories[other])

    def read(self, at: str) -> None:
        """A client reads here and keeps the context."""
        self.tokens.append((dict(self.records[at].context), self.histories[at]))

    def lose(self, at: str) -> None:
        """The record leaves this disk; the replica signs with another actor from then on."""
        self.hands[at] += 1
        self.records[at], self.histories[at] = EMPTY, History()

    def check(self) -> None:
        for at in REPLICAS:
            held = {v.write for v in self.records[at].versions}
            assert held == self.histories[at].alive()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "delete", "merge", "merge", "read", "lose"]),
        st.sampled_from(REPLICAS),
        st.sampled_from(REPLICAS),
        st.one_of(st.none(), st.integers(-1, 5)),
        st.integers(0, 5),
    ),
    max_size=30,
)


def play(world: World, steps: list[Any], *, lossy: bool) -> None:
    for kind, at, other, token, stamp in steps:
        if kind in ("put", "delete"):
            world.put(at, token, stamp, delete=kind == "delete")
        elif kind == "merge":
            world.merge(at, other)
        elif kind == "read":
            world.read(at)
        elif lossy:
            world.lose(at)


@settings(max_examples=500)
@given(STEPS)
def test_a_version_survives_unless_somebody_read_and_replaced_it(steps: list[Any]) -> None:
    """I1: what a replica shows is what it knows of and nothing it knows of has overwritten,
    also where records leave a disk and come back from others."""
    world = World()
    for step in steps:
        play(world, [step], lossy=True)
        world.check()


@settings(max_examples=200)
@given(STEPS, st.booleans())
def test_dots_are_never_reused(steps: list[Any], latest: bool) -> None:
    """I5: also after the record left the disk, given that the actor changed with it."""
    play(World(latest=latest), steps, lossy=True)


@settings(max_examples=200)
@given(STEPS)
def test_merging_all_ways_round_ends_alike(steps: list[Any]) -> None:
    """I6: however replicas exchange what they know, they end with equal bytes."""
    world = World()
    play(world, steps, lossy=False)
    ends = set()
    for order in itertools.permutations(REPLICAS):
        merged = EMPTY
        for at in order:
            merged = merged.merge(world.records[at])
        ends.add(RECORD.encode(merged))
    assert len(ends) == 1


@settings(max_examples=200)
@given(STEPS, st.booleans())
def test_merge_is_a_join(steps: list[Any], latest: bool) -> None:
    """I7: associative, commutative, idempotent, and nothing but upwards."""
    world = World(latest=latest)
    play(world, steps, lossy=False)
    a, b, c = (world.records[at] for at in REPLICAS)

    def join(x: Record, y: Record) -> Record:
        return x.merge(y, latest=latest)

    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, a) == a
    assert join(join(a, b), b) == join(a, b)
    assert all(join(a, b).context.get(k, 0) >= v for k, v in a.context.items())


@settings(max_examples=200)
@given(STEPS)
def test_latest_keeps_the_highest_stamp_ever_known(steps: list[Any]) -> None:
    """A register: whatever the exchange, the write with the highest stamp is what stays."""
    world = World(latest=True)
    best: dict[str, tuple[int, str, int]] = {}
    for kind, at, other, token, stamp in steps:
        play(world, [(kind, at, other, token, stamp)], lossy=False)
        if kind == "merge" and other in best:
            best[at] = max(best.get(at, best[other]), best[other])
        if kind in ("put", "delete"):
            best[at] = max(v.order for v in world.records[at].versions)
        held = [v.order for v in world.records[at].versions]
        assert held == ([best[at]] if at in best else [])


@given(STEPS, st.booleans())
def test_equal_records_are_equal_bytes(steps: list[Any], latest: bool) -> None:
    """Whatever way a record came to be, the same value has one encoding and decodes to itself."""
    world = World(latest=latest)
    play(world, steps, lossy=False)
    for x, y in itertools.product(world.records.values(), repeat=2):
        one, other = x.merge(y, latest=latest), y.merge(x, latest=latest)
        assert RECORD.encode(one) == RECORD.encode(other)
        assert RECORD.decode(RECORD.encode(one)) == one


@given(STEPS, st.lists(st.booleans(), min_size=3, max_size=3), st.booleans())
def test_a_stripped_version_never_replaces_a_whole_one(
    steps: list[Any], stripped: list[bool], latest: bool
) -> None:
    """Merging digests and records in any order keeps the bytes if anybody had them."""
    world = World(latest=latest)
    play(world, steps, lossy=False)
    given_bytes = {
        at: Record(r.context, tuple(with_body(v) for v in r.versions))
        for at, r in world.records.items()
    }
    mixed = [
        record.strip() if strip else record
        for record, strip in zip(given_bytes.values(), stripped, strict=True)
    ]
    whole = {v.id for r, s in zip(mixed, stripped, strict=True) if not s for v in r.versions}
    for order in itertools.permutations(mixed):
        merged = EMPTY
        for record in order:
            merged = merged.merge(record, latest=latest)
        for version in (v for v in merged.versions if not v.deleted):
            assert version.stripped is (version.id not in whole)
            assert version.body == (b"" if version.stripped else body_of(version))


def body_of(version: Version) -> bytes:
    return b"body of " + version.id.encode()


def with_body(version: Version) -> Version:
    if version.deleted:
        return version
    return Version(
        version.actor,
        version.counter,
        version.stamp,
        version.write,
        version.size,
        version.etag,
        body=body_of(version),
    )


def test_a_retry_at_the_same_replica_gets_no_second_dot() -> None:
    """The record is returned as it is, even if the retry comes with the first try's context."""
    first = EMPTY.put(draft(1), actor="a", stamp=1, context={})
    again = first.put(draft(1), actor="a", stamp=2, context={})
    assert again is first


def test_a_retry_elsewhere_shows_once() -> None:
    """Two dots of one write are one version to the client, and one write replaces both."""
    here = EMPTY.put(draft(1), actor="a", stamp=1, context={})
    there = EMPTY.put(draft(1), actor="b", stamp=2, context={})
    merged = here.merge(there)
    assert [v.id for v in merged.live()] == ["b.1"]
    after = merged.put(draft(2), actor="c", stamp=3, context=merged.context)
    assert [v.write for v in after.versions] == [b"w2"]


def test_a_delete_leaves_the_context_and_no_version() -> None:
    """A tombstone is known, shows nothing, and covers late copies of what it deleted."""
    before = EMPTY.put(draft(1), actor="a", stamp=1)
    after = before.put(None, actor="b", stamp=2)
    assert after.known()
    assert after.live() == ()
    assert before.merge(after) == after
    assert not EMPTY.known()


def test_a_delete_spares_what_it_had_not_seen() -> None:
    """I3's other half: a concurrent write outlives the delete."""
    one = EMPTY.put(draft(1), actor="a", stamp=1)
    both = one.merge(EMPTY.put(draft(2), actor="b", stamp=2, context={}))
    after = both.put(None, actor="a", stamp=3, context=one.context)
    assert [v.write for v in after.live()] == [b"w2"]


def test_a_delete_in_a_latest_bucket_competes_by_stamp() -> None:
    """The later of a write and a delete that did not see each other wins, on every replica."""
    write = EMPTY.put(draft(1), actor="a", stamp=5, context={}, latest=True)
    early = EMPTY.put(None, actor="b", stamp=4, context={}, latest=True)
    late = EMPTY.put(None, actor="b", stamp=6, context={}, latest=True)
    assert [v.write for v in write.merge(early, latest=True).live()] == [b"w1"]
    assert write.merge(late, latest=True).live() == ()
    assert late.merge(write, latest=True).live() == ()


def test_a_counter_follows_what_the_client_has_seen() -> None:
    """It may know of dots that this record does not."""
    assert EMPTY.put(draft(1), actor="a", stamp=1).context == {"a": 1}
    assert EMPTY.put(draft(1), actor="a", stamp=1, context={"a": 9}).context == {"a": 10}


def test_a_dot_counted_on_from_lost_ones_would_drop_them() -> None:
    """Why a record that left the disk ends the actor: its context claims all earlier dots."""
    lost = EMPTY.put(draft(1), actor="a", stamp=1, context={})
    counted_on = EMPTY.put(draft(2), actor="a", stamp=2, context={"a": 1})
    assert [v.write for v in lost.merge(counted_on).live()] == [b"w2"]
    other_hand = EMPTY.put(draft(2), actor="a~1~2", stamp=2, context={})
    assert [v.write for v in lost.merge(other_hand).live()] == [b"w2", b"w1"]


@pytest.mark.parametrize("latest", [False, True])
def test_versions_come_newest_first(latest: bool) -> None:
    """By stamp, then by actor; a `latest` record has but one."""
    record = EMPTY
    for number, actor in enumerate("cab"):
        other = EMPTY.put(draft(number), actor=actor, stamp=3, context={}, latest=latest)
        record = record.merge(other, latest=latest)
    assert [v.actor for v in record.live()] == (["c"] if latest else ["c", "b", "a"])


def test_chunk_digests_are_those_of_all_versions() -> None:
    """What must be on disk for the record to be whole."""
    one = Draft(write=b"1", size=2, etag="", chunk_size=1, chunks=(b"x", b"y"))
    two = Draft(write=b"2", size=2, etag="", chunk_size=1, chunks=(b"y", b"z"))
    record = EMPTY.put(one, actor="a", stamp=1).put(two, actor="a", stamp=2, context={})
    assert record.chunk_digests() == {b"x", b"y", b"z"}
    assert record.strip().chunk_digests() == set()
    assert record.strip().same_versions(record)
