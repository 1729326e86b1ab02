"""Jobs that set damaged rows aside and make them whole; the rules are in `dynamo.storage.broken`.

Finding damage is for whoever reads; asking the other nodes is for `dynamo.background.mending`.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import msgspec
from twisted.internet.defer import Deferred

from dynamo.core.record import EMPTY, Record
from dynamo.storage import broken, hints, ledger
from dynamo.storage.copies import Copies
from dynamo.storage.effects import Effects
from dynamo.storage.engine import Transaction
from dynamo.storage.owned import TABLES, heal
from dynamo.wire.codec import PLACE, Place


@attrs.define(eq=False)
class Recovery:
    """Recovers what one node's copies lost."""

    copies: Copies

    def set_aside(self, incarnation: bytes, key: bytes) -> Deferred[bool]:
        """Notes which of a key's rows are damaged; fires with whether any awaits its repair."""

        def job(txn: Transaction, effects: Effects) -> bool:
            found = [(table, broken.look(txn, table, incarnation, key)) for table in TABLES]
            for table, kept in found:
                if kept.fresh:
                    broken.keep(txn, effects, table, incarnation, key, kept, EMPTY)
            return any(kept.was is not None for _, kept in found)

        return self.copies.submit(job, frees_space=True)

    def mend(
        self, incarnation: bytes, key: bytes, record: Record, *, latest: bool = False
    ) -> Deferred[None]:
        """Makes a key's damaged rows whole with what other nodes know of it.

        The caller has heard enough of them. Fails with `MissingChunks`, and nothing has changed.
        """

        def job(txn: Transaction, effects: Effects) -> None:
            whole = []
            for table in TABLES:
                kept = broken.look(txn, table, incarnation, key)
                if kept.was is not None:
                    new = kept.record.merge(record, latest=latest)
                    self.copies.require_chunks(kept.record, new)
                    whole.append((table, kept, new))
            for table, kept, new in whole:
                heal(txn, effects, table, incarnation, key, kept, new)

        self.copies.touched(incarnation, key)
        self.copies.note_stamps(record)
        return self.copies.submit(job, frees_space=False)

    def leave_to_clients(self, incarnation: bytes, key: bytes) -> Deferred[None]:
        """Notes that nobody can tell what damaged rows were: a client may overwrite them."""

        def job(txn: Transaction, effects: Effects) -> None:
            for table in TABLES:
                kept = broken.look(txn, table, incarnation, key)
                if kept.was is not None and not kept.alone:
                    alone = msgspec.structs.replace(kept, alone=True)
                    broken.keep(txn, effects, table, incarnation, key, alone, kept.record)

        return self.copies.submit(job, frees_space=True)

    def refer_again(self, incarnation: bytes, key: bytes) -> Deferred[None]:
        """Counts the chunks that a key's record names and that are counted nowhere."""

        def job(txn: Transaction, effects: Effects) -> None:
            for table in TABLES:
                ledger.refer_again(txn, broken.look(txn, table, incarnation, key).record)

        return self.copies.submit(job, frees_space=True)

    def renew_hints(self, found: Sequence[tuple[bytes, bytes]]) -> Deferred[None]:
        """Writes damaged hints anew: the row of each, and the key it turned out to stand for."""

        def job(txn: Transaction, effects: Effects) -> None:
            for row, key in found:
                hints.renew(txn, row, key)

        return self.copies.submit(job, frees_space=True)

    def void_hints(self, lost: Sequence[bytes]) -> Deferred[None]:
        """Removes damaged hints of whose keys nothing is held here."""

        def job(txn: Transaction, effects: Effects) -> None:
            for row in lost:
                hints.void(txn, effects, row)

        return self.copies.submit(job, frees_space=True)

    def write_down(self, place: Place) -> Deferred[None]:
        """Writes how far the scrub is."""
        data = PLACE.encode(place)
        return self.copies.submit(
            lambda txn, effects: ledger.state(txn, ledger.SCRUBBING, data), frees_space=True
        )
