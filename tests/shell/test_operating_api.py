"""The operating face: background work seen, paused and resumed over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dynamo.api.errors import PROBLEM_TYPE
from dynamo.api.operating import OperatingFace
from dynamo.api.site import site
from dynamo.background.runner import Runner, Task
from dynamo.core.admission import Admission
from tests.support.http import Client, Response

PATH = "/v1/background"


class Desk:
    """A client of the face; a runner with `handoff`, answered by hand, and `scrub/2`, idle."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.admission = Admission(0.05)
        self.runner = Runner(self.clock, self.admission)
        self.done = 0
        self.steps = 0
        self.waiting: Deferred[bool] = Deferred()
        self.runner.add(Task("handoff", self._step, idle_s=1.0, progress=lambda: (self.done, 4)))
        self.runner.add(Task("scrub/2", self._idle, idle_s=1.0))
        nothing: Any = None
        face = OperatingFace("demo", nothing, nothing, nothing, lambda: "", self.runner, list)
        self.client = Client(site(face.app, reactor=self.clock, body_limit=100))

    async def _step(self) -> bool:
        self.steps += 1
        self.waiting = Deferred()
        return await self.waiting

    async def _idle(self) -> bool:
        return False

    def ask(self, method: str, path: str = "") -> Response:
        return self.client.ask(method, PATH + path, b"" if method == "POST" else None)

    def tasks(self) -> dict[str, dict[str, Any]]:
        return {task["name"]: task for task in self.ask("GET").json()["tasks"]}


def test_all_tasks_are_told_and_what_they_may_use() -> None:
    """In the order they were added; the controller's numbers are those it goes by."""
    desk = Desk()
    desk.clock.advance(0)
    desk.done = 3
    desk.clock.advance(2)
    desk.waiting.callback(True)
    told = desk.ask("GET")
    assert told.status == 200
    assert told.json() == {
        "tasks": [
            {"name": "handoff", "state": "running", "done": 3, "left": 4, "rate": 1.5},
            {"name": "scrub/2", "state": "idle", "done": 2, "left": None, "rate": 1.0},
        ],
        "admission": {"share": 1.0, "foreground_p99": None, "target": 0.05},
    }
    for i in range(3):
        desk.admission.waited(2.0 + i, 3.0)
    desk.clock.advance(2.5)
    admission = desk.ask("GET").json()["admission"]
    assert (admission["share"], admission["target"]) == (0.25, 0.05)
    assert 3.0 <= admission["foreground_p99"] <= 3.6


def test_a_task_is_paused_and_resumed() -> None:
    """Once or twice is the same; the answer is the task; the step under way ends."""
    desk = Desk()
    desk.clock.advance(0)
    for _ in range(2):
        paused = desk.ask("POST", "/handoff/pause")
        assert (paused.status, paused.json()["state"]) == (200, "paused")
        assert paused.json() == desk.tasks()["handoff"]
    assert desk.tasks()["scrub/2"]["state"] == "idle"
    desk.waiting.callback(True)
    desk.clock.advance(60)
    assert desk.steps == 1
    for _ in range(2):
        resumed = desk.ask("POST", "/handoff/resume")
        assert (resumed.status, resumed.json()["state"]) == (200, "running")
        desk.clock.advance(0)
        assert desk.steps == 2


def test_a_tasks_name_is_decoded_once() -> None:
    """As every name in a path is."""
    desk = Desk()
    assert desk.ask("POST", "/scrub%2F2/pause").json()["name"] == "scrub/2"
    assert desk.tasks()["scrub/2"]["state"] == "paused"


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_task_that_is_not_there_is_a_problem(verb: str) -> None:
    """Which says what there is; and nothing is paused."""
    desk = Desk()
    refused = desk.ask("POST", f"/none/{verb}")
    assert refused.status == 404
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json() == {
        "type": PROBLEM_TYPE + "no_such_task",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no background task 'none'; there is handoff, scrub/2.",
        "code": "no_such_task",
    }
    assert "paused" not in {task["state"] for task in desk.tasks().values()}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/handoff/pause", 405, "method_not_allowed"),
        ("POST", "", 405, "method_not_allowed"),
        ("POST", "/handoff/stop", 404, "no_such_route"),
        ("POST", "/handoff", 404, "no_such_route"),
        ("POST", "/%FF/pause", 400, "bad_name"),
    ],
)
def test_other_requests_are_refused(method: str, path: str, status: int, code: str) -> None:
    """And change nothing."""
    desk = Desk()
    refused = desk.ask(method, path)
    assert (refused.status, refused.json()["code"]) == (status, code)
    assert desk.tasks()["handoff"]["state"] == "idle"
