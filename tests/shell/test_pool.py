"""Addresses of peers as URLs."""

from __future__ import annotations

import pytest

from dynamo.replica.pool import peer_url


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:7001", "127.0.0.1", 7001),
        ("localhost:7001", "localhost", 7001),
        ("[::1]:7001", "::1", 7001),
        ("h\u00f6st.example:7001", "xn--hst-sna.example", 7001),
    ],
)
def test_every_kind_of_address_makes_a_url(address: str, host: str, port: int) -> None:
    """Numbers of both kinds, names, and names that have to be encoded."""
    url = peer_url(address, "/peer/ops")
    assert (url.host, url.port, url.to_uri()) == (host, port, url)
    assert url.to_text().isascii()
