"""The name dots are signed with: it changes once a record that bears it leaves the disk."""

from __future__ import annotations

from dynamo.storage import ledger
from tests.support.disk import Disk, draft, record


def signs_as(disk: Disk, actor: str = "me") -> str:
    return ledger.signs_as(disk.engine.view(), actor)


def stand_in(disk: Disk, key: bytes, name: str) -> str:
    made = disk.put(key, draft(name), context={}, owner=False, missed_by=["n2"])
    return next(v.id for v in made.versions if v.etag == name)


def test_a_node_signs_with_its_own_name_at_first() -> None:
    """And with the number of its disk."""
    assert signs_as(Disk()) == "me"
    assert signs_as(Disk(), "me~3") == "me~3"


def test_a_copy_of_ones_own_writing_that_leaves_ends_the_name() -> None:
    """Later dots can neither repeat the ones that left nor claim to have seen them."""
    disk = Disk()
    assert stand_in(disk, b"k", "1") == "me.1"
    kept = disk.read(b"k")
    disk.drop("n2")
    assert signs_as(disk) == "me~1~2"
    assert signs_as(disk, "me~3") == "me~3~2"
    assert stand_in(disk, b"k", "2") == "me~1~2.1"
    both = kept.merge(disk.read(b"k"))
    assert len(both.live()) == 2


def test_it_lasts_through_a_restart() -> None:
    """It is in the same commit as the drop."""
    disk = Disk()
    for hand in (2, 3, 4):
        stand_in(disk, b"k", str(hand))
        disk.drop("n2")
        disk = Disk(disk)
        assert signs_as(disk) == f"me~1~{hand}"


def test_one_new_name_serves_for_all_that_left_before() -> None:
    """Names are few: one for each time this node stood in, not one for each file."""
    disk = Disk()
    for i in range(50):
        stand_in(disk, b"%d" % i, str(i))
    disk.drop("n2")
    assert signs_as(disk) == "me~1~2"


def test_copies_of_others_writing_leave_the_name_alone() -> None:
    """So does a hint without a copy."""
    disk = Disk()
    disk.hold("n2", b"k", record("1"))
    disk.put(b"l", draft("2"), missed_by=["n2"])
    disk.drop("n2")
    assert signs_as(disk) == "me"


def test_a_file_kept_all_along_gets_one_more_entry() -> None:
    """Its older dots stay known, and a plain write still replaces everything."""
    disk = Disk()
    disk.put(b"own", draft("1"))
    stand_in(disk, b"k", "2")
    disk.drop("n2")
    after = disk.put(b"own", draft("3"))
    assert after.context == {"me": 1, "me~1~2": 1}
    assert [v.id for v in after.versions] == ["me~1~2.1"]
