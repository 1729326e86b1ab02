"""The processes that are measured, and what the kernel says of them.

Everything is started in a folder of its own, on free loopback ports, and killed in the end.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
TICK = os.sysconf("SC_CLK_TCK")
PORTS = range(20000, 32000)
START_S = 60.0
STOP_S = 15.0
_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on, below those the kernel hands out; never one twice."""
    for port in random.sample(sorted(set(PORTS) - _given), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise SystemExit("There is no free port on 127.0.0.1.")


class Process:
    """A process under measurement that serves HTTP on `port`; `tree`: whose code it runs."""

    def __init__(
        self, name: str, command: Sequence[str], port: int, folder: Path, tree: Path = ROOT
    ) -> None:
        self.name, self.port = name, port
        self._tree = tree
        self.log = folder / f"{name}.log"
        self._command, self._folder = command, folder
        self._start()

    def _start(self) -> None:
        with open(self.log, "ab") as out:
            self._popen = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(self._tree)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One small request; status 0 if there was no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def wait(self, path: str, statuses: Sequence[int], found: bytes = b"") -> None:
        """Until the process gives one of these answers."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            status, body = self.ask("GET", path)
            if status in statuses and found in body:
                return
            if self._popen.poll() is not None:
                break
            time.sleep(0.1)
        tail = self.log.read_text("utf-8", "replace")[-2000:]
        raise SystemExit(f"{self.name} did not start:\n{tail}")

    def cpu(self) -> float:
        """User and system seconds so far."""
        text = Path(f"/proc/{self.pid}/stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self) -> dict[str, int]:
        """Resident bytes by kind: VmRSS, RssAnon, RssFile."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.findall(r"^(VmRSS|RssAnon|RssFile):\s+(\d+) kB", text, re.M)
        return {name: int(kib) * 1024 for name, kib in found}

    def kill(self) -> None:
        """SIGKILL, and nothing is left of it but its data."""
        self._popen.kill()
        self._popen.wait()

    def start(self) -> None:
        """Starts it again, with the same data."""
        self._start()

    def restart(self) -> None:
        """Starts it again, with the same data, and waits until it is ready."""
        self._start()
        self.wait("/readyz", [200])

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to one that does not listen."""
        self._popen.terminate()
        try:
            self._popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def start_nodes(folder: Path, count: int = 3, more: str = "", tree: Path = ROOT) -> list[Process]:
    """Nodes that know each other and are ready, with the code of `tree`; log level warn, `more`
    lines of configuration, all else at its default."""
    ports = [(free_port(), free_port()) for _ in range(count)]
    seeds = [cluster for _, cluster in ports]
    nodes: list[Process] = []
    try:
        for number, pair in enumerate(ports, 1):
            nodes.append(launch(folder, f"n{number}", pair, seeds, more, f"z{number}", tree))
        for node in nodes:
            node.wait("/readyz", [200])
            for _ in range(int(START_S / 0.1)):
                members = json.loads(node.ask("GET", "/v1/cluster")[1] or b"{}").get("members", [])
                if [m["liveness"] for m in members] == ["alive"] * count:
                    break
                time.sleep(0.1)
            else:
                raise SystemExit(f"{node.name} does not see {count} members.")
    except BaseException:
        stop_all(nodes)
        raise
    return nodes


def launch(
    folder: Path,
    name: str,
    ports: tuple[int, int],
    seeds: Sequence[int],
    more: str = "",
    zone: str = "z1",
    tree: Path = ROOT,
) -> Process:
    """A node that was just started. `ports`: for clients and for members; `seeds`: of members; its
    data is under its name in `folder`."""
    api, cluster = ports
    conf = folder / f"{name}.yaml"
    told = ", ".join(f"127.0.0.1:{port}" for port in seeds)
    conf.write_text(
        f"node: {{name: {name}, data_dir: {name}, zone: {zone}}}\n"
        f"listen: {{api: 127.0.0.1:{api}, cluster: 127.0.0.1:{cluster}}}\n"
        f"cluster: {{name: bench, seeds: [{told}]}}\n"
        f"log: {{level: warn}}\n{more}"
    )
    command = [*TWISTD, "-n", "--pidfile=", "dynamo", "--conf", str(conf)]
    return Process(name, command, api, folder, tree)


def start_unit(folder: Path) -> Process:
    """The bare Klein route."""
    port = free_port()
    command = [sys.executable, str(ROOT / "bench" / "unit.py"), str(port)]
    unit = Process("unit", command, port, folder)
    unit.wait("/", [405])
    return unit


def stop_all(processes: Sequence[Process]) -> None:
    """Stops all of them."""
    for process in processes:
        process.stop()


def metric(nodes: Sequence[Process], name: str) -> float:
    """A metric without labels, summed over the nodes; 0 where it is not told."""
    total = 0.0
    for node in nodes:
        text = node.ask("GET", "/metrics")[1].decode()
        total += sum(float(value) for value in re.findall(rf"^{name} (\S+)$", text, re.M))
    return total


def machine() -> dict[str, Any]:
    """The machine in a few words."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        info = ""
    model = re.search(r"model name\s*:\s*(.*)", info)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cores": os.cpu_count(),
        "cpu": model[1].strip() if model else "unknown",
        "memory_gib": round(int(memory[1]) / (1 << 20)) if memory else 0,
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def busy_seconds() -> float:
    """CPU seconds that all of the machine's programs have used since it started."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / TICK
