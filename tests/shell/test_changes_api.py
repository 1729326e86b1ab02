"""The face for changing the ring: plans, and what is asked of the port behind it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dynamo.api.changes import ChangesFace, change_told
from dynamo.api.operating import OperatingFace
from dynamo.api.site import site
from dynamo.core.layout import Layout, with_member, without
from dynamo.core.plans import Held, Rates, plan
from dynamo.core.refilling import Progress
from dynamo.core.ring import Member, Ring
from dynamo.core.transfers import Moving
from dynamo.errors import NoSuchMember, NotReady, Refused
from dynamo.ports import Liveness, MemberStatus, Underway
from tests.support.http import Client, Response, logged_errors  # noqa: F401

PARTITIONS = 64
NAMES = "abcd"
OBJECTS, BYTES = 64_000, 48 * 10**6


class View:
    """Members a to d, all well; each says it holds the same."""

    name = "a"
    beside: Ring | None = None

    def __init__(self) -> None:
        self.ring = Ring([Member(n, "z1") for n in NAMES], PARTITIONS, 3)
        self.layout = Layout(7, 1, self.ring.members)
        self.words: dict[str, Liveness] = dict.fromkeys(NAMES, "alive")
        self.joiners: dict[str, Member] = {}
        self.refilled: tuple[str, ...] = ()
        self.says = dict.fromkeys(NAMES, (OBJECTS, BYTES))
        self.refreshed = 0

    async def refresh(self) -> None:
        self.refreshed += 1

    def members(self) -> list[MemberStatus]:
        members = {m.name: m for m in self.ring.members} | self.joiners
        return [self._status(members[name]) for name in sorted(members)]

    def _status(self, member: Member) -> MemberStatus:
        joins = member.name in self.joiners
        objects, size = self.says.get(member.name, (0, 0))
        progress = Progress(0, 9, 0, 0.0, None) if member.name in self.refilled else None
        return MemberStatus(
            name=member.name,
            api="",
            cluster="",
            zone=member.zone,
            weight=member.weight,
            liveness=self.words.get(member.name, "alive"),
            role="joining" if joins else "active",
            incarnation=1,
            objects=objects,
            bytes=size,
            hints=0,
            refill=progress,
        )


class Changer:
    """The port; every call is noted. `fails`: what it raises."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None
        self.behind = ""

    def uses(self, name: str) -> int:
        return 0 if name in self.behind else 99

    def waits_for(self) -> list[str]:
        return [f"{name} is late." for name in self.behind]

    def sync_done(self, version: int) -> None: ...

    async def leave(self, *, force: bool = False) -> Layout:
        return self._called("leave", force)

    async def stay(self) -> Layout:
        self._called("stay")
        return Layout(9, 1, (Member("a"),))

    async def remove(self, name: str, *, force: bool = False) -> Layout:
        return self._called("remove", name, force)

    def _called(self, *call: Any) -> Layout:
        self.calls.append(call)
        if self.fails is not None:
            raise self.fails
        return Layout(8, 1, (Member("a"), Member("b")), (Member("a"),), True)


class Desk:
    """A client of the face. Plans are made when `work` is called."""

    def __init__(self, *, static: bool = False) -> None:
        self.view, self.changer = View(), Changer()
        self.underway = Underway()
        self.asked: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        view: Any = self.view
        changer = None if static else self.changer
        face = ChangesFace(view, changer, lambda: self.underway, self._aside, 3)
        self.site = site(face.app, reactor=Clock(), body_limit=100_000)
        self.client = Client(self.site)

    def _aside(self, call: Callable[[], Any]) -> Deferred[Any]:
        self.asked.append((call, Deferred()))
        return self.asked[-1][1]

    def work(self) -> None:
        call, answer = self.asked.pop(0)
        answer.callback(call())

    def plan(self, query: str) -> Response:
        """Asks, and makes the plan if it comes to that."""
        already = len(self.client.responses())
        self.client.send(b"GET /v1/ring/plan?" + query.encode() + b" HTTP/1.1\r\nHost: n\r\n\r\n")
        if self.asked:
            assert len(self.client.responses()) == already
            self.work()
        return self.client.responses()[already]

    def post(self, path: str, body: bytes = b"") -> Response:
        return self.client.ask("POST", f"/v1/cluster/{path}", body)


HELD = {name: Held(OBJECTS, BYTES) for name in NAMES}
RATES = Rates(2000, 32 * 2**20)


def expected(view: View, members: tuple[Member, ...], alive: str = "abcde", **more: Any) -> Any:
    given: dict[str, Any] = {"held": HELD, "rates": RATES, "limit": 10**6, **more}
    return plan(view.ring, members, alive=set(alive), **given)


@pytest.mark.parametrize(
    ("query", "member"),
    [
        ("join=e", Member("e", "z1", 1.0)),
        ("join=e&zone=z2&weight=1.5", Member("e", "z2", 1.5)),
        ("weight=b:2", Member("b", "z1", 2.0)),
        ("weight=b:0.25", Member("b", "z1", 0.25)),
        ("zone=b:z%202", Member("b", "z 2", 1.0)),
        ("leave=b", None),
    ],
)
def test_a_plan_is_that_of_the_ring_it_leads_to(query: str, member: Member | None) -> None:
    """Made aside, of what the members say at that moment."""
    desk = Desk()
    told = desk.plan(query)
    members = desk.view.ring.members
    wanted = with_member(members, member) if member is not None else without(members, "b")
    made = expected(desk.view, wanted)
    assert (told.status, desk.view.refreshed) == (200, 1)
    assert told.json() == {
        "moves": [
            {"partition": m.partition, "from": m.giver, "to": m.taker, "bytes": m.bytes}
            for m in made.moves
        ],
        "more": 0,
        "bytes": made.bytes,
        "lowest_copies": 3,
        "seconds": made.seconds,
        "moved_share": round(made.moved_share, 6),
        "ideal_share": round(made.ideal_share, 6),
        "moved_to_ideal": round(made.ratio, 3) if made.ratio is not None else None,
        "ring_version": {"now": desk.view.ring.version, "then": made.then},
        "why_not": None,
    }
    assert made.moves
    assert made.bytes > 0


def test_a_joiner_brings_what_it_says_of_itself() -> None:
    """Gossip knows it before the ring does."""
    desk = Desk()
    desk.view.joiners["e"] = Member("e", "z9", 2.0)
    told = desk.plan("join=e").json()
    wanted = (*desk.view.ring.members, Member("e", "z9", 2.0))
    assert told["ring_version"]["then"] == Ring(wanted, PARTITIONS, 3).version
    assert told["bytes"] == expected(desk.view, wanted).bytes


def test_the_removal_of_a_dead_member() -> None:
    """It gives nothing, what it once said does not count, and one copy is lacking until the end."""
    desk = Desk()
    desk.view.words["d"] = "dead"
    desk.view.refilled = ("c",)
    desk.view.says |= {"c": (3, 3), "d": (0, 0)}
    told = desk.plan("remove=d").json()
    held = {name: HELD[name] for name in "ab"}
    made = expected(desk.view, desk.view.ring.members[:3], "abc", held=held)
    assert {move["from"] for move in told["moves"]} == set("abc")
    assert (told["bytes"], told["seconds"]) == (made.bytes, made.seconds)
    assert (told["lowest_copies"], told["why_not"]) == (2, None)


def test_what_would_be_refused_is_said_and_planned_all_the_same() -> None:
    """The sentence is that of the refusal."""
    desk = Desk()
    told = desk.plan("remove=d").json()
    assert told["moves"]
    assert told["why_not"].startswith("d is not dead: POST /v1/cluster/leave")
    assert desk.plan("leave=d").json()["why_not"] is None
    three = without(desk.view.ring.members, "d")
    desk.view.ring = Ring(three, PARTITIONS, 3)
    desk.view.layout = Layout(9, 1, desk.view.ring.members)
    assert "add a node first" in desk.plan("leave=c").json()["why_not"]


def test_a_plan_goes_on_from_where_the_ring_is_going() -> None:
    """What moves, moves from the ring that is complete."""
    desk = Desk()
    members = desk.view.ring.members
    e, f = Member("e", "z1"), Member("f", "z1")
    desk.view.layout = Layout(8, 1, members, (*members, e), True)
    then = desk.plan("join=f").json()["ring_version"]["then"]
    assert then == Ring((*members, e, f), PARTITIONS, 3).version
    assert desk.plan("join=e").json()["code"] == "already_member"
    desk.view.layout = Layout(9, 1, members, (*members, e), False)
    assert "nearly through" in desk.plan("join=f").json()["why_not"]


def test_members_that_were_handed_in_can_be_planned_with() -> None:
    """Where nobody agreed on a layout the ring is all there is."""
    desk = Desk()
    desk.view.layout = Layout()
    told = desk.plan("leave=b").json()
    wanted = without(desk.view.ring.members, "b")
    assert told["ring_version"]["then"] == Ring(wanted, PARTITIONS, 3).version


def test_the_list_is_as_long_as_asked_for() -> None:
    """And everything else is of all moves."""
    desk = Desk()
    whole, short = desk.plan("join=e").json(), desk.plan("join=e&limit=3").json()
    assert short["moves"] == whole["moves"][:3]
    assert short["more"] == len(whole["moves"]) - 3 > 0
    assert {**short, "moves": 0, "more": 0} == {**whole, "moves": 0, "more": 0}


def test_the_time_goes_by_the_rate_of_now_if_there_is_one() -> None:
    """Each receiver's own, on average."""
    desk = Desk()
    rate = {"partition": 1, "bytes": 5, "seconds_left": 1.0, "source": "a"}
    desk.underway = Underway(
        transfers=(
            Moving(target="b", bytes_per_second=1000.0, **rate),  # type: ignore[arg-type]
            Moving(target="b", bytes_per_second=3000.0, **rate),  # type: ignore[arg-type]
            Moving(target="c", bytes_per_second=2000.0, **rate),  # type: ignore[arg-type]
        )
    )
    told = desk.plan("join=e").json()
    assert told["seconds"] == pytest.approx(told["bytes"] / 3000, abs=0.1)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "bad_parameter"),
        ("limit=5", 400, "bad_parameter"),
        ("join=e&leave=b", 400, "bad_parameter"),
        ("leave=b&leave=c", 400, "bad_parameter"),
        ("leave=b&weight=b:2", 400, "bad_parameter"),
        ("leave=", 400, "bad_parameter"),
        ("join=e&weight=0", 400, "bad_parameter"),
        ("join=e&weight=nan", 400, "bad_parameter"),
        ("join=e&weight=b:2", 400, "bad_parameter"),
        ("join=e&zone=", 400, "bad_parameter"),
        ("weight=b:-1", 400, "bad_parameter"),
        ("weight=b:1e400", 400, "bad_parameter"),
        ("weight=b", 400, "bad_parameter"),
        ("weight=:2", 400, "bad_parameter"),
        ("zone=b", 400, "bad_parameter"),
        ("join=e&limit=0", 400, "bad_parameter"),
        ("jion=e", 400, "bad_parameter"),
        ("leave=x", 404, "no_such_member"),
        ("remove=x", 404, "no_such_member"),
        ("weight=x:2", 404, "no_such_member"),
        ("zone=x:z2", 404, "no_such_member"),
        ("weight=x:y:2", 404, "no_such_member"),
        ("join=b", 409, "already_member"),
    ],
)
def test_what_cannot_be_planned(query: str, status: int, code: str) -> None:
    """Is a problem that says so, and nothing is computed."""
    desk = Desk()
    refused = desk.plan(query)
    assert (refused.status, refused.json()["code"]) == (status, code)
    assert refused.json()["detail"].endswith(".")


def test_one_plan_at_a_time() -> None:
    """Also while the one that asked is gone: its computation is not; nothing is left in the log."""
    desk = Desk()
    request = b"GET /v1/ring/plan?join=e HTTP/1.1\r\nHost: n\r\n\r\n"
    for fails in (False, True):
        first, second = Client(desk.site), Client(desk.site)
        first.send(request)
        first.vanish()
        busy = second.ask("GET", "/v1/ring/plan?join=f")
        assert (busy.status, busy.json()["code"]) == (503, "overloaded")
        assert busy.headers["retry-after"] == "1"
        if fails:
            desk.asked.pop()[1].errback(ValueError("nobody wants to know"))
        else:
            desk.work()
        assert desk.plan("join=f").status == 200


def test_a_path_of_a_key_is_not_taken_for_a_plan() -> None:
    """A bucket may be named so; this face does not serve it."""
    desk = Desk()
    assert desk.client.ask("GET", "/v1/ring/plan/key").json()["code"] == "no_such_route"
    assert desk.client.ask("POST", "/v1/ring/plan?join=e", b"").status == 405


# Leaving and removing.


@pytest.mark.parametrize(
    ("path", "body", "call"),
    [
        ("leave", b"", ("leave", False)),
        ("leave", b"{}", ("leave", False)),
        ("leave", b'{"force": true}', ("leave", True)),
        ("leave", b'{"force": false, "cancel": false}', ("leave", False)),
        ("leave", b'{"cancel": true}', ("stay",)),
        ("remove", b'{"name": "c"}', ("remove", "c", False)),
        ("remove", b'{"name": "c", "force": true}', ("remove", "c", True)),
    ],
)
def test_what_is_asked_for_is_begun(path: str, body: bytes, call: tuple[Any, ...]) -> None:
    """202: it goes on for a while, and the answer says where to look."""
    desk = Desk()
    begun = desk.post(path, body)
    assert (begun.status, desk.changer.calls) == (202, [call])
    told = begun.json()
    detail = told.pop("detail")
    stays = call == ("stay",)
    version, stage = (9, "steady") if stays else (8, "coming")
    assert told == {"status": "Success", "node": "a", "layout": version, "stage": stage}
    assert detail.startswith("The others" if path == "remove" else "a stays" if stays else "a s")
    assert "GET /v1/cluster" in detail


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("leave", b"{"),
        ("leave", b"[]"),
        ("leave", b"\xff"),
        ("leave", b'{"name": "a"}'),
        ("leave", b'{"force": 1}'),
        ("leave", b'{"force": true, "cancel": true}'),
        ("remove", b""),
        ("remove", b"{}"),
        ("remove", b'{"name": 3}'),
        ("remove", b'{"name": "c", "cancel": true}'),
    ],
)
def test_a_body_that_is_none(path: str, body: bytes) -> None:
    """Nothing is begun."""
    desk = Desk()
    refused = desk.post(path, body)
    assert (refused.status, refused.json()["code"]) == (400, "bad_body")
    assert desk.changer.calls == []


@pytest.mark.parametrize("path", ["leave?cancel=true", "remove?name=c"])
def test_what_is_asked_for_stands_in_the_body(path: str) -> None:
    """Elsewhere it is not overlooked."""
    desk = Desk()
    refused = desk.post(path, b'{"name": "c"}' if path.startswith("remove") else b"")
    assert (refused.status, refused.json()["code"]) == (400, "bad_parameter")
    assert desk.changer.calls == []


def test_a_body_may_not_be_long() -> None:
    """Whatever is in it."""
    desk = Desk()
    refused = desk.post("remove", b'{"name": "%s"}' % (b"x" * 5000))
    assert (refused.status, desk.changer.calls) == (413, [])


@pytest.mark.parametrize("path", ["leave", "remove"])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refused("not_dead", "c is not dead."), 409, "not_dead"),
        (NoSuchMember("c"), 404, "no_such_member"),
        (NotReady("Two of five members agreed in time."), 503, "not_ready"),
    ],
)
def test_what_the_port_refuses(path: str, error: Exception, status: int, code: str) -> None:
    """Is told in its own words."""
    desk = Desk()
    desk.changer.fails = error
    refused = desk.post(path, b'{"name": "c"}' if path == "remove" else b"")
    assert refused.status == status
    assert refused.json()["code"] == code
    assert refused.json()["detail"] == str(error)


def test_where_the_ring_is_fixed_it_says_so() -> None:
    """And plans all the same."""
    desk = Desk(static=True)
    assert desk.post("leave").json()["code"] == "not_ready"
    assert desk.plan("join=e").status == 200


# The change under way.


def test_no_change_is_null() -> None:
    """Also before anybody agreed on anything."""
    view: Any = View()
    assert change_told(view, None, Underway()) is None
    view.layout = Layout()
    assert change_told(view, None, Underway()) is None


def test_the_members_come_with_the_change() -> None:
    """By what the layout, the port and the background say together; null while there is none."""
    view: Any = View()
    view.gossip = SimpleNamespace(packets={}, bytes={}, dropped={}, health=0, counts={})
    view.events, view.suspected = (), list
    nothing: Any = None
    face = OperatingFace("demo", view, nothing, nothing, lambda: "", nothing, list)
    client = Client(site(face.app, reactor=Clock(), body_limit=100))
    assert client.ask("GET", "/v1/cluster").json()["change"] is None
    face.changing = Changer()
    face.changing.behind = "b"
    face.underway = lambda: Underway(partitions_left=3)
    view.layout = Layout(8, 1, view.ring.members, view.ring.members[1:], True)
    told = client.ask("GET", "/v1/cluster").json()["change"]
    wanted = change_told(view, face.changing, Underway(partitions_left=3))
    assert told == msgspec.json.decode(msgspec.json.encode(wanted))
    assert told["waits_for"] == ["b is late."]


def test_a_change_under_way_is_told() -> None:
    """Who comes, who goes, what is waited for, what is on its way."""
    view: Any = View()
    changer = Changer()
    old, new = view.ring.members, (*view.ring.members[1:], Member("e"), Member("f"))
    view.layout = Layout(8, 1, old, new, True)
    changer.behind = "c"
    transfer = Moving(
        source="b", target="e", partition=9, bytes=512, bytes_per_second=128.5, seconds_left=None
    )
    underway = Underway(
        waits_for=("Partition 3 waits for b.",),
        transfers=(transfer,),
        partitions_left=12,
        bytes=4096,
        seconds_left=3.5,
    )
    told = msgspec.json.decode(msgspec.json.encode(change_told(view, changer, underway)))
    assert told == {
        "layout": 8,
        "stage": "coming",
        "joining": ["e", "f"],
        "leaving": ["a"],
        "waits_for": ["c is late.", "Partition 3 waits for b."],
        "transfers": [
            {
                "from": "b",
                "to": "e",
                "partition": 9,
                "bytes": 512,
                "bytes_per_second": 128.5,
                "seconds_left": None,
            }
        ],
        "partitions_left": 12,
        "bytes": 4096,
        "seconds_left": 3.5,
    }
    view.layout = Layout(9, 1, new, old, False)
    told = change_told(view, None, Underway())
    assert told is not None
    assert (told["stage"], told["joining"], told["leaving"]) == ("going", ["e", "f"], ["a"])
    assert told["waits_for"] == []
