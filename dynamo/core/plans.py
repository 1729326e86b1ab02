"""What a change of the ring will move, how long it takes, and whether it may be begun.

A change moves a copy of a partition wherever somebody becomes an owner who was none. The old ring
stays complete until the new one is (`dynamo.core.layout`), so at no step has a partition fewer full
copies than the lower of its live owners before and its live owners after.

What a partition holds is an estimate: all that the members say they hold, spread evenly over all
the copies they own. Keys are dealt to partitions by their hash, so with many keys in each it is a
good one; a few large files in a small store make it a poor one. Buckets that keep another number of
copies than the ring are counted as if they kept as many. Ideally as much moves as the members'
shares grow by (`dynamo.core.shares`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Literal

import msgspec

from dynamo.core.layout import Layout, with_member, without
from dynamo.core.ring import Member, Ring
from dynamo.errors import NoSuchMember, Refused

Kind = Literal["join", "leave", "remove", "weight", "zone"]

HERE = ("alive", "suspect")
"""The words of liveness for members whose copies count."""

NEARLY_THROUGH = "The last change of the ring is nearly through; try again in a moment."


class Change(msgspec.Struct, frozen=True):
    """One change of the ring. `zone` and `weight` are the member's from then on; None: as they are,
    or as a joiner says of itself."""

    kind: Kind
    name: str
    zone: str | None = None
    weight: float | None = None


class Held(msgspec.Struct, frozen=True):
    """What a member says it holds."""

    objects: int
    bytes: int


class Rates(msgspec.Struct, frozen=True):
    """What one member takes over in a second, at most."""

    objects: float
    bytes: float


class Move(msgspec.Struct, frozen=True):
    """A copy of a partition: `taker` becomes an owner, and one from whom it can have it is `giver`;
    None if no owner is there. `bytes` is an estimate."""

    partition: int
    giver: str | None
    taker: str
    bytes: int


class Plan(msgspec.Struct, frozen=True):
    """What a change comes to. `now` and `then` are the versions of the rings.

    `moves`: the first of them by partition; `moved`: how many there are. `bytes`: of all of them,
    estimated. `lowest_copies`: the fewest full copies any partition has at any step. `seconds`:
    until the member that takes most has it. `moved_share`, `ideal_share`: how much of all copies
    moves, and ideally would.
    """

    now: str
    then: str
    moves: tuple[Move, ...]
    moved: int
    bytes: int
    lowest_copies: int
    seconds: float
    moved_share: float
    ideal_share: float

    @property
    def ratio(self) -> float | None:
        """How much moves in units of the ideal; None where that is nothing."""
        return self.moved_share / self.ideal_share if self.ideal_share > 1e-9 else None


def members_after(change: Change, layout: Layout, joiner: Member) -> tuple[Member, ...]:
    """Who the ring has after a change, begun on what `layout` is on its way to.

    `joiner`: the zone and weight of one that joins, unless the change says others. Raises
    `NoSuchMember`; `Refused` for a joiner that is in already; `ValueError` for a weight that is
    none.
    """
    members = layout.next_members
    if change.kind == "join":
        if any(m.name == change.name for m in members):
            raise Refused("already_member", f"{change.name} is in the ring already.")
        return with_member(members, _changed(joiner, change))
    if change.kind in ("leave", "remove"):
        if not layout.knows(change.name):
            raise NoSuchMember(change.name)
        return without(members, change.name)
    for member in members:
        if member.name == change.name:
            return with_member(members, _changed(member, change))
    raise NoSuchMember(change.name)


def plan(
    before: Ring,
    members: Iterable[Member],
    *,
    alive: AbstractSet[str],
    held: Mapping[str, Held],
    rates: Rates,
    limit: int,
) -> Plan:
    """What it takes to get from a ring to that of `members`. Takes as long as building a ring.

    `alive`: whose copies count; `held`: what members of `before` say they hold, of those that are
    known to say what is true. At most `limit` moves are listed.
    """
    after = Ring(members, before.partitions, before.copies)
    objects_each, bytes_each = _copy_size(before, held)
    listed: list[Move] = []
    takes: Counter[str] = Counter()
    lowest = before.copies
    for partition in range(before.partitions):
        old, new = _owners(before, partition), _owners(after, partition)
        lowest = min(lowest, sum(o in alive for o in old), sum(o in alive for o in new))
        for giver, taker in _passed_on(old, new, alive):
            takes[taker] += 1
            if len(listed) < limit:
                listed.append(Move(partition, giver, taker, round(bytes_each)))
    moved, most = takes.total(), max(takes.values(), default=0)
    copies = after.partitions * min(after.copies, len(after.members))
    seconds = most * max(objects_each / rates.objects, bytes_each / rates.bytes)
    return Plan(
        now=before.version,
        then=after.version,
        moves=tuple(listed),
        moved=moved,
        bytes=round(moved * bytes_each),
        lowest_copies=lowest,
        seconds=round(seconds, 1),
        moved_share=moved / copies if copies else 0.0,
        ideal_share=_grown(before, after) / copies if copies else 0.0,
    )


def why_refused(
    kind: Literal["leave", "remove"],
    name: str,
    layout: Layout,
    liveness: Mapping[str, str],
    copies_wanted: int,
    me: str,
    *,
    force: bool = False,
) -> Refused | NoSuchMember | None:
    """Why `name` cannot leave, or be removed by `me`, as things stand; None if it can.

    `liveness`: the word for each member that is known, "alive" for one that asks for itself; a
    member nobody has heard of is not there. `copies_wanted` is N. `force` allows fewer members.
    """
    if not layout.knows(name):
        return NoSuchMember(name)
    here = liveness.get(name, "dead") in HERE
    staying = len(without(layout.next_members, name))
    few = staying < copies_wanted and not force
    for holds, code, why in (
        (layout.stage == "going", "change_under_way", NEARLY_THROUGH),
        *_not_the_one(kind, name, here, me),
        *_under_way(kind, name, layout),
        (staying == 0, "last_member", f"{name} is the last member; all data would go with it."),
        (few, "too_few_members", _too_few(kind, name, staying, copies_wanted)),
    ):
        if holds:
            return Refused(code, why)
    return None


def why_not(
    change: Change, layout: Layout, liveness: Mapping[str, str], copies_wanted: int, me: str
) -> str | None:
    """Why a change that is planned would be refused now, in a sentence."""
    if change.kind in ("leave", "remove"):
        kind: Literal["leave", "remove"] = "leave" if change.kind == "leave" else "remove"
        refused = why_refused(kind, change.name, layout, liveness, copies_wanted, me)
        return str(refused) if refused is not None else None
    return NEARLY_THROUGH if layout.stage == "going" else None


def _changed(member: Member, change: Change) -> Member:
    zone = member.zone if change.zone is None else change.zone
    weight = member.weight if change.weight is None else change.weight
    return Member(member.name, zone, weight)


Reason = tuple[bool, str, str]
"""Whether it holds, the code of the refusal, and its sentence."""


def _not_the_one(kind: str, name: str, here: bool, me: str) -> Iterator[Reason]:
    """Dead members are removed, and by others; one that is there leaves."""
    yield (
        kind == "remove" and name == me,
        "leave_instead",
        f"{name} cannot remove itself; POST /v1/cluster/leave to it, or remove it through another "
        "member once it is stopped.",
    )
    yield (
        kind == "remove" and here,
        "not_dead",
        f"{name} is not dead: POST /v1/cluster/leave to it, and it hands over what it has; or stop "
        "it first.",
    )
    yield (
        kind == "leave" and not here,
        "not_alive",
        f"{name} is not there to hand over what it has; start it again, or POST "
        "/v1/cluster/remove to another member, which takes it out.",
    )


def _under_way(kind: str, name: str, layout: Layout) -> Iterator[Reason]:
    """One change of a member at a time; a joiner that died may be given up."""
    yield (
        not any(m.name == name for m in layout.next_members),
        "change_under_way",
        f"{name} is on its way out already; GET /v1/cluster says how far it is.",
    )
    yield (
        kind == "leave" and not layout.in_ring(name),
        "change_under_way",
        f"{name} is still joining; let it finish, or stop it and remove it.",
    )


def _too_few(kind: str, name: str, left: int, copies: int) -> str:
    replace = (
        f", or replace it by starting an empty node under the name {name}"
        if kind == "remove"
        else ""
    )
    return (
        f"Without {name} there are {left} members for {copies} copies: add a node first{replace}, "
        'or send {"force": true} to go on with fewer copies.'
    )


def _owners(ring: Ring, partition: int) -> tuple[str, ...]:
    # No more than there are, so that nothing is ranked and kept: this may run in another thread.
    return ring.owners(partition, min(ring.copies, len(ring.members)))


def _passed_on(
    old: tuple[str, ...], new: tuple[str, ...], alive: AbstractSet[str]
) -> Iterator[tuple[str | None, str]]:
    """Who can have a copy from whom: from one that gives it up if it is there, else from the first
    owner that is, which is another from partition to partition."""
    takers = [name for name in new if name not in old]
    if not takers:
        return
    there = [name for name in old if name in alive]
    givers = [name for name in there if name not in new]
    for number, taker in enumerate(takers):
        giver = givers[number] if number < len(givers) else next(iter(there), None)
        yield giver, taker


def _copy_size(ring: Ring, held: Mapping[str, Held]) -> tuple[float, float]:
    """The objects and bytes of one copy of a partition, on average."""
    saying = [m.name for m in ring.members if m.name in held]
    owned = sum(ring.partitions_owned(name) for name in saying)
    if not owned:
        return 0.0, 0.0
    objects = sum(held[name].objects for name in saying)
    return objects / owned, sum(held[name].bytes for name in saying) / owned


def _grown(before: Ring, after: Ring) -> float:
    """The copies by which the members' shares grow."""
    shares = {m.name: before.share(m.name) for m in before.members}
    grown = [after.share(m.name) - shares.get(m.name, 0.0) for m in after.members]
    return sum(more for more in grown if more > 0)
