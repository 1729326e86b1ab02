"""What the oracle says of changes of the ring, of layouts and disks made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dynamo.config import build
from dynamo.core.buckets import Bucket, Properties
from dynamo.core.layout import NONE, Layout
from dynamo.core.record import Record
from dynamo.core.ring import Member
from dynamo.sim.oracle.rings import RingChecks
from dynamo.storage.agreed import LAYOUT_ROW
from dynamo.wire.codec import BREAKING, LAYOUT, STATE, Broken, seal
from tests.sim.test_oracle_live import Run
from tests.sim.test_oracle_registry import Spoilt, put

N1, N2, N3, N4 = (Member(f"n{number}") for number in range(1, 5))
STEADY = Layout(1, 7, (N1, N2, N3))
COMING = Layout(2, 7, (N1, N2, N3), (N2, N3, N4), True)
GOING = Layout(3, 7, (N2, N3, N4), (N1, N2, N3))
AFTER = Layout(4, 7, (N2, N3, N4))
NEXT = Layout(5, 7, (N2, N3, N4), (N1, N2, N3, N4), True)


class Changing(Run):
    """Four drives, of nodes that all run and see each other."""

    def __init__(self) -> None:
        super().__init__()
        listen = {"api": "10.0.0.1:8001", "cluster": "10.0.0.1:7001"}
        config = build({"cluster": {"partitions": 16}, "node": {"name": "n1"}, "listen": listen})
        self.names = ["n1", "n2", "n3", "n4"]
        views = {n: SimpleNamespace(name=n, layout=NONE) for n in self.names}
        for view in views.values():
            view.is_healthy = lambda name: name in self.up
            view.is_doubtful = lambda name: False
            view.layouts = SimpleNamespace(used=4, synced=0)
            view.joined = True
        whole = {n: SimpleNamespace(refilling=False) for n in self.names}
        nodes = {n: SimpleNamespace(view=views[n], identity=whole[n]) for n in self.names}
        self.identities = whole
        self.up = set(self.names)
        self.views = views
        world: Any = SimpleNamespace(
            names=self.names,
            hosts={n: SimpleNamespace(node=nodes[n], config=config)
                   for n in self.names},
            absent={}, since={}, members=(),
            schedule=SimpleNamespace(now=-100.0),
            trace=SimpleNamespace(add=lambda *told: None),
        )  # fmt: skip
        world.present = lambda: [n for n in self.names if n not in world.absent]
        self.world = world
        self._hooks.update({n: self.registry.watch(n) for n in ("n3", "n4")})
        self.rings = RingChecks(world, self.live)
        self.registry.adopted, self.registry.cleared = self.rings.adopted, self.rings.cleared
        self.live.by_all_rings = self.rings.by_all_rings

    def adopt(self, layout: Layout, *names: str) -> None:
        """These, or all, have it on disk and go by it."""
        for name in names or self.world.present():
            data = seal("meta", LAYOUT_ROW, LAYOUT.encode(layout))
            self.commit(name, "meta", LAYOUT_ROW, None, data)
            self.views[name].layout = layout

    def put(self, *names: str) -> Record:
        """An acknowledged write that these hold."""
        write = self.did("w1", 0, 1, w=1)
        draft = self.write("w9")
        self.history.by_etag[draft.etag] = write
        self.history.at.setdefault(("b", "k"), []).append(write)
        record = put(Record(), draft)
        for name in names:
            self.keep(name, record)
        return record


def test_two_layouts_for_one_version_are_told() -> None:
    run = Changing()
    run.adopt(STEADY)
    run.adopt(COMING, "n1", "n2")
    assert run.broken() == []
    run.adopt(Layout(2, 7, (N1, N2, N3), (N1, N3), True), "n3")
    assert run.broken() == ["I16"]


def test_a_cluster_founded_apart_is_told() -> None:
    run = Changing()
    run.adopt(STEADY)
    run.adopt(Layout(1, 8, (N4,)), "n4")
    assert run.broken() == ["I16"]


def test_who_leaves_may_take_nothing_along() -> None:
    """Unless it was away, and nobody else had it."""
    for away in (False, True):
        run = Changing()
        run.adopt(STEADY)
        run.put("n1")
        if away:
            run.up.discard("n1")
        for layout in (COMING, GOING, AFTER):
            run.adopt(layout, "n2", "n3", "n4")
        assert list(run.world.absent) == ["n1"]
        assert "n1" not in run.registry.mirrors
        assert run.broken() == ([] if away else ["I16"])
        assert bool(run.registry.losses.unkeepable) == away


def test_what_others_have_too_may_go_with_a_leaver() -> None:
    run = Changing()
    run.adopt(STEADY)
    run.put("n1", "n2")
    for layout in (COMING, GOING, AFTER):
        run.adopt(layout, "n2", "n3", "n4")
    assert run.broken() == []
    assert run.tally.exercised["I16"] > 0


def test_what_others_own_may_be_dropped_when_they_have_it() -> None:
    """Not before, and not while the ring changes, but for what was under way as it began to."""
    for layout, holders, told in (
        (AFTER, ("n2", "n3", "n4"), []),
        (AFTER, ("n2", "n3"), ["I7"]),
        (GOING, ("n2", "n3", "n4"), ["I7"]),
        (NEXT, ("n2", "n3", "n4"), []),
    ):
        run = Changing()
        run.adopt(STEADY)
        run.put("n1", *holders)
        # It hears of no later layout by others, so that it still has a part.
        if layout is GOING:
            run.adopt(GOING, "n1")
        else:
            run.rings._held["n1"] = layout
            run.rings._before["n1"] = AFTER
        run.drop("n1")
        assert run.broken() == told, (layout.stage, holders)


def test_an_owner_whose_row_is_damaged_mends_it_by_others() -> None:
    """So who hands over need not wait; for one that was wiped it must."""
    for left, told in ((b"rot", []), (None, ["I7"])):
        run = Changing()
        run.adopt(STEADY)
        record, row = run.put("n1", "n2", "n3", "n4"), run.row()
        run.registry.reread("n2", Spoilt({} if left is None else {row: left}))
        if left is not None:
            aside = BREAKING["records"].encode(row, Broken(Record(), left, alone=False))
            run.commit("n2", "records", row, left, aside)
        run.rings._held["n1"] = run.rings._before["n1"] = AFTER
        run.drop("n1")
        assert run.broken() == told
        run.keep("n2", record)
        assert not run.registry.mirrors["n2"].rotten


def test_what_a_stranger_keeps_at_rest_is_told() -> None:
    run = Changing()
    run.adopt(AFTER, "n2", "n3", "n4")
    run.put("n1", "n2", "n3", "n4")
    run.rings.uncleared([run.row()])
    assert run.broken() == ["I16"]
    assert run.rings.strangers(run.row()) == ["n1"]


def test_all_have_to_come_to_one_steady_layout() -> None:
    run = Changing()
    run.adopt(COMING)
    assert run.rings.why_not_steady().startswith("The last layout is ")
    run.adopt(GOING)
    run.adopt(AFTER, "n2", "n3")
    assert run.rings.why_not_steady().startswith("n4 do not go by ")
    run.adopt(AFTER, "n4")
    assert run.rings.why_not_steady() == ""


def test_a_step_waits_for_those_who_are_there() -> None:
    """Who is away is not waited for."""
    for up, told in ((True, ["I16"]), (False, [])):
        run = Changing()
        run.adopt(STEADY)
        run.adopt(COMING)
        run.views["n3"].layouts.used = 1
        if not up:
            run.up.discard("n3")
        run.adopt(GOING, "n2")
        assert run.broken() == told
        run.views["n3"].layouts.used = 3
        run.adopt(AFTER, "n2")
        assert run.broken() == told


def moved(*names: str) -> Changing:
    """What these had before the ring began to come."""
    run = Changing()
    run.adopt(STEADY)
    run.put(*names)
    run.world.schedule.now = 2000.0
    run.adopt(COMING)
    return run


def test_who_will_own_a_key_has_pulled_it_as_reads_go_over() -> None:
    """If anybody who owned it had it when all went by the coming layout, and was there."""
    run = moved("n1")
    run.rings.moving.go_over(COMING, {"n4"})
    run.rings.moving.go_over(COMING, {"n1"})
    run.rings.moving.before = 500.0
    run.rings.moving.go_over(COMING, set())
    assert run.broken() == []
    run.rings.moving.before = 2000.0
    run.rings.moving.go_over(COMING, set())
    assert run.broken() == ["I16"]


def test_some_may_still_write_by_the_old_ring_while_one_that_is_there_goes_by_it() -> None:
    run = moved("n1")
    run.world.schedule.now = 2001.0
    run.rings.look()
    assert run.rings.moving.before == 2000.0
    run.views["n2"].layouts.used = 1
    run.rings.look()
    assert run.rings.moving.before == 2001.0
    run.up.discard("n2")
    run.world.schedule.now = 2002.0
    run.rings.look()
    assert run.rings.moving.before == 2001.0


def test_who_was_away_has_everything_when_it_counts_as_whole() -> None:
    for then, told in (("nothing", ["I16"]), ("refill", []), ("has", []), ("wiped", [])):
        run = moved("n1", "n2", "n3")
        run.rings.moving.go_over(COMING, {"n4"})
        run.adopt(GOING, "n1", "n2", "n3")
        before = len(run.broken())
        run.identities["n4"].refilling = then == "refill"
        if then == "has":
            run.put("n4")
        if then == "wiped":
            run.live.spoiled["n4"] = 2001.0
        run.adopt(GOING, "n4")
        run.rings.look()
        assert run.broken()[before:] == told, then


def test_what_is_kept_for_those_who_are_away_is_passed_on() -> None:
    """If it was noted before all went by the coming layout."""
    run = moved("n1")
    run.keep("n1", put(Record(), run.write("w2", "l")), key="l")
    run.note("n1", "n2", "l")
    run.rings.moving.go_over(COMING, {"n1"})
    run.rings.moving.before = 500.0
    run.rings.moving.go_over(COMING, {"n2"})
    assert run.broken() == []
    run.rings.moving.before = 2000.0
    run.put("n2", "n3", "n4")
    run.rings.moving.go_over(COMING, {"n2", "n3"})
    assert run.broken() == ["I16"]
    run.keep("n4", put(Record(), run.write("w2", "l")), key="l")
    run.rings.moving.go_over(COMING, {"n2", "n3"})
    assert run.broken() == ["I16"]


def test_who_is_cut_off_excuses_nobody_but_itself() -> None:
    """It holds all others to be away. Two that do not see a third say more than one."""
    for case, told in (("cut off", {"I16"}), ("one is not seen", set())):
        run = moved("n1", "n2", "n3")
        run.rings.moving.before = 2000.0
        if case == "cut off":
            run.up.discard("n1")
            run.views["n1"].is_healthy = lambda other: other == "n1"
        else:
            for name in ("n1", "n2"):
                run.views[name].is_healthy = lambda other: other != "n4"
        run.rings.look()
        before = len(run.broken())
        run.adopt(GOING, "n2")
        assert set(run.broken()[before:]) == told, case


def test_a_strict_write_has_its_owners_by_the_ring_there_is_whoever_did_it() -> None:
    run = Changing()
    made = Bucket("strict").create(1, 1, Properties())
    run.commit("n1", "buckets", b"strict", None, STATE.encode(b"strict", made))
    run.adopt(AFTER, "n2", "n3", "n4")
    run.views["n1"].layout = STEADY
    write = run.did("w1", 5, 6, w=2)
    run.put("n1", "n2", "n4")
    run.rings.by_all_rings(write, ["n2", "n4"], 0)
    run.rings.by_all_rings(write, ["n2"], 1)
    assert run.broken() == []
    run.rings.by_all_rings(write, ["n1", "n2"], 0)
    assert run.broken() == ["I16"]
    write.begun = -100.0
    run.rings.by_all_rings(write, ["n1", "n2"], 0)
    assert run.broken() == ["I16"]
