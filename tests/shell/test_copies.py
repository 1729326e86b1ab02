"""This node's copies: what is read, counted, referred to and freed, on a store in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.logger import globalLogPublisher

from dynamo.core.record import EMPTY
from dynamo.errors import MissingChunks, NotReady, StorageFull
from dynamo.storage import lmdb_engine
from dynamo.storage.committer import GATHER_EACH_S, Committer
from dynamo.storage.effects import Effects
from dynamo.storage.engine import Transaction
from dynamo.storage.lmdb_engine import LmdbEngine
from dynamo.storage.owned import own
from dynamo.storage.places import PlaceBook, place
from dynamo.storage.threads import run_here
from tests.support.disk import INCARNATION, Disk, draft, failing, now, record


def test_owned_and_held_are_read_as_one() -> None:
    """A stand-in's copy is as readable as an owner's; apart they stay what they are."""
    disk = Disk()
    own, other = record("own", "a"), record("other", "b")
    disk.merge(b"k", own)
    disk.hold("n2", b"k", other)
    assert disk.read(b"k") == own.merge(other)
    assert disk.copies.apart(INCARNATION, b"k") == (own, other, ("n2",))
    assert disk.read(b"none") == EMPTY


def test_a_write_goes_on_from_all_that_is_held_here() -> None:
    """No dot is given twice, and a write without context replaces copies of either kind."""
    disk = Disk()
    disk.put(b"k", draft("1"), context={})
    disk.put(b"k", draft("2"), context={}, owner=False, missed_by=["n2"])
    third = disk.put(b"k", draft("3"), context={})
    assert sorted(v.id for v in third.versions) == ["me.1", "me.2", "me.3"]
    last = disk.put(b"k", draft("4"))
    assert [v.id for v in last.versions] == ["me.4"]
    assert [v.id for v in disk.read(b"k").versions] == ["me.4"]


def test_stamps_lie_above_what_they_replace_and_are_noted_when_they_come_in() -> None:
    """ "Newest" follows causality even where a clock is behind."""
    disk = Disk()
    disk.merge(b"k", record("1", stamp=500))
    disk.hold("n2", b"l", record("2", stamp=700))
    assert disk.seen == [500, 700]
    assert disk.put(b"k", draft("3"), stamp=7).versions[0].stamp == 501
    assert disk.put(b"m", draft("4"), stamp=7).versions[0].stamp == 7


def test_the_same_write_again_changes_nothing() -> None:
    """A retry finds its version, whichever kind of copy it is in; its hints are noted all the
    same."""
    disk = Disk()
    first = disk.put(b"k", draft("1"), owner=False, missed_by=["n2"])
    again = disk.put(b"k", draft("1"), missed_by=["n3"])
    assert again == first
    assert disk.copies.hints.counts == {"n2": 1, "n3": 1}


def test_a_record_is_stored_only_with_its_chunks() -> None:
    """`MissingChunks` names what is lacking, and nothing was changed."""
    disk = Disk()
    here, absent = disk.chunk(b"here"), b"absent".ljust(32)
    whole = record("1", "a", 1, here, absent)
    calls: list[Any] = [
        lambda: disk.copies.merge(INCARNATION, b"k", whole),
        lambda: disk.copies.hold_for("n2", INCARNATION, b"k", whole),
        lambda: disk.copies.coordinate(
            INCARNATION, b"k", draft("1", b"", absent), actor="me", stamp=1, context=None
        ),
    ]
    for call in calls:
        error = failing(call)
        assert isinstance(error, MissingChunks)
        assert error.digests == (absent,)
    assert disk.read(b"k") == EMPTY
    assert disk.copies.hints.counts == {}
    assert disk.references(here, absent) == [0, 0]


def test_chunks_are_counted_by_record_and_freed_with_the_last() -> None:
    """Owned and held copies refer to them each for itself."""
    disk = Disk()
    one, two = disk.chunk(b"one"), disk.chunk(b"two")
    disk.put(b"k", draft("1", b"", one, two))
    disk.put(b"l", draft("2", b"", one, one))
    disk.hold("n2", b"k", record("3", "a", 1, one))
    assert disk.references(one, two) == [3, 1]
    disk.put(b"k", draft("4"))
    assert disk.references(one, two) == [2, 0]
    assert set(disk.chunks.stored) == {one}
    disk.put(b"l", None)
    assert set(disk.chunks.stored) == {one}
    disk.drop("n2")
    assert disk.references(one) == [0]
    assert disk.chunks.stored == {}


def test_chunks_that_cannot_be_freed_fail_no_write() -> None:
    """A node that is stopping leaves them to the sweep of its next start, and says so once."""
    disk = Disk()
    disk.put(b"k", draft("1", b"", disk.chunk(b"one")))
    heard: list[dict[str, Any]] = []
    disk.copies.alone = lambda call: fail(NotReady("This node is stopping."))
    globalLogPublisher.addObserver(heard.append)
    try:
        assert disk.put(b"k", draft("2")).live()
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(heard.append)
    assert not [event for event in heard if "log_failure" in event]
    assert len(disk.chunks.stored) == 1


def test_the_same_content_again_keeps_its_chunks() -> None:
    """Replacing a file by equal bytes frees nothing."""
    disk = Disk()
    one = disk.chunk(b"one")
    disk.put(b"k", draft("1", b"", one))
    disk.put(b"k", draft("2", b"", one))
    assert disk.references(one) == [1]
    assert set(disk.chunks.stored) == {one}


def test_discarding_spares_what_a_record_names() -> None:
    """An upload that failed takes no other file's chunks along."""
    disk = Disk()
    kept, unused = disk.chunk(b"kept"), disk.chunk(b"unused")
    disk.put(b"k", draft("1", b"", kept))
    now(disk.copies.discard([kept, unused, b"never there".ljust(32)]))
    assert set(disk.chunks.stored) == {kept}


def test_the_delete_of_an_absent_key_leaves_nothing() -> None:
    """Neither as owner nor as stand-in: no row, no hint."""
    disk = Disk()
    disk.put(b"k", None, missed_by=["n2"])
    disk.put(b"k", None, owner=False, missed_by=["n2"])
    disk.hold("n2", b"k", EMPTY)
    view = disk.engine.view()
    assert [list(view.scan(table, b"")) for table in ("records", "held", "hints")] == [[], [], []]
    assert disk.copies.hints.counts == {}


def test_the_delete_of_a_version_seen_elsewhere_is_kept() -> None:
    """What its context says must not come back when it arrives."""
    disk = Disk()
    version = record("1", "a")
    disk.put(b"k", None, context=version.context, missed_by=["n2"])
    disk.merge(b"k", version)
    assert disk.read(b"k").versions == ()
    assert disk.copies.hints.counts == {"n2": 1}


def test_a_batch_of_merges_counts_as_so_many_writes() -> None:
    """It is one job, and as much load as if each had come alone: the next commit waits for it."""
    disk, waits = Disk(), list[float]()
    disk.copies.committer = Committer(
        disk.engine, run_here, call_later=lambda seconds, call: waits.append(seconds)
    )
    disk.copies.committer.last_job = lambda txn: None
    many = [(INCARNATION, b"%d" % n, record(f"{n}", "a"), False) for n in range(3)]
    now(disk.copies.merge_all(many))
    assert waits == [3 * GATHER_EACH_S]


def test_deleting_frees_chunks_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is less room than the store keeps in reserve, nothing else would make any."""
    disk = Disk()
    disk.copies.engine = engine = LmdbEngine(tmp_path, reserve_bytes=1 << 20)
    disk.copies.committer = Committer(engine, run_here)
    chunk = disk.chunk(b"large")
    disk.put(b"k", draft("1", b"", chunk))
    monkeypatch.setattr(lmdb_engine, "bytes_free", lambda path: 1 << 19)
    disk.put(b"k", None)
    assert disk.chunks.stored == {}
    engine.close()


def test_a_start_sweeps_what_no_record_names() -> None:
    """Chunks of owned and held copies stay."""
    disk = Disk()
    own, held = disk.chunk(b"own"), disk.chunk(b"held")
    disk.put(b"k", draft("1", b"", own))
    disk.hold("n2", b"l", record("2", "a", 1, held))
    disk.chunk(b"left over")
    again = Disk(disk)
    assert again.copies.sweep() == 1
    assert set(again.chunks.stored) == {own, held}


def test_totals_count_files_and_bytes_owned() -> None:
    """Not what is held for others, not deleted files; siblings count their bytes."""
    disk = Disk()
    disk.put(b"k", draft("1", b"123"))
    disk.put(b"k", draft("2", b"45"), context={})
    disk.put(b"l", draft("3", b"6"))
    disk.hold("n2", b"m", record("4"))
    assert disk.copies.totals() == (2, 6)
    disk.put(b"k", None)
    assert disk.copies.totals() == (1, 1)
    disk.put(b"l", None, latest=True)
    assert disk.copies.totals() == (0, 0)
    disk.put(b"l", draft("5", b"78"))
    assert Disk(disk).copies.totals() == (1, 2)


def test_a_scan_joins_owned_and_held_in_key_order() -> None:
    """Each key once, also keys longer than a row, from anywhere, with a prefix."""
    disk = Disk()
    long = b"l" * 600
    disk.put(b"a", draft("1"))
    disk.put(long, draft("2"))
    disk.hold("n2", b"a", record("3", "a"))
    disk.hold("n2", b"b", record("4", "a"))
    disk.hold("n2", long + b"!", record("5", "a"))
    assert disk.keys() == [b"a", b"b", long, long + b"!"]
    assert disk.keys(after=b"a") == [b"b", long, long + b"!"]
    assert disk.keys(after=long) == [long + b"!"]
    assert disk.keys(prefix=long[:500]) == [long, long + b"!"]
    assert disk.keys(after=b"c", prefix=b"b") == []
    both = dict(disk.copies.scan(INCARNATION, b"", b""))
    assert both[b"a"] == disk.read(b"a")
    assert list(disk.copies.scan(b"bucket-2", b"", b"")) == []


def test_forgetting_a_bucket_takes_rows_chunks_and_totals_along() -> None:
    """A stretch at a time, and nothing of other buckets."""
    disk = Disk()
    one = disk.chunk(b"one")
    for i in range(5):
        disk.put(b"%d" % i, draft(str(i), b"", one))
    now(
        disk.copies.coordinate(
            b"bucket-2", b"k", draft("x", b"12"), actor="me", stamp=1, context=None
        )
    )
    assert [now(disk.copies.forget(INCARNATION, limit=3)) for _ in range(3)] == [3, 2, 0]
    assert disk.keys() == []
    assert disk.chunks.stored == {}
    assert disk.copies.totals() == (1, 2)


def test_room_runs_out_for_puts_and_not_for_deletes() -> None:
    """What frees space goes through on a full disk."""
    disk = Disk()
    disk.put(b"k", draft("1", bytes(1000)))
    disk.engine.bytes_max = disk.engine.bytes_used()
    with pytest.raises(StorageFull):
        disk.put(b"l", draft("2", bytes(1000)))
    with pytest.raises(StorageFull):
        disk.hold("n2", b"l", record("2"))
    assert disk.copies.hints.counts == {}
    disk.put(b"k", None)
    assert disk.read(b"k").live() == ()


def test_totals_and_changes_are_of_what_was_committed() -> None:
    """A commit that finds no room is done again without the jobs that need it, and a job that fails
    is undone: neither counts, nor is a key named that nothing was stored of."""
    disk = Disk()
    disk.put(b"k", draft("1", bytes(1000)))
    disk.engine.bytes_max = disk.engine.bytes_used() + 500
    copies = disk.copies
    held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def hold(call: Callable[[], Any]) -> Deferred[Any]:
        held.append((call, Deferred()))
        return held[-1][1]

    def fail_late(txn: Transaction, effects: Effects) -> None:
        own(txn, effects, INCARNATION, b"m", EMPTY, record("3"))
        raise RuntimeError("after it has written")

    copies.committer._run = hold
    alone = copies.merge(INCARNATION, b"first", record("0"))
    full = copies.coordinate(
        INCARNATION, b"l", draft("2", bytes(5000)), actor="me", stamp=2, context=None
    )
    gone = copies.coordinate(INCARNATION, b"k", None, actor="me", stamp=3, context=None)
    failed = copies.submit(fail_late, frees_space=True)
    while held:
        call, done = held.pop(0)
        done.callback(call())
    assert now(alone).known()
    for refused, why in ((full, StorageFull), (failed, RuntimeError)):
        with pytest.raises(why):
            now(refused)
    assert now(gone).live() == ()
    assert copies.totals() == (1, 0)
    named = PlaceBook(disk.engine.view()).pending
    assert set(named) == {place(INCARNATION, b"first"), place(INCARNATION, b"k")}


def test_in_a_latest_bucket_one_version_stays() -> None:
    """Owned and held copies alike keep the highest stamp."""
    disk = Disk()
    disk.merge(b"k", record("new", "a", 9), latest=True)
    disk.merge(b"k", record("old", "b", 5), latest=True)
    disk.hold("n2", b"l", record("new", "a", 9), latest=True)
    disk.hold("n2", b"l", record("old", "b", 5), latest=True)
    for key in (b"k", b"l"):
        assert [v.etag for v in disk.read(key).versions] == ["new"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "hold", "delete", "drop", "stand in"]),
        st.sampled_from([b"k", b"l", b"m" * 600]),
        st.sampled_from(["n2", "n3"]),
        st.frozensets(st.sampled_from([b"1", b"2", b"3"]), max_size=2),
    ),
    max_size=20,
)


@settings(max_examples=150)
@given(STEPS)
def test_the_ledger_is_what_a_count_from_scratch_would_find(steps: list[Any]) -> None:
    """References, totals, chunks and hint counts agree with the rows after any work, and no dot
    is given out twice."""
    disk = Disk()
    dots: list[str] = []
    for number, (kind, key, target, contents) in enumerate(steps):
        chunks = [disk.chunk(content) for content in sorted(contents)]
        made = draft(str(number), b"", *chunks)
        if kind in ("put", "stand in"):
            missed = [target] if kind == "stand in" else []
            new = disk.put(key, made, context={}, owner=not missed, missed_by=missed)
            dots += [f"{v.id} of {key!r}" for v in new.versions if v.write == made.write]
        elif kind == "hold":
            disk.hold(target, key, record(str(number), f"a{number}", 1, *chunks))
        elif kind == "delete":
            disk.put(key, None)
        else:
            disk.drop(target)
        now(disk.copies.discard(chunks))
    check(disk)
    assert len(set(dots)) == len(dots)


def check(disk: Disk) -> None:
    records, hinted = [], 0
    for key in (b"k", b"l", b"m" * 600):
        owned, held, targets = disk.copies.apart(INCARNATION, key)
        records += [owned, held]
        hinted += len(targets)
    named = [digest for r in records for digest in r.chunk_digests()]
    assert set(disk.chunks.stored) == set(named)
    for digest in set(named):
        assert disk.references(digest) == [named.count(digest)]
    assert disk.rows("refs") == len(set(named))
    owned_only = [r for r in records[::2] if r.live()]
    assert disk.copies.totals()[0] == len(owned_only)
    assert sum(disk.copies.hints.counts.values()) == hinted == disk.rows("hints")
    assert Disk(disk).copies.hints.counts == disk.copies.hints.counts


@pytest.mark.parametrize("owner", [True, False])
def test_a_delete_of_what_nobody_knows_leaves_no_row(owner: bool) -> None:
    """Nothing would ever take such a row away again: there is no copy to hand on."""
    disk = Disk()
    disk.put(b"k", None, owner=owner, missed_by=[] if owner else ["n2"])
    view = disk.copies.engine.view()
    assert [*view.scan("records", b""), *view.scan("held", b"")] == []
