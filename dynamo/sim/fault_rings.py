"""Changes of the ring: nodes that join, leave, are removed, replaced, or weigh more than before.

None of them is a failure by itself; they come amid all the others. An operator asks for them over
HTTP and asks again until it is answered or gives up, when the fault is over. What was begun goes on
then. The ring is never asked to have fewer than `STAYING_MIN` members.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from dynamo.sim import wording
from dynamo.sim.client import Answer, Caller, request_bytes
from dynamo.sim.fault_processes import RESTART_S, Processes
from dynamo.sim.plan import Fault
from dynamo.sim.reactor import Reactor

if TYPE_CHECKING:
    from dynamo.core.layout import Layout
    from dynamo.sim.world import Host, World

API_PORT = 8001
RING_KINDS = {
    "join": "A machine that had no part in the cluster starts an empty node.",
    "rejoin": "A node joins, loses power `amount` seconds later, and comes back.",
    "leave": "A node is told to leave; `amount` < 0.3: and, that much of 10 s later, to stay.",
    "remove": "A process is killed and, when held dead, removed; `amount` < 0.6: then it comes "
    "back with its old disk.",
    "replace": "A process is killed and, when held dead, its disk replaced by an empty one.",
    "reweigh": "A node is stopped and started again with `amount` for its weight.",
}
COMING = frozenset(("join", "rejoin"))
GOING = frozenset(("leave", "remove"))

STAYING_MIN = 3
LOOK_S = 0.5
ASK_S = 6.0
LINGER_S = 12.0
"""For so long after it gave up an operator's request may still be done."""
BACK_S = 8.0
"""For so long one that comes back with its old disk is looked at."""


@attrs.define(eq=False)
class _Change:
    fault: Fault
    layout: int
    """The version there was at its begin."""
    over: bool = False
    accepted: bool = False
    cancelled: bool = False
    asking: bool = False
    back_since: float | None = None
    hints: tuple[bytes, ...] = ()
    """What one that was removed had on its disk for others when it came back."""
    ended: float = float("inf")


class Rings:
    """Begins and ends changes of the ring.

    `layout()`: the last that was decided, as far as any disk knows. `joins(name)` is told of a
    machine that has a part from now on, `spoiled(name)` of a disk that is another now, and
    `may_spoil(name)` says whether that may be. `wrong(text)` is told of a node that serves and must
    not; `links_well()` says whether all can hear each other."""

    def __init__(
        self,
        world: World,
        processes: Processes,
        *,
        layout: Callable[[], Layout],
        joins: Callable[[str], None],
        spoiled: Callable[[str], None],
        may_spoil: Callable[[str], bool],
        links_well: Callable[[], bool],
        wrong: Callable[[str], None],
    ) -> None:
        self._world = world
        self._processes = processes
        self._layout = layout
        self._joins = joins
        self._spoiled = spoiled
        self._may_spoil = may_spoil
        self._links_well = links_well
        self._wrong = wrong
        self._on: dict[int, _Change] = {}
        self._caller: Caller | None = None

    def begin(self, number: int, fault: Fault) -> str:
        """Lets it happen; gives the reason if there is nothing to do it to."""
        if not self._world.changing:
            return "the ring does not change in this run"
        change = _Change(fault, self._layout().version)
        begin = self._come if fault.kind in COMING else self._take
        why_not = begin(number, change)
        if not why_not:
            self._on[number] = change
            self._world.schedule.callLater(LOOK_S, self._look, number)
        return why_not

    def end(self, number: int) -> None:
        """It is over."""
        change = self._on.get(number)
        if change is None or change.over:
            return
        change.over, change.ended = True, self._world.schedule.now
        name, kind = change.fault.targets[0], change.fault.kind
        host = self._world.hosts[name]
        self._must_not_tell(change, host)
        if change.back_since is not None and host.node is not None:
            self._world.kill(name)
        if kind == "replace" and self._processes.owner.get(name) == number and host.node is None:
            self._empty(name)
        self._processes.let_up(number)

    # Those that come.

    def _come(self, number: int, change: _Change) -> str:
        world, fault = self._world, change.fault
        found = [name for name in fault.targets if self._is_spare(name)]
        if not found:
            return f"{', '.join(fault.targets)} have a part already"
        for name in found:
            world.hosts[name].drive.wipe()
            world.absent.pop(name)
            world.since[name] = world.schedule.now
            world.reweigh(name, 1.0)
            self._joins(name)
            self._processes.rise(name)
        if fault.kind == "rejoin":
            world.schedule.callLater(fault.amount, self._crash, number, found[0])
        return ""

    def _is_spare(self, name: str) -> bool:
        host = self._world.hosts[name]
        idle = host.node is None and not host.drive.is_open and name not in self._processes.owner
        return name in self._world.absent and idle

    def _crash(self, number: int, name: str) -> None:
        change, host = self._on.get(number), self._world.hosts[name]
        if change is None or change.over or host.node is None or name in self._processes.owner:
            return
        self._processes.take_down(number, name, "power_cut")
        self._world.schedule.callLater(RESTART_S, self._processes.let_up, number)

    # Those that go, or change.

    def _take(self, number: int, change: _Change) -> str:
        fault = change.fault
        name = fault.targets[0]
        hosts = self._processes.free(fault)
        layout = self._layout()
        staying = [m.name for m in layout.next_members if not self._is_going(m.name)]
        if not hosts or name not in staying or not layout.in_ring(name):
            return f"{name} down or not in the ring"
        if fault.kind in GOING and len(staying) <= STAYING_MIN:
            return "too few would stay"
        if fault.kind == "remove" and not self._are_most_there(layout, name):
            return "too few are there"
        if fault.kind in ("remove", "replace") and not self._may_spoil(name):
            return "another disk is not mended yet"
        if fault.kind in ("remove", "replace"):
            self._processes.take_down(number, name, "kill")
        elif fault.kind == "reweigh":
            self._processes.take_down(number, name, "stop")
            self._world.reweigh(name, round(fault.amount, 1))
        return ""

    def _is_going(self, name: str) -> bool:
        """Whether a member leaves or is taken out, or may yet be."""
        now = self._world.schedule.now
        return any(
            change.fault.kind in GOING
            and name in change.fault.targets
            and not change.cancelled
            and change.ended + LINGER_S > now
            for change in self._on.values()
        )

    def _are_most_there(self, layout: Layout, name: str) -> bool:
        there = [m.name for m in layout.members if self._world.hosts[m.name].node is not None]
        return 2 * len([n for n in there if n != name]) > len(layout.members)

    # What is done meanwhile.

    def _look(self, number: int) -> None:
        change = self._on[number]
        if change.over:
            return
        self._world.schedule.callLater(LOOK_S, self._look, number)
        kind, name = change.fault.kind, change.fault.targets[0]
        if kind == "leave":
            self._have_leave(change, name)
        elif kind == "remove":
            self._have_removed(number, change, name)
        elif kind == "replace":
            self._have_replaced(number, name)

    def _have_replaced(self, number: int, name: str) -> None:
        if self._processes.owner.get(name) == number and self._is_held_dead(name):
            self._empty(name)
            self._processes.let_up(number)

    def _have_leave(self, change: _Change, name: str) -> None:
        def answered(answer: Answer) -> None:
            change.asking = False
            if answer.status == 200 and not change.accepted:
                change.accepted = True
                if change.fault.amount < 0.3:
                    after = change.fault.amount * 10.0
                    self._world.schedule.callLater(after, self._cancel, change, name)

        if not change.accepted and not change.asking and name not in self._world.absent:
            change.asking = True
            self._ask(name, b"/v1/cluster/leave", {"force": True}, answered)

    def _cancel(self, change: _Change, name: str) -> None:
        def answered(answer: Answer) -> None:
            if answer.status == 200:
                change.cancelled = True

        self._ask(name, b"/v1/cluster/leave", {"cancel": True}, answered)

    def _have_removed(self, number: int, change: _Change, name: str) -> None:
        def answered(answer: Answer) -> None:
            change.asking = False
            change.accepted = change.accepted or answer.status == 200

        if name in self._world.absent:
            self._bring_back(number, change, name)
        elif not change.accepted and not change.asking and self._is_held_dead(name):
            there = [n for n in self._world.running() if n in self._world.members and n != name]
            if there:
                change.asking = True
                told = {"name": name, "force": True}
                self._ask(there[number % len(there)], b"/v1/cluster/remove", told, answered)

    def _is_held_dead(self, name: str) -> bool:
        views = [h.node.view for h in self._world.hosts.values() if h.node and h.name != name]
        return not any(view.is_healthy(name) or view.is_doubtful(name) for view in views)

    def _empty(self, name: str) -> None:
        self._world.hosts[name].drive.wipe()
        self._spoiled(name)

    # One that was removed, with its old disk.

    def _bring_back(self, number: int, change: _Change, name: str) -> None:
        if change.fault.amount >= 0.6:
            return
        world, host = self._world, self._world.hosts[name]
        now = world.schedule.now
        self._must_not_tell(change, host)
        if change.back_since is None:
            if self._processes.owner.get(name) == number and host.node is None:
                change.back_since = now
                change.hints = _hints(host)
                world.start(name)
        elif now > change.back_since + BACK_S:
            if host.node is not None:
                world.kill(name)
        elif host.node is None:
            self._must_not_start(host)
        elif not change.asking:
            self._must_not_serve(change, host)

    def _must_not_start(self, host: Host) -> None:
        if not host.drive.is_open and self._world.start(host.name):
            self._wrong(f"{host.name} was told that it is not in the ring, and starts all the same")
            self._world.kill(host.name)

    def _must_not_serve(self, change: _Change, host: Host) -> None:
        starts, well = host.starts, self._links_well()

        def answered(answer: Answer) -> None:
            change.asking = False
            well_still = well and self._links_well() and host.starts == starts
            if well_still and answer.status and answer.status < 500:
                self._wrong(
                    f"{host.name} was removed, came back with its old disk, and answers "
                    f"{answer.status} to a listing"
                )

        change.asking = True
        page = wording.get_page("fast", {"limit": "1", "r": "1"})
        self._send(host.name, page, answered)

    def _must_not_tell(self, change: _Change, host: Host) -> None:
        """What it is told to tell others it keeps: they may have buried it since."""
        told = set(change.hints) - set(_hints(host))
        if told and change.back_since is not None and host.name in self._world.absent:
            change.hints = ()
            self._wrong(
                f"{host.name} was removed, came back with its old disk, and handed over "
                f"{len(told)} of its hints"
            )

    # Asking.

    def _ask(
        self, name: str, path: bytes, told: dict[str, Any], then: Callable[[Answer], None]
    ) -> None:
        def answered(answer: Answer) -> None:
            why = answer.body.decode("utf-8", "replace")[:200] if answer.status != 200 else ""
            said = f"{answer.failed or answer.status} {why}"
            self._world.trace.add("operator", f"{path.decode()} {told} at {name}: {said}")
            then(answer)

        self._send(name, request_bytes(b"POST", path, [], msgspec.json.encode(told)), answered)

    def _send(self, name: str, request: bytes, then: Callable[[Answer], None]) -> None:
        if self._caller is None:
            self._caller = Caller(Reactor(self._world.client_machine("operator", 200)))
        place = (self._world.hosts[name].machine.ip, API_PORT)
        asked = self._caller.ask(place, request, seconds=ASK_S)
        asked.addCallback(then)
        asked.addErrback(lambda f: self._world.schedule.callLater(0.0, f.raiseException))


def _hints(host: Host) -> tuple[bytes, ...]:
    """The rows of those on its disk."""
    return tuple([row for row, _ in host.drive.written().scan("hints", b"")])
