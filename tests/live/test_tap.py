"""`twistd dynamo` as an operator meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
LISTEN = "listen: {api: 127.0.0.1:8001, cluster: 127.0.0.1:7001}\n"


def twistd(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs twistd to its end."""
    return subprocess.run(
        [*TWISTD, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("options", [["-n"], []], ids=["foreground", "daemon"])
def test_a_bad_file_is_one_line_and_status_1(tmp_path: Path, options: list[str]) -> None:
    """No traceback, no usage, no pid file and no log file, daemon or not."""
    (tmp_path / "bad.yaml").write_text(LISTEN + "cluster: {partitions: 1000}\n")
    done = twistd(*options, "dynamo", "--conf", "bad.yaml", cwd=tmp_path)
    assert done.stderr == (
        "bad.yaml: cluster.partitions: 1000 is not a power of two; use e.g. 512 or 1024\n"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_no_file_is_one_line_and_status_1(tmp_path: Path) -> None:
    """Neither named nor there."""
    done = twistd("-n", "dynamo", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "twistd dynamo: --conf is missing; give the node's YAML file, "
        "e.g. twistd -n dynamo --conf conf/node.yaml\n"
    )
    done = twistd("-n", "dynamo", "--conf", "none.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "none.yaml: cannot be read (No such file or directory); "
        "give the path of a node's YAML file\n"
    )


def test_help_explains_itself(tmp_path: Path) -> None:
    """The option, what the program does, and a command line to copy."""
    done = twistd("dynamo", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--conf" in done.stdout
    assert "leaderless" in done.stdout
    assert "twistd -n dynamo --conf conf/node.yaml" in " ".join(done.stdout.split())


def test_twistd_lists_the_plugin(tmp_path: Path) -> None:
    """From any folder, with nothing on stderr."""
    done = twistd("--help", cwd=tmp_path)
    assert "One node of a leaderless, always-writable object store" in done.stdout
    assert done.stderr == ""
