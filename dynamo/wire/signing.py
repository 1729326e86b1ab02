"""Who may speak: a keyed digest over each peer request, when `cluster.secret` is set.

A request carries its time and a BLAKE2b MAC (RFC 7693, keyed mode) over time, method, path and
body. One that is unsigned, altered, or older than `FRESH_S` is not answered.
"""

from __future__ import annotations

import hashlib
import hmac

HEADER = b"X-Dynamo-Signature"
FRESH_S = 60.0


class Signer:
    """Signs and verifies with a shared secret. Without one, everything passes."""

    def __init__(self, secret: str | None) -> None:
        self._key = hashlib.blake2b(secret.encode()).digest()[:64] if secret else b""

    @property
    def required(self) -> bool:
        return bool(self._key)

    def sign(self, now: float, method: bytes, path: bytes, body: bytes) -> bytes:
        """The header's value; `now` in seconds since the epoch."""
        stamp = b"%.3f" % now
        return stamp + b":" + self._mac(stamp, method, path, body)

    def verify(self, now: float, header: bytes, method: bytes, path: bytes, body: bytes) -> bool:
        """Whether `header` is a fresh signature of exactly this request."""
        if not self._key:
            return True
        stamp, _, mac = header.partition(b":")
        try:
            fresh = abs(now - float(stamp)) <= FRESH_S
        except ValueError:
            return False
        return fresh and hmac.compare_digest(mac, self._mac(stamp, method, path, body))

    def _mac(self, stamp: bytes, method: bytes, path: bytes, body: bytes) -> bytes:
        mac = hashlib.blake2b(key=self._key, digest_size=32)
        for part in (stamp, method, path):
            mac.update(b"%d:" % len(part) + part)
        mac.update(body)
        return mac.hexdigest().encode()
