"""Stands in for `twistd`: serves just enough of a node's API from memory, per process.

Its command line is twistd's: `-n --pidfile= dynamo --conf FILE`. Files are shared between the
processes through the folder that their data folders lie in. A node named "dies" ends at once
with status 3, one named "deaf" ignores SIGTERM.
"""

from __future__ import annotations

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dynamo.config import Config, load


def handler(config: Config, names: list[str]) -> type[BaseHTTPRequestHandler]:
    """The class that answers for this node."""
    folder = config.node.data_dir.parent

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/readyz":
                self.answer(200, b"{}")
            elif self.path == "/v1/cluster":
                members = [{"name": name, "liveness": "alive"} for name in names]
                self.answer(200, json.dumps({"members": members}).encode())
            else:
                file = folder / self.path.replace("/", "_")
                self.answer(200, file.read_bytes()) if file.exists() else self.answer(404, b"")

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            (folder / self.path.replace("/", "_")).write_bytes(body)
            self.answer(201, b"{}")

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def main(path: str) -> None:
    config = load(path, host_name="fake")
    print(f"{config.node.name} begins", flush=True)
    if config.node.name == "dies":
        sys.exit(3)
    ignored = config.node.name == "deaf"
    signal.signal(signal.SIGTERM, signal.SIG_IGN if ignored else lambda *_: sys.exit(0))
    names = [part.name for part in Path(path).parent.glob("*.yaml")]
    names = [load(Path(path).parent / name, host_name="fake").node.name for name in names]
    server = ThreadingHTTPServer(
        (config.listen.api.host, config.listen.api.port), handler(config, names)
    )
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[-1])
