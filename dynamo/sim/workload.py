"""What the clients of a run will do, drawn from one die beforehand.

Several buckets with different rules, a few hot keys and some cold ones in each, and keys whose
names are not what one expects. Keys that begin with "c/" are written only with the context of a
read, or as creates: of those it is known to the last write what may replace what. The others are
also written without any, as plain clients do.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from random import Random

from dynamo.core.buckets import Properties
from dynamo.sim.fault_rings import RING_KINDS
from dynamo.sim.plan import LASTING_S, Fault, Operation

WEIGHTS = {
    # Documented face.
    "create": 7,
    "update": 6,
    "erase": 3,
    "look": 3,
    "open": 6,
    # Resource face.
    "put": 20,
    "delete": 7,
    "get": 28,
    "head": 4,
    "range": 3,
    "list": 4,
    "buckets": 1,
    "conditional": 2,
    "spoilt": 1,
    # Both.
    "bucket_create": 1,
    "bucket_put": 1,
    "bucket_delete": 1,
}
KINDS = tuple(WEIGHTS)
"""The kinds of operation. A write is `create` (with an empty context), or one of `update`, `erase`
(a delete), `put`, `delete`, each with the context its client read (`Operation.seen`) or without.
A `conditional` and a `spoilt` one, whose bytes are not what it says, are not to be done."""

SIZED = ("create", "update", "put", "conditional", "spoilt")

BUCKETS: dict[str, Properties] = {
    "plain": Properties(),
    "strict": Properties(n=3, r=2, w=2, quorum="strict"),
    "fast": Properties(n=3, r=1, w=1),
    "single": Properties(n=1),
    "wide": Properties(n=5, r=3, w=3),
    "latest": Properties(n=3, r=2, w=2, conflicts="latest"),
}
"""The buckets there are before the first operation."""

CHURN = ("churn", "é ~b")
"""Names of buckets that come and go."""

REBORN = "reborn"
"""One that in some runs is deleted again and again with something in it, and made anew at once."""

SHARES = {"plain": 30, "strict": 22, "fast": 12, "single": 8, "wide": 10, "latest": 14, "churn": 4}
KNOWN = "c/"
ODD = ("ü/☃", "a//b", "..", "%2e%2e/x", "q?a=b&c+d #", "k" * 600, " ", "a/b/c/")
HOT, COLD = 3, 5
OFTEN = ("f/h0", f"{KNOWN}h1", f"{KNOWN}h2")
"""The hot keys of each bucket where every write may say what it has seen."""
COLD_KEYS = tuple(f"/k{number}" for number in range(COLD))
HOT_SHARE = 0.7
AGAIN = 4
"""Keys that are created, deleted and created again, in turns."""

LOSS_WRITES, CLOCK_WRITES, LATE_WRITES = 4, 3, 16
APART_KEYS = f"{KNOWN}apart"
OLD_WRITES = 4
LOSS_BUCKETS = ("wide", "wide", "plain")
ALONE_READS, APART_WRITES = 12, 8
MOVING_KEYS, MOVES, MOVES_S = 10, 36, 10.0
OPTIONS_SHARE = 0.15
SMALL = (24, 400)
EDGES = (65_536, 65_537)
LARGE = (70_000, 200_000)
CHUNKS = (1_048_576, 1_100_000)
TWINS = (1_048_600, 1_049_000)
TWINS_SHARE = 0.35


def is_known(key: str) -> bool:
    """Whether every write of this key says what it has seen."""
    return key.startswith(KNOWN)


def draw(
    rng: Random,
    *,
    names: Sequence[str],
    clients: int,
    seconds: float,
    rate: float,
    members: int = 0,
) -> tuple[Operation, ...]:
    """Operations of `clients` clients for `seconds` seconds, about `rate` a second, by time;
    `names` are the nodes, of which the ring has `members` at least (0: all)."""
    drawing = _Drawing(rng, names, clients, members or len(names))
    keys = {bucket: _keys(rng, bucket) for bucket in SHARES}
    at = sorted(rng.uniform(0.0, seconds) for _ in range(int(seconds * rate * 0.9)))
    made = [drawing.operation(moment, keys) for moment in at]
    for number in range(AGAIN):
        made += drawing.again(number, seconds)
    if rng.random() < TWINS_SHARE:
        made += drawing.twins(rng.uniform(0.0, seconds * 0.8))
    made.sort(key=lambda operation: (operation.at, operation.number))
    return tuple(made)


def around(
    rng: Random, faults: Sequence[Fault], *, names: Sequence[str], clients: int, first: int
) -> tuple[Operation, ...]:
    """Writes and reads of a few keys that a fault makes telling. Numbers count from `first`.

    Through a node whose disk goes back or is lost, before that and as soon as it runs again: it
    must not give out a dot a second time, not even to a client that has seen none of those before,
    nor say that there is nothing. The same after a record was damaged, and with others away
    (`dynamo.sim.faults.draw_around_flips`) in strict ones. Among those that are left when others
    are cut off to the end: it has to be read while hints wait, and what it replaced must not.
    Through one whose clock is wrong, and through those that come up after it: what they stamp has
    to win over what they hold.
    """
    drawing = _Around(rng, clients, first)
    for fault in faults:
        node, end = fault.targets[0], fault.at + fault.seconds
        rest = [name for name in names if name not in fault.targets]
        if fault.kind in ("wipe", "roll_back"):
            drawing.loss(fault, node)
        elif fault.kind == "record_flip":
            drawing.reads(fault.at, 4.0, node)
        elif fault.kind == "partition" and fault.seconds == LASTING_S:
            drawing.late(fault.at, rest, names)
        elif fault.kind == "partition" and any(_apart(fault, other) for other in faults):
            drawing.apart(fault, end, rest)
        elif fault.kind in RING_KINDS:
            drawing.moves(fault.at, names)
        elif fault.kind == "clock_jump":
            for _ in range(CLOCK_WRITES):
                drawing.write(fault.at + rng.uniform(0.0, fault.seconds), node, "latest")
            # What it stamped may lie further ahead than the others let their clocks be moved.
            for _ in range(CLOCK_WRITES):
                drawing.write(end + rng.uniform(0.1, 5.0), rng.choice(rest), "latest")
        elif fault.kind in ("kill", "stop", "power_cut"):
            for _ in range(CLOCK_WRITES):
                drawing.write(end + rng.uniform(0.5, 5.0), node, "latest")
    return tuple(drawing.made)


def lives(
    rng: Random, *, names: Sequence[str], clients: int, seconds: float, first: int
) -> tuple[Operation, ...]:
    """A bucket that is made, written to, deleted and made anew, over and over: nothing of its
    former life may be in the next. Numbers count from `first`."""
    made: list[Operation] = []
    at = rng.uniform(0.0, 4.0)
    while at < seconds:
        client = rng.randrange(clients)
        for kind in ("bucket_put", "put", "put", "bucket_delete", "bucket_put", "get", "get"):
            own = not kind.startswith("bucket_")
            made.append(
                Operation(
                    number=first + len(made), at=at, client=client, kind=kind,
                    entry=rng.choice(names), bucket=REBORN,
                    key=f"f/h{len(made) % 2}" if own else "",
                    size=rng.randint(*SMALL) if kind == "put" else 0,
                )
            )  # fmt: skip
            at += rng.uniform(0.1, 0.4)
        at += rng.uniform(2.0, 8.0)
    return tuple(operation for operation in made if operation.at < seconds)


def _apart(fault: Fault, other: Fault) -> bool:
    """Whether a partition is over as a record is damaged elsewhere."""
    close = 0.0 < other.at - fault.at - fault.seconds < 0.5
    return other.kind == "record_flip" and close and other.targets[0] not in fault.targets


class _Around:
    def __init__(self, rng: Random, clients: int, first: int) -> None:
        self._rng = rng
        self._clients = clients
        self._first = first
        self.made: list[Operation] = []

    def write(self, at: float, entry: str, bucket: str, key: str = "f/h0", kind: str = "") -> None:
        made = kind or ("create" if is_known(key) else self._rng.choice(("create", "put")))
        size = self._rng.randint(*SMALL)
        self._do(at, made, entry, bucket, key, size, seen=made in ("delete", "update"))

    def _do(
        self,
        at: float,
        kind: str,
        entry: str,
        bucket: str,
        key: str,
        size: int,
        seen: bool,
        client: int | None = None,
        **options: str,
    ) -> None:
        if client is None:
            client = self._rng.randrange(self._clients)
        self.made.append(
            Operation(
                number=self._first + len(self.made), at=max(at, 0.0),
                client=client % self._clients,
                kind=kind, entry=entry, bucket=bucket, key=key, seen=seen, size=size,
                options=options,
            )
        )  # fmt: skip

    def loss(self, fault: Fault, node: str) -> None:
        rng, end = self._rng, fault.at + fault.seconds
        last, span = end, min(6.0, fault.seconds)
        if fault.kind == "wipe":
            last, span = fault.at, 6.0
        for _ in range(LOSS_WRITES):
            self.write(last - rng.uniform(0.0, span), node, rng.choice(LOSS_BUCKETS))
        for _ in range(2 * LOSS_WRITES):
            self.write(end + rng.uniform(0.1, 5.0), node, rng.choice(LOSS_BUCKETS))
        self.reads(end, 2.0, node)
        for number in range(OLD_WRITES):
            self.old(f"f/old{number}", last, span, end, node)

    def old(self, key: str, last: float, span: float, end: float, node: str) -> None:
        """A client reads a key, others write it through a node whose disk is lost then, and as soon
        as that one is back the first client writes through it, having seen none of theirs: there
        the node learns of no dot of its own from others."""
        rng, client = self._rng, self._rng.randrange(self._clients)
        size = rng.randint(*SMALL)
        self._do(last - span - 0.5, "put", node, "wide", key, size, False)
        self._do(last - span - 0.2, "get", node, "wide", key, 0, False, client)
        for part in (0.3, 0.6):
            self._do(last - part * span, "put", node, "wide", key, size, False, client + 1)
        self._do(end + rng.uniform(0.05, 1.0), "put", node, "wide", key, size, True, client)

    def reads(self, at: float, span: float, entry: str) -> None:
        """Of keys that are written often, by one answer alone."""
        rng = self._rng
        for _ in range(ALONE_READS):
            bucket, key = rng.choice(("plain", "strict", "fast", "wide")), rng.choice(OFTEN)
            self._do(at + rng.uniform(0.0, span), "get", entry, bucket, key, 0, False, r="1")

    def late(self, at: float, rest: Sequence[str], names: Sequence[str]) -> None:
        """Keys that are made when some are cut off to the end, and others that are replaced or
        deleted then."""
        rng = self._rng
        for number in range(LATE_WRITES):
            bucket, key = rng.choice(("plain", "plain", "wide")), f"{KNOWN}late{number}"
            then, kind = at + rng.uniform(1.0, 8.0), "create"
            if number % 2:
                self.write(at - rng.uniform(2.0, 8.0), rng.choice(names), bucket, key)
                kind = rng.choice(("update", "delete"))
            self.write(then, rng.choice(rest), bucket, key, kind)

    def moves(self, at: float, names: Sequence[str]) -> None:
        """Keys of a strict bucket that are written, replaced and read as the ring changes."""
        rng = self._rng
        for number in range(MOVES):
            key = f"{KNOWN}moves{rng.randrange(MOVING_KEYS)}"
            then, entry = at + rng.uniform(0.0, MOVES_S), rng.choice(names)
            if number % 3:
                kind = rng.choice(("create", "update", "update", "delete"))
                self.write(then, entry, "strict", key, kind)
            else:
                self._do(then, "get", entry, "strict", key, 0, False)

    def apart(self, fault: Fault, end: float, rest: Sequence[str]) -> None:
        """Keys of which some owners are away, and which those read then who were away."""
        rng = self._rng
        for number in range(APART_WRITES):
            key = f"{APART_KEYS}{number}"
            at = fault.at + rng.uniform(0.3, 0.9) * fault.seconds
            self.write(at, rng.choice(rest), "strict", key)
            for entry in fault.targets:
                self._do(end + rng.uniform(4.0, 17.0), "get", entry, "strict", key, 0, False)


def _keys(rng: Random, bucket: str) -> list[str]:
    """Hot ones first."""
    names = [f"h{number}" for number in range(HOT)]
    names += [rng.choice(ODD) if rng.random() < 0.3 else f"k{n}" for n in range(COLD)]
    known = bucket != "latest"
    return [
        (KNOWN if known and number % 3 else "f/") + name
        for number, name in enumerate(dict.fromkeys(names))
    ]


class _Drawing:
    def __init__(self, rng: Random, names: Sequence[str], clients: int, members: int) -> None:
        self._rng = rng
        self._names = names
        self._members = members
        self._clients = clients
        self._number = 0
        self._kinds = list(accumulate(WEIGHTS.values()))
        self._shares = list(accumulate(SHARES.values()))

    def operation(self, at: float, keys: dict[str, list[str]]) -> Operation:
        """Any one."""
        rng = self._rng
        kind = rng.choices(KINDS, cum_weights=self._kinds)[0]
        if kind.startswith("bucket_"):
            return self._make(at, kind, rng.choice(CHURN))
        bucket = rng.choices(list(SHARES), cum_weights=self._shares)[0]
        of = keys[bucket]
        key = rng.choice(of[:HOT]) if rng.random() < HOT_SHARE else rng.choice(of)
        seen = kind in ("put", "delete", "update", "erase") and (
            is_known(key) or rng.random() < 0.4
        )
        size = self._size(key) if kind in SIZED else 0
        return self._make(at, kind, bucket, key, seen, size, self._options(kind, bucket))

    def again(self, number: int, seconds: float) -> list[Operation]:
        """One key's life, over and over: made, deleted by somebody who saw it, made again."""
        rng, made = self._rng, []
        bucket = ("plain", "strict", "fast", "wide")[number % 4]
        at = rng.uniform(0.0, 2.0)
        while at < seconds:
            for kind, seen in (("create", False), ("delete", True)):
                made.append(self._make(at, kind, bucket, f"{KNOWN}again{number}", seen, 40))
                at += rng.uniform(0.05, 3.0)
        return [operation for operation in made if operation.at < seconds]

    def twins(self, at: float) -> list[Operation]:
        """Bodies that share a chunk, under two keys; one gets another, which comes to nothing, and
        then goes."""
        rng = self._rng
        bucket = rng.choice(("plain", "strict", "fast", "wide"))
        kinds = (("create", 0), ("create", 1), ("spoilt", rng.randrange(2)), ("delete", 0))
        made = []
        for kind, twin in kinds:
            size = rng.randint(*TWINS) if kind in SIZED else 0
            key = f"{KNOWN}twin{twin}"
            made.append(self._make(at, kind, bucket, key, kind == "delete", size))
            at += rng.uniform(1.0, 4.0)
        return made

    def _make(
        self,
        at: float,
        kind: str,
        bucket: str,
        key: str = "",
        seen: bool = False,
        size: int = 0,
        options: dict[str, str] | None = None,
    ) -> Operation:
        self._number += 1
        return Operation(
            number=self._number,
            at=at,
            client=self._rng.randrange(self._clients),
            kind=kind,
            entry=self._rng.choice(self._names),
            bucket=bucket,
            key=key,
            seen=seen,
            size=size,
            options=options or {},
        )

    def _size(self, key: str) -> int:
        rng, die = self._rng, self._rng.random()
        cold = key.endswith(COLD_KEYS)
        if die < (0.01 if cold else 0.002):
            return rng.randint(*CHUNKS)
        # Cold keys keep theirs for a while, so that there are chunks to damage and to lose.
        if die < (0.2 if cold else 0.01):
            return rng.randint(*LARGE)
        return rng.choice(EDGES) if die > 0.995 else rng.randint(*SMALL)

    def _options(self, kind: str, bucket: str) -> dict[str, str]:
        rng = self._rng
        if kind not in ("put", "delete", "get", "head", "range", "list"):
            return {}
        if rng.random() >= OPTIONS_SHARE:
            return {}
        n = min(BUCKETS.get(bucket, Properties()).n or 3, self._members)
        reads = kind not in ("put", "delete")
        options = {"r" if reads else "w": str(rng.randint(1, n))}
        if rng.random() < 0.3:
            options["timeout"] = rng.choice(("1.5", "3", "8"))
        if rng.random() < 0.2:
            options["quorum"] = rng.choice(("sloppy", "strict"))
        return options
