"""Serves both faces over a fake coordinator on a free loopback port, which it prints."""

from __future__ import annotations

from twisted.internet import reactor

from dynamo.api.documented import DocumentedFace
from dynamo.api.resource import ResourceFace
from dynamo.api.site import site
from tests.support.fake_coordinator import FakeCoordinator

if __name__ == "__main__":
    coordinator = FakeCoordinator()
    coordinator.bucket("b")
    factory = site(
        DocumentedFace(coordinator, dict).app,
        ResourceFace(coordinator).app,
        reactor=reactor,
        body_limit=1 << 26,
        silence=1.0,
        drain_seconds=1.0,
    )
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
    print(port.getHost().port, flush=True)
    reactor.run()  # type: ignore[attr-defined]
