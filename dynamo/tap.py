"""The door of `twistd dynamo`: from a command line to a service.

Here, and nowhere else, the node gets what it must not choose for itself: the global reactor, the
wall clock and a seed. Whatever the file or the disk refuses is one line on stderr and exit
status 1, before twistd daemonizes and before the log is opened.
"""

from __future__ import annotations

import gc
import os
import random
import socket
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized

from dynamo import log
from dynamo.config import Config, load
from dynamo.errors import DynamoError
from dynamo.storage.threads import Run

TWISTD_PIDFILE = "twistd.pid"
"""What twistd calls its pid file when nobody says otherwise: one per folder, not per node."""


class Options(usage.Options):
    """What `twistd dynamo` understands."""

    synopsis = "--conf FILE"
    longdesc = (
        "Runs one node of a leaderless object store until SIGTERM or Ctrl-C. Any node answers "
        "any request; nodes find each other by gossip through the seeds that FILE names. "
        "In the foreground: twistd -n dynamo --conf conf/node.yaml; no pid file is then written "
        "unless --pidfile names one, so several nodes can run from one folder. "
        "As a daemon: twistd --pidfile=n1.pid --logfile=n1.log dynamo --conf conf/n1.yaml. "
        "conf/node.yaml shows every setting at its default with meaning and unit."
    )
    optParameters = [  # noqa: RUF012
        [
            "conf",
            "c",
            None,
            "The node's YAML file (required): addresses, data folder, seeds, defaults. "
            "A relative path is relative to the folder twistd is started in; a relative "
            "data_dir inside is relative to the file.",
        ]
    ]
    compData = usage.Completions(optActions={"conf": usage.CompleteFiles("*.yaml")})

    def postOptions(self) -> None:
        """Asks for what is missing, and spares a node in the foreground twistd's one pid file."""
        if not self["conf"]:
            raise SystemExit(
                "twistd dynamo: --conf is missing; give the node's YAML file, "
                "e.g. twistd -n dynamo --conf conf/node.yaml"
            )
        twistd = self.parent if self.parent is not None else {}
        if twistd.get("nodaemon") and twistd.get("pidfile") == TWISTD_PIDFILE:
            twistd["pidfile"] = ""


class NodeService(MultiService):
    """The node under twistd: when it becomes part of the application, so does its log."""

    def __init__(self, node: IService, observer: ILogObserver | None) -> None:
        super().__init__()
        self._observer = observer
        node.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def startService(self) -> None:
        super().startService()
        # What is built by now stays; going through it again at each full collection, and
        # through a request's objects while they still live, costs several per cent of a PUT.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)


def makeService(options: Options) -> IService:
    """A node as `options["conf"]` describes it, not yet started."""
    path = options["conf"]
    try:
        config = load(path, host_name=socket.gethostname())
        from twisted.internet import reactor

        from dynamo.node import makeNode

        node = makeNode(
            config,
            reactor=reactor,
            rng=random.Random(int.from_bytes(os.urandom(32), "big")),
            wall_clock=time.time,
            aside=_aside(reactor),
        )
        node.on_left = partial(reactor.callLater, 0, reactor.stop)  # type: ignore[attr-defined]
    except DynamoError as error:
        text = str(error)
        raise SystemExit(text if text.startswith(path) else f"{path}: {text}") from None
    return NodeService(node, _observer(config, getattr(options, "parent", None) or {}, reactor))


def _aside(reactor: Any) -> Run:
    """For what takes too long for the reactor's own thread."""
    return partial(deferToThreadPool, reactor, reactor.getThreadPool())


def _observer(config: Config, twistd: Mapping[str, Any], reactor: Any) -> ILogObserver | None:
    """Where twistd's options send the log, as `config.log` wants it; None leaves it to twistd.

    Syslog brings its own format, and so does a `--logger`, which twistd prefers anyway.
    """
    path = twistd.get("logfile")
    foreground = twistd.get("nodaemon") or twistd.get("debug")
    if not twistd or twistd.get("syslog") or (path == "-" and not foreground):
        log.set_level(config.log.level)
        return None
    if path == "-" or (foreground and not path):
        return log.observer(sys.stdout, config.log.format, config.log.level)
    file = log.open_file(os.path.abspath(path or "twistd.log"), reactor.callFromThread)
    return log.observer(file, config.log.format, config.log.level)
