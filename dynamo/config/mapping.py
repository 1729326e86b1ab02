"""From the mapping that a file holds to a checked `Config`.

Order of the checks: unknown keys, missing keys, addresses, types, values, relations; the first
that fails is told.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dynamo.config.rules import ADDRESS_SYNTAX, RULES, check, check_relations, refused, shown
from dynamo.config.values import Address, Config, ConfigError

_SECTIONS = {
    section.name: tuple(field.name for field in msgspec.structs.fields(section.type))
    for section in msgspec.structs.fields(Config)
}
_ADDRESSES = ("listen.api", "listen.cluster", "advertise.api", "advertise.cluster")
_NULL_IS_LEFT_OUT = ("node.name", "node.data_dir", "advertise.api", "advertise.cluster")


def build(values: Mapping[Any, Any], *, base: Path = Path(), host_name: str = "n1") -> Config:
    """Checks what a file says; a relative `data_dir` is relative to `base`."""
    sections = _known_sections(values)
    node, listen = sections["node"], sections["listen"]
    for key in ("api", "cluster"):
        if listen.get(key) is None:
            rule = RULES[f"listen.{key}"]
            raise ConfigError(f"listen.{key}", f"is missing; give {ADDRESS_SYNTAX}, {rule.hint}")
    if isinstance(node.setdefault("name", host_name), str):
        check("node.name", node["name"])
    node.setdefault("data_dir", f"./data/{node['name']}")
    if isinstance(node["data_dir"], str | Path):
        check("node.data_dir", node["data_dir"])
        node["data_dir"] = Path(os.path.abspath(base / node["data_dir"]))
    sections["advertise"] = {**listen, **sections["advertise"]}
    _read_addresses(sections)
    try:
        config = msgspec.convert(sections, Config)
    except msgspec.ValidationError as error:
        raise _wrong_type(sections, str(error)) from None
    for key in RULES:
        if key != "node.data_dir":
            section, field = key.split(".")
            check(key, getattr(getattr(config, section), field))
    check_relations(config)
    return config


def _known_sections(values: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """Every section as a fresh mapping of known keys, in the order of `Config`."""
    for name in values:
        if name not in _SECTIONS:
            raise _unknown(str(name), "")
    sections: dict[str, dict[str, Any]] = {}
    for name, known in _SECTIONS.items():
        given = values.get(name)
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(name, f"is {shown(given)}; put keys under it: {', '.join(known)}")
        section = dict(given or {})
        for key, value in list(section.items()):
            if key not in known:
                raise _unknown(str(key), f"{name}.")
            if value is None and f"{name}.{key}" in _NULL_IS_LEFT_OUT:
                del section[key]
        sections[name] = section
    return sections


def _unknown(key: str, prefix: str) -> ConfigError:
    """Looks for the nearest key here, then for one of that name elsewhere."""
    near = prefix.rstrip(".")
    here = list(_SECTIONS[near]) if near else list(_SECTIONS)
    anywhere = {full.split(".")[1]: full for full in RULES}
    if close := difflib.get_close_matches(key, here, 1):
        advice = f"did you mean {prefix}{close[0]}?"
    elif close := difflib.get_close_matches(key, anywhere, 1, 0.8):
        advice = f"did you mean {anywhere[close[0]]}?"
    else:
        advice = f"known here: {', '.join(here)}"
    full = f"{prefix}{key}"
    return ConfigError(full if full.isprintable() else repr(full), f"is not a key; {advice}")


def _read_addresses(sections: dict[str, dict[str, Any]]) -> None:
    for full in _ADDRESSES:
        section, key = full.split(".")
        sections[section][key] = _address(full, sections[section][key])
    seeds = sections["cluster"].get("seeds", [])
    if not isinstance(seeds, list | tuple):
        raise refused("cluster.seeds", seeds)
    sections["cluster"]["seeds"] = [_address("cluster.seeds", seed) for seed in seeds]


def _address(key: str, value: object) -> Address:
    if isinstance(value, Address):
        return value
    try:
        return Address.parse(value if isinstance(value, str) else "")
    except ValueError:
        rule = RULES["listen.cluster" if key == "cluster.seeds" else key]
        raise ConfigError(key, f"{shown(value)} is not {rule.what}; use {rule.hint}") from None


def _wrong_type(sections: Mapping[str, Mapping[str, Any]], message: str) -> ConfigError:
    """Names the key that msgspec's message points at, "... - at `$.cluster.partitions`"."""
    match = re.search(r"`\$\.(\w+)\.(\w+)", message)
    if match is None:
        return ConfigError("", message)
    section, key = match[1], match[2]
    return refused(f"{section}.{key}", sections[section].get(key))
