"""What repair does on three real nodes: a lost disk, diverged keys, flipped bytes, deletes.

    python bench/repair.py [lost] [diverged] [flips] [deletes] [--objects 100000] [--page PAGE]

- lost: objects of 1 KiB; under load, a node is killed, its data directory removed, and it is
  started again; until it is whole. In the end the records of all three disks are compared.
- diverged: 100 of those objects are written anew while a node is away, the hints are removed from
  the others' disks, and all is left to one round of anti-entropy.
- flips: a byte is flipped in each of 50 chunk files and 50 records of one node; every object is
  read through every node, and a scrub has to mend all.
- deletes: 1000 objects are deleted while a node is away for longer than every interval; then it
  comes back.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lmdb

sys.path.insert(0, str(Path(__file__).resolve().parent))

from clients import Spec, body_of, filler
from failover import CLIENTS_FILE, result
from nodes import Process, metric, start_nodes, stop_all
from report import publish

N = 3
CLIENTS = 8
FLIPS = 50
DELETED = 1000
WAIT_S = 1800.0
BUCKET = "/v1/buckets/failover"
KEYS = f"{BUCKET}/objects/"
OFTEN = "repair: {interval: 30.0}\n"
"""A partition that is written to while it is compared is known to be equal by the next round."""


def load(nodes: Sequence[Process], method: str, seconds: float, **more: Any) -> Any:
    """Clients in a process of their own, on objects of 1 KiB."""
    ports = [node.port for node in nodes]
    spec = Spec(ports, method, KEYS, clients=CLIENTS, size=1024, seconds=seconds, **more)
    command = [sys.executable, str(CLIENTS_FILE), json.dumps(asdict(spec))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def until(
    what: str, holds: Callable[[], bool], seconds: float = WAIT_S, step: float = 0.5
) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() > began + seconds:
            raise SystemExit(f"Not within {seconds:.0f} s: {what}")
        time.sleep(step)
    return time.monotonic() - began


def ready(nodes: Sequence[Process]) -> bool:
    return all(node.ask("GET", "/readyz")[0] == 200 for node in nodes)


def member(node: Process, name: str) -> dict[str, Any]:
    told = json.loads(node.ask("GET", "/v1/cluster")[1] or b"{}")
    return next((m for m in told.get("members", []) if m["name"] == name), {})


def equal(nodes: Sequence[Process]) -> bool:
    """Whether every node has seen all its partitions equal since it started."""
    for node in nodes:
        told = json.loads(node.ask("GET", "/v1/repair")[1] or b"{}").get("partitions", [])
        if not told or any(p["last_equal"] is None or p["differing"] for p in told):
            return False
    return True


def store(node: Process) -> Path:
    return node.log.parent / node.name / "store"


def table(node: Process, name: str) -> dict[bytes, bytes]:
    """A table of a stopped node."""
    with lmdb.open(str(store(node)), max_dbs=16, readonly=True, lock=False) as env:
        db = env.open_db(name.encode(), create=False)
        with env.begin(db) as txn:
            return dict(txn.cursor())


def forget_hints(node: Process) -> int:
    """Removes what a stopped node has to tell others."""
    with lmdb.open(str(store(node)), max_dbs=16, map_size=1 << 40) as env:
        db = env.open_db(b"hints", create=False)
        with env.begin(write=True) as txn:
            count = int(txn.stat(db)["entries"])
            txn.drop(db, delete=False)
    return count


def put(node: Process, key: str, size: int) -> None:
    status, body = node.ask("PUT", KEYS + key, body_of(key, size, filler(size)))
    if not 200 <= status < 300:
        raise SystemExit(f"{key} cannot be put: {status} {body[:200]!r}")


def lost(folder: Path, objects: int) -> str:
    nodes = start_nodes(folder, N, OFTEN)
    try:
        nodes[0].ask("PUT", BUCKET)
        warm = result(load(nodes, "PUT", 0, prefix="warm", requests=objects))
        stored = [("warm", CLIENTS, warm["each"])]
        stay, victim = nodes[:2], nodes[2]
        before = phase(stay, stored, 20.0, "before")
        victim.kill()
        shutil.rmtree(folder / victim.name)
        began = time.monotonic()
        loads = [
            load(stay, "GET", 40.0, stored=stored),
            load(stay, "PUT", 40.0, prefix="during"),
        ]
        victim.restart()
        until("it begins to refill", lambda: bool(member(victim, victim.name).get("refill")), 60)
        during = {m: result(one) for m, one in zip(("GET", "PUT"), loads, strict=True)}
        until("it is whole", lambda: not member(victim, victim.name).get("refill"))
        took = time.monotonic() - began
        until("nobody holds hints", lambda: sum(m_hints(nodes)) == 0)
        until("all are equal", lambda: equal(nodes), step=2.0)
    finally:
        stop_all(nodes)
    first, *others = [table(node, "records") for node in nodes]
    same = all(other == first for other in others)
    rows = [
        f"{len(first)} records on each disk, byte-equal: {'yes' if same else 'NO'}; whole "
        f"{took:.0f} s after it was started empty, under load."
    ]
    for method in ("GET", "PUT"):
        a, b = before[method], during[method]
        rows.append(
            f"{method} 1 KiB, 8 clients: p99 {a['p99']:.1f} ms before, {b['p99']:.1f} ms meanwhile "
            f"({b['p99'] / a['p99']:.2f} times), errors {b['errors']} {b['first_error'][:120]}"
        )
    return "\n".join(rows)


def phase(
    nodes: Sequence[Process], stored: list[Any], seconds: float, prefix: str
) -> dict[str, dict[str, Any]]:
    loads = {
        "GET": load(nodes, "GET", seconds, stored=stored),
        "PUT": load(nodes, "PUT", seconds, prefix=prefix),
    }
    return {method: result(one) for method, one in loads.items()}


def m_hints(nodes: Sequence[Process]) -> list[int]:
    members = json.loads(nodes[0].ask("GET", "/v1/cluster")[1])["members"]
    return [m["hints"] for m in members]


def diverged(folder: Path, objects: int) -> str:
    nodes = start_nodes(folder, N, OFTEN)
    try:
        nodes[0].ask("PUT", BUCKET)
        result(load(nodes, "PUT", 0, prefix="warm", requests=objects))
        until("all are equal", lambda: equal(nodes), step=2.0)
        nodes[2].stop()
        for number in range(100):
            put(nodes[0], f"warm/0-{number * 97}", 2048)
        stop_all(nodes[:2])
        hints = sum(forget_hints(node) for node in nodes[:2])
        for node in nodes:
            node.start()
        until("all are ready", lambda: ready(nodes))
        took = until("all are equal", lambda: equal(nodes))
        repaired = metric(nodes, "dynamo_antientropy_keys_repaired_total")
        read = metric(nodes, "dynamo_antientropy_keys_read_total")
        listed = metric(nodes, "dynamo_antientropy_keys_listed_total")
    finally:
        stop_all(nodes)
    first, *others = [table(node, "records") for node in nodes]
    same = all(other == first for other in others)
    return (
        f"{hints} hints removed; equal {took:.1f} s after all were ready, byte-equal: "
        f"{'yes' if same else 'NO'}. Over the three nodes {repaired:.0f} copies were mended, "
        f"{read:.0f} records read and {listed:.0f} fingerprints listed, of {len(first)} keys "
        f"({100 * read / len(first):.2f} % and {100 * listed / len(first):.2f} %)."
    )


def flips(folder: Path, objects: int) -> str:
    nodes = start_nodes(
        folder, N, "repair: {scrub_interval: 5.0, scrub_bytes_per_second: 67108864}\n"
    )
    small = [f"small/{number}" for number in range(400)]
    large = [f"large/{number}" for number in range(100)]
    sizes = {**dict.fromkeys(small, 1024), **dict.fromkeys(large, 100_000)}
    try:
        nodes[0].ask("PUT", BUCKET)
        for key, size in sizes.items():
            put(nodes[0], key, size)
        until("all are equal", lambda: equal(nodes))
        victim = nodes[2]
        victim.stop()
        flipped = flip_records(victim, small[:FLIPS], 1024)
        victim.start()
        files = sorted((folder / victim.name / "chunks").glob("??/*"))[:FLIPS]
        for file in files:
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 0xFF
            file.write_bytes(data)
        until("all are ready", lambda: ready(nodes))
        wrong = failed = 0
        for node in nodes:
            for key, size in sizes.items():
                status, body = node.ask("GET", KEYS + key)
                failed += status != 200
                wrong += status == 200 and body != body_of(key, size, filler(size))
        passes = metric([victim], "dynamo_scrub_passes_total")
        until(
            "two scrubs",
            lambda: metric([victim], "dynamo_scrub_passes_total") >= passes + 2,
        )
        alone = sum(
            victim.ask("GET", KEYS + key + "?r=1")[1] == body_of(key, size, filler(size))
            for key, size in sizes.items()
        )
        corrupt = re.findall(
            r"^(dynamo_corrupt_total.*)$", victim.ask("GET", "/metrics")[1].decode(), re.M
        )
    finally:
        stop_all(nodes)
    whole = sum(file.exists() for file in files)
    return (
        f"{flipped} records and {len(files)} chunk files flipped; {len(sizes) * N} GETs through "
        f"all nodes: {wrong} with wrong bytes, {failed} failed. After a scrub {alone} of "
        f"{len(sizes)} objects are right at R=1 there, {whole} of {len(files)} chunk files back. "
        + ", ".join(corrupt)
    )


def flip_records(node: Process, keys: Sequence[str], size: int) -> int:
    """Flips a byte in the bodies of these records, in the file of a stopped node."""
    path = store(node) / "data.mdb"
    data = path.read_bytes()
    flipped = 0
    with path.open("r+b") as file:
        for key in keys:
            stamp = body_of(key, size, b"")
            places = [m.start() for m in re.finditer(re.escape(stamp), data)]
            for at in places:
                file.seek(at + 5)
                file.write(bytes([data[at + 5] ^ 0x01]))
            flipped += bool(places)
    return flipped


def deletes(folder: Path, objects: int) -> str:
    nodes = start_nodes(folder, N, "repair: {interval: 5.0}\n")
    keys = [f"gone/{number}" for number in range(DELETED)]
    try:
        nodes[0].ask("PUT", BUCKET)
        for key in keys:
            put(nodes[0], key, 1024)
        victim = nodes[2]
        victim.kill()
        for key in keys:
            status, body = nodes[0].ask("DELETE", KEYS + key)
            if status != 204:
                raise SystemExit(f"{key} cannot be deleted: {status} {body[:200]!r}")
        time.sleep(90.0)
        kept = metric(nodes[:1], "dynamo_tombstones")
        victim.restart()
        returned = sum(node.ask("GET", KEYS + key)[0] != 404 for node in nodes for key in keys)
        took = until("all tombstones are gone", lambda: metric(nodes, "dynamo_tombstones") == 0)
        returned += sum(node.ask("GET", KEYS + key)[0] != 404 for node in nodes for key in keys)
    finally:
        stop_all(nodes)
    left = sum(len(table(node, "records")) for node in nodes)
    return (
        f"{DELETED} deleted while a node was away; 90 s later {kept:.0f} tombstones on the first "
        f"node. After its return {returned} GETs found one, and {took:.0f} s after a first look at "
        f"all of them no tombstone was left: {left} records on the three disks."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"lost": lost, "diverged": diverged, "flips": flips, "deletes": deletes}
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="all, if none is named")
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--page", type=Path, help="a page to put the findings into")
    arguments = parser.parse_args()
    told = []
    for name in arguments.parts or parts:
        with tempfile.TemporaryDirectory(prefix=f"repair-{name}-") as folder:
            told.append(f"**{name}.** {parts[name](Path(folder), arguments.objects)}")
        print(told[-1], file=sys.stderr)
    publish("\n\n".join(told), arguments.page, "repair")


if __name__ == "__main__":
    main()
