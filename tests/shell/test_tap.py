"""What `dynamo.tap` hands to the node and to twistd."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application, IService, MultiService
from twisted.internet import reactor  # noqa: TID251
from twisted.logger import FilteringLogObserver, ILogObserver

from dynamo import log, node, tap
from dynamo.config import Config
from dynamo.errors import StorageFault


@pytest.fixture(autouse=True)
def _level_of_others() -> Iterator[None]:
    before = log.level()
    yield
    log.set_level(before)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Config, dict[str, Any]]]:
    """What a node was made of; the folder holds a file n.yaml."""
    calls: list[tuple[Config, dict[str, Any]]] = []

    def make_node(config: Config, **parts: Any) -> MultiService:
        calls.append((config, parts))
        return MultiService()

    monkeypatch.setattr(node, "makeNode", make_node)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n.yaml").write_text("listen: {api: 127.0.0.1:8001, cluster: 127.0.0.1:7001}\n")
    return calls


def options(**twistd: Any) -> tap.Options:
    """As twistd would parse them."""
    parsed = tap.Options()
    vars(parsed)["parent"] = twistd
    parsed.parseOptions(["--conf", "n.yaml"])
    return parsed


def test_the_node_gets_reactor_chance_and_clock(
    made: list[tuple[Config, dict[str, Any]]], tmp_path: Path
) -> None:
    """The global ones, a fresh seed each time, and paths that survive a change of folder."""
    tap.makeService(options(nodaemon=True))
    tap.makeService(options(nodaemon=True))
    (config, parts), (_, again) = made
    assert config.node.data_dir.parent == tmp_path / "data"
    assert (parts["reactor"], parts["wall_clock"]) == (reactor, time.time)  # noqa: TID251
    assert isinstance(parts["rng"], random.Random)
    assert parts["rng"].random() != again["rng"].random()
    assert parts["aside"].args == (reactor, reactor.getThreadPool())  # type: ignore[attr-defined]


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    ("twistd", "ours"),
    [
        ({"nodaemon": True}, True),
        ({"nodaemon": True, "logfile": "-"}, True),
        ({"nodaemon": False, "logfile": "n.log"}, True),
        ({"nodaemon": False, "logfile": "-"}, False),
        ({"nodaemon": True, "syslog": True}, False),
    ],
)
def test_the_log_goes_where_twistd_was_told(twistd: dict[str, Any], ours: bool) -> None:
    """In the configured format; syslog, and what twistd will refuse, are left to twistd."""
    application = Application("dynamo")
    service = tap.makeService(options(**twistd))
    service.setServiceParent(application)
    assert isinstance(application.getComponent(ILogObserver), FilteringLogObserver) is ours
    assert service.parent is IService(application)
    assert Path("n.log").exists() is (twistd.get("logfile") == "n.log")


@pytest.mark.parametrize(
    ("twistd", "pidfile"),
    [
        ({"nodaemon": True, "pidfile": "twistd.pid"}, ""),
        ({"nodaemon": True, "pidfile": "n1.pid"}, "n1.pid"),
        ({"nodaemon": False, "pidfile": "twistd.pid"}, "twistd.pid"),
    ],
)
def test_nodes_in_the_foreground_share_a_folder(twistd: dict[str, Any], pidfile: str) -> None:
    """twistd's one pid file per folder is for daemons, or for who asks for one by name."""
    parent: Any = options(**twistd).parent
    assert parent["pidfile"] == pidfile


@pytest.mark.usefixtures("made")
def test_what_the_disk_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that cannot be made names its file and the reason."""

    def make_node(config: Config, **parts: Any) -> MultiService:
        raise StorageFault("the disk is on fire")

    monkeypatch.setattr(node, "makeNode", make_node)
    with pytest.raises(SystemExit) as end:
        tap.makeService(options(nodaemon=True))
    assert end.value.code == "n.yaml: the disk is on fire"
