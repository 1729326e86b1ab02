"""`python -m dynamo.demo [CONF ...]`: a cluster on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from dynamo.config import ConfigError, load
from dynamo.demo.children import Child, twistd_command
from dynamo.demo.screen import Screen
from dynamo.demo.story import Story

CONFS = ("conf/n1.yaml", "conf/n2.yaml", "conf/n3.yaml")


def main(reactor: Any, confs: Sequence[str], command: Sequence[str]) -> Deferred[None]:
    """Runs the demo with nodes that `command` starts; `SystemExit` unless told to stop."""
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reactor.stop))
    return Deferred.fromCoroutine(_main(reactor, confs, command))


async def _main(reactor: Any, confs: Sequence[str], command: Sequence[str]) -> None:
    screen = Screen(sys.stdout, reactor.seconds)
    try:
        host_name = socket.gethostname()
        children = [Child(conf, load(conf, host_name=host_name), command) for conf in confs]
    except ConfigError as error:
        screen.fault(str(error))
        raise SystemExit(1) from None
    raise SystemExit(await Story(reactor, children, screen).run())


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m dynamo.demo", description=__doc__)
    parser.add_argument("conf", nargs="*", default=CONFS, help="one file per node: %(default)s")
    react(main, (parser.parse_args().conf, twistd_command()))
