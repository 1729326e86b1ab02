"""The unit of `bench/load.py`: a bare Klein route that reads a body and returns 4 KiB.

    python bench/unit.py PORT

It keeps no access log, as a node keeps none.
"""

from __future__ import annotations

import sys
from typing import Any

from klein import Klein
from twisted.internet import reactor
from twisted.web.server import Site

ANSWER = bytes(range(256)) * 16

app = Klein()
loop: Any = reactor


@app.route("/", methods=["POST"])
def exchange(request: Any) -> bytes:
    """Reads all, returns 4 KiB."""
    request.content.read()
    return ANSWER


class Quiet(Site):
    """Without an access log."""

    noisy = False

    def log(self, request: Any) -> None:
        """Nothing."""


if __name__ == "__main__":
    loop.listenTCP(int(sys.argv[1]), Quiet(app.resource()), interface="127.0.0.1")
    loop.run()
