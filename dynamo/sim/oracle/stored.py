"""Whether a drive has the chunks that its records name, at each commit.

A record is stored only when every chunk is there that its row did not name before, and a chunk that
is there is durable: else a power cut leaves a record whose bytes are nowhere on that node. Of those
that the row named before nothing is said, for damage may have taken them since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from dynamo.core.record import Record
from dynamo.sim.disk import Drive


@attrs.define(eq=False)
class Stored:
    """See the module. `drive(name)` is that of a node, None where nobody looks at chunks."""

    told: Callable[[bytes], str]
    held: Callable[[str], None]
    broken: Callable[[str, str], None]
    drive: Callable[[str], Drive | None] = lambda name: None

    def committed(self, name: str, table: str, row: bytes, old: Record, new: Record) -> None:
        """I6: a row of `name` was `old` and now is `new`."""
        named = new.chunk_digests() - old.chunk_digests()
        drive = self.drive(name) if named else None
        if drive is None:
            return
        lacking = _lacking(drive, named)
        if not lacking:
            self.held("I6")
            return
        gone = all(drive.placed(digest) is None for digest in lacking)
        self.broken(
            "I6",
            f"{name} stored in {table} a record of {self.told(row)}, and "
            f"{'lacks' if gone else 'has not synced'} of the chunks that it came to name "
            f"{', '.join(digest.hex()[:12] for digest in lacking)}",
        )


def _lacking(drive: Drive, digests: Iterable[bytes]) -> list[bytes]:
    """Those that are not there for good. One in which a bit has flipped goes as soon as somebody
    reads it, be it while a record that names it is on its way to disk."""
    return sorted(
        digest
        for digest in digests
        if digest not in drive.chunks_flipped
        and (drive.placed(digest) is None or digest not in drive.chunks_durable)
    )
