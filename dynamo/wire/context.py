"""The causal context of a file, as the opaque text a client carries.

A token is base64url (unpadded) of: one byte of format version, a check of 8 bytes, and the
context in msgpack. The check covers the context and the place it was given for, the bucket's
incarnation and the key; so noise, a cut token and another file's token are all refused. It is
no signature: a client that forges one can only misstate what it has seen of its own file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec

from dynamo.core.record import Context
from dynamo.errors import BadRequest

FORMAT = 1
COUNTER_LIMIT = 2**53
ACTORS_MAX = 1024
ACTOR_CHARS_MAX = 256
TOKEN_CHARS_MAX = 16384
_CHECK_BYTES = 8

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(dict[str, int])


def encode_context(context: Context, incarnation: bytes, key: str) -> str:
    """The token of `context` for the file `key` of the bucket's present incarnation."""
    packed = _encoder.encode(dict(context))
    raw = bytes((FORMAT,)) + _check(packed, incarnation, key) + packed
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode_context(token: str, incarnation: bytes, key: str) -> dict[str, int]:
    """The context in `token`. Raises `BadRequest("bad_context")` for anything else."""
    if len(token) > TOKEN_CHARS_MAX:
        raise _bad("The context is too long to be one of this cluster's.")
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _bad("The context is not one this cluster has given out.") from None
    packed = raw[1 + _CHECK_BYTES :]
    if raw[:1] != bytes((FORMAT,)) or raw[1 : 1 + _CHECK_BYTES] != _check(packed, incarnation, key):
        raise _bad("The context was not given out for this file, or is damaged.")
    try:
        context = _decoder.decode(packed)
    except (msgspec.MsgspecError, RecursionError):
        raise _bad("The context is not one this cluster has given out.") from None
    if len(context) > ACTORS_MAX or not all(
        0 < counter < COUNTER_LIMIT and 0 < len(actor) <= ACTOR_CHARS_MAX
        for actor, counter in context.items()
    ):
        raise _bad("The context holds a counter that cannot be.")
    return context


def _check(packed: bytes, incarnation: bytes, key: str) -> bytes:
    place = len(incarnation).to_bytes(2, "big") + incarnation + key.encode() + b"\0"
    return hashlib.blake2b(place + packed, digest_size=_CHECK_BYTES, person=b"context").digest()


def _bad(detail: str) -> BadRequest:
    return BadRequest("bad_context", detail)
