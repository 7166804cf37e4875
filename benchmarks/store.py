"""What nodes that share an SQLite store need to report and watch: with few changes in it, and with as many as it keeps.

    python benchmarks/store.py [--json OUT] [--nodes N] [--seconds S]

Each node is a process of its own that writes four times a second and follows what the others write, as a sidecar does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

from mobikectl.cluster.backend import MAX_WRITES, Change, Gap, Write
from mobikectl.cluster.settings import SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT = (MAX_WRITES, SqliteSettings().history)
EVERY_S = 0.25
OCTETS = 500
SETTLED_S = 1.0


async def fill(path: Path, changes: int) -> None:
    """Make a store with so many changes."""
    backend = SqliteBackend(SqliteSettings(path))
    for _ in range(0, changes, MAX_WRITES):
        await backend.commit([], [Write(f"/fill/{key}", bytes(OCTETS)) for key in range(MAX_WRITES)])
    await backend.close()


def reads() -> int:
    """Return how many system calls that read this process made (proc(5), ``io``)."""
    words = Path("/proc/self/io").read_text().split()
    return int(words[words.index("syscr:") + 1])


async def node(path: Path, name: str, seconds: float) -> dict[str, float]:
    """Be a node; return CPU seconds and reads per second, and the median milliseconds until a change was seen."""
    backend = SqliteBackend(SqliteSettings(path))
    delays: list[float] = []

    def note(change: Change | Gap) -> None:
        if isinstance(change, Change) and change.value and not change.key.endswith(name):
            delays.append(time.monotonic() - float(change.value[:20]))

    async def follow() -> None:
        async with aclosing(
            backend.watch("/node/", after=(await backend.read("/node/")).revision)
        ) as changes:
            async for change in changes:
                note(change)

    following = asyncio.create_task(follow())
    await asyncio.sleep(SETTLED_S)
    before, calls, end = resource.getrusage(resource.RUSAGE_SELF), reads(), time.monotonic() + seconds
    while time.monotonic() < end:
        value = f"{time.monotonic():020.6f}".encode() + bytes(OCTETS)
        await backend.commit([], [Write(f"/node/{name}", value)])
        await asyncio.sleep(EVERY_S)
    after, calls = resource.getrusage(resource.RUSAGE_SELF), reads() - calls
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await backend.close()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu / seconds, "reads": calls / seconds, "seen_ms": 1000 * median(delays)}


def be_node(path: Path, name: str, seconds: float) -> Mapping[str, float]:
    """As `node`, in a process of its own."""
    return asyncio.run(node(path, name, seconds))


def measure(kept: int, nodes: int, seconds: float) -> dict[str, float]:
    """Return the means of all nodes with so many changes in the store."""
    with tempfile.TemporaryDirectory() as folder, multiprocessing.Pool(nodes) as pool:
        path = Path(folder) / "cluster.db"
        asyncio.run(fill(path, kept))
        found = pool.starmap(be_node, [(path, f"n{i}", seconds) for i in range(nodes)])
    return {"kept": kept, **{key: round(mean(one[key] for one in found), 3) for key in found[0]}}


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    results = [measure(kept, options.nodes, options.seconds) for kept in KEPT]
    print(f"{'changes kept':>12} {'CPU of a node':>14} {'reads/s':>8} {'seen after':>11}")
    for one in results:
        print(
            f"{one['kept']:>12.0f} {100 * one['cpu']:>12.1f} % {one['reads']:>8.0f} {one['seen_ms']:>8.1f} ms"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
