"""A configuration is either right or refused in one line that says what would be right."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from dynamo.config import Address, Config, ConfigError, build, load

LISTEN = "listen: {api: 127.0.0.1:8001, cluster: 127.0.0.1:7001}\n"
NAME = "a name of 1 to 128 bytes without control characters or '/'"
ADDRESS = "an address host:port with a port of 1 to 65535"
API = 'e.g. 127.0.0.1:8001 or "[::1]:8001"'
CLUSTER = 'e.g. 127.0.0.1:7001 or "[::1]:7001"'
COUNT = "a whole number of 1 or more, or quorum; use e.g. quorum or 2"

BAD = [
    ("", "is empty; give at least listen.api and listen.cluster"),
    ("# only a comment\n", "is empty; give at least listen.api and listen.cluster"),
    ("- a\n- b\n", "holds a list; give sections such as listen: and node:"),
    ("hello\n", "holds 'hello'; give sections such as listen: and node:"),
    ("node: {name: n1}\n", f"listen.api: is missing; give {ADDRESS}, {API}"),
    ("listen: {api: a:1}\n", f"listen.cluster: is missing; give {ADDRESS}, {CLUSTER}"),
    ("listen:\n", f"listen.api: is missing; give {ADDRESS}, {API}"),
    ("listen: 8001\n", "listen: is 8001; put keys under it: api, cluster"),
    # Keys.
    (
        LISTEN + "foo: bar\n",
        "foo: is not a key; known here: node, listen, advertise, cluster, replication, "
        "gossip, limits, repair, log",
    ),
    (LISTEN + "nodes: {}\n", "nodes: is not a key; did you mean node?"),
    (
        LISTEN + "cluster: {partition: 8}\n",
        "cluster.partition: is not a key; did you mean cluster.partitions?",
    ),
    (LISTEN + "partitions: 8\n", "partitions: is not a key; did you mean cluster.partitions?"),
    (
        LISTEN + "node: {seeds: []}\n",
        "node.seeds: is not a key; did you mean cluster.seeds?",
    ),
    (LISTEN + "log: {1: 2}\n", "log.1: is not a key; known here: format, level"),
    (
        LISTEN + 'log: {"a\\nb": 2}\n',
        "'log.a\\nb': is not a key; known here: format, level",
    ),
    (
        LISTEN + "log: {level: info}\nlog: {level: warn}\n",
        "log: is given twice, in lines 2 and 3; keep one",
    ),
    (
        "listen:\n  api: 127.0.0.1:1\n  api: 127.0.0.1:2\n",
        "listen.api: is given twice, in lines 2 and 3; keep one",
    ),
    # YAML.
    (
        LISTEN + "node:\n\tname: n1\n",
        "line 3 is not YAML (found character '\\t' that cannot start any token); "
        "indent with spaces and write key: value",
    ),
    (
        "listen:\n  api: [::1]:8001\n",
        "line 2 is not YAML (expected the node content, but found ':'); "
        'put an address that begins with [ in quotes, e.g. "[::1]:7001"',
    ),
    (
        "a: 1\n---\nb: 2\n",
        "line 2 is not YAML (but found another document); indent with spaces and write key: value",
    ),
    (
        LISTEN + "node: {name: !!python/object:os.x {}}\n",
        "line 2 is not YAML (could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object:os.x'); indent with spaces and write key: value",
    ),
    (
        LISTEN + "node: {name: 2024-13-45}\n",
        "cannot be read as YAML (month must be in 1..12)",
    ),
    # node
    (LISTEN + "node: {name: 7}\n", "node.name: 7 is not text; put it in quotes"),
    (LISTEN + "node: {name: no}\n", "node.name: false is not text; put it in quotes"),
    (LISTEN + "node: {name: ''}\n", f"node.name: '' is not {NAME} or '~'; use e.g. n1"),
    (LISTEN + "node: {name: a/b}\n", f"node.name: 'a/b' is not {NAME} or '~'; use e.g. n1"),
    (LISTEN + "node: {name: a~2}\n", f"node.name: 'a~2' is not {NAME} or '~'; use e.g. n1"),
    (LISTEN + "node: {name: ..}\n", f"node.name: '..' is not {NAME} or '~'; use e.g. n1"),
    (
        LISTEN + 'node: {name: "a\\0b"}\n',
        f"node.name: 'a\\x00b' is not {NAME} or '~'; use e.g. n1",
    ),
    (
        LISTEN + f"node: {{zone: {'z' * 129}}}\n",
        f"node.zone: '{'z' * 56}... is not {NAME}; use e.g. z1",
    ),
    (
        LISTEN + "node: {data_dir: ~/data}\n",
        "node.data_dir: '~/data' is not a folder's path written out; use e.g. ./data/n1",
    ),
    (
        LISTEN + "node: {data_dir: [a]}\n",
        "node.data_dir: a list is not a folder's path written out; use e.g. ./data/n1",
    ),
    (LISTEN + "node: {data_dir: 5}\n", "node.data_dir: 5 is not text; put it in quotes"),
    (LISTEN + "node: {weight: 0}\n", "node.weight: 0.0 is not a number above 0; use e.g. 1.0"),
    (LISTEN + "node: {weight: .inf}\n", "node.weight: inf is not a number above 0; use e.g. 1.0"),
    (LISTEN + "node: {weight: .nan}\n", "node.weight: nan is not a number above 0; use e.g. 1.0"),
    (LISTEN + "node: {weight: two}\n", "node.weight: 'two' is not a number above 0; use e.g. 1.0"),
    (LISTEN + "node: {weight: yes}\n", "node.weight: true is not a number above 0; use e.g. 1.0"),
    (
        LISTEN + "node: {weight: null}\n",
        "node.weight: null is not a number above 0; use e.g. 1.0",
    ),
    # Addresses.
    ("listen: {api: 8001}\n", f"listen.cluster: is missing; give {ADDRESS}, {CLUSTER}"),
    ("listen: {api: 8001, cluster: a:1}\n", f"listen.api: 8001 is not {ADDRESS}; use {API}"),
    ("listen: {api: a, cluster: a:1}\n", f"listen.api: 'a' is not {ADDRESS}; use {API}"),
    ("listen: {api: 'a:0', cluster: a:1}\n", f"listen.api: 'a:0' is not {ADDRESS}; use {API}"),
    (
        "listen: {api: a:1, cluster: 'a:65536'}\n",
        f"listen.cluster: 'a:65536' is not {ADDRESS}; use {CLUSTER}",
    ),
    (
        "listen: {api: '::1:8001', cluster: a:1}\n",
        f"listen.api: '::1:8001' is not {ADDRESS}; use {API}",
    ),
    (
        "listen: {api: '[1.2.3.4]:1', cluster: a:1}\n",
        f"listen.api: '[1.2.3.4]:1' is not {ADDRESS}; use {API}",
    ),
    (
        "listen: {api: '256.1.1.1:1', cluster: a:1}\n",
        f"listen.api: '256.1.1.1:1' is not {ADDRESS}; use {API}",
    ),
    (
        "listen: {api: 'http://a:1', cluster: a:1}\n",
        f"listen.api: 'http://a:1' is not {ADDRESS}; use {API}",
    ),
    (
        "listen: {api: [127.0.0.1, 8001], cluster: a:1}\n",
        f"listen.api: a list is not {ADDRESS}; use {API}",
    ),
    (
        "listen: {api: a:1, cluster: a:1}\n",
        "listen.cluster: a:1 collides with listen.api; use another port",
    ),
    (
        "listen: {api: 0.0.0.0:1, cluster: a:1}\nadvertise: {api: b:1}\n",
        "listen.cluster: a:1 collides with listen.api; use another port",
    ),
    (
        "listen: {api: a:1, cluster: 0.0.0.0:7001}\n",
        "advertise.cluster: 0.0.0.0:7001 cannot be dialled; use an address that others reach, "
        "e.g. 192.0.2.10:7001",
    ),
    (
        LISTEN + "advertise: {api: 'x'}\n",
        f"advertise.api: 'x' is not {ADDRESS}; use e.g. 192.0.2.10:8001 or \"[2001:db8::1]:8001\"",
    ),
    # cluster
    (LISTEN + "cluster: {name: 'a/b'}\n", f"cluster.name: 'a/b' is not {NAME}; use e.g. demo"),
    (LISTEN + "cluster: {name: null}\n", f"cluster.name: null is not {NAME}; use e.g. demo"),
    (
        LISTEN + "cluster: {seeds: 127.0.0.1:7001}\n",
        "cluster.seeds: '127.0.0.1:7001' is not a list of addresses host:port; "
        "use e.g. [127.0.0.1:7001]",
    ),
    (
        LISTEN + "cluster: {seeds: [127.0.0.1]}\n",
        f"cluster.seeds: '127.0.0.1' is not {ADDRESS}; use {CLUSTER}",
    ),
    (
        LISTEN + "cluster: {seeds: [0.0.0.0:7001]}\n",
        "cluster.seeds: 0.0.0.0:7001 cannot be dialled; use an address that others reach, "
        "e.g. 192.0.2.10:7001",
    ),
    (
        LISTEN + "cluster: {secret: 12345}\n",
        "cluster.secret: the value is not text; put it in quotes",
    ),
    (
        LISTEN + "cluster: {secret: ''}\n",
        "cluster.secret: the value is not a text of at least one character, or a list of such; "
        'use e.g. "a long random text", or null for none',
    ),
    *(
        (
            LISTEN + f"cluster: {{partitions: {given}}}\n",
            f"cluster.partitions: {told} is not a power of two; use e.g. 512 or 1024",
        )
        for given, told in [(1000, 1000), (0, 0), (-8, -8), ("many", "'many'"), (8.5, 8.5)]
    ),
    (
        LISTEN + "cluster: {partitions: 131072}\n",
        "cluster.partitions: 131072 is above 65536; use e.g. 1024",
    ),
    # replication
    (
        LISTEN + "replication: {n: 0}\n",
        "replication.n: 0 is not a whole number of 1 or more; use e.g. 3",
    ),
    (LISTEN + "replication: {r: 0}\n", f"replication.r: 0 is not {COUNT}"),
    (LISTEN + "replication: {r: all}\n", f"replication.r: 'all' is not {COUNT}"),
    (LISTEN + "replication: {w: 1.5}\n", f"replication.w: 1.5 is not {COUNT}"),
    (LISTEN + "replication: {w: true}\n", f"replication.w: true is not {COUNT}"),
    (
        LISTEN + "replication: {n: 2, r: 3}\n",
        "replication.r: 3 is above replication.n; use quorum or at most 2",
    ),
    (
        LISTEN + "replication: {w: 4}\n",
        "replication.w: 4 is above replication.n; use quorum or at most 3",
    ),
    (
        LISTEN + "replication: {quorum: loose}\n",
        "replication.quorum: 'loose' is not a kind of quorum; use sloppy or strict",
    ),
    # gossip, repair, limits, log
    (
        LISTEN + "gossip: {profile: moon}\n",
        "gossip.profile: 'moon' is not a set of timings; use lan, wan or local",
    ),
    (
        LISTEN + "gossip: {probe_interval: 0}\n",
        "gossip.probe_interval: 0.0 is not a number of seconds above 0; use e.g. 1.0",
    ),
    (
        LISTEN + "gossip: {probe_interval: 1, probe_timeout: 1}\n",
        "gossip.probe_timeout: 1.0 is not below gossip.probe_interval; use less than 1.0",
    ),
    (
        LISTEN + "limits: {request_timeout: 0}\n",
        "limits.request_timeout: 0.0 is not a number of seconds above 0; use e.g. 10.0",
    ),
    (
        LISTEN + "limits: {request_timeout: 10s}\n",
        "limits.request_timeout: '10s' is not a number of seconds above 0; use e.g. 10.0",
    ),
    (
        LISTEN + "limits: {shutdown_grace: -1}\n",
        "limits.shutdown_grace: -1.0 is not a number of seconds of 0 or more; use e.g. 10.0",
    ),
    (
        LISTEN + "limits: {background_latency: 0}\n",
        "limits.background_latency: 0.0 is not a number of seconds above 0; use e.g. 0.05",
    ),
    (
        LISTEN + "limits: {max_object_bytes: 5GB}\n",
        "limits.max_object_bytes: '5GB' is not a whole number of bytes of 1 or more; "
        "use e.g. 5368709120",
    ),
    (
        LISTEN + "repair: {scrub_bytes_per_second: 0}\n",
        "repair.scrub_bytes_per_second: 0 is not a whole number of bytes of 1 or more; "
        "use e.g. 8388608",
    ),
    (
        LISTEN + "repair: {scrub_interval: 0}\n",
        "repair.scrub_interval: 0.0 is not a number of seconds above 0; use e.g. 86400.0",
    ),
    (LISTEN + "log: {format: xml}\n", "log.format: 'xml' is not a format; use text or json"),
    (
        LISTEN + "log: {level: loud}\n",
        "log.level: 'loud' is not a level; use critical, error, warn, info, debug or trace",
    ),
    (
        LISTEN + "log: {level: off}\n",
        "log.level: false is not a level; use critical, error, warn, info, debug or trace",
    ),
]


def written(folder: Path, text: str) -> Path:
    """A file n.yaml in `folder` that holds `text`."""
    path = folder / "n.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("text", "line"), BAD)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, line: str) -> None:
    """The line names file, key, what is wrong and what would be right."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as refusal:
        load(path, host_name="host")
    assert str(refusal.value) == f"{path}: {line}"
    assert len(str(refusal.value).splitlines()) == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file and a folder are told apart from a bad one."""
    for path, reason in [
        (tmp_path / "none.yaml", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ]:
        with pytest.raises(ConfigError) as refusal:
            load(path, host_name="host")
        assert str(refusal.value) == (
            f"{path}: cannot be read ({reason}); give the path of a node's YAML file"
        )


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    """Latin-1 is named with its line; a huge file is not read to its end."""
    path = tmp_path / "n.yaml"
    path.write_bytes(b"# fine\nnode: {name: caf\xe9}\n")
    with pytest.raises(ConfigError, match="line 2 is not UTF-8; save the file as UTF-8"):
        load(path, host_name="host")
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigError, match="is larger than 1048576 bytes"):
        load(path, host_name="host")


def test_nesting_without_end(tmp_path: Path) -> None:
    """Neither deep nesting nor a value that holds itself gets past the error line."""
    for text in ["[" * 5000, "listen: &a {api: *a}\n", "&a [*a]\n"]:
        with pytest.raises(ConfigError) as refusal:
            load(written(tmp_path, text), host_name="host")
        assert len(str(refusal.value).splitlines()) == 1


def test_a_file_in_the_way_of_the_data(tmp_path: Path) -> None:
    """A data folder that cannot be is told before the node starts."""
    (tmp_path / "data").write_text("")
    path = written(tmp_path, LISTEN + "node: {name: n1}\n")
    with pytest.raises(ConfigError) as refusal:
        load(path, host_name="host")
    assert str(refusal.value) == (
        f"{path}: node.data_dir: {tmp_path / 'data'} is not a folder; "
        "give the path of one or of none yet"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """So is one whose parent belongs to somebody else."""
    tmp_path.chmod(0o500)
    (tmp_path.parent / "n.yaml").write_text(LISTEN + f"node: {{data_dir: {tmp_path}/data}}\n")
    with pytest.raises(ConfigError, match="cannot be written to by this user"):
        load(tmp_path.parent / "n.yaml", host_name="host")


def test_defaults(tmp_path: Path) -> None:
    """`listen` is all that must be given."""
    config = load(written(tmp_path, LISTEN), host_name="host")
    assert config.node.name == "host"
    assert config.node.data_dir == tmp_path / "data" / "host"
    assert (config.node.zone, config.node.weight) == ("z1", 1.0)
    assert config.advertise.api == config.listen.api == Address("127.0.0.1", 8001)
    assert config.advertise.cluster == config.listen.cluster == Address("127.0.0.1", 7001)
    assert (config.cluster.name, config.cluster.seeds) == ("demo", ())
    assert (config.cluster.secret, config.cluster.partitions) == (None, 1024)
    replication = config.replication
    assert (replication.n, replication.r, replication.w) == (3, "quorum", "quorum")
    assert replication.quorum == "sloppy"
    assert (config.gossip.profile, config.gossip.probe_interval) == ("lan", None)
    assert config.limits.max_object_bytes == 5368709120
    assert (config.limits.request_timeout, config.limits.shutdown_grace) == (10.0, 10.0)
    assert config.limits.background_latency == 0.05
    assert (config.log.format, config.log.level) == ("text", "info")


def test_everything_given() -> None:
    """Each key ends up where it belongs; what advertise leaves out is as in listen."""
    config = build(
        {
            "node": {"name": "n9", "data_dir": "/data", "zone": "rack 2", "weight": 2},
            "listen": {"api": "0.0.0.0:80", "cluster": "[::1]:7001"},
            "advertise": {"api": "store.example.org:80"},
            "cluster": {
                "name": "c",
                "seeds": ["[::1]:7001", "b:7"],
                "secret": "s",
                "partitions": 8,
            },
            "replication": {"n": 5, "r": 1, "w": 5, "quorum": "strict"},
            "gossip": {"profile": "wan", "probe_interval": 2, "probe_timeout": 0.5},
            "limits": {
                "max_object_bytes": 1,
                "request_timeout": 1,
                "shutdown_grace": 0,
                "background_latency": 1,
            },
            "log": {"format": "json", "level": "debug"},
        }
    )
    assert config.node.data_dir == Path("/data")
    assert config.listen.cluster == Address("::1", 7001)
    assert config.advertise.api == Address("store.example.org", 80)
    assert config.advertise.cluster == config.listen.cluster
    assert config.cluster.seeds == (Address("::1", 7001), Address("b", 7))
    assert (config.replication.r, config.replication.w) == (1, 5)
    assert (config.gossip.probe_interval, config.gossip.probe_timeout) == (2.0, 0.5)
    assert (config.limits.shutdown_grace, config.log.level) == (0.0, "debug")
    assert config.limits.background_latency == 1.0


def test_it_cannot_be_changed_and_keeps_its_secret() -> None:
    """Frozen through and through; the key to the cluster is not in what logs may show."""
    config = build(
        {"listen": {"api": "a:1", "cluster": "a:2"}, "cluster": {"secret": "hunter2"}},
    )
    with pytest.raises(AttributeError):
        config.log.level = "debug"  # type: ignore[misc]
    assert "hunter2" not in repr(config)
    assert config.cluster.secret == "hunter2"


@pytest.mark.parametrize("text", ["127.0.0.1:7001", "[::1]:7001", "n1.example.org:65535", "n-1:1"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    """Parsing and printing are inverse."""
    assert str(Address.parse(text)) == text


def test_the_sample_shows_every_setting_at_its_default() -> None:
    """conf/node.yaml says what a file with nothing but `listen` means, and leaves no key out."""
    folder = Path(__file__).parents[2] / "conf"
    sample = load(folder / "node.yaml", host_name="host")
    bare = build(
        {"listen": {"api": "127.0.0.1:8001", "cluster": "127.0.0.1:7001"}},
        base=folder,
        host_name="host",
    )
    assert sample == bare
    text = (folder / "node.yaml").read_text()
    for section in msgspec.structs.fields(Config):
        for field in msgspec.structs.fields(section.type):
            assert f"  {field.name}: " in text, f"{section.name}.{field.name} is not shown"


def test_the_three_nodes_of_the_demo_fit_together() -> None:
    """Same cluster and seeds, no port or folder twice, data in the project's data folder."""
    root = Path(__file__).parents[2]
    configs = [load(root / "conf" / f"n{i}.yaml", host_name="host") for i in (1, 2, 3)]
    assert len({config.cluster for config in configs}) == 1
    assert configs[0].cluster.seeds == tuple(config.listen.cluster for config in configs)
    ports = [port for c in configs for port in (c.listen.api.port, c.listen.cluster.port)]
    assert sorted(ports) == [7001, 7002, 7003, 8001, 8002, 8003]
    assert [c.node.data_dir for c in configs] == [root / "data" / f"n{i}" for i in (1, 2, 3)]
