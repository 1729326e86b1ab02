"""The node processes: started in sessions of their own, so that Ctrl-C reaches only the demo,
and stopped by the pids that were started, nothing else."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from dynamo.config import Config

TAIL_BYTES = 4096
TAIL_LINES = 15
KILL_AFTER_GRACE = 5.0
_OWN_SESSION = "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"


def twistd_command() -> list[str]:
    """The `twistd` of this very environment."""
    beside = Path(sys.executable).with_name("twistd")
    if beside.exists():
        return [str(beside)]
    return [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


class Child(ProcessProtocol):
    """One node: its configuration, its process, its log file, and how it ended."""

    transport: Any

    def __init__(self, conf: str, config: Config, command: Sequence[str]) -> None:
        self.conf, self.config, self.name = conf, config, config.node.name
        self.log = config.node.data_dir.parent / f"{self.name}.log"
        self.argv = [*command, "-n", "--pidfile=", "dynamo", "--conf", conf]
        self.url = f"http://{config.advertise.api}"
        self.ended: str | None = None
        self.pid: int | None = None
        self._waiting: list[Deferred[None]] = []

    def start(self, reactor: Any) -> None:
        """Starts the process; what it prints goes to `log`, which begins anew."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-c", _OWN_SESSION, *self.argv]
        with open(self.log, "wb") as out, open(os.devnull, "rb") as nothing:
            fds = {0: nothing.fileno(), 1: out.fileno(), 2: out.fileno()}
            reactor.spawnProcess(self, argv[0], argv, env=None, childFDs=fds)

    def connectionMade(self) -> None:
        self.pid = self.transport.pid

    def processEnded(self, reason: Failure) -> None:
        ended_by = getattr(reason.value, "signal", None)
        status = getattr(reason.value, "exitCode", None)
        self.ended = f"signal {ended_by}" if ended_by else f"exit status {status}"
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    def when_ended(self) -> Deferred[None]:
        """Fires once the process is gone, at once if it is or never was."""
        deferred: Deferred[None] = Deferred()
        if self.pid is None or self.ended is not None:
            deferred.callback(None)
        else:
            self._waiting.append(deferred)
        return deferred

    def send(self, name: str) -> None:
        """Signals the process unless it has ended."""
        if self.pid is not None and self.ended is None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess(name)

    async def stop(self, reactor: Any) -> None:
        """Ends the process politely; one that takes longer than it said it would is killed."""
        self.send("TERM")
        seconds = self.config.limits.shutdown_grace + KILL_AFTER_GRACE
        try:
            await self.when_ended().addTimeout(seconds, reactor)
        except DeferredTimeout:
            self.send("KILL")
            await self.when_ended()

    def last_lines(self) -> list[str]:
        """The end of the log."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                text = file.read(TAIL_BYTES).decode("utf-8", "replace")
        except OSError as error:
            return [f"(the log cannot be read: {error.strerror})"]
        return text.splitlines()[-TAIL_LINES:] or ["(the log is empty)"]


class Children:
    """All of them; `stop` and `kill` are final."""

    def __init__(self, reactor: Any, children: Sequence[Child]) -> None:
        self._reactor, self.all = reactor, tuple(children)
        self.stopping = False

    def start(self) -> None:
        for child in self.all:
            child.start(self._reactor)

    def running(self) -> list[Child]:
        """Those that were started and have not ended."""
        return [child for child in self.all if child.pid is not None and child.ended is None]

    def watch(self, on_end: Callable[[Child], None]) -> None:
        """Calls `on_end` for each that ends without having been told to."""

        def ended(_: None, child: Child) -> None:
            if not self.stopping:
                on_end(child)

        for child in self.all:
            child.when_ended().addCallback(ended, child)

    async def stop(self) -> None:
        """Ends all at the same time; a second Ctrl-C meanwhile kills them."""
        self.stopping = True
        stops = [Deferred.fromCoroutine(child.stop(self._reactor)) for child in self.all]
        await gatherResults(stops)

    def kill_on_second_interrupt(self) -> None:
        """From now on SIGINT and SIGTERM mean: at once."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._kill))

    def _kill(self) -> None:
        for child in self.all:
            child.send("KILL")
