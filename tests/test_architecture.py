"""The rules of shape that linters do not know."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "dynamo").rglob("*.py"))
PYTHON = sorted([*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
NO_REACTOR = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "twisted.internet.reactor" in sys.modules:
        sys.exit(f"importing {name} installs a reactor")
    if "klein" in sys.modules:
        sys.exit(f"importing {name} imports klein, which would install a reactor")
"""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_fits_its_size_and_says_what_it_is(path: Path) -> None:
    """At most 400 lines, functions of at most 50, a docstring at the head."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "the module has no docstring"
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    for function in functions(tree):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= FUNCTION_LINES_MAX, f"{function.name} has {lines} lines"


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_one_way_to_wait_and_nothing_left_undone(path: Path) -> None:
    """No generator coroutines, and no remark that something is still to do."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for word in ("inline" + "Callbacks", "TO" + "DO", "FIX" + "ME"):
            assert word not in line, f"line {number} has {word}"


def test_importing_the_core_and_the_door_installs_no_reactor() -> None:
    """Whoever imports the node may still choose a reactor."""
    names = [
        module(path)
        for path in MODULES
        if path.relative_to(ROOT / "dynamo").parts[0] in ("core", "coordinator", "tap.py")
    ]
    done = subprocess.run(
        [sys.executable, "-c", NO_REACTOR, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_hides_the_plugin_or_twisted() -> None:
    """An __init__.py in either folder would; an import beyond Twisted could install a reactor."""
    assert not (ROOT / "twisted" / "__init__.py").exists()
    assert not (ROOT / "twisted" / "plugins" / "__init__.py").exists()
    tree = ast.parse((ROOT / "twisted" / "plugins" / "dynamo_plugin.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [getattr(node, "module", "") for node in imports] == ["twisted.application.service"]


def test_imports_run_one_way() -> None:
    """The layers and bans in pyproject.toml hold."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
