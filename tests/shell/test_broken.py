"""Damaged rows on one disk: what is answered, written and signed until they are whole again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.core.buckets import Bucket, Properties
from dynamo.core.record import EMPTY, Record
from dynamo.errors import Corrupt, MissingChunks, StorageFault
from dynamo.storage import ledger, rows
from dynamo.storage.facts import BucketTable, Identity
from dynamo.storage.hints import HintBook
from dynamo.storage.recovery import Recovery
from dynamo.wire.codec import Place
from tests.support.disk import INCARNATION, Disk, draft, failing, now, record


def damage(disk: Disk, table: str, row: bytes, at: int = -1) -> None:
    rotten = bytearray(disk.engine.tables[table].values[row])
    rotten[at] ^= 1
    disk.engine.tables[table].set(row, bytes(rotten))


def break_record(disk: Disk, key: bytes, table: str = "records", at: int = -1) -> None:
    damage(disk, table, rows.row(INCARNATION, key), at)


def heard(disk: Disk) -> list[Any]:
    """Collects what the disk reports."""
    reports: list[Any] = []
    disk.copies.damaged = lambda incarnation, key: reports.append(key)
    disk.copies.corrupt = reports.append
    return reports


def set_aside(disk: Disk, key: bytes) -> bool:
    return now(Recovery(disk.copies).set_aside(INCARNATION, key))


def mend(disk: Disk, key: bytes, known: Record) -> None:
    now(Recovery(disk.copies).mend(INCARNATION, key, known))


def signs_as(disk: Disk) -> str:
    return ledger.signs_as(disk.engine.view(), "me")


@given(st.integers(0, 10_000), st.integers(0, 7), st.sampled_from(["records", "held"]))
def test_no_bit_of_a_row_can_flip_unnoticed(at: int, bit: int, table: str) -> None:
    """A read fails; it neither serves other bytes nor says that there are none."""
    disk = Disk()
    put = disk.merge if table == "records" else lambda k, r: disk.hold("n2", k, r)
    put(b"k", record("1", "a"))
    values = disk.engine.tables[table].values
    rotten = bytearray(values[INCARNATION + b"k"])
    rotten[at % len(rotten)] ^= 1 << bit
    values[INCARNATION + b"k"] = bytes(rotten)
    with pytest.raises(Corrupt):
        disk.read(b"k")


def test_a_row_under_another_key_is_noticed() -> None:
    """Its bytes are whole, but they are not this key's."""
    disk = Disk()
    disk.put(b"k", draft("1"))
    values = disk.engine.tables["records"].values
    disk.put(b"l", draft("2"))
    values[INCARNATION + b"l"] = values[INCARNATION + b"k"]
    with pytest.raises(Corrupt):
        disk.read(b"l")


def test_a_damaged_record_stays_unread_through_everything_until_it_is_mended() -> None:
    """Set aside, merged into, restarted: `Corrupt` each time; then it is the merge of all."""
    disk = Disk()
    reports = heard(disk)
    was = disk.put(b"k", draft("1"))
    break_record(disk, b"k")
    late = record("2", "other")
    checks: list[Any] = [
        lambda: None,
        lambda: set_aside(disk, b"k"),
        lambda: disk.merge(b"k", late),
    ]
    for step in checks:
        step()
        for again in (disk, Disk(disk)):
            with pytest.raises(Corrupt):
                again.read(b"k")
            with pytest.raises(Corrupt):
                again.keys()
            with pytest.raises(Corrupt):
                again.copies.apart(INCARNATION, b"k")
    assert reports.count("record") == 1
    assert b"k" in reports
    mend(disk, b"k", was)
    assert disk.read(b"k") == was.merge(late)
    assert disk.keys() == [b"k"]
    assert not set_aside(disk, b"k")


def test_a_merge_that_meets_damage_keeps_what_it_brought() -> None:
    """It is on disk when it is acknowledged, and in the record when that is mended."""
    disk = Disk()
    reports = heard(disk)
    disk.put(b"k", draft("1"))
    break_record(disk, b"k")
    new = record("2", "other")
    assert disk.merge(b"k", new) == new
    assert reports == ["record", b"k"]
    mend(disk, b"k", EMPTY)
    assert disk.read(b"k") == new


def test_several_merges_in_one_job_meet_damage_each_for_itself() -> None:
    """The whole ones are as ever."""
    disk = Disk()
    disk.put(b"k", draft("1"))
    break_record(disk, b"k")
    one, two = record("2", "a"), record("3", "b")
    many = [(INCARNATION, b"k", one, False), (INCARNATION, b"l", two, False)]
    assert now(disk.copies.merge_all(many)) == [one, two]
    assert disk.read(b"l") == two
    with pytest.raises(Corrupt):
        disk.read(b"k")


@pytest.mark.parametrize("owner", [True, False])
def test_no_write_is_coordinated_on_a_damaged_record(owner: bool) -> None:
    """It could not replace what it is meant to; somebody else can. Nothing is written."""
    disk = Disk()
    reports = heard(disk)
    disk.put(b"k", draft("1"), owner=owner)
    break_record(disk, b"k", "records" if owner else "held")
    before = dict(disk.engine.tables["meta"].values)
    for _ in range(2):
        error = failing(
            lambda: disk.copies.coordinate(
                INCARNATION, b"k", draft("2"), actor="me", stamp=1, context=None
            )
        )
        assert isinstance(error, Corrupt)
    assert disk.engine.tables["meta"].values == before
    assert reports == [b"k", b"k"]


@pytest.mark.parametrize("table", ["records", "held"])
@pytest.mark.parametrize("first", ["set aside", "merge"])
def test_the_hand_changes_with_what_was_lost(table: str, first: str) -> None:
    """The dots given out for the key are not known any more: none of them is given out again, and
    none is claimed to have been seen."""
    disk = Disk()
    missed = [] if table == "records" else ["n2"]
    lost = disk.put(b"k", draft("1"), owner=not missed, missed_by=missed)
    break_record(disk, b"k", table)
    if first == "set aside":
        set_aside(disk, b"k")
    elif missed:
        disk.hold("n2", b"k", record("2", "other"))
    else:
        disk.merge(b"k", record("2", "other"))
    assert signs_as(disk) == "me~1~2"
    assert signs_as(Disk(disk)) == "me~1~2"
    mend(disk, b"k", EMPTY)
    made = disk.put(b"k", draft("3"), context={}, owner=not missed)
    assert "me~1~2.1" in [v.id for v in made.versions]
    assert "me" not in made.context
    assert {v.etag for v in made.merge(lost).versions} >= {"1", "3"}
    assert signs_as(disk) == "me~1~2"


def test_a_copy_that_is_dropped_damaged_changes_the_hand_too() -> None:
    """It was delivered whole and rotted before the acknowledgement."""
    disk = Disk()
    disk.put(b"k", draft("1"), owner=False, missed_by=["n2"])
    break_record(disk, b"k", "held")
    disk.drop("n2")
    assert disk.rows("held") == 0
    assert signs_as(disk) == "me~1~2"
    assert disk.copies.hints.counts == {}


def test_what_nobody_can_tell_a_client_may_overwrite() -> None:
    """A key without other owners stays unread, but can be written and deleted again."""
    disk = Disk()
    for key in (b"k", b"l"):
        disk.put(key, draft("1"))
        break_record(disk, key)
        set_aside(disk, key)
        now(Recovery(disk.copies).leave_to_clients(INCARNATION, key))
        with pytest.raises(Corrupt):
            disk.read(key)
    assert [v.etag for v in disk.put(b"k", draft("2")).versions] == ["2"]
    assert [v.etag for v in disk.read(b"k").versions] == ["2"]
    disk.put(b"l", None)
    assert disk.read(b"l").live() == ()


def test_a_mended_record_needs_its_chunks() -> None:
    """As any other: `MissingChunks`, and it stays damaged."""
    disk = Disk()
    disk.put(b"k", draft("1"))
    break_record(disk, b"k")
    one = disk.chunk(b"one")
    disk.chunks.delete(one)
    whole = record("2", "a", 1, one)
    with pytest.raises(MissingChunks):
        mend(disk, b"k", whole)
    with pytest.raises(Corrupt):
        disk.read(b"k")
    disk.chunk(b"one")
    mend(disk, b"k", whole)
    assert disk.read(b"k") == whole


def test_chunks_of_a_damaged_record_are_kept_and_counted_anew_at_the_next_start() -> None:
    """None is freed that somebody needs; afterwards none is kept that nobody does."""
    disk = Disk()
    one, two = disk.chunk(b"one"), disk.chunk(b"two")
    was = disk.put(b"k", draft("1", b"", one))
    disk.put(b"l", draft("2", b"12345", two))
    break_record(disk, b"k")
    set_aside(disk, b"k")
    assert Disk(disk).copies.sweep() == 0
    mend(disk, b"k", was)
    assert disk.copies.totals() == (2, 7)
    disk.put(b"k", None)
    assert one in disk.chunks.stored
    again = Disk(disk)
    assert again.copies.sweep() == 1
    assert set(again.chunks.stored) == {two}
    assert again.references(one, two) == [0, 1]
    assert again.copies.totals() == (1, 6)
    assert not ledger.doubtful(again.engine.view())


def test_a_damaged_count_frees_nothing() -> None:
    """Whatever it was: the chunk stays."""
    disk = Disk()
    one = disk.chunk(b"one")
    disk.put(b"k", draft("1", b"", one))
    damage(disk, "refs", one)
    disk.put(b"k", None)
    assert one in disk.chunks.stored


def test_a_deleted_bucket_is_freed_with_its_damaged_records() -> None:
    """The reaper does not get stuck on them."""
    disk = Disk()
    for key in (b"k", b"l", b"m"):
        disk.put(key, draft("1"))
    break_record(disk, b"k")
    break_record(disk, b"l")
    set_aside(disk, b"l")
    assert now(disk.copies.forget(INCARNATION)) == 3
    assert disk.rows("records") == 0


def test_a_damaged_hint_is_no_hint_until_its_key_is_found() -> None:
    """It is left out of batches, and neither dropped nor taken for another."""
    disk = Disk()
    disk.hold("n2", b"k", record("1", "a"))
    (row,) = disk.engine.tables["hints"].values
    damage(disk, "hints", row)
    assert disk.copies.hints.batch(disk.engine.view(), "n2", b"", 10) == []
    now(Recovery(disk.copies).renew_hints([(row, b"k")]))
    ((_, hint),) = disk.copies.hints.batch(disk.engine.view(), "n2", b"", 10)
    assert hint.key == b"k"
    disk.drop("n2")
    assert disk.copies.hints.counts == {}
    assert disk.rows("held") == 0


def test_a_damaged_hint_is_noted_again_above_what_may_be_under_way() -> None:
    """An acknowledgement of the one before does not take the news with it."""
    disk = Disk()
    disk.hold("n2", b"k", record("1", "a"))
    ((row, before),) = disk.copies.hints.batch(disk.engine.view(), "n2", b"", 10)
    damage(disk, "hints", row)
    disk.hold("n2", b"k", record("2", "b"))
    now(disk.copies.drop_hints("n2", "me", [before]))
    assert disk.copies.hints.counts == {"n2": 1}
    assert HintBook(disk.engine.view()).counts == {"n2": 1}


def test_a_void_hint_is_counted_no_more() -> None:
    """And one that is whole is left alone."""
    disk = Disk()
    disk.hold("n2", b"k", record("1", "a"))
    (row,) = disk.engine.tables["hints"].values
    now(Recovery(disk.copies).void_hints([row]))
    assert disk.copies.hints.counts == {"n2": 1}
    damage(disk, "hints", row)
    now(Recovery(disk.copies).void_hints([row]))
    assert disk.copies.hints.counts == {}


def identity(disk: Disk) -> Identity:
    return Identity(disk.engine, disk.copies.committer)


@pytest.mark.parametrize("fact", [b"actor", b"incarnation", b"hand"])
def test_a_node_that_does_not_know_itself_does_not_start(fact: bytes) -> None:
    """It might sign as somebody else; one sentence says what to do."""
    disk = Disk()
    now(identity(disk).save("me", "demo/64"))
    now(identity(disk).save_incarnation(5, 7))
    disk.put(b"k", draft("1"), owner=False, missed_by=["n2"])
    disk.drop("n2")
    again = identity(disk)
    again.load()
    assert (again.actor, again.number, again.incarnation) == ("me", 5, 7)
    damage(disk, "meta", fact)
    with pytest.raises(Corrupt, match="empty data_dir"):
        identity(disk).load()


def test_a_node_that_forgot_the_members_starts_and_asks_its_seeds() -> None:
    """Nothing depends on what it remembers of them."""
    disk = Disk()
    now(identity(disk).save("me", "demo/64"))
    now(identity(disk).save_remembered([]))
    damage(disk, "meta", b"remembered")
    again = identity(disk)
    again.load()
    assert again.actor == "me"


def test_a_directory_of_an_earlier_version_is_refused() -> None:
    """In a sentence; its rows are not taken for damaged ones."""
    disk = Disk()
    disk.engine.tables["meta"].set(b"actor", b"me")
    with pytest.raises(StorageFault, match="earlier version"):
        identity(disk).load()


def test_a_damaged_bucket_is_left_to_the_exchange_with_others() -> None:
    """It is unknown until somebody tells; then it is whole on disk again."""
    disk = Disk()
    made = Bucket("b").create(1, 1, Properties())
    table = BucketTable(disk.engine, disk.copies.committer)
    now(table.merge([made]))
    damage(disk, "buckets", b"b")
    again = BucketTable(disk.engine, disk.copies.committer)
    again.load()
    assert again.states == {}
    now(again.merge([made]))
    once_more = BucketTable(disk.engine, disk.copies.committer)
    once_more.load()
    assert once_more.states == {"b": made}


def test_a_bucket_damaged_while_the_node_runs_is_written_again_from_memory() -> None:
    """With the next news of it, though that is none."""
    disk = Disk()
    made = Bucket("b").create(1, 1, Properties())
    table = BucketTable(disk.engine, disk.copies.committer)
    now(table.merge([made]))
    damage(disk, "buckets", b"b")
    assert now(table.merge([Bucket("b")])) == [made]
    again = BucketTable(disk.engine, disk.copies.committer)
    again.load()
    assert again.states == {"b": made}


def test_where_the_scrub_was_survives_a_restart_and_damage_sends_it_back() -> None:
    """To the beginning."""
    disk = Disk()
    assert ledger.scrubbing(disk.engine.view()) == Place()
    now(Recovery(disk.copies).write_down(Place(2, INCARNATION, b"k")))
    assert ledger.scrubbing(Disk(disk).engine.view()) == Place(2, INCARNATION, b"k")
    damage(disk, "meta", b"scrubbing")
    assert ledger.scrubbing(disk.engine.view()) == Place()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "merge", "break", "mend", "set aside", "hold", "drop"]),
        st.sampled_from([b"k", b"m" * 600]),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(STEPS)
def test_whatever_breaks_no_dot_is_given_twice_and_nothing_taken_is_lost(steps: Any) -> None:
    """Beside the disk stands a peer that is told of every write, as a replica would be."""
    disk = Disk()
    peer: dict[bytes, Record] = {}
    dots: list[str] = []
    for number, (kind, key) in enumerate(steps):
        made = draft(str(number))
        try:
            if kind == "put":
                new = disk.put(key, made, context={})
                dots += [f"{v.id} of {key!r}" for v in new.versions if v.write == made.write]
                peer[key] = peer.get(key, EMPTY).merge(new)
            elif kind == "merge":
                peer[key] = peer.get(key, EMPTY).merge(record(str(number), f"a{number}"))
                disk.merge(key, record(str(number), f"a{number}"))
            elif kind == "hold":
                peer[key] = peer.get(key, EMPTY).merge(record(str(number), f"a{number}"))
                disk.hold("n2", key, record(str(number), f"a{number}"))
            elif kind == "drop":
                disk.drop("n2")
            elif kind == "break":
                table = "records" if number % 2 else "held"
                if rows.row(INCARNATION, key) in disk.engine.tables[table].values:
                    break_record(disk, key, table)
            elif kind == "set aside":
                set_aside(disk, key)
            else:
                mend(disk, key, peer.get(key, EMPTY))
        except Corrupt:
            assert kind == "put"
    assert len(set(dots)) == len(dots)
    for key in (b"k", b"m" * 600):
        mend(disk, key, peer.get(key, EMPTY))
        held = peer.get(key, EMPTY).merge(disk.read(key))
        ids = {v.etag for v in peer.get(key, EMPTY).versions}
        assert {v.etag for v in held.versions} == ids
