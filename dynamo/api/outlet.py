"""The side of a connection that answers go out by."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.tcp import Connection
from twisted.web.http import HTTPChannel

TRANSFER_BYTES = 1024 * 1024


class Outlet(HTTPChannel):
    """Writes at once where it can, and says when the client does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked = False
        self._unblocked: Deferred[None] | None = None
        self._socket: Connection | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        if isinstance(transport, Connection):
            self._socket = transport
            transport.SEND_LIMIT = TRANSFER_BYTES
        self._networkProducer = transport
        transport.registerProducer(self, True)

    def widen(self, wide: bool) -> None:
        """Takes more from the socket at once while a large body comes; twisted's 64 KiB are
        sixteen turns of the loop for a chunk, and right for everything else."""
        if self._socket is not None:
            self._socket.bufferSize = TRANSFER_BYTES if wide else Connection.bufferSize

    def send(self, data: bytes) -> None:
        """Writes, without waiting for the poll where nothing is waiting to be written.

        Twisted's `write` leaves the bytes for when the poll says that the socket is writable,
        which costs two system calls to ask and one turn of the loop. `writeSomeData` is the
        call it then makes; its queue (one part of it private) must be empty, so that nothing
        is overtaken.
        """
        socket = self._socket
        if (
            socket is not None
            and not socket._tempDataLen
            and not socket.dataBuffer
            and socket.connected
            and not socket.disconnecting
        ):
            sent = socket.writeSomeData(data)
            if isinstance(sent, int):
                if sent == len(data):
                    return
                data = data[sent:]
        transport: Any = self.transport
        transport.write(data)

    def unblocked(self) -> Deferred[None]:
        """Fires when the transport has room again; cancelled if the client goes away."""
        if self._unblocked is None:
            self._unblocked = Deferred(self._forget)
        return self._unblocked

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self.blocked = True
        if self._requestProducer is not None:
            self._requestProducer.pauseProducing()
        self.blocked_changed()

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self.blocked = False
        if self._requestProducer is not None:
            self._requestProducer.resumeProducing()
        self.blocked_changed()
        unblocked, self._unblocked = self._unblocked, None
        if unblocked is not None:
            unblocked.callback(None)

    def blocked_changed(self) -> None:
        """For the other side of the connection."""

    def release(self) -> None:
        """Nobody has to wait any longer: the client is gone."""
        unblocked, self._unblocked = self._unblocked, None
        if unblocked is not None:
            unblocked.cancel()

    def _forget(self, _: Deferred[None]) -> None:
        self._unblocked = None
