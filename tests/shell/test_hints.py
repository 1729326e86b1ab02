"""Hints: nothing is forgotten before it was acknowledged, and nothing kept after."""

from __future__ import annotations

from dynamo.core.record import EMPTY
from dynamo.wire.codec import Hint
from tests.support.disk import INCARNATION, Disk, draft, now, record


def hints(disk: Disk, target: str) -> list[Hint]:
    return [h for _, h in disk.copies.hints.batch(disk.engine.view(), target, b"", 1000)]


def drop(disk: Disk, target: str, delivered: list[Hint]) -> None:
    now(disk.copies.drop_hints(target, "me", delivered))


def test_a_hint_is_kept_with_its_copy() -> None:
    """For the target and the key, once, whatever comes in addition."""
    disk = Disk()
    for number in range(3):
        disk.hold("n2", b"k", record(str(number), f"a{number}"))
    assert [(h.incarnation, h.key) for h in hints(disk, "n2")] == [(INCARNATION, b"k")]
    assert disk.copies.hints.counts == {"n2": 1}
    assert len(disk.read(b"k").versions) == 3
    assert disk.copies.hints.any()


def test_a_delivered_hint_goes_with_its_copy() -> None:
    """And then nothing of it is left but the new hand to sign with, if it had been needed."""
    disk = Disk()
    disk.hold("n2", b"k", record("1"))
    drop(disk, "n2", hints(disk, "n2"))
    assert disk.read(b"k") == EMPTY
    assert disk.copies.hints.counts == {}
    assert not disk.copies.hints.any()
    assert (disk.rows("hints"), disk.rows("held"), disk.rows("refs")) == (0, 0, 0)


def test_a_hint_with_news_since_it_was_read_stays() -> None:
    """Dropped only if its sequence is the one that was delivered."""
    disk = Disk()
    disk.hold("n2", b"k", record("1", "a"))
    delivered = hints(disk, "n2")
    disk.hold("n2", b"k", record("2", "b"))
    drop(disk, "n2", delivered)
    assert disk.copies.hints.counts == {"n2": 1}
    assert len(disk.read(b"k").versions) == 2
    drop(disk, "n2", hints(disk, "n2"))
    assert disk.copies.hints.counts == {}


def test_a_copy_stays_while_another_target_needs_it() -> None:
    """Several owners share it; the last acknowledgement frees it."""
    disk = Disk()
    chunk = disk.chunk(b"c")
    for target in ("n2", "n3", "n4"):
        disk.hold(target, b"k", record("1", "a", 1, chunk))
    assert disk.references(chunk) == [1]
    for target, left in (("n3", 1), ("n2", 1), ("n4", 0)):
        drop(disk, target, hints(disk, target))
        assert disk.references(chunk) == [left]
        assert disk.read(b"k").known() is bool(left)
    assert disk.chunks.stored == {}


def test_what_an_owner_notes_for_another_is_its_own_record() -> None:
    """Dropping the hint leaves the owned copy alone."""
    disk = Disk()
    disk.put(b"k", draft("1"), missed_by=["n2", "n3"])
    now(disk.copies.note_missed("n4", INCARNATION, b"k"))
    assert disk.copies.hints.counts == {"n2": 1, "n3": 1, "n4": 1}
    for target in ("n2", "n3", "n4"):
        drop(disk, target, hints(disk, target))
    assert disk.read(b"k").live()
    assert disk.copies.hints.counts == {}


def test_dropping_what_is_not_there_is_nothing() -> None:
    """A second acknowledgement, another key, another target."""
    disk = Disk()
    disk.hold("n2", b"k", record("1"))
    delivered = hints(disk, "n2")
    drop(disk, "n3", delivered)
    drop(disk, "n2", [Hint(0, INCARNATION, b"other")])
    assert disk.copies.hints.counts == {"n2": 1}
    drop(disk, "n2", delivered)
    drop(disk, "n2", delivered)
    assert disk.copies.hints.counts == {}


def test_a_batch_goes_on_where_the_last_one_ended() -> None:
    """Every hint of the target once, none of another's."""
    disk = Disk()
    for i in range(25):
        disk.hold("n2", b"%02d" % i, record(str(i)))
        disk.hold("n3", b"x%02d" % i, record(str(i)))
    found, after = [], b""
    while batch := disk.copies.hints.batch(disk.engine.view(), "n2", after, 10):
        assert len(batch) <= 10
        found += [hint.key for _, hint in batch]
        after = batch[-1][0]
    assert sorted(found) == [b"%02d" % i for i in range(25)]
    assert len(found) == 25


def test_counts_are_known_again_after_a_restart() -> None:
    """By target, only of those that have any."""
    disk = Disk()
    for i in range(3):
        disk.hold("n2", b"%d" % i, record(str(i)))
    disk.hold("n3", b"k", record("k"))
    drop(disk, "n3", hints(disk, "n3"))
    again = Disk(disk)
    assert again.copies.hints.counts == {"n2": 3}
    assert again.copies.hints.targets_of(again.engine.view(), INCARNATION, b"1") == ("n2",)
    drop(again, "n2", hints(again, "n2"))
    assert again.copies.hints.counts == {}


def test_long_keys_are_hinted_and_held_like_short_ones() -> None:
    """Two that share a long beginning do not meet."""
    disk = Disk()
    keys = [b"k" * 1000 + b"%d" % i for i in range(3)]
    for key in keys:
        disk.hold("n2", key, record(key.decode()))
    assert sorted(h.key for h in hints(disk, "n2")) == keys
    drop(disk, "n2", hints(disk, "n2")[:1])
    assert sum(1 for key in keys if disk.read(key).known()) == 2
