"""The face for changing the ring: what a change would move, and the two that are asked for.

GET /v1/ring/plan?join=NAME|leave=NAME|remove=NAME|weight=NAME:2|zone=NAME:z2   what it would take
POST /v1/cluster/leave      this node out of the ring: {}, {"force": true}, {"cancel": true}
POST /v1/cluster/remove     a dead member: {"name": NAME}, and "force"

A plan takes as long as building a ring, for a thousand nodes many seconds: it is made beside the
reactor's thread, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred

from dynamo.api.body import read_all
from dynamo.api.errors import Answer, json_answer
from dynamo.api.parameters import DECIMAL, NO_PARAMETERS, read_count, read_query
from dynamo.api.request import Request
from dynamo.api.site import Face
from dynamo.background.pulling import BYTES_PER_S, KEYS_PER_S
from dynamo.core.layout import Layout
from dynamo.core.plans import (
    HERE,
    Change,
    Held,
    Kind,
    Plan,
    Rates,
    members_after,
    plan,
    why_not,
)
from dynamo.core.ring import Member
from dynamo.errors import BadRequest, NotReady, Overloaded
from dynamo.ports import Changing, ClusterView, MemberStatus, Underway
from dynamo.storage.threads import Run

CHANGES: tuple[Kind, ...] = ("join", "leave", "remove", "weight", "zone")
PARAMETERS = frozenset((*CHANGES, "limit"))
MOVES_LISTED = 1000
MOVES_LISTED_MAX = 2**20 * 16
BODY_BYTES_MAX = 4096
NEWCOMER = Member("newcomer", zone="z1", weight=1.0)
"""The zone and weight of a joiner nobody has heard of: the defaults of the configuration."""


class _Leave(msgspec.Struct, forbid_unknown_fields=True):
    cancel: bool = False
    force: bool = False


class _Remove(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    force: bool = False


@attrs.define(eq=False)
class ChangesFace:
    """See the module. `changing` is None where this node cannot change the ring; `aside` runs a
    long computation; `copies` is N; `underway()` tells how far this node is with a change."""

    view: ClusterView
    changing: Changing | None
    underway: Callable[[], Underway]
    aside: Run
    copies: int
    _planning: bool = False

    app = Face()

    @app.route("/v1/ring/plan", methods=["GET"])
    async def plan(self, request: Request) -> Answer:
        given = read_query(request, PARAMETERS)
        change = read_change(given)
        limit = read_count("limit", given.get("limit", str(MOVES_LISTED)), MOVES_LISTED_MAX)
        await self.view.refresh()
        layout, members = layout_of(self.view), {m.name: m for m in self.view.members()}
        words = {name: str(member.liveness) for name, member in members.items()}
        wanted = members_after(change, layout, _joiner(change.name, members))
        # A joiner is planned for as if it were there.
        alive = {m.name for m in wanted if m.name not in words or words[m.name] in HERE}
        alive |= {name for name, word in words.items() if word in HERE}
        held, ring = _held(members.values()), self.view.ring
        rates = _rates(self.underway())
        made = await self._aside(
            lambda: plan(ring, wanted, alive=alive, held=held, rates=rates, limit=limit)
        )
        why = why_not(change, layout, words, self.copies, self.view.name)
        return json_answer(_told(made, why))

    @app.route("/v1/cluster/leave", methods=["POST"])
    async def leave(self, request: Request) -> Answer:
        asked = await _read(request, _Leave)
        if asked.cancel and asked.force:
            raise BadRequest("bad_body", "Either cancel or force, not both.")
        changing, name = self._changing(), self.view.name
        if asked.cancel:
            return self._begun(await changing.stay(), f"{name} stays in the ring")
        return self._begun(
            await changing.leave(force=asked.force),
            f"{name} serves on while the others take over what it holds, and then leaves the ring",
        )

    @app.route("/v1/cluster/remove", methods=["POST"])
    async def remove(self, request: Request) -> Answer:
        asked = await _read(request, _Remove)
        return self._begun(
            await self._changing().remove(asked.name, force=asked.force),
            f"The others make up for the copies {asked.name} had, and it is out of the ring",
        )

    def _changing(self) -> Changing:
        if self.changing is None:
            raise NotReady("This node goes by a ring that cannot be changed.")
        return self.changing

    def _begun(self, layout: Layout, what: str) -> Answer:
        told = {
            "status": "Success",
            "node": self.view.name,
            "layout": layout.version,
            "stage": layout.stage,
            "detail": f"{what}; GET /v1/cluster says under `change` how far it is.",
        }
        return json_answer(told, 202)

    async def _aside(self, work: Callable[[], Plan]) -> Plan:
        """One at a time, until it has ended, whether somebody still waits for it or not."""
        if self._planning:
            raise Overloaded("place for making plans")
        self._planning = True
        waiting: Deferred[Plan] = Deferred()
        self.aside(work).addBoth(self._planned, waiting)
        return await waiting

    def _planned(self, result: Any, waiting: Deferred[Plan]) -> None:
        self._planning = False
        waiting.callback(result)


def change_told(
    view: ClusterView, changing: Changing | None, underway: Underway
) -> dict[str, Any] | None:
    """The change of the ring for `GET /v1/cluster`; None while there is none."""
    layout = layout_of(view)
    if layout.stage == "steady":
        return None
    coming = {m.name for m in layout.next_members}
    going = {m.name for m in (layout.members if layout.stage == "coming" else layout.beside)}
    waits = [] if changing is None else changing.waits_for()
    return {
        "layout": layout.version,
        "stage": layout.stage,
        "joining": sorted(coming - going),
        "leaving": sorted(going - coming),
        "waits_for": [*waits, *underway.waits_for],
        "transfers": underway.transfers,
        "partitions_left": underway.partitions_left,
        "bytes": underway.bytes,
        "seconds_left": underway.seconds_left,
    }


def layout_of(view: ClusterView) -> Layout:
    """The layout a node goes by; one that was handed its members has just the ring."""
    return view.layout if view.layout.version else Layout(members=view.ring.members)


def read_change(given: Mapping[str, str]) -> Change:
    """The one change among query parameters. Raises `BadRequest`."""
    joining = "join" in given
    asked = [k for k in CHANGES if k in given and not (joining and k in ("weight", "zone"))]
    if len(asked) != 1:
        what = "more than one change" if asked else "no change"
        raise _bad(f"There is {what} to plan: give one of {', '.join(CHANGES)}.")
    kind = asked[0]
    name, zone, weight = given[kind], given.get("zone"), given.get("weight")
    if not joining and kind in ("weight", "zone"):
        name, colon, value = name.rpartition(":")
        if not (colon and name and value):
            raise _bad(f"{kind} must be the member's name, a colon, and its {kind} to be.")
        zone, weight = (value, None) if kind == "zone" else (None, value)
    if not name:
        raise _bad(f"{kind} must be a member's name.")
    if zone == "":
        raise _bad("zone must not be empty.")
    return Change(kind, name, zone, None if weight is None else _weight(weight))


def _weight(text: str) -> float:
    weight = float(text) if DECIMAL.fullmatch(text) else 0.0
    if not weight:
        raise _bad("weight must be a number above 0, such as 1.5.")
    return weight


def _joiner(name: str, members: Mapping[str, MemberStatus]) -> Member:
    known = members.get(name)
    zone = known.zone if known is not None else NEWCOMER.zone
    return Member(name, zone, known.weight if known is not None else NEWCOMER.weight)


def _held(members: Iterable[MemberStatus]) -> dict[str, Held]:
    """What members hold, by those whose word is recent and who hold what they ought to."""
    return {
        m.name: Held(m.objects, m.bytes) for m in members if m.liveness in HERE and m.refill is None
    }


def _rates(underway: Underway) -> Rates:
    """The rate at which members take over what they will own: as they do now, if any does."""
    taking: dict[str, float] = {}
    for transfer in underway.transfers:
        before = taking.get(transfer.target, 0.0)
        taking[transfer.target] = before + transfer.bytes_per_second
    measured = sum(taking.values()) / len(taking) if taking else 0.0
    return Rates(inf, measured) if measured > 0 else Rates(KEYS_PER_S, BYTES_PER_S)


def _told(made: Plan, why: str | None) -> dict[str, Any]:
    ratio = made.ratio
    return {
        "moves": [
            {"partition": m.partition, "from": m.giver, "to": m.taker, "bytes": m.bytes}
            for m in made.moves
        ],
        "more": made.moved - len(made.moves),
        "bytes": made.bytes,
        "lowest_copies": made.lowest_copies,
        "seconds": made.seconds,
        "moved_share": round(made.moved_share, 6),
        "ideal_share": round(made.ideal_share, 6),
        "moved_to_ideal": None if ratio is None else round(ratio, 3),
        "ring_version": {"now": made.now, "then": made.then},
        "why_not": why,
    }


async def _read(request: Request, kind: type[Any]) -> Any:
    """The body as one of the requests; an empty one asks for nothing in particular. There are no
    parameters, so that `?cancel=true` never passes for a leave."""
    read_query(request, NO_PARAMETERS)
    data = await read_all(request.body, BODY_BYTES_MAX)
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest("bad_body", f"The body: {error}.") from None


def _bad(detail: str) -> BadRequest:
    return BadRequest("bad_parameter", detail)
