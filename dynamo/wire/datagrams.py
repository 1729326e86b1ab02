"""Membership datagrams: at most 1400 bytes, whatever is in them.

    without a secret    0x01  crc32(4)   cluster(4)  message
    with a secret       0x81  nonce(12)  ChaCha20-Poly1305(cluster(4)  message)  tag(16)

The first byte is the format's version; its high bit says that the rest is sealed. `cluster` is a
hash of the cluster's name: a datagram of another cluster is dropped whatever it says, and under a
secret the version byte and the whole name are authenticated as well. The checksum finds damage,
not malice. The message is the msgpack of `dynamo.core.messages`.

A secret may have several keys: the first one seals, all of them open, so that keys can be changed
one node at a time. A node with a secret accepts nothing that is not sealed. An old datagram sent
again does no harm: news is ordered by incarnation, and an answer's number is asked for only once.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from dynamo.core.members import Member, Origin, flaw, is_address, is_name
from dynamo.core.messages import (
    DATAGRAM_BYTES_MAX,
    Gossip,
    Message,
    Ping,
    PingRequest,
    State,
)

VERSION = 1
SEALED = 0x80
CLUSTER_BYTES = 4
CRC_BYTES = 4
NONCE_BYTES = 12
TAG_BYTES = 16
NUMBER_MAX = 2**32 - 1

STATE_BYTES_MAX = 8 * 2**20
"""A full state, as the body of an exchange: 10,000 members and some."""

Reason = Literal[
    "empty",
    "too_long",
    "version",
    "not_sealed",
    "sealed",
    "truncated",
    "checksum",
    "key",
    "other_cluster",
    "malformed",
    "bad_member",
]
"""Why something was dropped; each a metric's label."""


class BadDatagram(Exception):
    """Bytes that are no message for this node. `reason` is one of a few words, to be counted."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode
_decode_state = msgspec.msgpack.Decoder(State).decode


def key_of(secret: str) -> bytes:
    """The 32-byte key for the secret as written in a configuration."""
    return hashlib.blake2b(secret.encode(), digest_size=32, person=b"dynamo-gossip").digest()


class Codec:
    """Turns messages into datagrams of one cluster and back.

    `secrets`: none, or the shared secrets, the one to seal with first. `nonce` gives 12 random
    bytes that are never given twice (`os.urandom`); it is used only with a secret.
    """

    def __init__(
        self, cluster: str, secrets: Sequence[str] = (), nonce: Callable[[], bytes] | None = None
    ) -> None:
        assert nonce is not None or not secrets, "sealing needs a source of nonces"
        self._name = cluster.encode()
        self._cluster = hashlib.blake2b(self._name, digest_size=CLUSTER_BYTES).digest()
        self._ciphers = [ChaCha20Poly1305(key_of(secret)) for secret in secrets]
        self._nonce = nonce
        self._sealed_as = bytes([VERSION | SEALED]) + self._name

    def encode(self, message: Message) -> bytes:
        """The datagram, never longer than `DATAGRAM_BYTES_MAX`."""
        inner = self._cluster + _encode(message)
        if self._ciphers and self._nonce is not None:
            nonce = self._nonce()
            sealed = self._ciphers[0].encrypt(nonce, inner, self._sealed_as)
            data = bytes([VERSION | SEALED]) + nonce + sealed
        else:
            data = bytes([VERSION]) + zlib.crc32(inner).to_bytes(CRC_BYTES) + inner
        assert len(data) <= DATAGRAM_BYTES_MAX, "a message leaves room for its envelope"
        return data

    def decode(self, data: bytes) -> Message:
        """The message in a datagram; raises `BadDatagram` and nothing else."""
        if not data:
            raise BadDatagram("empty")
        if len(data) > DATAGRAM_BYTES_MAX:
            raise BadDatagram("too_long")
        if data[0] & ~SEALED != VERSION:
            raise BadDatagram("version")
        inner = self._unseal(data) if data[0] & SEALED else self._uncheck(data)
        if inner[:CLUSTER_BYTES] != self._cluster:
            raise BadDatagram("other_cluster")
        try:
            message: Message = _decode(inner[CLUSTER_BYTES:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadDatagram("malformed") from error
        _check(message)
        return message

    def _unseal(self, data: bytes) -> bytes:
        if not self._ciphers:
            raise BadDatagram("sealed")
        if len(data) < 1 + NONCE_BYTES + TAG_BYTES + CLUSTER_BYTES:
            raise BadDatagram("truncated")
        nonce, sealed = data[1 : 1 + NONCE_BYTES], data[1 + NONCE_BYTES :]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, sealed, self._sealed_as)
            except InvalidTag:
                continue
        raise BadDatagram("key")

    def _uncheck(self, data: bytes) -> bytes:
        if self._ciphers:
            raise BadDatagram("not_sealed")
        if len(data) < 1 + CRC_BYTES + CLUSTER_BYTES:
            raise BadDatagram("truncated")
        inner = data[1 + CRC_BYTES :]
        if zlib.crc32(inner).to_bytes(CRC_BYTES) != data[1 : 1 + CRC_BYTES]:
            raise BadDatagram("checksum")
        return inner


def encode_state(state: State) -> bytes:
    """The body of a full exchange: a version byte and the state. Peer HTTP authenticates it."""
    return bytes([VERSION]) + _encode(state)


def decode_state(data: bytes, cluster: str) -> State:
    """The state in a body of this cluster; raises `BadDatagram` and nothing else."""
    if not data:
        raise BadDatagram("empty")
    if len(data) > STATE_BYTES_MAX:
        raise BadDatagram("too_long")
    if data[0] != VERSION:
        raise BadDatagram("version")
    try:
        state = _decode_state(data[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadDatagram("malformed") from error
    if state.cluster != cluster:
        raise BadDatagram("other_cluster")
    _check_origin(state.origin)
    if any(flaw(member) for member in state.members):
        raise BadDatagram("bad_member")
    return state


def _check(message: Message) -> None:
    """Everything that will be sent on is as short as it was promised to be."""
    _check_origin(message.origin)
    for update in message.updates:
        if flaw(update.member) or not is_name(update.source):
            raise BadDatagram("bad_member")
    if not isinstance(message, Gossip) and not 0 <= message.number <= NUMBER_MAX:
        raise BadDatagram("malformed")
    if isinstance(message, Ping | PingRequest) and not is_name(message.target):
        raise BadDatagram("malformed")
    if isinstance(message, PingRequest) and not is_address(message.address):
        raise BadDatagram("malformed")


def _check_origin(origin: Origin) -> None:
    if flaw(Member(origin.name, origin.identity, "?", origin.incarnation)):
        raise BadDatagram("bad_member")
