"""How a fault gets into the code and out of it again.

A fault is said as an edit: in the source of one function of `dynamo`, this text becomes that text.
The text has to be there exactly once, so that a mutant whose seam has moved fails loudly instead of
doing nothing. The edited function is compiled with the globals of its own module and put in the
place of the original, wherever in `dynamo` that is known by name; leaving puts back the very object
that was there.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs

ORACLE = "dynamo.sim.oracle"
"""Whose calls are not led astray."""


class SeamMoved(Exception):
    """The code is no longer what a mutant says it is."""


@attrs.frozen
class Edit:
    """In the function `where` ("module:function" or "module:Class.method") `old` becomes `new`.

    Both are lines of the function as it would stand at the left margin.
    """

    where: str
    old: str
    new: str

    def place(self) -> tuple[Any, str]:
        """The class or module that has the function, and its name there."""
        module, _, path = self.where.partition(":")
        owner: Any = importlib.import_module(module)
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        if name not in vars(owner):
            raise SeamMoved(f"{self.where} is no more")
        return owner, name

    def edited(self, source: str) -> str:
        """The function's source with the fault in it."""
        if source.count(self.old) != 1:
            found = source.count(self.old)
            raise SeamMoved(f"{self.where} has {self.old.strip()!r} {found} times, not once")
        return source.replace(self.old, self.new)


@attrs.frozen
class Mutant:
    """A fault: its name, in one sentence what it `breaks`, the `invariants` that should notice, and
    the edits that make it."""

    name: str
    breaks: str
    invariants: tuple[str, ...]
    edits: tuple[Edit, ...]


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Within it `dynamo` has the fault. Raises `SeamMoved`, and then nothing has changed.

    Whatever keeps a bound method or has imported a name has to be made inside.
    """
    with ExitStack() as stack:
        by_place: dict[str, list[Edit]] = {}
        for edit in mutant.edits:
            by_place.setdefault(edit.where, []).append(edit)
        for edits in by_place.values():
            stack.enter_context(_replaced(edits))
        yield


@contextmanager
def _replaced(edits: list[Edit]) -> Iterator[None]:
    owner, name = edits[0].place()
    original = vars(owner)[name]
    faulty = _guarded(original, _compiled(owner, name, original, edits))
    if inspect.ismodule(owner):
        _rebind(original, faulty, name)
    else:
        setattr(owner, name, faulty)
    try:
        yield
    finally:
        if inspect.ismodule(owner):
            _rebind(faulty, original, name)
        else:
            setattr(owner, name, original)


def _compiled(owner: Any, name: str, original: Any, edits: list[Edit]) -> Any:
    function = original.fget if isinstance(original, property) else inspect.unwrap(original)
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        source = edit.edited(source)
    made: dict[str, Any] = {}
    exec(compile(source, f"<mutant of {edits[0].where}>", "exec"), function.__globals__, made)
    return made[name]


def _guarded(original: Any, faulty: Any) -> Any:
    """The fault for whoever calls, but for the oracle: a judge that errs with the accused would
    condemn what is right and acquit what is wrong."""
    if isinstance(original, property):
        return property(_guarded(original.fget, faulty.fget))

    @functools.wraps(original)
    def either(*arguments: Any, **named: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]
        return (original if caller.startswith(ORACLE) else faulty)(*arguments, **named)

    return either


def _rebind(was: Any, now: Any, name: str) -> None:
    """A function of a module is known in every module that imported it."""
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "dynamo" and vars(module).get(name) is was:
            setattr(module, name, now)
