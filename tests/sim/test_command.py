"""The command: what it prints, how it ends, and that a seed is the same wherever it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from dynamo.sim import __main__ as command
from dynamo.sim import crew
from dynamo.sim import run as running
from dynamo.sim.crew import Crash, over_seeds
from dynamo.sim.faults import KINDS, NOT_YET
from dynamo.sim.oracle import INVARIANTS
from dynamo.sim.plan import Plan
from dynamo.sim.report import Report
from dynamo.sim.run import Outcome
from dynamo.sim.shrink import from_json
from dynamo.sim.tally import Tally
from tests.support.processes import heed_signals

ROOT = Path(__file__).parents[2]
SEED = 3


def simulate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dynamo.sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_seed_is_the_same_in_every_process_and_after_another_seed() -> None:
    told = [
        simulate("--seed", str(SEED), "--trace", PYTHONHASHSEED=salt).stdout.splitlines()
        for salt in ("1", "77")
    ]
    assert told[0] == told[1]
    assert told[0][-1].startswith("trace sha256:")
    lines: list[str] = []
    running.run(running.plan(SEED + 1))
    outcome = running.run(running.plan(SEED), traced=True, write=lines.append)
    assert f"trace sha256:{outcome.digest}" == told[0][-1]
    assert [line for line in told[0] if line[2] == ":"] == lines


def test_a_trace_tells_starts_faults_members_clients_and_the_end() -> None:
    lines: list[str] = []
    plan = running.plan(SEED)
    running.run(plan, traced=True, write=lines.append)
    text = "\n".join(lines)
    assert f"fault    {plan.faults[0].kind}" in text
    for words in (
        "n1       starts (1)",
        "the cluster is ready",
        "is over",
        "everything is mended",
        "log info: n2 joined",
        "acked 200",
        " reads ",
        "udp > ",
    ):
        assert words in text, words


def test_different_seeds_are_different() -> None:
    assert running.plan(1) != running.plan(2)
    assert running.plan(1) == running.plan(1)


def test_some_seeds_in_two_processes() -> None:
    done = simulate("--seeds", "2", "--start", "4", "--jobs", "2")
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    for name, about in INVARIANTS.items():
        start = f"{name} exercised=" if about.exercised else f"{name} not yet: "
        assert sum(line.startswith(start) for line in lines) == 1
    for kind in KINDS:
        start = f"fault {kind} not yet: " if kind in NOT_YET else f"fault {kind} injected="
        assert sum(line.startswith(start) for line in lines) == 1
    assert any(line.startswith("2 seeds, ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give --seeds COUNT, --seed N or --plan FILE"),
        (("--seeds", "0"), "argument --seeds: '0' is not a whole number from 1 on"),
        (("--seeds", "3", "--seed", "4"), "--seeds runs many"),
        (("--shrink",), "--shrink needs a seed"),
        (("--plan", "/nowhere"), "/nowhere cannot be read: No such file or directory"),
        (("--plan", "setup.py"), "setup.py is not a plan"),
        (("--frobnicate",), "unrecognized arguments: --frobnicate"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    arguments: Sequence[str], says: str, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(command, "silence", lambda: None)
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


# What a report says.


def outcome(seed: int, *, broken: bool = False, faults: Sequence[str] = ()) -> Outcome:
    tally = Tally()
    for name, about in INVARIANTS.items():
        if about.exercised:
            tally.held(name, 2)
    if broken:
        tally.broken("I1", 12.5, "w7 of plain/k is nowhere")
    return Outcome(
        seed=seed,
        size=5,
        seconds=1800.0,
        operations=Counter({"put 200": 10}),
        faults=Counter(faults),
        tally=tally,
        excused=Counter({"two dots": 1}),
        settled_after=1.0,
        digest="",
        cpu=1.0,
    )


ALL_FAULTS = [kind for kind in KINDS if kind not in NOT_YET]


def test_a_report_counts_and_names_what_failed_with_its_command() -> None:
    report = Report()
    for seed in (9, 7):
        report.add(outcome(seed, broken=seed == 9, faults=["kill", "loss"]))
    lines = list(report.lines(3.0))
    assert "I1 exercised=5 violated=1" in lines
    assert "I2 exercised=4 violated=0" in lines
    assert "fault kill injected=2" in lines
    assert "let pass, two dots: 2" in lines
    at = lines.index("seed 9 violates I1")
    assert lines[at + 1] == "  I1 at 12.500 s: w7 of plain/k is nowhere"
    assert lines[at + 2] == "  python -m dynamo.sim --seed 9 --trace"
    assert "2 seeds, 1.00 simulated hours (5.0 of nodes), 20 requests, 3.0 s real" in "\n".join(
        lines
    )
    assert report.failed


def test_what_was_never_tested_counts_from_a_hundred_seeds_on() -> None:
    report = Report()
    for seed in range(99):
        report.add(outcome(seed, faults=ALL_FAULTS[1:]))
    assert not report.untested
    report.add(outcome(99))
    assert report.untested
    assert list(report.lines(1.0))[-1] == f"never put to the test: fault {ALL_FAULTS[0]}"
    report.add(outcome(100, faults=ALL_FAULTS))
    assert not report.untested
    assert not report.failed


# Children.


def square(seed: int) -> Any:
    if seed == 3:
        raise ValueError("three")
    if seed == 4:
        os._exit(9)
    if seed == 5:
        time.sleep(600)  # noqa: TID251
    return seed * seed


def test_a_child_that_fails_dies_or_hangs_names_its_seed() -> None:
    results = list(over_seeds(range(1, 8), 2, square, list, limit=2.0))
    assert sorted(r for r in results if not isinstance(r, Crash)) == [1, 4, 36, 49]
    crashes = {r.seed: r.text for r in results if isinstance(r, Crash)}
    assert "ValueError: three" in crashes[3]
    assert crashes[4] == "its process ended with status 9"
    assert crashes[5] == "no end after 2 real seconds"
    report = Report()
    for crash in results:
        if isinstance(crash, Crash):
            report.add(crash)
    assert report.failed
    assert crew.SEED_S > 60


def test_who_looks_on_learns_at_once_which_seed_failed(monkeypatch: Any, capsys: Any) -> None:
    """Not only when all are through."""
    done = [outcome(7), outcome(8, broken=True)]

    def seeds(*_: Any) -> Iterator[Outcome]:
        yield from done
        told.append(capsys.readouterr().err)

    told: list[str] = []
    monkeypatch.setattr(command, "over_seeds", seeds)
    assert command.main(["--seeds", "2", "--start", "7"]) == 1
    assert told == ["seed 8 failed\n"]


def test_ctrl_c_ends_it_with_what_there_is() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dynamo.sim", "--seeds", "5000", "--jobs", "2"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
        start_new_session=True,
    )
    deadline = time.perf_counter() + 60
    while time.perf_counter() < deadline and not children(process.pid):
        pass
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == command.INTERRUPTED
    assert "interrupted after" in out.splitlines()[-1]
    assert err == ""


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


# Shrinking a run.


def test_a_failing_run_becomes_a_small_one_in_a_file(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    real = running.run

    def sabotaged(plan: Plan, **options: Any) -> Outcome:
        """A run in which no node may be told to stop."""
        told = real(attrs.evolve(plan, operations=plan.operations[:20]), **options)
        if any(fault.kind == "stop" for fault in plan.faults):
            told.tally.broken("I3", 1.0, "a node was asked to stop")
        return told

    monkeypatch.setattr(running, "run", sabotaged)
    monkeypatch.setattr(command, "silence", lambda: None)
    seed = next(s for s in range(1, 99) if any(f.kind == "stop" for f in running.plan(s).faults))
    out = tmp_path / "small.json"
    assert command.main(["--shrink", str(seed), "--out", str(out), "--runs", "40"]) == 1
    small = from_json(out.read_bytes())
    assert [fault.kind for fault in small.faults] == ["stop"]
    assert small.operations == ()
    assert "a node was asked to stop" in capsys.readouterr().out
    assert command.main(["--plan", str(out)]) == 1
