"""The configuration as values: frozen, typed, compared by content.

Made by `dynamo.config.mapping`, which has checked them; nothing here reads a file. Every section
but `Listen` stands on its own defaults.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Literal, NamedTuple

import attrs
import msgspec

from dynamo.core.admission import TARGET_S
from dynamo.core.profiles import PROFILES, Settings
from dynamo.errors import DynamoError


class ConfigError(DynamoError):
    """The configuration cannot be used. `key` is dotted, "" when it is the file as a whole."""

    code = "bad_configuration"

    def __init__(self, key: str, problem: str, source: str = "configuration") -> None:
        super().__init__(": ".join(part for part in (source, key, problem) if part))
        self.source, self.key, self.problem = source, key, problem


class Address(NamedTuple):
    """Where to listen or dial. A pair, so it serves where Twisted wants (host, port)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """All interfaces: fine to listen on, impossible to dial."""
        return self.host in ("0.0.0.0", "::")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads host:port, 192.0.2.1:7001 or [::1]:7001; else `ValueError`."""
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", text)
        if match is None or not 0 < int(match[3]) < 65536:
            raise ValueError(text)
        if match[1] is not None:
            return cls(str(ipaddress.IPv6Address(match[1])), int(match[3]))
        return cls(_host(match[2]), int(match[3]))


def _host(text: str) -> str:
    if re.fullmatch(r"[0-9.]+", text):
        return str(ipaddress.IPv4Address(text))
    if not re.fullmatch(r"(?i)(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", text):
        raise ValueError(text)
    return text


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """This node. `weight` is its share of the data relative to the others'."""

    name: str
    data_dir: Path
    zone: str = "z1"
    weight: float = 1.0


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where clients (`api`) and other nodes (`cluster`: UDP and TCP) reach this node."""

    api: Address
    cluster: Address


class Advertise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What others dial; what the file leaves out is as in `Listen`."""

    api: Address
    cluster: Address


class Cluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The cluster to found or join. `seeds` are cluster addresses, this node's own allowed."""

    name: str = "demo"
    seeds: tuple[Address, ...] = ()
    secret: str | tuple[str, ...] | None = None
    partitions: int = 1024

    @property
    def secrets(self) -> tuple[str, ...]:
        """The shared keys, the one to speak with first; several while they are being changed."""
        if self.secret is None:
            return ()
        return (self.secret,) if isinstance(self.secret, str) else self.secret

    def __repr__(self) -> str:
        secret = None if self.secret is None else "..."
        return (
            f"Cluster(name={self.name!r}, seeds={self.seeds!r}, secret={secret!r}, "
            f"partitions={self.partitions!r})"
        )


class Replication(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Defaults for buckets and requests: copies wanted, and how many must answer."""

    n: int = 3
    r: int | Literal["quorum"] = "quorum"
    w: int | Literal["quorum"] = "quorum"
    quorum: Literal["sloppy", "strict"] = "sloppy"


class Gossip(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A set of timings by name; those that are not None replace the profile's.

    What each one means, its unit and its formula: `dynamo.core.profiles.Settings`.
    """

    profile: Literal["lan", "wan", "local"] = "lan"
    probe_interval: float | None = None
    probe_timeout: float | None = None
    probe_deadline: float | None = None
    indirect_probes: int | None = None
    stream_probe: bool | None = None
    suspicion_multiplier: float | None = None
    suspicion_max_multiplier: float | None = None
    confirmations: int | None = None
    gossip_interval: float | None = None
    gossip_fanout: int | None = None
    retransmit_multiplier: int | None = None
    exchange_interval: float | None = None
    reconnect_interval: float | None = None
    seed_interval: float | None = None
    leave_linger: float | None = None

    def settings(self) -> Settings:
        """The timings that hold; raises `ValueError` if they do not go together.

        The probe's parts shrink with its interval unless they are given themselves.
        """
        base = PROFILES[self.profile]
        given = {
            field: value
            for field, value in msgspec.structs.asdict(self).items()
            if value is not None and field != "profile"
        }
        if self.probe_interval is not None:
            scale = min(1.0, self.probe_interval / base.probe_interval)
            given.setdefault("probe_deadline", base.probe_deadline * scale)
            given.setdefault("probe_timeout", base.probe_timeout * scale)
        if self.probe_timeout is not None and self.probe_deadline is None:
            interval = given.get("probe_interval", base.probe_interval)
            deadline = given.get("probe_deadline", base.probe_deadline)
            given["probe_deadline"] = max(deadline, (self.probe_timeout + interval) / 2)
        return attrs.evolve(base, **given)


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds: bytes of one object, seconds a request may take, seconds to finish at a stop, and
    the foreground's p99 in seconds above which background work gives way."""

    max_object_bytes: int = 5 * 1024**3
    request_timeout: float = 10.0
    shutdown_grace: float = 10.0
    background_latency: float = TARGET_S


class Repair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often owners compare what they hold: seconds from one round to the next. And how a node
    looks after its disk: bytes it verifies in a second at most, and seconds from the beginning of
    one pass over everything to the next at least."""

    interval: float = 600.0
    scrub_bytes_per_second: int = 8 * 1024**2
    scrub_interval: float = 86400.0


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How events are written, and from which level on."""

    format: Literal["text", "json"] = "text"
    level: Literal["critical", "error", "warn", "info", "debug", "trace"] = "info"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole node's configuration, checked."""

    node: Node
    listen: Listen
    advertise: Advertise
    cluster: Cluster = Cluster()
    replication: Replication = Replication()
    gossip: Gossip = Gossip()
    limits: Limits = Limits()
    repair: Repair = Repair()
    log: Log = Log()
