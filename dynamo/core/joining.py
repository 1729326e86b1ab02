"""Coming into the cluster, and keeping it one.

Seeds, and members known from disk, are asked for a full exchange until one of them answers. Later
a random member is asked now and then, which repairs what gossip missed. And one of the dead
members or silent seeds is tried at a low rate for ever, so that any partition heals by itself,
from either side, however long it was.
"""

from __future__ import annotations

from collections.abc import Iterable

from dynamo.core.claims import Claims
from dynamo.core.dissemination import Post
from dynamo.core.effects import ExchangeState, Notice
from dynamo.core.local import Local
from dynamo.core.members import Liveness, Member, Origin, Update, flaw
from dynamo.core.messages import State
from dynamo.core.probing import Prober
from dynamo.core.table import Entry, Table
from dynamo.core.verdicts import Verdicts

SEEK = ("seek", "")
EXCHANGE = ("exchange", "")
RECONNECT = ("reconnect", "")
REMEMBER = ("remember", "")

SEEK_GROWTH_MAX = 4
"""How many times `seed_interval` the wait between attempts to join grows to."""

SEEDS_AT_ONCE = 3
"""Addresses asked in one attempt to join."""


def exchange_scale(members: int) -> int:
    """Factor of the exchange interval: ceil(log2 n - 5) + 1 above 32 members, so that the
    exchanges of the whole cluster grow slower than the cluster."""
    return max(1, (members - 1).bit_length() - 4)


class Joiner:
    """Full exchanges: with whom and when. `joined`: this node belongs to a cluster, if only
    its own."""

    def __init__(
        self, local: Local, table: Table, post: Post, verdicts: Verdicts, prober: Prober
    ) -> None:
        self._local = local
        self._table = table
        self._post = post
        self._verdicts = verdicts
        self._prober = prober
        self._claims = Claims(local, post)
        self._seeds: dict[str, str] = {}
        self._remembered: dict[str, Member] = {}
        self._wait = local.settings.seed_interval
        self._stranger_at = float("-inf")
        self.joined = False

    @property
    def claims(self) -> Claims:
        """This member's hold on its name."""
        return self._claims

    def start(self, seeds: Iterable[str], remembered: Iterable[Member]) -> None:
        """Begins to look for the cluster, or founds one if there is nowhere to look."""
        local = self._local
        self._seeds = {seed: "" for seed in seeds if seed != local.me.address}
        for member in remembered:
            if member.name == local.me.name or flaw(member):
                continue
            if member.liveness is Liveness.LEFT:
                self._verdicts.remember(member)
            else:
                self._remembered[member.name] = member
        if local.claimed:
            self._claims.claim()
        if self._remembered:
            local.timers.set(REMEMBER, local.now + local.settings.remember_patience)
        self._found_if_alone()
        if not self.joined:
            self.seek()
        spread = local.rng.uniform(0.5, 1)
        local.timers.set(EXCHANGE, local.now + spread * local.settings.exchange_interval)
        local.timers.set(RECONNECT, local.now + spread * local.settings.reconnect_interval)

    def seek(self) -> None:
        """Asks some of the known addresses; the next attempt comes later and later."""
        local = self._local
        if self.joined:
            return
        places = dict.fromkeys(self._seeds)
        places |= dict.fromkeys(m.address for m in self._remembered.values())
        places |= dict.fromkeys(e.member.address for e in self._table if e.member.running)
        places.pop(local.me.address, None)
        for address in local.rng.sample(list(places), min(SEEDS_AT_ONCE, len(places))):
            local.effects.append(ExchangeState(address))
        local.timers.set(SEEK, local.now + self._wait * local.rng.uniform(0.75, 1))
        if not self._claims.contested:
            self._wait = min(2 * self._wait, SEEK_GROWTH_MAX * local.settings.seed_interval)

    def exchanged(self, remote: State, asked: str | None) -> None:
        """The state of another; `asked` is the address that answered with it, if we asked."""
        local = self._local
        if remote.cluster != local.cluster:
            local.count("other_cluster")
            local.effects.append(Notice("other_cluster", remote.origin.name, remote.cluster))
            return
        if (remote.origin.name, remote.origin.identity) == (local.me.name, local.me.identity):
            if asked is not None:
                self._seeds.pop(asked, None)
                self._found_if_alone()
            return
        self._claims.contested = False
        self._take_over(remote)
        if asked is not None and not local.stopped:
            self._answered(remote.origin, asked)
        self.joined = self.joined or (local.claimed and not local.stopped)

    def exchange(self) -> None:
        """A full exchange with a random live member."""
        local = self._local
        base = local.settings.exchange_interval * exchange_scale(self._table.running)
        local.timers.set(EXCHANGE, local.now + base * local.rng.uniform(0.9, 1.1))
        for entry in self._table.sample(1, lambda e: e.member.liveness is Liveness.ALIVE):
            self._ask(entry)

    def reconnect(self) -> None:
        """Tries one dead member or one seed that no live member stands for."""
        local = self._local
        local.timers.set(RECONNECT, local.now + local.settings.reconnect_interval)
        dead = [e.member.name for e in self._table if self._lost(e.member)]
        seeds = [seed for seed, name in self._seeds.items() if self._silent(seed, name)]
        if not dead and not seeds:
            return
        pick = local.rng.choice([*dead, *seeds] if dead else seeds)
        entry = self._table.get(pick) if pick in dead else None
        if entry is None:
            local.effects.append(ExchangeState(pick))
        else:
            self._prober.ping(entry)
            self._ask(entry)

    def overdue(self) -> None:
        """Members known from disk that nobody has spoken of since the start."""
        for name in sorted(self._remembered):
            if self._table.get(name) is None:
                self._verdicts.remember(self._remembered[name])
        self._remembered.clear()

    def meet(self, origin: Origin, sender: str) -> None:
        """A member that this one does not know, or not in its present incarnation, wrote: what
        is missing comes by a full exchange, with one such at a time."""
        if self._local.now - self._stranger_at >= self._local.settings.seed_interval:
            self._stranger_at = self._local.now
            self._local.effects.append(ExchangeState(sender, origin.name))

    def _ask(self, entry: Entry) -> None:
        self._local.effects.append(ExchangeState(entry.member.address, entry.member.name))

    def _lost(self, member: Member) -> bool:
        """Dead, and not because this very process took its place."""
        return member.liveness is Liveness.DEAD and member.address != self._local.me.address

    def _silent(self, seed: str, name: str) -> bool:
        entry = self._table.get(name)
        return entry is None or not entry.member.running

    def _take_over(self, remote: State) -> None:
        cause = f"exchange with {remote.origin.name}"
        for member in remote.members:
            if self._local.stopped:
                return
            if flaw(member):
                self._local.count("bad_member")
            elif member.name == self._local.me.name:
                self._claims.hear(member, cause)
            else:
                self._verdicts.learn(Update(member, remote.origin.name), cause, exchange=True)
                self._remembered.pop(member.name, None)

    def _answered(self, origin: Origin, asked: str) -> None:
        local = self._local
        entry = self._table.get(origin.name)
        if entry is not None and entry.member.identity == origin.identity:
            self._prober.trust(entry)
        if asked in self._seeds:
            self._seeds[asked] = origin.name
        if self._claims.contested:
            self._wait = local.settings.seed_interval
        elif not local.claimed:
            self._claims.claim()
            local.effects.append(ExchangeState(asked, origin.name))

    def _found_if_alone(self) -> None:
        """With no seed but itself and no memory of others, a node is a cluster of its own."""
        if not self._seeds and not self._remembered and not len(self._table):
            if not self._local.claimed:
                self._claims.claim()
            self.joined = True
