"""Finding out whether a member answers (SWIM §3.1 and §4.3, Lifeguard §IV-A).

A probe begins with a ping. Unanswered for `probe_timeout`, it asks helpers to ping for it and has
peer HTTP tried in parallel; unanswered at `probe_deadline`, it makes the target suspect. A helper
without an answer says so at 80 % of the time it was given, so that a prober who hears nothing,
not even nacks, knows that the fault may be its own.

Whoever hears a member accused may probe it at once, about two times as many members as
confirmations are needed: a healthy suspect hears of it sooner, a dead one is confirmed sooner.
"""

from __future__ import annotations

from typing import Literal

import attrs

from dynamo.core.dissemination import Post
from dynamo.core.effects import ExchangeState, Notice, ProbeByStream
from dynamo.core.local import Local
from dynamo.core.members import Liveness, Member, Origin
from dynamo.core.messages import Ping, PingRequest
from dynamo.core.table import Entry, Table
from dynamo.core.verdicts import Verdicts

ROUND = ("round", "")
TIMEOUT = "timeout"
DEADLINE = "deadline"

PROBES_MAX = 64
"""Probes under way at once."""

REFUSED_SHARE = 0.25
"""Part of the helpers' time they still have after the target's port refused the stream."""

Outcome = Literal["answered", "refused", "failed", "other"]
"""Of a stream probe: the member answered; nothing listens there; no answer; somebody else did."""


@attrs.define
class Probe:
    """One probe under way. `missing` are the helpers that owe an answer."""

    member: Member
    number: int
    helpers: frozenset[str] = frozenset()
    missing: set[str] = attrs.field(factory=set)
    refused: bool = False


class Prober:
    """The probes by this member."""

    def __init__(self, local: Local, table: Table, post: Post, verdicts: Verdicts) -> None:
        self._local = local
        self._table = table
        self._post = post
        self._verdicts = verdicts
        self._probes: dict[int, Probe] = {}
        verdicts.on_suspected = self.confirm

    def start(self) -> None:
        """The first round comes at a random time, so that a mass start is spread out."""
        wait = self._local.rng.uniform(0, self._local.settings.probe_interval)
        self._local.timers.set(ROUND, self._local.now + wait)

    def round(self) -> None:
        """Probes the next member in order."""
        local = self._local
        local.timers.set(ROUND, local.now + local.awareness.scale(local.settings.probe_interval))
        entry = self._table.next_target()
        if entry is not None:
            self.probe(entry)

    def probe(self, entry: Entry) -> None:
        """Pings a member, unless a probe of it is under way."""
        local, member = self._local, entry.member
        busy = any(probe.member.name == member.name for probe in self._probes.values())
        if busy or len(self._probes) >= PROBES_MAX:
            return
        number = local.rng.getrandbits(32)
        self._probes[number] = Probe(member, number)
        entry.asked = local.now
        wait = local.awareness.scale
        local.timers.set((TIMEOUT, str(number)), local.now + wait(local.settings.probe_timeout))
        local.timers.set((DEADLINE, str(number)), local.now + wait(local.settings.probe_deadline))
        self.ping(entry, number)

    def ping(self, entry: Entry, number: int = 0) -> None:
        """Sends a ping; number 0 expects nothing but a refutation."""
        member = entry.member
        message = Ping(self._local.origin, number, member.name, member.identity)
        self._post.send(member.address, message, entry)

    def confirm(self, entry: Entry) -> None:
        """Others suspect a member: perhaps this one looks for itself."""
        settings = self._local.settings
        share = 2 * settings.confirmations / self._table.running
        if settings.lifeguard and self._local.rng.random() < share:
            self.probe(entry)

    def doubt(self, entry: Entry) -> None:
        """A request of the store to this member failed: look now rather than in turn, but not
        more often than the member would look anyway in a cluster of two."""
        if self._local.now - entry.asked >= self._local.settings.probe_interval:
            self.probe(entry)

    def trust(self, entry: Entry) -> None:
        """The member answered something that this node asked; if it is held dead it must hear
        so, and refute."""
        entry.vouched = self._local.now
        for probe in list(self._probes.values()):
            if probe.member.name == entry.member.name:
                self._finish(probe)
        quiet = self._local.now - entry.told >= self._local.settings.gossip_interval
        if not entry.member.running and quiet:
            entry.told = self._local.now
            self.ping(entry)

    def ask_helpers(self, number: int) -> None:
        """The ping was not answered in time."""
        probe = self._probes[number]
        local, member = self._local, probe.member
        settings = local.settings
        chosen = self._table.sample(
            settings.indirect_probes,
            lambda e: e.member.liveness is Liveness.ALIVE and e.member.name != member.name,
        )
        probe.helpers = frozenset(entry.member.name for entry in chosen)
        probe.missing = set(probe.helpers)
        patience = local.awareness.scale(settings.probe_deadline - settings.probe_timeout)
        request = PingRequest(
            local.origin,
            number,
            member.name,
            member.identity,
            member.address,
            max(1, int(1000 * patience)),
        )
        for entry in chosen:
            self._post.send(entry.member.address, request, entry)
        if settings.stream_probe and settings.lifeguard:
            local.effects.append(ProbeByStream(member, number))

    def ack(self, origin: Origin, number: int) -> bool:
        """An answer; False if this member asked nothing under that number."""
        probe = self._probes.get(number)
        if probe is None:
            return False
        entry = self._table.get(probe.member.name)
        if origin.name in probe.helpers:
            self._succeed(probe)
        elif (origin.name, origin.identity) == (probe.member.name, probe.member.identity):
            if entry is not None:
                entry.blocked = False
            self._succeed(probe)
        else:
            self._answered_as(probe, origin.name)
        return True

    def nack(self, origin: Origin, number: int) -> None:
        """A helper is well and has no answer."""
        probe = self._probes.get(number)
        if probe is not None:
            probe.missing.discard(origin.name)

    def streamed(self, number: int, outcome: Outcome) -> None:
        """What came of a stream probe."""
        probe = self._probes.get(number)
        if probe is None:
            return
        if outcome == "answered":
            self._by_stream_only(probe)
            self._succeed(probe)
        elif outcome == "refused":
            settings, local = self._local.settings, self._local
            rest = REFUSED_SHARE * (settings.probe_deadline - settings.probe_timeout)
            probe.refused = True
            local.timers.hasten((DEADLINE, str(number)), local.now + rest)
        elif outcome == "other":
            self._answered_as(probe, "another member")

    def fail(self, number: int) -> None:
        """Nobody got an answer from the target."""
        probe = self._probes[number]
        self._finish(probe)
        if self._local.settings.lifeguard and not probe.refused:
            self._local.awareness.add(len(probe.missing) if probe.helpers else 1)
        entry = self._table.get(probe.member.name)
        if entry is not None and entry.member.claim == probe.member.claim and entry.member.running:
            self._local.count("probes_failed")
            self._verdicts.suspect(entry, refused=probe.refused)

    def _by_stream_only(self, probe: Probe) -> None:
        """Datagrams do not get through: the news goes by stream too."""
        entry = self._table.get(probe.member.name)
        if entry is None:
            return
        if not entry.blocked:
            entry.blocked = True
            self._local.effects.append(Notice("udp_blocked", probe.member.name))
        self._local.effects.append(ExchangeState(probe.member.address, probe.member.name))

    def _answered_as(self, probe: Probe, name: str) -> None:
        self._finish(probe)
        entry = self._table.get(probe.member.name)
        if entry is not None and entry.member.claim == probe.member.claim:
            self._verdicts.bury(entry, f"its address answers as {name}")

    def _succeed(self, probe: Probe) -> None:
        self._finish(probe)
        if self._local.settings.lifeguard:
            self._local.awareness.add(-1)
        entry = self._table.get(probe.member.name)
        if entry is not None and entry.member.identity == probe.member.identity:
            entry.vouched = self._local.now

    def _finish(self, probe: Probe) -> None:
        self._probes.pop(probe.number, None)
        self._local.timers.cancel((TIMEOUT, str(probe.number)))
        self._local.timers.cancel((DEADLINE, str(probe.number)))
