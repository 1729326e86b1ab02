"""What the oracle says of single commits: dots used twice, records that shrink, copies dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dynamo.core.buckets import Bucket, Properties
from dynamo.core.record import Draft, Record
from dynamo.sim.history import History, Write, body_of, etag_of
from dynamo.sim.oracle.registry import Changes, Registry
from dynamo.sim.tally import Tally
from dynamo.storage import hints, rows
from dynamo.wire.codec import HINT, KEEPING, STATE, Hint

MADE = Bucket("b").create(1, 1, Properties())


class Drives:
    """Two drives that commit what a test says, and the tally of what was said of it."""

    def __init__(self, made: Bucket = MADE) -> None:
        self.history, self.tally = History(), Tally()
        self.registry = Registry(self.history, self.tally, lambda: 1.0)
        self._hooks: dict[str, Callable[[Changes], None]] = {}
        self.watch("n1")
        self.watch("n2")
        self.commit("n1", "buckets", b"b", None, STATE.encode(b"b", made))

    def watch(self, name: str) -> None:
        self._hooks[name] = self.registry.watch(name)

    def commit(self, at: str, table: str, row: bytes, old: Any, new: Any, **more: Any) -> None:
        self._hooks[at]({table: {row: (old, new)}, **more})

    def keep(self, at: str, record: Record, *, table: str = "records", key: str = "k") -> None:
        self.commit(at, table, self.row(key), None, KEEPING[table].encode(self.row(key), record))

    def drop(self, at: str, *, table: str = "records", key: str = "k", **more: Any) -> None:
        self.commit(at, table, self.row(key), b"?", None, **more)

    def note(self, at: str, target: str, key: str = "k", sequence: int = 0) -> bytes:
        """Gives a drive a hint; returns its row."""
        row = hints.place(target, MADE.incarnation, key.encode())
        hint = HINT.encode(row, Hint(sequence, MADE.incarnation, key.encode()))
        self.commit(at, "hints", row, None, hint)
        return row

    def row(self, key: str = "k") -> bytes:
        return rows.row(MADE.incarnation, key.encode())

    def write(self, name: str, key: str = "k") -> Draft:
        body = body_of(name, 30)
        self.history.begin(Write(name, "b", key, 0, "n1", 0.0, body=body))
        return Draft(write=name.encode(), size=30, etag=etag_of(body), body=body)

    def broken(self) -> list[str]:
        return [violation.invariant for violation in self.tally.violations]


def put(record: Record, draft: Draft, actor: str = "n1", **more: Any) -> Record:
    return record.put(draft, actor=actor, stamp=5, **more)


def test_records_that_grow_are_well() -> None:
    """And what they hold is known by write and by drive."""
    drives = Drives()
    first = put(Record(), drives.write("w1"))
    drives.keep("n1", first)
    drives.keep("n2", first)
    drives.keep("n1", put(first, drives.write("w2")))
    assert drives.broken() == []
    assert drives.tally.exercised["I5"] == 3
    assert drives.tally.exercised["I7"] == 1
    assert drives.registry.dots["w1"] == {(drives.row(), "n1", 1)}
    assert drives.registry.holders((drives.row(), "n1", 1)) == ["n1", "n2"]
    assert drives.registry.holders((drives.row(), "n1", 2)) == ["n1"]
    assert drives.registry.covering(drives.row(), {"n1": 1}) == ["n1"], "n2 shows it still"
    assert drives.registry.covering(drives.row(), {"n1": 2}) == []
    drives.keep("n2", Record({"n1": 2}))
    assert drives.registry.covering(drives.row(), {"n1": 2}) == ["n2"]


def test_a_dot_of_two_writes_is_told() -> None:
    """Wherever the second one turns up; of two keys it is two dots."""
    drives = Drives()
    drives.keep("n1", put(Record(), drives.write("w1")))
    drives.keep("n2", put(Record(), drives.write("w3", "l")), key="l")
    assert drives.broken() == []
    drives.keep("n2", put(Record(), drives.write("w2")))
    assert drives.broken() == ["I5"]
    assert "w1" in drives.tally.violations[0].text
    assert "w2" in drives.tally.violations[0].text


def test_a_write_of_two_dots_was_tried_twice() -> None:
    drives = Drives()
    draft = drives.write("w1")
    drives.keep("n1", put(Record(), draft))
    assert not drives.history.writes["w1"].twice
    drives.keep("n2", put(Record(), draft, "n2"))
    assert drives.history.writes["w1"].twice
    assert drives.broken() == []


def test_a_record_that_forgets_is_told() -> None:
    """Its context shrank, or a version went that nothing replaced."""
    first = Drives()
    old = put(Record(), first.write("w1"))
    first.keep("n1", put(old, first.write("w2")))
    first.keep("n1", old)
    assert first.broken() == ["I7"]
    second = Drives()
    old = put(Record(), second.write("w1"))
    second.keep("n1", put(old, second.write("w2"), context={}))
    second.keep("n1", Record({"n1": 2}, old.versions))
    assert second.broken() == []  # known and not there: a delete says just that
    second.keep("n1", put(Record({"n1": 2}, ()), second.write("w3"), context={}))
    second.keep("n1", Record({"n1": 4}, ()))
    assert second.broken() == []
    second.keep("n1", Record({"n1": 4}, old.versions))
    assert second.broken() == ["I7"]


def test_an_owner_drops_nothing_while_the_bucket_is_there() -> None:
    drives = Drives()
    record = put(Record(), drives.write("w1"))
    drives.keep("n1", record)
    drives.drop("n1")
    assert drives.broken() == ["I7"]
    drives.keep("n1", record)
    drives.commit("n2", "buckets", b"b", None, STATE.encode(b"b", MADE.delete(2)))
    drives.drop("n1")
    assert drives.broken() == ["I7"]


@pytest.mark.parametrize("delivered", [True, False])
def test_a_stand_in_drops_what_its_target_has(delivered: bool) -> None:
    drives = Drives()
    record = put(Record(), drives.write("w1"))
    drives.keep("n1", record, table="held")
    if delivered:
        drives.keep("n2", record)
    place = hints.place("n2", MADE.incarnation, b"k")
    hint = HINT.encode(place, Hint(0, MADE.incarnation, b"k"))
    drives.drop("n1", table="held", hints={place: (hint, None)})
    assert drives.broken() == ([] if delivered else ["I7"])


class Spoilt:
    """A drive that was wiped, or of which these records are left."""

    def __init__(self, left: dict[bytes, bytes] | None = None) -> None:
        self.left = left or {}

    def get(self, table: str, key: bytes) -> bytes | None:
        return None

    def scan(self, table: str, start: bytes) -> list[tuple[bytes, bytes]]:
        return list(self.left.items()) if table == "records" else []


def test_what_only_a_lost_disk_had_cannot_be_kept() -> None:
    """And nothing else is excused."""
    drives = Drives()
    only = put(Record(), drives.write("w1"))
    both = put(Record(), drives.write("w2", "l"))
    drives.keep("n1", only)
    drives.keep("n1", both, key="l")
    drives.keep("n2", both, key="l")
    drives.registry.reread("n1", Spoilt())
    assert drives.registry.losses.unkeepable == {"w1"}
    assert drives.registry.losses.lost == {drives.row(): [{"n1": 1}]}
    assert drives.registry.holders((drives.row("l"), "n1", 1)) == ["n2"]
    drives.keep("n1", both, key="l")
    assert drives.broken() == []


LATEST = Bucket("b").create(1, 1, Properties(conflicts="latest"))


def test_a_new_write_wins_over_what_its_coordinator_held() -> None:
    """I1, where the latest wins: whatever the clock says."""
    drives = Drives(LATEST)
    first = drives.write("w1")
    old = Record().put(first, actor="n1", stamp=50, latest=True)
    drives.keep("n1", old)
    drives.keep("n1", old.put(drives.write("w2"), actor="n1", stamp=51, latest=True))
    assert drives.broken() == []
    lost = Drives(LATEST)
    old = Record().put(lost.write("w1"), actor="n1", stamp=50, latest=True)
    lost.keep("n1", old)
    lost.keep("n1", old.put(lost.write("w2"), actor="n1", stamp=49, latest=True))
    assert lost.broken() == ["I1"]


def test_a_hint_goes_when_its_target_knows_what_was_to_be_told() -> None:
    """What was known when it was noted last; more than that may be news from elsewhere. Nothing is
    said of one that does not own the key, or of a disk that was put back since."""
    for case, told in (("all", []), ("less", ["I7"]), ("other", []), ("put back", [])):
        drives = Drives()
        drives.registry.owners = lambda row, case=case: ("n1", "" if case == "other" else "n2")
        first = put(Record(), drives.write("w1"))
        second = put(first, drives.write("w2"))
        drives.keep("n1", first)
        drives.note("n1", "n2")
        drives.keep("n1", second)
        hint = drives.note("n1", "n2", sequence=1)
        drives.keep("n1", put(second, drives.write("w3")))
        drives.keep("n2", second if case == "all" else first)
        if case == "put back":
            drives.registry.noted.forget("n2")
        drives.commit("n1", "hints", hint, b"?", None)
        assert drives.broken() == told, case


def test_a_hint_for_one_in_no_ring_goes_when_the_owners_know_or_are_to_be_told() -> None:
    for case, told in (("knows", []), ("hint", []), ("lacks", ["I7"]), ("lost", [])):
        drives = Drives()
        drives.registry.owners = lambda row: ("n1", "n2")
        record = put(Record(), drives.write("w1"))
        drives.keep("n1", record)
        drives.registry.watch("n3")
        hint = drives.note("n1", "n3")
        drives.registry.mirrors.pop("n3")
        if case == "knows":
            drives.keep("n2", record)
        if case == "hint":
            drives.note("n1", "n2")
        if case == "lost":
            drives.registry.losses.lost[drives.row()] = [dict(record.context)]
        drives.commit("n1", "hints", hint, b"?", None)
        assert drives.broken() == told, case


def test_what_was_noted_on_a_disk_that_left_is_not_there_any_more() -> None:
    """Who joins anew under its name has an empty one; what others noted for it stays."""
    drives = Drives()
    drives.keep("n1", put(Record(), drives.write("w1")))
    drives.keep("n2", drives.registry.mirrors["n1"].records[drives.row()])
    drives.note("n1", "n2")
    drives.note("n2", "n1")
    assert [keeper for keeper, _ in drives.registry.noted.before(1e9)] == ["n1", "n2"]
    drives.registry.noted.left("n1")
    assert [keeper for keeper, _ in drives.registry.noted.before(1e9)] == ["n2"]


def test_a_copy_that_was_delivered_may_be_begun_anew_in_the_commit_that_drops_it() -> None:
    """Then nothing shows that it went but that its target has it."""
    for delivered, told in ((True, []), (False, ["I7"])):
        drives = Drives()
        copy = put(Record(), drives.write("w1"))
        drives.keep("n1", copy, table="held")
        drives.note("n1", "n2")
        if delivered:
            drives.keep("n2", copy)
        drives.keep("n1", put(Record(), drives.write("w2"), actor="n1~1~2"), table="held")
        assert drives.broken() == told


def test_a_version_that_only_an_old_disk_has_again_is_let_pass() -> None:
    """Its tombstone is reaped by an agreement from before. One that was never gone is not."""
    for put_back, told in ((True, []), (False, ["I3"])):
        drives = Drives()
        draft = drives.write("w1")
        first = put(Record(), draft)
        gone = Record(first.context)
        for name in ("n1", "n2"):
            drives.keep(name, first)
        drives.keep("n1", gone)
        if put_back:
            drives.keep("n2", gone)
            row = drives.row()
            drives.registry.reread("n2", Spoilt({row: KEEPING["records"].encode(row, first)}))
        drives.drop("n1")
        assert drives.broken() == told
        assert drives.registry.losses.put_back == ({"w1"} if put_back else set())
