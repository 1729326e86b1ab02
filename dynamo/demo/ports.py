"""Are the addresses free? Asked before anything starts, so that the answer is a sentence."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol, Factory

from dynamo.config import Address
from dynamo.demo.children import Child


async def first_obstacle(reactor: Any, children: tuple[Child, ...]) -> str | None:
    """Why one of the nodes could not listen, or None."""
    for child in children:
        listen = child.config.listen
        for key, address, udp in (
            ("api", listen.api, False),
            ("cluster", listen.cluster, False),
            ("cluster", listen.cluster, True),
        ):
            try:
                await _try(reactor, address, udp)
            except CannotListenError as error:
                return _sentence(child, key, address, udp, error)
    return None


async def _try(reactor: Any, address: Address, udp: bool) -> None:
    if udp:
        port = reactor.listenUDP(address.port, DatagramProtocol(), interface=address.host)
    else:
        port = reactor.listenTCP(address.port, Factory(), interface=address.host)
    await port.stopListening()


def _sentence(child: Child, key: str, address: Address, udp: bool, error: Any) -> str:
    number = getattr(error.socketError, "errno", None)
    port = f"{'UDP' if udp else 'TCP'} port {address}"
    if number == errno.EADDRINUSE:
        return (
            f"{port} of {child.name} is taken by another program: stop that one "
            f"or change listen.{key} in {child.conf}."
        )
    reason = os.strerror(number) if number else str(error.socketError)
    return (
        f"{port} of {child.name} cannot be opened ({reason}): change listen.{key} in {child.conf}."
    )
