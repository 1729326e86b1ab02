"""Pinging on behalf of others: the helper's side of an indirect probe.

The helper uses a number of its own, passes the answer on under the requester's, and sends a nack
when it has none at 80 % of the time it was given. An answer that comes later is still passed on.
"""

from __future__ import annotations

import attrs

from dynamo.core.dissemination import Post
from dynamo.core.local import Local
from dynamo.core.members import Origin
from dynamo.core.messages import Ack, Nack, Ping, PingRequest
from dynamo.core.table import Table

NACK = "nack"
RELAY = "relay"

RELAYS_MAX = 256
"""Requests helped with at once; more are left unanswered."""

PATIENCE_MS_MAX = 30_000


@attrs.define
class Relay:
    """A request under way: where the answer goes, and who must give it."""

    requester: str
    asker: str
    number: int
    target: str
    identity: int


class Relays:
    """The probes this member helps with."""

    def __init__(self, local: Local, table: Table, post: Post) -> None:
        self._local = local
        self._table = table
        self._post = post
        self._relays: dict[int, Relay] = {}

    def request(self, sender: str, message: PingRequest) -> None:
        """Pings the target for the sender."""
        local = self._local
        if len(self._relays) >= RELAYS_MAX:
            local.count("relays_full")
            return
        number = local.rng.getrandbits(32)
        self._relays[number] = Relay(
            sender, message.origin.name, message.number, message.target, message.identity
        )
        patience = min(max(message.patience_ms, 1), PATIENCE_MS_MAX) / 1000
        if local.settings.lifeguard:
            nack_at = local.now + patience * local.settings.nack_share
            local.timers.set((NACK, str(number)), nack_at)
        local.timers.set((RELAY, str(number)), local.now + 2 * patience)
        ping = Ping(local.origin, number, message.target, message.identity)
        self._post.send(message.address, ping, self._table.get(message.target))

    def ack(self, origin: Origin, number: int) -> None:
        """The target answered; another one in its place is no answer."""
        relay = self._relays.get(number)
        if relay is not None and (origin.name, origin.identity) == (relay.target, relay.identity):
            answer = Ack(self._local.origin, relay.number)
            self._post.send(relay.requester, answer, self._table.get(relay.asker))
            self._local.timers.cancel((NACK, str(number)))
            self.expire(number)

    def nack(self, number: int) -> None:
        """No answer yet, and soon too late for one."""
        relay = self._relays[number]
        answer = Nack(self._local.origin, relay.number)
        self._post.send(relay.requester, answer, self._table.get(relay.asker))

    def expire(self, number: int) -> None:
        """Nobody waits for the answer any more."""
        self._relays.pop(number, None)
        self._local.timers.cancel((RELAY, str(number)))
