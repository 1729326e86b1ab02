"""Who may speak: a keyed digest over each peer request, when `cluster.secret` is set.

A request carries its time and a BLAKE2b MAC (RFC 7693, keyed mode) over time, method, path and
body. One that is unsigned, altered, or older than `FRESH_S` is refused, with the time by which it
was judged, so that a sender whose clock is off can sign anew.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

HEADER = b"X-Dynamo-Signature"
TIME = b"X-Dynamo-Time"
FRESH_S = 60.0


class Signer:
    """Signs with the first of some shared secrets and verifies with any of them, so that they can
    be changed one node at a time. Without one, everything passes."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [hashlib.blake2b(secret.encode()).digest()[:64] for secret in secrets]

    @property
    def required(self) -> bool:
        return bool(self._keys)

    def sign(self, now: float, method: bytes, path: bytes, body: bytes) -> bytes:
        """The header's value; `now` in seconds since the epoch."""
        stamp = b"%.3f" % now
        return stamp + b":" + _mac(self._keys[0], stamp, method, path, body)

    def verify(self, now: float, header: bytes, method: bytes, path: bytes, body: bytes) -> bool:
        """Whether `header` is a fresh signature of exactly this request."""
        if not self._keys:
            return True
        stamp, _, mac = header.partition(b":")
        try:
            fresh = abs(now - float(stamp)) <= FRESH_S
        except ValueError:
            return False
        return fresh and any(
            hmac.compare_digest(mac, _mac(key, stamp, method, path, body)) for key in self._keys
        )


def _mac(key: bytes, stamp: bytes, method: bytes, path: bytes, body: bytes) -> bytes:
    mac = hashlib.blake2b(key=key, digest_size=32)
    for part in (stamp, method, path):
        mac.update(b"%d:" % len(part) + part)
    mac.update(body)
    return mac.hexdigest().encode()
