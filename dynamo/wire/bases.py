"""What all operations between nodes have in common, and all replies."""

from __future__ import annotations

import msgspec


class Op(msgspec.Struct, frozen=True, array_like=True):
    """One thing asked of a peer."""


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """One answer."""
