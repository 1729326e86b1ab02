"""Under which actor a new data directory signs: one that no member has seen under its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dynamo.log import make_logger
from dynamo.storage import ledger
from dynamo.storage.facts import Identity
from dynamo.wire.hello import Hello

SAVE_AGAIN_S = 1.0

log = make_logger()


class Naming:
    """Draws the actor of `identity` once. `about_me()` is what the node says of itself, `named()`
    is called when it has a name, or may be given one again. `rng` draws hands."""

    def __init__(
        self,
        identity: Identity,
        about_me: Callable[[], Hello],
        clock: IReactorTime,
        named: Callable[[], None],
        rng: Random,
    ) -> None:
        self._rng = rng
        self._identity = identity
        self._about_me = about_me
        self._clock = clock
        self._named = named
        self._saving = self._writing = self._unwritten = False

    def draw(self, hellos: Sequence[Hello], members: Sequence[str], *, refill: bool) -> None:
        """Takes an actor that none of the others has seen. `refill`: the others hold what was on
        this node's disk. One of the `members` that has not answered may have seen a later actor
        than those that have: then the node signs with a hand of its own from the start."""
        if self._saving:
            return
        me, self._saving = self._about_me(), True
        actor = _unused(me.name, hellos)
        silent = set(members) - {me.name} - {hello.name for hello in hellos}
        hand = self._rng.randrange(*ledger.NEW_HANDS) if silent and me.name in members else 0
        cluster = f"{me.cluster_name}/{me.partitions}"
        saved = self._identity.save(actor, cluster, refill=refill, hand=hand)
        saved.addCallbacks(self._saved, self._not_saved)

    def note(self, name: str, actor: str) -> None:
        """Remembers the last actor under which a member wrote; one that was put back to an earlier
        disk writes under an earlier one again. All are in one row: what is learnt while it is being
        written goes with the next one."""
        known = self._identity.actors.get(name)
        if actor and (not known or _number(actor) > _number(known)):
            self._identity.actors[name] = actor
            self._unwritten = True
            self._write()

    def _write(self) -> None:
        if self._unwritten and not self._writing:
            self._unwritten, self._writing = False, True
            written = self._identity.save_actors()
            written.addErrback(lambda f: log.error("An actor was not stored: {f}", f=f.value))
            written.addBoth(self._written)

    def _written(self, _: object) -> None:
        self._writing = False
        self._write()

    def _saved(self, _: None) -> None:
        self._saving = False
        self._named()

    def _not_saved(self, failure: Failure) -> None:
        log.error("What this node is cannot be stored: {why}", why=failure.getErrorMessage())
        self._clock.callLater(SAVE_AGAIN_S, self._saved, None)


def _unused(name: str, hellos: Iterable[Hello]) -> str:
    """A node's name, or with the next number if members know it under that already."""
    seen = [hello.actors[name] for hello in hellos if hello.actors.get(name)]
    return f"{name}~{max(_number(a) for a in seen) + 1}" if seen else name


def _number(actor: str) -> int:
    return int(actor.rpartition("~")[2]) if "~" in actor else 1
