"""What follows from a history alone: which write may replace which, what is owed, what is gone.

A write that carries a context replaces what its client had been shown, and nothing else. One that
carries none replaces whatever its coordinator holds when it gets to it, so it may replace any write
that began before it was over. A write of unknown outcome may be done at any time, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dynamo.sim.history import Write

Uncovered = Callable[[Write, Write], bool]
"""(u, v): whether some dot of v is not in the context that u carried."""


def may_replace(u: Write, v: Write) -> bool:
    """Whether `u` may have replaced `v`."""
    if u is v or not u.possible:
        return False
    if u.seen is not None:
        return v.id in u.seen
    return v.begun < u.end_or_never()


def owed(writes: Sequence[Write]) -> list[Write]:
    """The acknowledged versions of a key that nothing can have replaced: they must be shown."""
    return [
        v
        for v in writes
        if v.outcome == "acked" and not v.deletes and not any(may_replace(u, v) for u in writes)
    ]


def gone(writes: Sequence[Write], uncovered: Uncovered) -> dict[str, Write]:
    """The versions of a key that must never be shown again, each with what replaced it.

    A version that carries two dots, because its write was tried through a second coordinator, is
    replaced only by a write whose context has both.
    """
    by_id = {write.id: write for write in writes}
    found: dict[str, Write] = {}
    for u in writes:
        if u.outcome != "acked" or not u.seen:
            continue
        for name in sorted(u.seen):
            v = by_id.get(name)
            if v is not None and not uncovered(u, v):
                found[name] = u
    return found


def together(
    shown: Iterable[str], writes: Sequence[Write], uncovered: Uncovered
) -> tuple[Write, Write] | None:
    """Two versions shown as concurrent of which one replaced the other: (newer, older)."""
    ids = frozenset(shown)
    by_id = {write.id: write for write in writes}
    for name in sorted(ids):
        u = by_id.get(name)
        for older in sorted(ids & u.seen) if u is not None and u.seen else ():
            if older in by_id and u is not None and not uncovered(u, by_id[older]):
                return u, by_id[older]
    return None


def missing(
    shown: frozenset[str], writes: Sequence[Write], begun: float, ended: float
) -> list[Write]:
    """What a read that sees all that was acknowledged before it `begun` had to show and did not."""
    before = [u for u in writes if u.begun < ended]
    return [
        v
        for v in before
        if v.outcome == "acked"
        and not v.deletes
        and v.ended < begun
        and not v.replaced
        and v.id not in shown
        and not any(may_replace(u, v) for u in before)
    ]


def stale(
    shown: Iterable[str], writes: Sequence[Write], begun: float, uncovered: Uncovered
) -> tuple[Write, Write] | None:
    """A version shown that an acknowledged write had replaced before the read `begun`: (newer,
    older)."""
    ids = frozenset(shown)
    by_id = {write.id: write for write in writes}
    for u in writes:
        if u.outcome != "acked" or u.ended >= begun or not u.seen:
            continue
        for name in sorted(u.seen & ids):
            v = by_id.get(name)
            if v is not None and v.ended <= u.begun and not uncovered(u, v):
                return u, v
    return None


def surely_there(writes: Sequence[Write], begun: float, ended: float) -> Write | None:
    """A version, acknowledged before `begun`, that no delete can have reached by `ended`: its key
    is there."""
    for v in writes:
        if v.outcome != "acked" or v.deletes or v.ended >= begun:
            continue
        if not any(
            u.deletes and u.possible and u.begun < ended and u.end_or_never() > v.begun
            for u in writes
        ):
            return v
    return None


def surely_last(writes: Sequence[Write], apart: float) -> Write | None:
    """The acknowledged write that began at least `apart` seconds after every other was over."""
    done = [w for w in writes if w.possible]
    if not done:
        return None
    last = max(done, key=lambda w: w.begun)
    if last.outcome != "acked":
        return None
    others = (w.end_or_never() for w in done if w is not last)
    return last if all(end + apart < last.begun for end in others) else None
