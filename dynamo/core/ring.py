"""The ring: which nodes a key belongs to.

A `Ring` is a value made from the members of the cluster. It cuts the hash space into Q equal
partitions and ranks all members for each: the owners first, then the stand-ins. Every node that
knows the same members computes the same ring, in whatever order it learnt of them, so nobody
hands out ownership. Members that are down are still members: whoever asks skips them in the
ranking (Dynamo §4.3 preference list, §4.6 sloppy quorum, §6.2 strategy 3).

The rule by which owners are chosen is in `dynamo.core.placement`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from math import isfinite

import msgspec

from dynamo.core.placement import place

PARTITIONS_MAX = 2**20

_FORMAT = 1
"""Goes into the version; raise it whenever the same members would get another placement."""

_CACHED_NAMES_MAX = 2_000_000

POSITIONS_KEPT = 1024


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A node as the ring sees it.

    `zone`: what fails together, copies are spread over zones first; `weight`: its capacity in
    relation to the others', above zero. Raises `ValueError` for an empty name or another weight.
    """

    name: str
    zone: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a member needs a name")
        if not (isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"weight of {self.name}: {self.weight}, must be above 0 and finite")


class Ring:
    """The placement of `partitions` partitions, `copies` times each, on `members`.

    `members`: in any order, names distinct; kept sorted by name. `partitions`: a power of two,
    the same in the whole cluster for its lifetime. `copies`: how many owners a partition has
    where there are as many members. `version`: 16 hex digits, the same for rings that place
    everything alike and different otherwise. Raises `ValueError` for arguments out of range.
    Treat it as frozen: it only caches what it has computed.
    """

    def __init__(self, members: Iterable[Member], partitions: int, copies: int) -> None:
        self.members = tuple(sorted(members, key=_name))
        self.partitions = partitions
        self.copies = copies
        if not 1 <= partitions <= PARTITIONS_MAX or partitions & (partitions - 1):
            raise ValueError(f"{partitions} partitions: must be a power of two up to 2**20")
        if copies < 1:
            raise ValueError(f"{copies} copies: must be at least 1")
        self._names = tuple(member.name for member in self.members)
        self._numbers = {name: number for number, name in enumerate(self._names)}
        if len(self._numbers) < len(self._names):
            raise ValueError("two members have the same name")
        self.version = _digest(self.members, partitions, copies)
        self._shift = 64 - (partitions.bit_length() - 1)
        zones = [member.zone for member in self.members]
        weights = [float(member.weight) for member in self.members]
        self._placed = place(self._names, zones, weights, partitions, copies)
        names = self._names
        self._owners = [tuple([names[n] for n in owners]) for owners in self._placed.owners]
        self._rankings: dict[int, tuple[str, ...]] = {}
        self._rankings_max = max(1, _CACHED_NAMES_MAX // max(1, len(names)))

    def __repr__(self) -> str:
        size = f"{len(self.members)} members, {self.partitions} x {self.copies}"
        return f"<Ring {self.version}: {size}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ring) and self.version == other.version

    def __hash__(self) -> int:
        return hash(self.version)

    def partition(self, incarnation: bytes, key: bytes) -> int:
        """The partition of a key: the top bits of its `position`."""
        return int.from_bytes(position(incarnation, key), "big") >> self._shift

    def ranking(self, partition: int) -> tuple[str, ...]:
        """All members in the partition's order of preference.

        First come its owners, `copies` of them or everybody; then the stand-ins, those in zones
        that hold fewest before others, and within that in walk order. Raises `IndexError` for a
        partition out of range.
        """
        ranking = self._rankings.get(partition)
        if ranking is None:
            ranking = self._owners[partition] + self._stand_ins(partition)
            while len(self._rankings) >= self._rankings_max:
                del self._rankings[next(iter(self._rankings))]
            self._rankings[partition] = ranking
        return ranking

    def owners(self, partition: int, n: int) -> tuple[str, ...]:
        """The first `n` of the ranking, fewer if there are fewer members.

        `n` may differ from `copies`: a bucket that keeps fewer copies keeps them on the first
        owners, one that keeps more also on the first stand-ins.
        """
        owners = self._owners[partition]
        if n > len(owners):
            owners = self.ranking(partition)
        return owners if n == len(owners) else owners[:n]

    def partitions_owned(self, name: str) -> int:
        """How many partitions the member is an owner of. Raises `KeyError` for a stranger."""
        return self._placed.held[self._numbers[name]]

    def share(self, name: str) -> float:
        """How many it should own: by weight, as far as one copy of a partition for each node
        and the spread over zones allow. Raises `KeyError` for a stranger."""
        return self._placed.shares[self._numbers[name]]

    def _stand_ins(self, partition: int) -> tuple[str, ...]:
        owners = self._placed.owners[partition]
        walk = self._placed.walks[partition]
        waiting = [node for node in walk if node not in owners]
        if len(walk) < len(self._names):
            # In a large ring the far end of the walk is ranked only here.
            known = {*walk, *owners}
            key = partition.to_bytes(4, "big")
            rest = [n for n in range(len(self._names)) if n not in known]
            rest.sort(
                key=lambda n: blake2b(self._names[n].encode(), digest_size=8, key=key).digest()
            )
            waiting += rest
        counts: dict[str, int] = {}
        for node in owners:
            zone = self.members[node].zone
            counts[zone] = counts.get(zone, 0) + 1
        rounds: list[tuple[int, int, int]] = []
        for place_in_walk, node in enumerate(waiting):
            zone = self.members[node].zone
            rounds.append((counts.get(zone, 0), place_in_walk, node))
            counts[zone] = counts.get(zone, 0) + 1
        rounds.sort()
        return tuple([self._names[node] for _, _, node in rounds])


@lru_cache(maxsize=POSITIONS_KEPT)
def position(incarnation: bytes, key: bytes) -> bytes:
    """Where a key lies in the hash space, 8 bytes.

    `incarnation`: of the key's bucket, always of the same length. The last ones are kept: in one
    request the same key is placed by who takes it, who coordinates it and who stores it.
    """
    return blake2b(incarnation + key, digest_size=8).digest()


def _name(member: Member) -> str:
    return member.name


def _digest(members: tuple[Member, ...], partitions: int, copies: int) -> str:
    plain = [(member.name, member.zone, float(member.weight)) for member in members]
    text = msgspec.msgpack.encode((_FORMAT, partitions, copies, plain))
    return blake2b(text, digest_size=8).hexdigest()
