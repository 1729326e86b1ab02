"""The scrub: all of a disk is looked at, no faster than told, and what is bad ends up mended."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo.background import scrub as scrub_module
from dynamo.background.scrub import Scrub
from dynamo.coordinator.bodies import CHUNK_BYTES
from dynamo.storage.chunks import digest_of
from tests.shell.test_bodies import body_of
from tests.support.cluster import SCRUB_BYTES_PER_S, SCRUB_INTERVAL_S, TestCluster, TestNode
from tests.support.disk import draft

BIG = body_of(2 * CHUNK_BYTES + 5)
LONG = "l" * 600


def filled(count: int = 10, **more: Any) -> TestCluster:
    """Files of all kinds on three nodes."""
    cluster = TestCluster(3, **more)
    for i in range(count):
        cluster.put("n1", f"k{i:03d}", b"%d" % i)
    cluster.put("n1", LONG, b"long")
    cluster.put("n1", "k", BIG)
    cluster.pass_time(2)
    return cluster


def scrub_of(cluster: TestCluster, name: str = "n1") -> Scrub:
    return cluster.nodes[name].upkeep.scrub


def orphan(cluster: TestCluster, data: bytes, name: str = "n1") -> bytes:
    """A chunk no record names, as an upload under way leaves it."""
    digest = digest_of(data)
    cluster.wait(cluster.nodes[name].local.write_chunk(digest, data))
    return digest


def test_everything_is_looked_at() -> None:
    """A pass over a sound disk verifies every record and chunk and changes nothing."""
    cluster = filled()
    node = cluster.nodes["n1"]
    seen: list[int] = []
    node.upkeep.scrub.verified = seen.append
    before = {t: dict(node.engine.tables[t].values) for t in ("records", "refs", "hints")}
    cluster.scrub("n1")
    assert sum(seen) == 12 + 3
    assert before == {t: dict(node.engine.tables[t].values) for t in before}
    assert node.corrupt == []
    done, left = node.upkeep.scrub.progress()
    assert done >= len(BIG)
    assert left == 0


@pytest.mark.parametrize("at", [0, 3, 30, -1])
def test_damaged_rows_nobody_reads_are_found_and_mended(at: int) -> None:
    """Wherever the bit flipped, in rows of short and of long keys."""
    cluster = filled()
    node = cluster.nodes["n1"]
    keys = ["k003", "k009", "k", LONG]
    before = [node.owned(key) for key in keys]
    for key in keys:
        node.damage(key, at=at)
    cluster.scrub("n1")
    assert [node.owned(key) for key in keys] == before
    assert node.corrupt == ["record"] * 4


def test_damaged_and_missing_chunks_are_found_and_fetched() -> None:
    """One flipped, one cut, one gone."""
    cluster = filled()
    node = cluster.nodes["n1"]
    one, two, three = node.owned("k").versions[0].chunks
    before = dict(node.chunks.stored)
    node.rot(one)
    node.chunks.stored[two] = before[two][:100]
    del node.chunks.stored[three]
    cluster.scrub("n1")
    assert node.chunks.stored == before
    assert node.corrupt == ["chunk"] * 2
    cluster.cut("n2")
    cluster.cut("n3")
    assert cluster.stream("n1", "k", r=1) == BIG


def test_copies_kept_for_others_are_looked_at_too() -> None:
    """A stand-in's copy and its hint, both damaged, still reach their owner."""
    cluster = TestCluster(4)
    a, _, c, d = cluster.ranking("k")
    cluster.cut(c)
    cluster.put(a, "k", b"x")
    cluster.pass_time(1)
    node = cluster.nodes[d]
    assert node.copies.hints.counts == {c: 1}
    node.damage("k", "held")
    hint = next(iter(node.engine.tables["hints"].values))
    rotten = bytearray(node.engine.tables["hints"].values[hint])
    rotten[-1] ^= 1
    node.engine.tables["hints"].set(hint, bytes(rotten))
    cluster.scrub(d)
    assert node.corrupt == ["hint", "record"]
    cluster.heal(c)
    cluster.hand_off()
    assert cluster.hints() == {}
    assert [v.body for v in cluster.nodes[c].owned("k").versions] == [b"x"]


def test_a_damaged_hint_of_a_key_that_is_not_here_goes() -> None:
    """Else its target would wait for it for ever."""
    cluster = filled(1)
    node = cluster.nodes["n1"]
    cluster.wait(node.copies.note_missed("n2", node.table.get("b").incarnation, b"never written"))
    (row,) = node.engine.tables["hints"].values
    node.engine.tables["hints"].set(row, b"\x02rotten")
    cluster.scrub("n1")
    assert node.copies.hints.counts == {}
    assert node.engine.tables["hints"].keys == []


def test_no_faster_than_told() -> None:
    """A megabyte a second, however often it is stepped, also after it stood still."""
    cluster = filled()
    scrub = scrub_of(cluster)
    began = cluster.clock.seconds()
    while scrub.passes < 1:
        cluster.run(scrub.step())
        cluster.pass_time(0.05)
        done = scrub.progress()[0]
        assert done <= SCRUB_BYTES_PER_S * (cluster.clock.seconds() - began) + CHUNK_BYTES
    assert cluster.clock.seconds() - began >= (len(BIG) - CHUNK_BYTES) / SCRUB_BYTES_PER_S


def test_after_a_pause_it_does_not_make_up_for_it() -> None:
    """A node that was stopped for an hour verifies no hour's worth at once."""
    cluster = filled()
    scrub = scrub_of(cluster)
    assert cluster.run(scrub.step())
    cluster.pass_time(SCRUB_INTERVAL_S / 2)
    before = scrub.progress()[0]
    cluster.run(scrub.step())
    assert scrub.progress()[0] - before <= SCRUB_BYTES_PER_S + CHUNK_BYTES


def test_a_pass_is_followed_by_the_next_after_its_interval() -> None:
    """And not before."""
    cluster = filled()
    scrub = scrub_of(cluster)
    began = cluster.clock.seconds()
    cluster.scrub("n1")
    done = scrub.progress()[0]
    cluster.pass_time(began + SCRUB_INTERVAL_S - 1 - cluster.clock.seconds())
    assert not cluster.run(scrub.step())
    assert scrub.progress()[0] == done
    cluster.pass_time(2)
    assert cluster.run(scrub.step())


def test_a_restart_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was verified before is left to the next pass."""
    monkeypatch.setattr(scrub_module, "WRITE_DOWN_S", 0.1)
    monkeypatch.setattr(scrub_module, "ROWS_MAX", 3)
    monkeypatch.setattr(scrub_module, "STEP_BYTES", 4096)
    cluster = filled(20)
    node = cluster.nodes["n1"]
    while node.upkeep.scrub._place.part < 1 or node.upkeep.scrub._place.key < b"k010":
        cluster.run(node.upkeep.scrub.step())
        cluster.pass_time(0.2)
    again = cluster.restart("n1")
    assert again.upkeep.scrub._place.key >= b"k007"
    again.damage("k001")
    again.damage("k018")
    cluster.scrub("n1")
    assert again.corrupt == ["record"]
    cluster.scrub("n1")
    assert again.corrupt == ["record"] * 2


def test_orphans_go_in_time() -> None:
    """A chunk nobody refers to stays while an upload may yet name it, and then is freed."""
    cluster = filled(1)
    node, scrub = cluster.nodes["n1"], scrub_of(cluster)
    scrub.orphan_s = 2.5 * SCRUB_INTERVAL_S
    kept = set(node.chunks.stored)
    left = orphan(cluster, b"left behind")
    for _ in range(3):
        cluster.scrub("n1")
        assert left in node.chunks.stored
    cluster.scrub("n1")
    assert set(node.chunks.stored) == kept


def test_a_chunk_that_is_written_again_is_new() -> None:
    """Another upload of the same content has begun; the old orphan's time does not count."""
    cluster = filled(1)
    node, scrub = cluster.nodes["n1"], scrub_of(cluster)
    scrub.orphan_s = 1.5 * SCRUB_INTERVAL_S
    digest = orphan(cluster, b"again")
    cluster.scrub("n1", 2)
    orphan(cluster, b"again")
    cluster.scrub("n1", 2)
    assert digest in node.chunks.stored
    cluster.scrub("n1")
    assert digest not in node.chunks.stored


def test_an_upload_that_takes_long_keeps_its_chunks() -> None:
    """The record that names them in the end makes them no orphans."""
    cluster = filled(1)
    node, scrub = cluster.nodes["n1"], scrub_of(cluster)
    scrub.orphan_s = 3.5 * SCRUB_INTERVAL_S
    digest = orphan(cluster, b"first chunk")
    cluster.scrub("n1", 3)
    made = draft("upload", b"", digest)
    incarnation = node.table.get("b").incarnation
    cluster.wait(
        node.copies.coordinate(incarnation, b"big", made, actor="n1", stamp=1, context=None)
    )
    cluster.scrub("n1", 3)
    assert digest in node.chunks.stored
    assert scrub._orphans == {}


def test_chunks_that_a_record_names_and_nobody_counts_are_counted_again() -> None:
    """The row of the count was lost; the next start would have swept the chunk away."""
    cluster = filled(1)
    node = cluster.nodes["n1"]
    before = dict(node.chunks.stored)
    for digest in before:
        node.engine.tables["refs"].set(digest, None)
    cluster.scrub("n1")
    again: TestNode = cluster.restart("n1")
    assert again.chunks.stored == before


def test_many_rows_take_many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactor is not held up: at most so many rows at a time, none left out or twice."""
    monkeypatch.setattr(scrub_module, "ROWS_MAX", 7)
    cluster = TestCluster(1, n=1)
    for i in range(50):
        cluster.put("n1", f"k{i}", b"x")
    cluster.put("n1", "k" * 470, b"x")
    cluster.put("n1", "k" * 470 + "z", b"x")
    seen: list[int] = []
    scrub_of(cluster).verified = seen.append
    cluster.scrub("n1")
    assert sum(seen) == 52
    assert max(seen) == 7
