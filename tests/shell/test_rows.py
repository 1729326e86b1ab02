"""Long keys in a table of short ones: a walk visits them like a sorted dict."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.storage import rows
from dynamo.storage.engine import KEY_BYTES_MAX
from dynamo.storage.memory_engine import MemoryEngine

BASE = b"baseBASE"
LENGTHS = st.sampled_from([1, 2, 469, 470, 471, 472, 939, 940, 941, 942, 1023, 1024])


@st.composite
def keys(draw: st.DrawFn) -> bytes:
    """Up to 1024 bytes, mostly of two kinds, so that many share long prefixes."""
    size = draw(LENGTHS)
    head = draw(st.sampled_from([b"a", b"b", b"\x01", b"\xff"])) * size
    tail = draw(st.binary(max_size=3)).replace(b"\0", b"\x01")
    return (head[: size - len(tail)] + tail)[:1024] or b"a"


def filled(there: list[bytes], base: bytes = BASE) -> MemoryEngine:
    engine = MemoryEngine()

    def write(txn: object) -> None:
        for key in there:
            rows.mark(txn, "records", base, key)  # type: ignore[arg-type]
            txn.put("records", rows.row(base, key), key[::-1] or b"-")  # type: ignore[attr-defined]

    assert engine.commit([write]) == [None]
    return engine


@settings(max_examples=300)
@given(st.lists(keys(), unique=True, max_size=20), keys(), st.booleans(), st.booleans())
def test_a_walk_is_a_sorted_dict(
    there: list[bytes], start: bytes, begin_at_a_key: bool, just_behind: bool
) -> None:
    """Every key from `start` on, once, in byte order, with its own value."""
    view = filled(there).view()
    if begin_at_a_key and there:
        start = there[len(start) % len(there)]
    if just_behind:
        start += b"\0"
    found = list(rows.walk(view, "records", BASE, start))
    assert found == [(key, key[::-1]) for key in sorted(there) if key >= start]
    assert [key for key, _ in rows.walk(view, "records", BASE)] == sorted(there)


@given(st.lists(keys(), unique=True, max_size=10), st.lists(keys(), unique=True, max_size=10))
def test_bases_do_not_mix(one: list[bytes], other: list[bytes]) -> None:
    """The keys of two buckets lie apart, neighbours in the table or not."""
    engine = filled(one)
    neighbour = BASE[:-1] + bytes([BASE[-1] + 1])

    def write(txn: object) -> None:
        for key in other:
            rows.mark(txn, "records", neighbour, key)  # type: ignore[arg-type]
            txn.put("records", rows.row(neighbour, key), b"other")  # type: ignore[attr-defined]

    engine.commit([write])
    view = engine.view()
    assert [key for key, _ in rows.walk(view, "records", BASE)] == sorted(one)
    assert [key for key, _ in rows.walk(view, "records", neighbour)] == sorted(other)


@given(st.lists(keys(), unique=True, min_size=1, max_size=10), st.data())
def test_a_removed_key_is_not_walked(there: list[bytes], data: st.DataObject) -> None:
    """Its marker may stay; it stands for nothing."""
    gone = data.draw(st.sampled_from(there))
    engine = filled(there)
    engine.commit([lambda txn: txn.delete("records", rows.row(BASE, gone))])
    found = [key for key, _ in rows.walk(engine.view(), "records", BASE)]
    assert found == sorted(set(there) - {gone})


@given(keys(), keys())
def test_each_key_has_a_row_of_its_own_that_fits(one: bytes, other: bytes) -> None:
    """Whatever their lengths, also with a hint target in front of the base."""
    for base in (BASE, BASE * 2):
        assert (rows.row(base, one) == rows.row(base, other)) is (one == other)
        assert len(rows.row(base, one)) < KEY_BYTES_MAX


@given(st.binary(min_size=1, max_size=4), st.binary(max_size=6))
def test_what_comes_after_a_prefix(prefix: bytes, key: bytes) -> None:
    """The end of a range: above all with the prefix, below or at all that are above those."""
    end = rows.after_prefix(prefix)
    inside = prefix <= key and (end is None or key < end)
    assert inside is (key.startswith(prefix) or (key > prefix and key.startswith(prefix)))
    assert rows.after_prefix(b"\xff\xff") is None
