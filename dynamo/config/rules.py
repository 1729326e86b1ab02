"""What each key of the configuration may be, as one table and a few relations.

The table's words make the error line: "`value` is not `what`; use `hint`". A value of a wrong
type is told the same way as one of the right type that will not do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from dynamo.config.values import Config, ConfigError, Gossip, Replication

NAME_BYTES_MAX = 128
PARTITIONS_MAX = 1 << 16


@attrs.frozen
class Rule:
    """A value passes when `accepts` says so; else it "is not `what`; use `hint`"."""

    what: str
    hint: str
    accepts: Callable[[Any], bool] = lambda value: True


def _is_name(text: str) -> bool:
    return (
        0 < len(text.encode("utf-8", "surrogatepass")) <= NAME_BYTES_MAX
        and text.isprintable()
        and text == text.strip()
        and text not in (".", "..")
        and "/" not in text
    )


def _positive(value: float | None) -> bool:
    return value is None or (value > 0 and math.isfinite(value))


def _count(value: int | str) -> bool:
    return value == "quorum" or (isinstance(value, int) and value >= 1)


_NAME = f"a name of 1 to {NAME_BYTES_MAX} bytes without control characters or '/'"
ADDRESS_SYNTAX = "an address host:port with a port of 1 to 65535"
_SECONDS = "a number of seconds above 0"
_WHOLE = "a whole number of 0 or more"
_FACTOR = "a number above 0"
_COUNT = "a whole number of 1 or more, or quorum"

RULES: dict[str, Rule] = {
    "node.name": Rule(
        f"{_NAME} or '~'", "e.g. n1", lambda value: _is_name(value) and "~" not in value
    ),
    "node.data_dir": Rule(
        "a folder's path written out",
        "e.g. ./data/n1",
        lambda value: str(value).isprintable() and not str(value).startswith("~"),
    ),
    "node.zone": Rule(_NAME, "e.g. z1", _is_name),
    "node.weight": Rule("a number above 0", "e.g. 1.0", _positive),
    "listen.api": Rule(ADDRESS_SYNTAX, 'e.g. 127.0.0.1:8001 or "[::1]:8001"'),
    "listen.cluster": Rule(ADDRESS_SYNTAX, 'e.g. 127.0.0.1:7001 or "[::1]:7001"'),
    "advertise.api": Rule(ADDRESS_SYNTAX, 'e.g. 192.0.2.10:8001 or "[2001:db8::1]:8001"'),
    "advertise.cluster": Rule(ADDRESS_SYNTAX, 'e.g. 192.0.2.10:7001 or "[2001:db8::1]:7001"'),
    "cluster.name": Rule(_NAME, "e.g. demo", _is_name),
    "cluster.seeds": Rule("a list of addresses host:port", "e.g. [127.0.0.1:7001]"),
    "cluster.secret": Rule(
        "a text of at least one character, or a list of such",
        'e.g. "a long random text", or null for none',
        lambda value: bool(value) and all(value),
    ),
    "cluster.partitions": Rule(
        "a power of two",
        "e.g. 512 or 1024",
        lambda value: value > 0 and value & (value - 1) == 0,
    ),
    "replication.n": Rule("a whole number of 1 or more", "e.g. 3", lambda value: value >= 1),
    "replication.r": Rule(_COUNT, "e.g. quorum or 2", _count),
    "replication.w": Rule(_COUNT, "e.g. quorum or 2", _count),
    "replication.quorum": Rule("a kind of quorum", "sloppy or strict"),
    "gossip.profile": Rule("a set of timings", "lan, wan or local"),
    "gossip.probe_interval": Rule(_SECONDS, "e.g. 1.0", _positive),
    "gossip.probe_timeout": Rule(_SECONDS, "e.g. 0.5", _positive),
    "gossip.probe_deadline": Rule(_SECONDS, "e.g. 0.7", _positive),
    "gossip.indirect_probes": Rule(_WHOLE, "e.g. 3", lambda value: value >= 0),
    "gossip.stream_probe": Rule("true or false", "true"),
    "gossip.suspicion_multiplier": Rule(_FACTOR, "e.g. 1.6", _positive),
    "gossip.suspicion_max_multiplier": Rule(
        "a factor of 1 or more", "e.g. 6.0", lambda value: 1 <= value < math.inf
    ),
    "gossip.confirmations": Rule(_WHOLE, "e.g. 3", lambda value: value >= 0),
    "gossip.gossip_interval": Rule(_SECONDS, "e.g. 0.2", _positive),
    "gossip.gossip_fanout": Rule("a whole number of 1 or more", "e.g. 3", _positive),
    "gossip.retransmit_multiplier": Rule("a whole number of 1 or more", "e.g. 4", _positive),
    "gossip.exchange_interval": Rule(_SECONDS, "e.g. 30.0", _positive),
    "gossip.reconnect_interval": Rule(_SECONDS, "e.g. 10.0", _positive),
    "gossip.seed_interval": Rule(_SECONDS, "e.g. 1.0", _positive),
    "gossip.leave_linger": Rule(_SECONDS, "e.g. 1.0", _positive),
    "repair.interval": Rule(_SECONDS, "e.g. 600.0", _positive),
    "limits.max_object_bytes": Rule(
        "a whole number of bytes of 1 or more", "e.g. 5368709120", lambda value: value >= 1
    ),
    "limits.request_timeout": Rule(_SECONDS, "e.g. 10.0", _positive),
    "limits.shutdown_grace": Rule(
        "a number of seconds of 0 or more", "e.g. 10.0", lambda value: 0 <= value < math.inf
    ),
    "limits.background_latency": Rule(_SECONDS, "e.g. 0.05", _positive),
    "repair.scrub_bytes_per_second": Rule(
        "a whole number of bytes of 1 or more", "e.g. 8388608", lambda value: value >= 1
    ),
    "repair.scrub_interval": Rule(_SECONDS, "e.g. 86400.0", _positive),
    "log.format": Rule("a format", "text or json"),
    "log.level": Rule("a level", "critical, error, warn, info, debug or trace"),
}


def check(key: str, value: Any) -> None:
    """Refuses a value of the right type that `key` cannot have."""
    if not (value is None or RULES[key].accepts(value)):
        raise refused(key, value)


def refused(key: str, value: object) -> ConfigError:
    """The error that says why `key` cannot have this value."""
    rule = RULES[key]
    told = "the value" if key == "cluster.secret" else shown(value)
    is_text = key.endswith(("name", "zone", "secret", "data_dir"))
    if is_text and value is not None and not isinstance(value, str | list | dict):
        return ConfigError(key, f"{told} is not text; put it in quotes")
    return ConfigError(key, f"{told} is not {rule.what}; use {rule.hint}")


def shown(value: object) -> str:
    """A value as the file would show it, on one line and not too long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, Mapping):
        return "a mapping"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_relations(config: Config) -> None:
    """What no single key can show."""
    _check_replication(config.replication)
    _check_gossip(config.gossip)
    if config.cluster.partitions > PARTITIONS_MAX:
        problem = f"{config.cluster.partitions} is above {PARTITIONS_MAX}; use e.g. 1024"
        raise ConfigError("cluster.partitions", problem)
    _check_addresses(config)


def _check_replication(replication: Replication) -> None:
    for key, count in (("r", replication.r), ("w", replication.w)):
        if count != "quorum" and count > replication.n:
            raise ConfigError(
                f"replication.{key}",
                f"{count} is above replication.n; use quorum or at most {replication.n}",
            )


def _check_gossip(gossip: Gossip) -> None:
    interval, timeout = gossip.probe_interval, gossip.probe_timeout
    if interval is not None and timeout is not None and timeout >= interval:
        raise ConfigError(
            "gossip.probe_timeout",
            f"{timeout} is not below gossip.probe_interval; use less than {interval}",
        )
    try:
        gossip.settings()
    except ValueError as error:
        raise ConfigError("gossip", f"the timings do not go together: {error}") from None


def _check_addresses(config: Config) -> None:
    api, cluster = config.listen.api, config.listen.cluster
    overlap = api.host == cluster.host or api.is_wildcard or cluster.is_wildcard
    if api.port == cluster.port and overlap:
        raise ConfigError("listen.cluster", f"{cluster} collides with listen.api; use another port")
    dialled = [
        ("advertise.api", config.advertise.api),
        ("advertise.cluster", config.advertise.cluster),
        *(("cluster.seeds", seed) for seed in config.cluster.seeds),
    ]
    for key, address in dialled:
        if address.is_wildcard:
            raise ConfigError(
                key,
                f"{address} cannot be dialled; use an address that others reach, "
                f"e.g. 192.0.2.10:{address.port}",
            )
