"""The questions by which members agree on the next layout (`dynamo.core.agreement`)."""

from __future__ import annotations

from dynamo.core.agreement import Ballot, Promise
from dynamo.core.layout import Layout
from dynamo.wire.bases import Op, Reply


class LayoutRead(Op, frozen=True, array_like=True, tag=40):
    """Which layout do you go by?"""


class LayoutPrepare(Op, frozen=True, array_like=True, tag=41):
    """Promise, for the layout `version`, to heed no ballot below this one."""

    version: int
    ballot: Ballot


class LayoutAccept(Op, frozen=True, array_like=True, tag=42):
    """Accept this value for its version, unless you promised otherwise."""

    ballot: Ballot
    value: Layout


class LayoutLearn(Op, frozen=True, array_like=True, tag=43):
    """This layout was decided."""

    layout: Layout


class LayoutReply(Reply, frozen=True, array_like=True, tag=40):
    """The layout here, and what this node has said of the next; `yes`: it did as asked. With a
    `yes` the layout is told by version and birth alone. `forgot`: it may have said more, and lost
    that with its disk."""

    layout: Layout
    promise: Promise = Promise()
    yes: bool = True
    forgot: bool = False


def vote(layout: Layout, promise: Promise, yes: bool, forgot: bool) -> LayoutReply:
    """What an elector answers. Who asked it knows the layout that a `yes` comes from, and the value
    that it was asked to accept: of many electors each would send them back."""
    if not yes or layout.version >= promise.version:
        return LayoutReply(layout, promise, yes, forgot)
    if promise.accepted == promise.promised:
        promise = Promise(promise.version, promise.promised, promise.accepted)
    return LayoutReply(Layout(layout.version, layout.birth), promise, forgot=forgot)
