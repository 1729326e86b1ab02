"""What the oracle says while a run goes on: of acknowledgements, reads, listings, failures."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo.core.record import Record
from dynamo.sim.history import BucketChange, Listing, Outcomes, Read, Write
from dynamo.sim.oracle.live import CALM_S, LiveChecks
from dynamo.wire.codec import STATE
from tests.sim.test_oracle_registry import MADE, Drives, put

CALM = 100.0


class Run(Drives):
    """A history by hand over two drives; the bucket is called `strict`."""

    def __init__(self) -> None:
        super().__init__()
        self.calm: float | None = CALM
        self.live = LiveChecks(
            self.history, self.registry, self.tally, lambda: 1.0, lambda: self.calm, 5
        )

    def did(self, name: str, begun: float, ended: float, **more: Any) -> Write:
        seen = more.pop("seen", ())
        write = Write(
            name, "strict", "k", 0, "n1", begun,
            seen=None if seen is None else frozenset(seen), body=name.encode(), **more,
        )  # fmt: skip
        self.history.begin(write)
        write.outcome, write.ended = "acked", ended
        return write

    def read(self, shown: str, begun: float, ended: float, **more: Any) -> None:
        ids = frozenset(shown.split())
        self.live.read(Read("strict", "k", 0, "n2", begun, ended, ids, **more))


def test_an_acknowledgement_without_disks_is_told() -> None:
    """I10: W of the bucket is two here."""
    run = Run()
    write = run.did("w1", 0, 1)
    draft = run.write("w9")
    run.history.by_etag[draft.etag] = write
    record = put(Record(), draft)
    run.keep("n1", record)
    run.live.wrote(write)
    assert run.broken() == ["I10"]
    run.keep("n2", record, table="held")
    run.live.wrote(write)
    assert run.broken() == ["I10"]
    assert run.tally.exercised["I10"] == 2


def test_a_write_replaced_within_its_commit_is_known_by_what_the_answer_called_it() -> None:
    """One whose answer did not say is not judged."""
    run = Run()
    write = run.did("w1", 0, 1)
    run.live.wrote(write)
    assert (run.broken(), run.tally.exercised["I10"]) == ([], 0)
    write.bucket, write.version = "b", "n1.7"
    assert run.live.holders(write) == []
    run.keep("n1", Record({"n1": 8}))
    assert run.live.holders(write) == ["n1"]


def test_a_disk_lost_meanwhile_counts_as_having_had_it() -> None:
    """No system can do anything about that; about one lost before, it can."""
    run = Run()
    write = run.did("w1", 5, 6)
    draft = run.write("w9")
    run.history.by_etag[draft.etag] = write
    run.keep("n1", put(Record(), draft))
    run.live.spoiled["n2"] = 5.5
    run.live.wrote(write)
    assert run.broken() == []
    run.live.spoiled["n2"] = 4.0
    run.live.wrote(write)
    assert run.broken() == ["I10"]


def test_what_was_seen_does_not_come_back_beside_what_was_written() -> None:
    """I8, and I9 since the bucket is strict."""
    run = Run()
    run.did("w1", 0, 1)
    run.did("w2", 2, 3, seen=("w1",))
    run.read("w2", 4, 5)
    assert run.broken() == []
    run.read("w1 w2", 4, 5)
    assert run.broken() == ["I8", "I9"]


@pytest.mark.parametrize(
    ("shown", "begun", "more", "broken"),
    [
        ("w1", 2, {}, []),
        ("", 2, {}, ["I9"]),
        ("", 0.5, {}, []),
        ("", 2, {"r": 1}, []),
        ("", 2, {"quorum": "sloppy"}, []),
        ("", 2, {"newest": True}, []),
    ],
)
def test_a_strict_read_shows_what_was_acknowledged(
    shown: str, begun: float, more: dict[str, Any], broken: list[str]
) -> None:
    """I9: if it began after that, and R and W meet."""
    run = Run()
    run.did("w1", 0, 1)
    run.read(shown, begun, begun + 1, **more)
    assert run.broken() == broken


def test_a_strict_read_may_miss_what_a_disk_lost_that_does_not_know_it() -> None:
    """An emptied one. Who finds a bit flipped has to ask enough others first."""
    run = Run()
    run.did("w1", 0, 1)
    run.live.spoiled["n2"] = 1.5
    run.read("", 2, 3)
    assert run.broken() == ["I9"]
    run.live.emptied["n2"] = 1.5
    run.read("", 2, 3)
    assert run.broken() == ["I9"]
    assert run.live.excused["disk lost"] == 1


def test_a_strict_read_owes_nothing_to_a_write_that_asked_for_less() -> None:
    run = Run()
    run.did("w1", 0, 1, w=1)
    run.read("", 2, 3)
    assert run.broken() == []


def listing(*entries: tuple[str, str], begun: float = 2.0) -> Listing:
    return Listing("strict", "n2", begun, begun + 1, entries)


def test_a_strict_listing_has_every_key_there_is() -> None:
    """I9, I12, I2: each once, in order, as it was written."""
    run = Run()
    write = run.did("w1", 0, 1)
    run.live.listed(listing(("k", write.etag)))
    assert run.broken() == []
    run.live.listed(listing())
    assert run.broken() == ["I9"]
    run.live.listed(listing(begun=0.5))
    assert run.broken() == ["I9"]
    run.live.listed(listing(("k", "other")))
    assert run.broken() == ["I9", "I2"]
    run.live.listed(listing(("k", write.etag), ("k", write.etag)))
    assert run.broken() == ["I9", "I2", "I12"]


def ended(begun: float, status: int, word: str = "", patience: float = 12.0) -> Outcomes:
    return Outcomes("get", "n1", "b/k", begun, begun + 1, status, word, patience)


def test_in_calm_everything_works() -> None:
    """I15: long enough after the last fault, given time enough."""
    run = Run()
    later = CALM + CALM_S
    for fine in (ended(later, 200), ended(later, 404), ended(later, 409)):
        run.live.ended(fine)
    stale = Outcomes("get", "n1", "b/k", later, later, 0, "lost", 12.0, stale=True)
    for excused in (ended(later - 1, 503), ended(later, 503, patience=1.0), stale):
        run.live.ended(excused)
    assert run.broken() == []
    run.live.ended(ended(later, 503))
    run.live.ended(ended(later, 0, "lost"))
    run.live.ended(ended(later, 500))
    assert run.broken() == ["I15"] * 3
    run.calm = None
    run.live.ended(ended(later, 503))
    assert run.broken() == ["I15"] * 3


def test_nothing_of_a_deleted_bucket_returns_with_its_name() -> None:
    """I3: if all members had it on disk that it was deleted; what was written meanwhile may be of
    the next generation."""
    for alone, begun, told in ((True, 40, ["I3"]), (True, 20.5, []), (False, 40, [])):
        run = Run()
        run.live.whole, run.live.whole_since = lambda: True, 0.0
        gone = STATE.encode(b"b", MADE.delete(2))
        for name in ("n1", "n2"):
            run.commit(name, "buckets", b"b", None, gone)
        old, new = run.did("w1", 0, 1), run.did("w2", 20, 22)
        run.history.at["b", "k"] = [old, new]
        run.live.changed(BucketChange("b", True, 20.0, 21.0, "acked", alone))
        run.live.read(Read("b", "k", 0, "n2", begun, begun + 1, frozenset(("w2",))))
        assert run.broken() == []
        run.live.read(Read("b", "k", 0, "n2", begun, begun + 1, frozenset(("w1",))))
        assert run.broken() == told
