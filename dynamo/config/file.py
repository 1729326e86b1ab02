"""Reads the configuration file: bytes, YAML, one mapping; each failure is one line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from dynamo.config.mapping import build
from dynamo.config.rules import shown
from dynamo.config.values import Config, ConfigError

FILE_BYTES_MAX = 1 << 20


def load(path: str | os.PathLike[str], *, host_name: str) -> Config:
    """Reads and checks the file at `path`; `host_name` is the name of a node that has none."""
    source = os.fspath(path)
    try:
        values = _parse(_read(source))
        config = build(values, base=Path(source).absolute().parent, host_name=host_name)
        _check_folder(config.node.data_dir)
    except ConfigError as error:
        raise ConfigError(error.key, error.problem, source) from None
    return config


def _read(source: str) -> str:
    try:
        with open(source, "rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        reason = error.strerror or "unknown error"
        raise ConfigError(
            "", f"cannot be read ({reason}); give the path of a node's YAML file"
        ) from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError("", f"is larger than {FILE_BYTES_MAX} bytes; give a node's YAML file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError("", f"line {line} is not UTF-8; save the file as UTF-8") from None


def _parse(text: str) -> Mapping[Any, Any]:
    """The file's mapping. Beyond YAML's own errors it refuses a key that is given twice."""
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None:
            _refuse_duplicates(root)
        values = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise _bad_yaml(text, error) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError("", f"cannot be read as YAML ({reason})") from None
    finally:
        if loader is not None:
            cast(Any, loader).dispose()
    if values is None:
        raise ConfigError("", "is empty; give at least listen.api and listen.cluster")
    if not isinstance(values, dict):
        raise ConfigError("", f"holds {shown(values)}; give sections such as listen: and node:")
    return values


def _bad_yaml(text: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = 0 if mark is None else mark.line
    lines = text.splitlines()
    reason = " ".join((error.problem or error.context or "a syntax error").split())
    advice = "indent with spaces and write key: value"
    if 0 <= line < len(lines) and re.search(r"\]:[0-9]", lines[line]):
        advice = 'put an address that begins with [ in quotes, e.g. "[::1]:7001"'
    return ConfigError("", f"line {line + 1} is not YAML ({reason[:120]}); {advice}")


def _refuse_duplicates(root: yaml.Node) -> None:
    """Two levels are all that the file has; deeper ones are refused by type."""
    for section, values in _pairs(root, ""):
        for _ in _pairs(values, f"{section}."):
            pass


def _pairs(node: yaml.Node, prefix: str) -> list[tuple[str, yaml.Node]]:
    seen: dict[str, yaml.Node] = {}
    pairs = []
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        name = str(key.value)
        if name in seen:
            lines = f"{seen[name].start_mark.line + 1} and {key.start_mark.line + 1}"
            raise ConfigError(prefix + name, f"is given twice, in lines {lines}; keep one")
        seen[name] = key
        pairs.append((prefix + name, value))
    return pairs


def _check_folder(folder: Path) -> None:
    """`folder` exists or can be made; says so before anything is started."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise ConfigError(
            "node.data_dir", f"{nearest} is not a folder; give the path of one or of none yet"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(
            "node.data_dir",
            f"{nearest} cannot be written to by this user; change its owner or give another path",
        )
