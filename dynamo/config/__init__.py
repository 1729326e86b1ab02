"""What a node is told: one YAML file, read and checked once, then frozen.

The caller's duties: `load` the file in `dynamo.tap` (or `build` from a mapping, in tests and the
simulator), hand the result to `dynamo.node`, and hand parts only the values they need. Whatever
is wrong with the file is a `ConfigError` whose text is one line: file, key, what is wrong and
what would be right. `conf/node.yaml` shows every key at its default with meaning and unit.
"""

from dynamo.config.file import load
from dynamo.config.mapping import build
from dynamo.config.values import (
    Address,
    Advertise,
    Cluster,
    Config,
    ConfigError,
    Gossip,
    Limits,
    Listen,
    Log,
    Node,
    Repair,
    Replication,
)

__all__ = [
    "Address",
    "Advertise",
    "Cluster",
    "Config",
    "ConfigError",
    "Gossip",
    "Limits",
    "Listen",
    "Log",
    "Node",
    "Repair",
    "Replication",
    "build",
    "load",
]
