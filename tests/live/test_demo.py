"""`make run` on nodes that are stand-ins: what it says, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.processes import heed_signals

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[str]"]


def free_ports(count: int) -> list[int]:
    """Ports nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def confs(folder: Path, *names: str) -> list[str]:
    """A file per node; two free ports each."""
    ports = free_ports(2 * len(names))
    paths = []
    for name in names:
        path = folder / f"{name}.yaml"
        path.write_text(
            f"node: {{name: {name}, data_dir: data/{name}}}\n"
            f"listen: {{api: 127.0.0.1:{ports.pop()}, cluster: 127.0.0.1:{ports.pop()}}}\n"
            "limits: {shutdown_grace: 0}\n"
        )
        paths.append(str(path))
    return paths


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the demo; a test that fails leaves nothing running."""
    started: list[subprocess.Popen[str]] = []

    def run(paths: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.run_demo", *paths],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heed_signals,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What the demo prints up to the line that holds `text`."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} is not in {read!r}")


def pids(printed: str) -> list[int]:
    """Of the nodes, in order."""
    lines = [line for line in printed.splitlines() if " is starting, pid " in line]
    return [int(line.split(" pid ")[1].split(",")[0]) for line in lines]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_stores_reads_and_stops(tmp_path: Path, start: Start, number: signal.Signals) -> None:
    """Each step is told with its time; a signal ends all nodes and then the demo, status 0."""
    process = start(confs(tmp_path, "n1", "n2", "n3"))
    printed = read_until(process, "one node less")
    told = [line.split("] ")[1] for line in printed.splitlines() if line.startswith("[")]
    assert told[3:] == [
        "n1 is ready",
        "n2 is ready",
        "n3 is ready",
        "the 3 nodes have found each other",
        "bucket demo made through n1",
        "hello.txt (82 bytes) stored through n1",
        "hello.txt read back through n2: the same bytes",
    ]
    assert "/v1/cluster" in printed
    assert "/metrics" in printed
    assert "\x1b" not in printed
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert rest.rstrip().endswith("all nodes have stopped")
    assert len(pids(printed)) == 3
    assert not any(is_running(pid) for pid in pids(printed))


def test_a_taken_port_is_named(tmp_path: Path, start: Start) -> None:
    """In a sentence, before anything starts."""
    paths = confs(tmp_path, "n1", "n2")
    text = Path(paths[1]).read_text()
    port = int(text.split("api: 127.0.0.1:")[1].split(",")[0])
    with socket.create_server(("127.0.0.1", port)):
        printed, _ = start(paths).communicate(timeout=60)
    assert (
        f"TCP port 127.0.0.1:{port} of n2 is taken by another program: stop that one "
        f"or change listen.api in {paths[1]}." in printed
    )
    assert "is starting" not in printed


def test_a_node_that_dies_at_the_start(tmp_path: Path, start: Start) -> None:
    """Its name, its end and its last words; the others are stopped; status 1."""
    process = start(confs(tmp_path, "n1", "dies"))
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "dies ended at the start (exit status 3)." in printed
    assert f"The last lines of {tmp_path}/data/dies.log:\n  dies begins\n" in printed
    assert printed.rstrip().endswith("all nodes have stopped")
    assert not any(is_running(pid) for pid in pids(printed))


def test_a_node_that_dies_later(tmp_path: Path, start: Start) -> None:
    """It is told and the others go on; when none is left the demo ends with status 1."""
    process = start(confs(tmp_path, "n1", "n2"))
    first, second = pids(read_until(process, "one node less"))
    os.kill(first, signal.SIGKILL)
    assert "n1 ended (signal 9); still running: n2." in read_until(process, "n1 ended")
    assert is_running(second)
    os.kill(second, signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    assert "n2 ended (signal 9); still running: none." in rest
    assert process.returncode == 1


def test_a_second_interrupt_kills(tmp_path: Path, start: Start) -> None:
    """A node that does not listen to SIGTERM does not keep anyone waiting."""
    process = start(confs(tmp_path, "n1", "deaf"))
    printed = read_until(process, "one node less")
    process.send_signal(signal.SIGINT)
    read_until(process, "Ctrl-C again kills them")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not any(is_running(pid) for pid in pids(printed))


def test_a_bad_file(tmp_path: Path, start: Start) -> None:
    """The line that the node itself would say."""
    (tmp_path / "bad.yaml").write_text("listen: {api: a:1, cluster: a:2}\nlog: {level: x}\n")
    process = start([str(tmp_path / "bad.yaml")])
    printed, _ = process.communicate(timeout=60)
    assert "bad.yaml: log.level: 'x' is not a level" in printed
    assert process.returncode == 1
