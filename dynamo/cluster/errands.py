"""What gossip asks over peer HTTP: is this member there after all, and what do you know?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred

from dynamo.core.effects import ExchangeState
from dynamo.core.members import Member
from dynamo.core.messages import State
from dynamo.core.probing import Outcome
from dynamo.errors import DynamoError, PeerUnreachable
from dynamo.ports import Peer
from dynamo.wire.datagrams import BadDatagram, decode_state, encode_state


@attrs.define(eq=False)
class Errands:
    """`remote(name, address)` makes a replica to ask; `timeout` is in seconds; `dropped` counts
    states that were no good, by reason."""

    remote: Callable[[str, str], Peer]
    timeout: float
    cluster: str
    dropped: Counter[str]

    def probe(self, member: Member) -> Deferred[Outcome]:
        """Asks the process at a member's address who it is."""
        return Deferred.fromCoroutine(self._probe(member))

    def exchange(self, effect: ExchangeState, state: State) -> Deferred[State]:
        """Sends a full state and fires with the other's; fails with `PeerUnreachable`."""
        return Deferred.fromCoroutine(self._exchange(effect, state))

    async def _probe(self, member: Member) -> Outcome:
        try:
            hello = await self.remote(member.name, member.address).hello(self.timeout)
        except PeerUnreachable as error:
            return "failed" if error.sent else "refused"
        except DynamoError:
            return "failed"
        same = (hello.name, hello.cluster_name) == (member.name, self.cluster)
        return "answered" if same else "other"

    async def _exchange(self, effect: ExchangeState, state: State) -> State:
        replica = self.remote(effect.name, effect.address)
        body = await replica.exchange_state(encode_state(state), self.timeout)
        try:
            return decode_state(body, self.cluster)
        except BadDatagram as bad:
            self.dropped[bad.reason] += 1
            raise PeerUnreachable(effect.name or effect.address, f"sent {bad.reason}") from None
