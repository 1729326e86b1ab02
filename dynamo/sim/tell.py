"""Messages in words, for the trace."""

from __future__ import annotations

import zlib

from dynamo.core.messages import KINDS
from dynamo.errors import DynamoError
from dynamo.wire import messages
from dynamo.wire.datagrams import BadDatagram, Codec

CLUSTER = "sim"
"""The name of every simulated cluster; it has no secret, so its gossip can be read."""

_codec = Codec(CLUSTER)
_VERBS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ", b"HTTP/1.1 ")


def datagram_text(packet: bytes) -> str:
    """Kind and size of a gossip datagram."""
    try:
        kind = KINDS[type(_codec.decode(packet))]
    except BadDatagram as bad:
        kind = f"bad ({bad.reason})"
    return f"{kind} {len(packet)} B {zlib.crc32(packet):08x}"


def stream_text(data: bytes) -> str:
    """The first line of a request or an answer, and the operations of a batch; "" for a part of
    something longer."""
    if not data.startswith(_VERBS):
        return f"... {len(data)} B"
    line, _, _ = data.partition(b"\r\n")
    # A segment may end between the two.
    text = line.removesuffix(b"\r").decode("ascii", "replace").removesuffix(" HTTP/1.1")
    _, found, body = data.partition(b"\r\n\r\n")
    if found and line.startswith(b"POST /peer/ops"):
        text += " " + _operations(body)
    return f"{text} {len(data)} B {zlib.crc32(data):08x}"


def _operations(body: bytes) -> str:
    try:
        ops = messages.decode_ops(body)
    except DynamoError:
        return "(part of a batch)"
    return ", ".join(type(op).__name__ for op in ops[:4]) + (" ..." if len(ops) > 4 else "")
