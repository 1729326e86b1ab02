"""Whether a read mends the owners that it finds stale.

Hints and anti-entropy mend them as well, so all that hides it is paused as an operator would, at
every node, from when the faults are over. Then some of the keys whose owners differ are read, all
owners being asked, and soon afterwards each of these has to know what any of them knew.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from dynamo.core.record import EMPTY, Record
from dynamo.sim import wording
from dynamo.sim.client import Answer, request_bytes
from dynamo.sim.oracle.mirrors import covers, describe
from dynamo.sim.oracle.rest import RestChecks

TASKS = ("handoff", "antientropy", "tombstones")
"""What is paused: the last lets go of records that all owners hold."""

KEYS_MAX = 8
"""How many keys are read."""

ANSWER_S = 15.0
SOON_S = 1.0
"""How long what is mended takes. Anti-entropy would take ten seconds."""


@attrs.frozen
class Asked:
    """A read of all owners of a row; `known` is what these knew together before."""

    row: bytes
    node: str
    owners: tuple[str, ...]
    known: Record


@attrs.define(eq=False)
class RepairChecks:
    """See the module. It asks as `rest` does. `paused`: every node has said that it paused."""

    rest: RestChecks
    paused: bool = False

    def pause(self) -> None:
        """Nothing but reads mends from here on; time passes."""
        self.paused = not self._refusing("pause")

    def resume(self) -> None:
        """All goes on."""
        for node in self._refusing("resume"):
            if node in self._nodes():
                self._broken("I15", f"{node} does not let go on what was paused")

    def mended(self, rows: Sequence[bytes]) -> None:
        """I6: some of these rows whose owners differ are read, and then do not differ any more;
        time passes. Nothing is said if something else might have mended them."""
        nodes = self._nodes()
        due = [row for row in rows if self._is_due(row)][:KEYS_MAX] if self.paused else []
        asked = [self._asked(row, nodes[n % len(nodes)]) for n, row in enumerate(due)]
        if not asked:
            return
        answers = self._ask([(of.node, self._request(of)) for of in asked])
        self.rest.world.run_for(SOON_S)
        for of, answer in zip(asked, answers, strict=True):
            if answer is not None:
                self._judge(of, answer)

    # Reading.

    def _is_due(self, row: bytes) -> bool:
        """Whether its owners differ and all are to know it after a read. One that keeps a copy for
        others besides answers with both, and a disk that stands still takes nothing. (One whose row
        is damaged does not answer, so that its read comes to nothing.)"""
        owners, world = self.rest.owners(row), self.rest.world
        mirrors = [self.rest.registry.mirrors.get(owner) for owner in owners]
        if any(mirror is None or row in mirror.held for mirror in mirrors):
            return False
        if any(world.hosts[owner].drive.stalled for owner in owners):
            return False
        records = [m.records.get(row, EMPTY) for m in mirrors if m is not None]
        return any(not record.same_versions(records[0]) for record in records[1:])

    def _asked(self, row: bytes, node: str) -> Asked:
        registry, owners = self.rest.registry, self.rest.owners(row)
        known, latest = EMPTY, registry.is_latest(row)
        for owner in owners:
            known = known.merge(registry.mirrors[owner].records.get(row, EMPTY), latest=latest)
        return Asked(row, node, owners, known)

    def _request(self, of: Asked) -> bytes:
        found = self.rest.registry.locate(of.row)
        assert found is not None
        return wording.on_object(b"GET", *found.place, {"r": str(len(of.owners))}, [])

    def _judge(self, of: Asked, answer: Answer) -> None:
        """Nothing follows from a read that some owner was too late for."""
        registry = self.rest.registry
        counted = answer.header(b"x-dynamo-replicas").split(", ")
        if not set(of.owners) <= set(counted):
            return
        for owner in of.owners:
            has = registry.mirrors[owner].records.get(of.row, EMPTY)
            merged = has.merge(of.known, latest=registry.is_latest(of.row))
            if covers(has.context, of.known.context) and merged.same_versions(has):
                self.rest.live.tally.held("I6")
                continue
            self._broken(
                "I6",
                f"{of.node} read {registry.told(of.row)}, all owners answered, who knew "
                f"{describe(of.known)}, and {owner} still has {describe(has)}",
            )

    # Asking.

    def _nodes(self) -> list[str]:
        """Those that run and have a part in the cluster."""
        return [name for name in self.rest.world.running() if name in self.rest.world.present()]

    def _refusing(self, word: str) -> list[str]:
        """Tells all nodes; gives those that did not say that they do so."""
        work = [
            (node, request_bytes(b"POST", f"/v1/background/{task}/{word}".encode(), []))
            for node in self._nodes()
            for task in TASKS
        ]
        answers = zip(work, self._ask(work), strict=True)
        refusing = [node for (node, _), a in answers if a is None or a.status != 200]
        return list(dict.fromkeys(refusing))

    def _ask(self, work: Sequence[tuple[str, bytes]]) -> list[Answer | None]:
        """What came of each request, None without an answer; time passes. Those that went out on a
        connection of an earlier start of the node are sent again."""
        answers: list[Answer | None] = [None] * len(work)
        schedule, clients = self.rest.world.schedule, self.rest.clients
        left = list(range(len(work)))
        for _ in range(2):
            waiting = set(left)

            def got(answer: Answer, number: int, waiting: set[int] = waiting) -> None:
                answers[number] = answer
                waiting.discard(number)

            for number in left:
                clients.ask(*work[number]).addCallback(got, number)
            schedule.run_while(lambda waiting=waiting: bool(waiting), schedule.now + ANSWER_S)  # type: ignore[misc]
            left = [n for n, answer in enumerate(answers) if answer is None or answer.stale]
        return answers

    def _broken(self, invariant: str, text: str) -> None:
        self.rest.live.tally.broken(invariant, self.rest.live.now(), text)
