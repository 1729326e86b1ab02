"""A bucket's keys, page by page, against an oracle that keeps them in a sorted list."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo.coordinator import listing
from dynamo.coordinator.requests import Options, Page
from dynamo.core.record import Draft, Record, Version
from dynamo.errors import NotReady, QuorumNotMet
from dynamo.storage import rows
from dynamo.wire import messages
from tests.support.cluster import TestCluster

KEYS = st.lists(
    st.one_of(
        st.text("ab/é", min_size=1, max_size=5),
        st.builds(lambda head, tail: head * 470 + tail, st.sampled_from("ab"), st.text("ab/")),
    ),
    min_size=1,
    max_size=25,
    unique=True,
)


def page(cluster: TestCluster, at: str, **more: Any) -> Page:
    asked = {"prefix": "", "delimiter": "", "start_after": "", "limit": 1000} | more
    options = Options(**asked.pop("options", {}))
    return cluster.run(cluster.nodes[at].door.list("b", options=options, **asked))


def whole(cluster: TestCluster, at: str, **more: Any) -> tuple[list[str], list[str]]:
    """All pages together; none may be longer than its limit, and none but the last shorter."""
    keys, prefixes, after = [], [], more.pop("start_after", "")
    for _ in range(200):
        found = page(cluster, at, start_after=after, **more)
        keys += [o.key for o in found.objects]
        prefixes += found.prefixes
        size = len(found.objects) + len(found.prefixes)
        assert size <= more.get("limit", 1000)
        if found.next is None:
            return keys, prefixes
        assert size == more["limit"]
        after = found.next
    raise AssertionError("a listing without end")


def test_an_owner_in_doubt_is_asked_before_those_who_have_nothing() -> None:
    """Of keys with one owner it alone knows; it is doubted for a second by whom it just failed."""
    cluster = TestCluster(4, n=1)
    keys = [f"k{i}" for i in range(12)]
    for key in keys:
        cluster.put("n1", key)
    for at in cluster.names:
        for other in cluster.names:
            if other != at:
                cluster.told(at, other, "suspect")
                assert whole(cluster, at)[0] == sorted(keys)
                cluster.told(at, other, "alive")


def oracle(
    keys: set[str], prefix: str, delimiter: str, start_after: str = ""
) -> tuple[list[str], list[str]]:
    objects, groups = [], []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix) or key.encode() <= start_after.encode():
            continue
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        if end < 0:
            objects.append(key)
        elif (group := key[: end + len(delimiter)]) not in groups and group != start_after:
            groups.append(group)
    return objects, groups


def fill(cluster: TestCluster, keys: list[str], deleted: list[str]) -> set[str]:
    for key in keys:
        cluster.put("n1", key)
    for key in deleted:
        cluster.delete("n3", key)
    cluster.pass_time(1)
    return set(keys) - set(deleted)


@settings(max_examples=40)
@given(
    KEYS,
    st.data(),
    st.sampled_from(["", "a", "a/", "b", "é", "a" * 470]),
    st.sampled_from(["", "/", "b", "ab"]),
    st.integers(1, 6),
)
def test_pages_together_are_all_keys_once_and_in_order(
    keys: list[str], data: Any, prefix: str, delimiter: str, limit: int
) -> None:
    """I12: with deletes, prefixes, delimiters and long keys, from any node, whatever the page."""
    cluster = TestCluster(4)
    deleted = data.draw(st.lists(st.sampled_from(keys), unique=True))
    there = fill(cluster, keys, deleted)
    expected = oracle(there, prefix, delimiter)
    for at in ("n1", "n4"):
        found = whole(cluster, at, prefix=prefix, delimiter=delimiter, limit=limit)
        assert found == expected


@settings(max_examples=20)
@given(KEYS, st.text("ab/é", max_size=3))
def test_a_listing_begins_behind_any_text(keys: list[str], start_after: str) -> None:
    """`start_after` need not be a key that is there."""
    cluster = TestCluster(3)
    there = fill(cluster, keys, [])
    found = whole(cluster, "n3", start_after=start_after, limit=4)
    assert found == oracle(there, "", "", start_after)


def test_what_is_listed_is_described() -> None:
    """Size, digest, type and time are those of the newest version."""
    cluster = TestCluster(3)
    cluster.put("n1", "k", b"hello", upload={"content_type": "text/plain"})
    (found,) = page(cluster, "n2").objects
    version = cluster.live("n2", "k")[0]
    assert (found.key, found.size, found.content_type) == ("k", 5, "text/plain")
    assert (found.etag, found.modified_ms) == (version.etag, version.stamp >> 16)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("fault", ["down", "hang", "deaf"])
def test_a_node_that_does_not_answer_is_covered_by_others(fault: str, known: bool) -> None:
    """Complete, whether or not anybody knew, and well before the client's patience ends."""
    cluster = TestCluster(5)
    keys = [f"k{i}" for i in range(40)]
    fill(cluster, keys, [])
    for gone in ("n2", "n4"):
        for link in cluster.around(gone):
            setattr(link, fault, True)
        if known:
            cluster.believe(gone, "dead")
        before = cluster.clock.seconds()
        found, _ = whole(cluster, "n1", limit=1000)
        assert found == sorted(keys)
        assert cluster.clock.seconds() - before < 5
        cluster.heal(gone)


def test_keys_written_while_a_node_was_away_are_listed() -> None:
    """Whether from a stand-in's copies, or from an owner that has not been told yet."""
    cluster = TestCluster(5)
    fill(cluster, [f"old{i}" for i in range(20)], [])
    cluster.cut("n2")
    fill(cluster, [f"new{i}" for i in range(20)], [f"old{i}" for i in range(10)])
    expected = sorted([f"new{i}" for i in range(20)] + [f"old{i}" for i in range(10, 20)])
    assert whole(cluster, "n1")[0] == expected
    cluster.heal("n2")
    for at in cluster.names:
        assert whole(cluster, at)[0] == expected
    cluster.hand_off()
    for at in cluster.names:
        assert whole(cluster, at)[0] == expected


def test_a_node_that_awaits_hints_from_one_that_is_not_asked_is_of_no_use() -> None:
    """It says so, and the listing does without it or fails; it is never short."""
    cluster = TestCluster(3)
    fill(cluster, ["a"], [])
    cluster.cut("n3")
    fill(cluster, ["b"], [])
    cluster.heal("n3")
    cluster.cut("n1", known=False)
    cluster.told("n2", "n1", "dead")
    assert whole(cluster, "n2", options={"r": 1})[0] == ["a", "b"]
    with pytest.raises(QuorumNotMet):
        page(cluster, "n2", options={"r": 2})


def test_nodes_that_await_each_others_hints_are_listed_together() -> None:
    """Without them stand-ins would be left, who never heard of the keys."""
    cluster = TestCluster(5)
    keys = [f"k{number}" for number in range(12)]
    for key in keys:
        cluster.put("n1", key)
    cluster.pass_time(1)
    names = ("n1", "n3", "n4", "n5")
    for name in names:
        others = tuple(other for other in ("n4", "n1") if other != name)
        cluster.nodes[name].view.awaiting = lambda others=others: others  # type: ignore[misc]
    for node in cluster.nodes:
        assert [o.key for o in page(cluster, node, options={"r": 1}).objects] == sorted(keys)


def test_who_awaits_one_that_cannot_be_had_is_of_no_use() -> None:
    """It is done without both, if others are enough."""
    cluster = TestCluster(5)
    cluster.put("n1", "k")
    cluster.pass_time(1)
    for link in cluster.around("n5"):
        link.down = True
    cluster.nodes["n4"].view.awaiting = lambda: ("n5",)  # type: ignore[method-assign]
    asked = {
        name: [o.key for o in page(cluster, name, options={"r": 1}).objects]
        for name in ("n1", "n2")
    }
    assert asked == {"n1": ["k"], "n2": ["k"]}


def test_a_node_with_a_corrupt_record_or_none_to_spare_is_covered() -> None:
    """I13: what one node cannot read the others list."""
    cluster = TestCluster(3)
    fill(cluster, ["a", "b", "c"], [])
    node = cluster.nodes["n1"]
    place = rows.row(node.table.get("b").incarnation, b"b")
    cluster.wait(node.committer.submit(lambda txn: txn.put("records", place, b"\x01\xff")))
    for at in cluster.names:
        assert whole(cluster, at)[0] == ["a", "b", "c"]


def test_a_node_that_is_stopping_is_covered() -> None:
    """Its refusal is not the listing's."""
    for stopping in ("n2", "n3", "n4"):
        cluster = TestCluster(4)
        fill(cluster, ["a", "b", "c"], [])
        for other in cluster.names:
            cluster.link(other, stopping).refuse = lambda op: NotReady("This node is stopping.")
        assert whole(cluster, "n1")[0] == ["a", "b", "c"]


def test_too_few_nodes_are_an_error_not_a_short_page() -> None:
    """I12 before convenience."""
    cluster = TestCluster(3)
    fill(cluster, ["a"], [])
    cluster.cut("n2")
    cluster.cut("n3", known=False)
    with pytest.raises(QuorumNotMet):
        page(cluster, "n1")


def test_a_latest_bucket_lists_what_a_read_finds() -> None:
    """A delete that did not see the write it beats takes the key off the list as well."""
    cluster = TestCluster(3, conflicts="latest")
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    one = Record({"z": 1}, (Version("z", 1, 5, b"w", 3, "one"),))
    late_delete = Record({"y": 1}, (Version("y", 1, 6, b"", 0, "", deleted=True),))
    early_write = Record({"y": 1}, (Version("y", 1, 4, b"v", 4, "two"),))
    for name, first, second in (
        ("n1", one, one),
        ("n2", late_delete, early_write),
        ("n3", late_delete, early_write),
    ):
        copies = cluster.nodes[name].copies
        cluster.wait(copies.merge(incarnation, b"first", first, latest=True))
        cluster.wait(copies.merge(incarnation, b"second", second, latest=True))
    assert cluster.live("n1", "first") == ()
    assert [(o.key, o.etag) for o in page(cluster, "n1").objects] == [("second", "one")]


def test_more_than_one_fetch_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans go on where they were, each at its own pace, also past whole groups."""
    monkeypatch.setattr(listing, "FETCH", 3)
    monkeypatch.setattr(listing, "FETCH_GROUPED", 2)
    cluster = TestCluster(5, seed=5)
    keys = [f"{cluster.rng.choice('abc')}/{i:02d}" for i in range(40)]
    there = fill(cluster, keys, keys[::5])
    assert whole(cluster, "n1", limit=7) == oracle(there, "", "")
    assert whole(cluster, "n1", delimiter="/", limit=2) == oracle(there, "", "/")
    assert whole(cluster, "n1", delimiter="/", prefix="b/", limit=2) == oracle(there, "b/", "/")


def test_a_group_of_a_thousand_keys_is_skipped_not_fetched() -> None:
    """The scan is begun anew behind it."""
    cluster = TestCluster(3)
    incarnation = cluster.nodes["n1"].table.get("b").incarnation
    for node in cluster.nodes.values():
        jobs = []
        for i in range(1500):
            draft = Draft(write=b"%d" % i, size=0, etag="")
            record = Record().put(draft, actor="z", stamp=1)
            jobs.append(node.copies.merge(incarnation, b"dir/%04d" % i, record))
        for job in jobs:
            cluster.wait(job)
    cluster.put("n1", "e")
    cluster.pass_time(1)
    cluster.network.sent.clear()
    found = page(cluster, "n1", delimiter="/")
    assert (found.prefixes, [o.key for o in found.objects]) == (("dir/",), ["e"])
    scans = [op for _, _, op in cluster.network.sent if isinstance(op, messages.Scan)]
    assert len(scans) <= 3
