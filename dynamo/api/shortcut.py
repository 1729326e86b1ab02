"""The few routes most requests take, found by one regular expression each, or by their name.

Werkzeug's matcher walks a path segment by segment, which for an object's path costs as much as
the rest of parsing its request. A rule that ends in `<rest:…>` and that no other rule could
beat is matched here first, and before that the rules without variables, which nothing beats;
everything else, and every error, is left to the matcher.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from werkzeug.routing import Rule

_VARIABLE = re.compile(r"<(?:(?P<kind>rest):)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)>")

Found = tuple[Rule, dict[str, str]]


class Shortcut:
    """Made of all the rules of a map."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        everything = list(rules)
        self._table: dict[str, list[tuple[re.Pattern[str], Rule]]] = {}
        self._plain: dict[tuple[str, str], Rule] = {}
        for rule in everything:
            if _is_plain(rule) and "<" not in rule.rule and not rule.rule.endswith("/"):
                for method in rule.methods or ():
                    self._plain.setdefault((method, rule.rule), rule)
                continue
            pattern = _pattern(rule)
            if pattern is None or any(_may_beat(other.rule, rule.rule) for other in everything):
                continue
            for method in rule.methods or ():
                self._table.setdefault(method, []).append((pattern, rule))

    def find(self, method: str, path: str) -> Found | None:
        """The rule for a path and its variables, None if the matcher must look."""
        plain = self._plain.get((method, path))
        if plain is not None:
            return plain, {}
        for pattern, rule in self._table.get(method, ()):
            found = pattern.fullmatch(path)
            if found is not None:
                return rule, found.groupdict()
        return None


def _pattern(rule: Rule) -> re.Pattern[str] | None:
    """The rule as a regular expression, if it is of the plain kind that ends in the rest."""
    parts = rule.rule.split("/")
    last = _VARIABLE.fullmatch(parts[-1])
    if last is None or last["kind"] != "rest" or not _is_plain(rule):
        return None
    text = []
    for part in parts[:-1]:
        variable = _VARIABLE.fullmatch(part)
        if variable is not None and variable["kind"] is None:
            text.append(f"(?P<{variable['name']}>[^/]+)")
        elif "<" in part:
            return None
        else:
            text.append(re.escape(part))
    return re.compile("/".join(text) + f"/(?P<{last['name']}>.*)", re.DOTALL)


def _is_plain(rule: Rule) -> bool:
    """Whether a rule leads to its endpoint and does nothing else."""
    return not (rule.defaults or rule.redirect_to or rule.alias or rule.build_only)


def _may_beat(other: str, rule: str) -> bool:
    """Whether a path could match both, and the matcher prefer `other`."""
    ours, theirs = rule.split("/"), other.split("/")
    if [_shape(part) for part in ours] == [_shape(part) for part in theirs]:
        return False
    for mine, its in zip(ours, theirs, strict=False):
        if _shape(mine) != _shape(its):
            return "<" in mine
    return len(theirs) >= len(ours)


def _shape(part: str) -> str:
    """A part of a rule without the names of its variables."""
    return _VARIABLE.sub(lambda found: f"<{found['kind'] or ''}>", part)
