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
    """The layout here, and what this node has said of the next; `yes`: it did as asked."""

    layout: Layout
    promise: Promise = Promise()
    yes: bool = True
