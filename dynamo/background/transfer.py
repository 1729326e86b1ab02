"""What a node does before the ring changes: it pulls what it will own, and passes on its hints.

While a ring is coming, writes reach its owners already (`dynamo.core.layout`). Once every member
that is there goes by that, what was written before has to follow:

- a node that gains partitions pulls them from all present owners that are there
  (`dynamo.core.transfers`, `dynamo.background.pulling`);
- a node that holds hints passes their records on to the coming owners
  (`dynamo.background.passing`).

When all that is done, the node says so, once. What it has pulled is not remembered over a restart:
it compares again, which costs little. It begins anew as well for another layout, and when a member
turns up that does not go by this one yet: what that one wrote meanwhile may be with present owners
alone.
"""

from __future__ import annotations

import attrs

from dynamo.background.passing import Passing
from dynamo.background.pulling import Pulling
from dynamo.core.layout import NONE, Layout
from dynamo.core.refilling import Progress
from dynamo.core.ring import Ring
from dynamo.core.transfers import Moving, Needs, needs
from dynamo.log import make_logger
from dynamo.ports import Changing

NOTHING = Needs((), {})

PATIENCE_S = 5.0
"""How long something has to be in the way until it is said in the log."""

NEVER = float("inf")

BEGINNING = "The ring changes: this node pulls {left} partitions"

log = make_logger()


@attrs.define(eq=False)
class Transfer:
    """See the module. `changing` knows how far the others are, and hears when this node is done."""

    pulling: Pulling
    passing: Passing
    changing: Changing
    _layout: Layout = NONE
    _needs: Needs = NOTHING
    _expected: object = None
    _taken: int = -1
    _done: int = 0
    _stray: bool = False
    _late: str = ""
    _seen: object = None
    _why: str = ""
    _told_at: float = NEVER

    async def step(self) -> bool:
        """Does a slice; True if there is more to do now."""
        view = self.pulling.around.view
        layout, coming = view.layout, view.beside
        if layout.stage != "coming" or coming is None:
            if self._layout is not NONE:
                self._begin(NONE)
            self._note("")
            return False
        if layout != self._layout:
            self._begin(layout)
        # Others tell of themselves now, each a reason to be woken: nothing follows for this node.
        seen = (layout.version, view.epoch, self.pulling.around.classes())
        if self._done == layout.version and self._seen == seen and not self._stray:
            return False
        self._seen = None
        why = self._too_early()
        if not why:
            if await self._slice(coming):
                return True
            if view.layout != layout:
                return True
            why = self._too_early() or self._lacks(coming)
        if not why and self._done != layout.version:
            self._end()
        self._note(why if self._done != layout.version else "")
        self._seen = seen if not why else None
        return False

    def appeared(self, name: str) -> None:
        """A member is there: what it holds is asked for at the next step."""
        self.pulling.appeared(name)
        self.passing.appeared()
        if self._layout.knows(name) and self.changing.uses(name) < self._layout.version:
            self._stray = True

    # For whoever looks.

    def why_waiting(self) -> str:
        """One sentence on what has to happen first; "" if nothing is in the way."""
        return self._why

    def progress(self, now: float) -> Progress | None:
        """How far this node is with pulling; None if it is not about to own anything more."""
        return self.pulling.state.progress(now) if self._needs.pairs else None

    def transfers(self, now: float) -> list[Moving]:
        """What is on its way to this node, `dynamo.core.transfers.MOVING_MAX` of them at most."""
        return self.pulling.moving(now) if self._needs.pairs else []

    # When to begin.

    def _begin(self, layout: Layout) -> None:
        self._layout, self._stray = layout, False
        self._needs, self._expected, self.pulling.told = NOTHING, None, -1
        self.passing.begin_anew()
        self.pulling.begin_anew()

    def _too_early(self) -> str:
        """Why nothing may be pulled yet; "" if it may. What came too early is pulled again."""
        # Of many that are late one is enough to know of, and to look at first the next time.
        if not (self._late and self._is_late(self._late)):
            names = self._layout.names()
            self._late = next((name for name in names if self._is_late(name)), "")
        if self._late or self._stray:
            self._begin(self._layout)
        if not self._late:
            return ""
        version = self._layout.version
        return f"Waiting until {self._late} can go by version {version} of the layout."

    def _is_late(self, name: str) -> bool:
        return self.changing.uses(name) < self._layout.version and self._is_there(name)

    def _is_there(self, name: str) -> bool:
        """Whether a member may be there; one in doubt is waited for until that is known."""
        view = self.pulling.around.view
        return name == view.name or view.is_healthy(name) or view.is_doubtful(name)

    # What is done.

    async def _slice(self, coming: Ring) -> bool:
        """Pulls a slice, or passes on a few hints; whether there is more to do now."""
        state = self.pulling.state
        self._look(coming)
        if not state.done:
            if not self._is_counted():
                return False
            if await self.pulling.step():
                self._tell()
                return True
            if self._needs.waiting and self._taken != state.version:
                # One that is missed may have been pulled from just before it went.
                self._expected = None
                return True
        return await self.passing.step(coming)

    def _is_counted(self) -> bool:
        """Whether this node's keys are counted, so that partitions can be compared."""
        if self.pulling.around.keeper.trees.complete and self.pulling.recount():
            return True
        self._expected = None
        return False

    def _look(self, coming: Ring) -> None:
        """Takes note of what there is to pull, if anything has changed."""
        state, view = self.pulling.state, self.pulling.around.view
        classes = self.pulling.around.classes()
        present = tuple([m.name for m in view.ring.members if self._is_there(m.name)])
        if self._expected == (classes, present):
            return
        self._expected, self._taken = (classes, present), state.version
        self._needs = needs(
            view.ring,
            coming,
            view.name,
            classes,
            there=lambda name: name in present,
            taken=state.whole,
        )
        state.expect(self._needs.pairs)
        state.mark(self.pulling.clock.seconds())
        self._tell()

    def _lacks(self, coming: Ring) -> str:
        """What it waits for, when there is nothing to do now; "" if all is done."""
        state, waiting = self.pulling.state, self._needs.waiting
        if self._expected is None:
            return "This node counts its keys first."
        if not state.done:
            if waiting:
                names = sorted({name for missed in waiting.values() for name in missed})
                return (
                    f"{len(waiting)} partitions wait for {', '.join(names)}: too few of those who "
                    "hold them are there."
                )
            peers = sorted({pair[1] for pairs in state.lacking() for pair in pairs})
            return f"What {', '.join(peers)} holds is to be pulled; it is asked again soon."
        return self.passing.why(coming)

    # What is said of it.

    def _tell(self) -> None:
        self.pulling.tell(BEGINNING, "pulled")

    def _end(self) -> None:
        self._done = self._layout.version
        progress = self.pulling.state.progress(self.pulling.clock.seconds())
        log.info(
            "This node is ready for the coming ring: it pulled {done} partitions and took {size} "
            "bytes, and passed on {passed} hints",
            done=progress.partitions_done,
            size=progress.bytes,
            passed=self.passing.passed,
        )
        self.changing.sync_done(self._done)

    def _note(self, why: str) -> None:
        now = self.pulling.clock.seconds()
        if why != self._why:
            self._why, self._told_at = why, now + PATIENCE_S
        if why and now >= self._told_at:
            self._told_at = NEVER
            log.info("The ring does not change yet: {why}", why=why)
