"""What was seen of members is on disk as early as what they sent."""

from __future__ import annotations

from dynamo.core.sightings import Origin
from dynamo.storage.engine import Transaction
from dynamo.storage.memory_engine import MemoryEngine
from dynamo.storage.sighted import SEEN, SightingBook


def origin(commit: int, name: str = "n2", boot: str = "b") -> Origin:
    return Origin(name, 7, boot, commit)


def loaded(engine: MemoryEngine) -> dict[str, dict[str, Origin]]:
    book = SightingBook()
    book.load(engine.view())
    assert not book.sightings.news
    return book.sightings.by_name


def test_the_latest_of_each_member_is_there_after_a_restart() -> None:
    engine, book = MemoryEngine(), SightingBook()
    for seen in (origin(3), origin(5), origin(4), origin(1, "n3")):
        book.sightings.note(seen)
    engine.commit([book.write])
    assert loaded(engine) == {"n2": {"b": origin(5)}, "n3": {"b": origin(1, "n3")}}
    book.sightings.note(origin(2, boot="c"))
    engine.commit([book.write])
    assert loaded(engine)["n2"] == {"c": origin(2, boot="c")}


def test_what_a_commit_failed_to_write_the_next_one_writes() -> None:
    engine, book = MemoryEngine(), SightingBook()
    book.sightings.note(origin(3))

    def undone(txn: Transaction) -> None:
        book.write(txn)
        raise RuntimeError("it comes to nothing")

    engine.commit([undone])
    assert loaded(engine) == {}
    engine.commit([book.write])
    assert loaded(engine) == {"n2": {"b": origin(3)}}


def test_what_is_written_is_not_written_again() -> None:
    engine, book = MemoryEngine(), SightingBook()
    book.sightings.note(origin(3))
    engine.commit([book.write])
    engine.commit([book.write])
    engine.commit([lambda txn: txn.delete("meta", SEEN + b"n2")])
    engine.commit([book.write])
    assert loaded(engine) == {}


def test_a_damaged_row_is_as_none() -> None:
    engine, book = MemoryEngine(), SightingBook()
    for name in ("n2", "n3"):
        book.sightings.note(origin(3, name))
    engine.commit([book.write])
    engine.commit([lambda txn: txn.put("meta", SEEN + b"n2", b"?")])
    assert list(loaded(engine)) == ["n3"]
