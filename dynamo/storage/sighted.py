"""How far the members' disks were seen to have got, on this disk (`dynamo.core.sightings`).

What a message carries is here no earlier than the note of how far its sender's disk was: the commit
that stores the one writes what was noted before. So a member whose disk was put back is told so
although all that saw it were restarted meanwhile.
"""

from __future__ import annotations

from dynamo.core.sightings import Origin, Sightings
from dynamo.errors import Corrupt
from dynamo.log import make_logger
from dynamo.storage.engine import Transaction, View
from dynamo.wire.codec import SIGHTING

SEEN = b"seen:"
"""What rows of `meta` begin with that say what was seen of a member; its name follows."""

log = make_logger()


class SightingBook:
    """The latest seen of each member. `sightings` are noted in the reactor's thread, and written in
    the committer's."""

    def __init__(self) -> None:
        self.sightings = Sightings()
        self._unwritten: dict[str, Origin] = {}

    def load(self, view: View) -> None:
        """Reads what earlier processes wrote. A damaged row is as if it were not there."""
        for row, data in view.scan("meta", SEEN):
            if not row.startswith(SEEN):
                break
            try:
                self.sightings.note(SIGHTING.decode(row, data))
            except Corrupt as error:
                log.error("What was seen of a member is damaged: {why}", why=error)
        self.sightings.news.clear()

    def write(self, txn: Transaction) -> None:
        """Writes what is new, at the end of a commit; and once more in the next one, if that commit
        came to nothing."""
        news = self.sightings.news
        for name in list(news):
            self._unwritten[name] = news.pop(name)
        for name, origin in list(self._unwritten.items()):
            row = SEEN + name.encode()
            data = SIGHTING.encode(row, origin)
            if txn.get("meta", row) == data:
                del self._unwritten[name]
            else:
                txn.put("meta", row, data)
