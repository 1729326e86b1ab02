"""Situations that chance rarely brings about, each as a kind of run that some seeds have.

What goes wrong in a ring's change, or in a handoff, mostly needs several things at once: somebody
away since before, a change, writes meanwhile, and a return at the right moment. Faults drawn one by
one seldom meet so. In such a run a situation comes again and again, in new variations, instead of
the faults that the seed draws otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from random import Random

import attrs

from dynamo.core.ring import Member, Ring
from dynamo.sim.fault_rings import STAYING_MIN
from dynamo.sim.plan import Fault, Operation
from dynamo.sim.workload import KNOWN, SMALL

RETURNING_SHARE = 0.25
"""Of the runs whose ring does not change."""
SHARES = {"absent": 0.3, "follower": 0.1, "rivals": 0.1}
"""Of the runs whose ring changes."""
STAGED_SHARES = {"orphans": 0.03, "stalled": 0.03}
"""Of the runs whose ring changes, in place of what they have else."""
PARTITIONS = {"orphans": 16}
"""Of the ring, where a situation needs few: then not everyone has a part in each change."""

SITUATIONS = {
    "absent": "A member is away from before the ring changes until after.",
    "follower": "A member that clients write through is slow to follow a change of the ring.",
    "rivals": "Two changes of the ring are asked for in one moment, by members that hardly hear "
    "each other or not at all.",
    "orphans": "Others keep what a member missed that goes for good, and are away then.",
    "stalled": "A member whose disk stands still writes, or asks for a change of the ring, as "
    "others ask for one.",
    "returning": "A member is cut off again and again, also while it is told what it missed.",
}

ALL = ("plain", "strict", "wide", "fast", "single")
LAST_S = 34.0
"""A member is away for the last time so long before the end, at least."""
KEYS, MANY_KEYS = 8, 40
ZONE, COPIES = "z1", 3
"""Where each node is by its configuration, and for how many copies it has a ring laid."""
AGREEING_MIN = 5
"""Of so many members most are left when two of them are away."""


def situation(seed: int, changes: bool) -> str:
    """Which one a seed has, "" if none; `changes`: whether its ring does."""
    rng = Random(f"{seed}:situation")
    if not changes:
        return "returning" if rng.random() < RETURNING_SHARE else ""
    # With dice of their own, and few, so that the other seeds keep what they had.
    shares, dice = STAGED_SHARES, Random(f"{seed}:chosen scenes")
    staged = dice.choices(("", *shares), (1.0 - sum(shares.values()), *shares.values()))[0]
    return staged or rng.choices(("", *SHARES), (1.0 - sum(SHARES.values()), *SHARES.values()))[0]


@attrs.frozen
class Scenes:
    """All that happens in such a run: `faults` by their begin, and what clients do about them."""

    faults: tuple[Fault, ...]
    operations: tuple[Operation, ...]


def draw(
    rng: Random,
    what: str,
    *,
    names: Sequence[str],
    founders: int,
    clients: int,
    seconds: float,
    links: bool,
) -> Scenes | None:
    """The situation `what` for a run of so many seconds; None if it has none.

    `founders` as in `Plan`; `links`: only such faults as end no node without its having told what
    it knows. Operations count from 0."""
    if not what:
        return None
    stage = _Stage(rng, list(names), founders or len(names), clients, seconds, links)
    scenes: dict[str, Callable[[], None]] = {
        "absent": stage.absent,
        "follower": stage.follower,
        "rivals": stage.rivals,
        "orphans": stage.orphans,
        "stalled": stage.stalled,
        "returning": stage.returning,
    }
    scenes[what]()
    return Scenes(
        tuple(sorted((f for f in stage.faults if f.at < seconds), key=lambda fault: fault.at)),
        tuple(stage.operations),
    )


class _Stage:
    def __init__(
        self,
        rng: Random,
        names: list[str],
        founders: int,
        clients: int,
        seconds: float,
        links: bool,
    ) -> None:
        self._rng = rng
        self._names = names
        self._inside, self._outside = names[:founders], names[founders:]
        self._clients = clients
        self._seconds = seconds
        self._links = links
        self._round = 0
        self.faults: list[Fault] = []
        self.operations: list[Operation] = []

    # The situations.

    def absent(self) -> None:
        rng, at = self._rng, self._rng.uniform(2.0, 6.0)
        while at + LAST_S < self._seconds:
            who = rng.choice(self._inside)
            how = "partition" if self._links else rng.choice(("partition", "pause", "kill"))
            end = at + rng.uniform(15.0, 20.0)
            self._fault(at, how, (who,), end - at)
            rest = [name for name in self._inside if name != who]
            self._writes(at - 1.5, 1.5, 6, rest)
            self._writes(at + 1.0, 5.0, 14, rest)
            going = self._change(at + 6.0, rest, self._kinds("remove" if self._round else ""))
            self._writes(at + 6.5, 5.0, 16, [name for name in rest if name not in going])
            self._writes(end - 1.5, 3.0, 9, [who], ("strict",))
            self._reads(end, 5.0, 8, [who])
            at = end + rng.uniform(14.0, 18.0)
            self._round += 1

    def follower(self) -> None:
        rng, at = self._rng, self._rng.uniform(2.0, 6.0)
        while at + 20.0 < self._seconds:
            who = rng.choice(self._inside)
            self._fault(at, "latency", (who,), 8.0, 0.15 * 5.0 ** rng.random())
            self._writes(at + 0.3, 6.0, 24, [who])
            self._writes(at + 0.3, 6.0, 8, self._inside)
            self._change(at + 1.0, [n for n in self._inside if n != who], self._kinds("remove"))
            at += rng.uniform(20.0, 26.0)
            self._round += 1

    def rivals(self) -> None:
        rng, at = self._rng, self._rng.uniform(2.0, 6.0)
        while at + 20.0 < self._seconds:
            inside = rng.sample(self._inside, len(self._inside))
            half = inside[: len(inside) // 2]
            sides = (half, [name for name in inside if name not in half])
            apart = 0.05
            if rng.random() < 0.5:
                self._fault(at, "partition", tuple(half), 12.0)
            else:
                # One has just been agreed on, and the other's proposer has not heard of it.
                slow = 0.03 * 10.0 ** rng.random()
                self._fault(at, "latency", tuple(self._names), 12.0, slow)
                apart = 6.0 * slow
            for side, least in zip(sides, (0.0, apart / 3), strict=True):
                then = at + 0.5 + max(least, rng.uniform(0.0, 1.0) * apart * (least > 0.0))
                self._change(then, side, self._kinds("remove"), 1)
            self._writes(at, 10.0, 10, self._inside)
            at += rng.uniform(22.0, 28.0)
            self._round += 1

    def orphans(self) -> None:
        """Of some keys only one that does not own them has what was written. It has to tell those
        that will own them before the one it keeps it for goes, or when it is back after that."""
        rng, at = self._rng, self._rng.uniform(2.0, 4.0)
        # The more there are, the likelier one of them has no part in another's going.
        self._change(at, self._inside, ("join",) if self._outside else ())
        at += 8.0
        while at + 24.0 < self._seconds and len(self._inside) > STAYING_MIN + 1:
            gone, keeper = rng.choice(self._unconcerned() or [tuple(rng.sample(self._inside, 2))])
            rest = [name for name in self._inside if name not in (gone, keeper)]
            if self._links or not self._round % 2:
                # It takes it a while to be sure that nobody else is there.
                self._fault(at, "partition", (keeper,), rng.uniform(18.0, 20.0))
                self._writes(at + 9.0, 8.0, 70, [keeper], ("single", "fast", "plain"), MANY_KEYS)
                self._change(at + 4.0, [gone], ("leave",))
            else:
                self._fault(at, "partition", (gone,), 8.0)
                self._writes(at + 2.0, 5.0, 60, [*rest, keeper], ("single",), MANY_KEYS)
                self._writes(at + 2.0, 5.0, 12, [gone], ("plain", "fast"))
                self._fault(at + 7.0, "remove", (gone,), 28.0, rng.uniform(0.0, 0.59))
                self._inside = [name for name in self._inside if name != gone]
            self._writes(at + 9.5, 8.0, 12, rest, ("single", "fast"), MANY_KEYS)
            self._reads(at + 20.0, 5.0, 10, [*rest, keeper])
            at += rng.uniform(26.0, 28.0)
            self._round += 1

    def _unconcerned(self) -> list[tuple[str, ...]]:
        """Pairs of members: when the first goes, the second neither takes over nor gives away keys
        with one copy, so that nobody waits for it."""
        now = self._firsts(self._inside)
        found: list[tuple[str, ...]] = []
        for gone in self._inside:
            then = self._firsts([name for name in self._inside if name != gone])
            changes = [pair for pair in zip(now, then, strict=True) if pair[0] != pair[1]]
            busy = {gone, *itertools.chain.from_iterable(changes)}
            found += [(gone, name) for name in self._inside if name not in busy]
        return found

    def _firsts(self, names: Sequence[str]) -> list[str]:
        """The first owner of each partition where these are the members."""
        partitions = PARTITIONS["orphans"]
        ring = Ring([Member(name, ZONE) for name in names], partitions, COPIES)
        return [ring.ranking(partition)[0] for partition in range(partitions)]

    def stalled(self) -> None:
        """What it asks for is decided, and nobody hears of it but by asking those who decided; what
        it writes goes by the ring it knows, and leaves it late."""
        rng, at = self._rng, self._rng.uniform(2.0, 6.0)
        while at + 20.0 < self._seconds and len(self._inside) > STAYING_MIN:
            who, other = rng.sample(self._inside, 2)
            self._fault(at, "disk_stalled", (who,), rng.uniform(3.0, 4.5))
            if self._round % 2:
                # Both think better of it at once.
                self._fault(at - 0.4, "leave", (who,), 8.0, 0.1 * rng.random())
                self._fault(at + rng.uniform(0.0, 1.0), "leave", (other,), 8.0, 0.1 * rng.random())
            else:
                self._change(at - 0.4, [other], ("leave",))
                self._outside.append(other)
            rest = [name for name in self._inside if name != who]
            self._writes(at + 0.3, 2.5, 40, [who], keys=MANY_KEYS)
            self._writes(at, 6.0, 6, rest)
            if len(self._inside) < AGREEING_MIN:
                self._change(at + 9.0, rest, ("join",))
            at += rng.uniform(17.0, 20.0)
            self._round += 1

    def returning(self) -> None:
        rng, at = self._rng, self._rng.uniform(2.0, 6.0)
        count = rng.choice((1, 1, 2)) if len(self._inside) > 3 else 1
        away = rng.sample(self._inside, count)
        rest = [name for name in self._inside if name not in away]
        while at + 20.0 < self._seconds:
            lasts = rng.uniform(5.0, 7.0)
            self._fault(at, "partition", tuple(away), lasts)
            self._outage(at + 2.5, lasts - 2.5, 12, rest)
            at += lasts
            if rng.random() < 0.6:
                self._interrupt(at, away[0], rest)
            at += rng.uniform(7.0, 11.0)

    def _interrupt(self, at: float, who: str, rest: Sequence[str]) -> None:
        """It is told, and answers only when others think again that it is away."""
        begins = at + self._rng.uniform(0.5, 2.5)
        ends = begins + 3.0
        self._fault(at - 0.3, "disk_stalled", (who,), ends + 0.1 - at + 0.3)
        self._fault(begins, "pause", (who,), 3.0)
        self._outage(begins + 1.5, 1.5, 14, rest)

    # Their parts.

    def _kinds(self, but: str = "") -> tuple[str, ...]:
        """Which changes are possible."""
        going = [k for k in ("leave", "remove", "remove") if k != but]
        many = len(self._inside) > STAYING_MIN
        found = [*(going if many else ()), *(("join",) if self._outside else ())]
        return tuple(k for k in found if not (self._links and k == "remove"))

    def _change(
        self, at: float, among: Sequence[str], kinds: Sequence[str], most: int = 2
    ) -> list[str]:
        """One of these kinds of change; those that go by it."""
        rng = self._rng
        if not kinds or not among:
            return []
        kind = rng.choice(kinds)
        if kind == "join":
            come = self._outside[: rng.randint(1, most)]
            self._outside = self._outside[len(come) :]
            self._inside = [*self._inside, *come]
            self._fault(at, kind, tuple(come), 10.0)
            return []
        name = rng.choice(among)
        self._inside = [n for n in self._inside if n != name]
        # Less than 0.3 would have it think better of leaving.
        amount = rng.uniform(0.0, 0.9) if kind == "remove" else rng.uniform(0.3, 1.0)
        self._fault(at, kind, (name,), 28.0 if kind == "remove" else 18.0, amount)
        return [name]

    def _fault(
        self, at: float, kind: str, targets: tuple[str, ...], seconds: float, amount: float = 0.0
    ) -> None:
        self.faults.append(
            Fault(
                at=round(max(at, 0.0), 3),
                kind=kind,
                targets=targets,
                seconds=round(seconds, 3),
                amount=round(amount, 6),
            )
        )

    def _writes(
        self,
        at: float,
        span: float,
        count: int,
        entries: Sequence[str],
        buckets: Sequence[str] = ALL,
        keys: int = KEYS,
    ) -> None:
        """Keys that are made, replaced and deleted by those who have seen them."""
        rng = self._rng
        for _ in range(count):
            key = f"{KNOWN}{self._round}scene{rng.randrange(keys)}"
            kind = rng.choice(("create", "create", "update", "delete"))
            self._do(at + rng.uniform(0.0, span), kind, rng.choice(entries), buckets, key)

    def _outage(self, at: float, span: float, count: int, entries: Sequence[str]) -> None:
        """The same few keys each time, by those who have seen nothing of them."""
        rng = self._rng
        for _ in range(count):
            key = f"{KNOWN}away{rng.randrange(KEYS)}"
            kind = rng.choice(("create", "create", "delete"))
            then, entry = at + rng.uniform(0.0, span), rng.choice(entries)
            self._do(then, kind, entry, ("single", "plain", "plain", "fast"), key)

    def _reads(self, at: float, span: float, count: int, entries: Sequence[str]) -> None:
        rng = self._rng
        for _ in range(count):
            key = f"{KNOWN}{self._round}scene{rng.randrange(KEYS)}"
            self._do(at + rng.uniform(0.0, span), "get", rng.choice(entries), ALL, key, r="1")

    def _do(
        self,
        at: float,
        kind: str,
        entry: str,
        buckets: Sequence[str],
        key: str,
        **options: str,
    ) -> None:
        rng = self._rng
        self.operations.append(
            Operation(
                number=len(self.operations),
                at=max(at, 0.0),
                client=rng.randrange(self._clients),
                kind=kind,
                entry=entry,
                bucket=rng.choice(buckets),
                key=key,
                seen=kind in ("update", "delete"),
                size=0 if kind in ("delete", "get") else rng.randint(*SMALL),
                options=options,
            )
        )
