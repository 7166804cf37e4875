"""The whole sidecar as its users run it: from a cause to the route that answers it, and what it costs at rest.

    python benchmarks/sidecar.py [--json OUT] [--moves 200] [--sas 1000 3000] [--idle SECONDS]

Needs root, iproute2 and strongSwan: it makes labs and namespaces of its own and removes them. Causes are set by
netlink in this process, so that no other program's start is measured; times are CLOCK_MONOTONIC of one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import charon as many
from pyroute2 import IPRoute
from rich.progress import Progress

from mobikectl.charon import Session
from mobikectl.control import ControlClient

MOBIKECTL = [sys.executable, "-m", "mobikectl"]
DEADLINE = 30.0


def quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "n": len(ordered),
        "median_ms": round(statistics.median(ordered) * 1e3, 3),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3, 3),
    }


class Sidecar:
    """A sidecar process in a namespace."""

    def __init__(self, namespace: str, charon: Path, home: Path) -> None:
        self.control = home / "control.sock"
        config = home / "mobikectl.toml"
        config.write_text(
            f'[charon]\nsocket = "{charon}"\n[control]\nsocket = "{self.control}"\n[log]\nlevel = "error"\n'
            '[paths]\nhold_down_s = 600.0\n[[paths.interfaces]]\npattern = "wan*"\nuse = true\n'
        )
        argv = ["ip", "netns", "exec", namespace, *MOBIKECTL, "run", "--config", str(config)]
        self.process = subprocess.Popen(argv)

    async def ready(self) -> None:
        async with asyncio.timeout(DEADLINE):
            while not self.control.exists():
                await asyncio.sleep(0.02)
            async with ControlClient(self.control) as client:
                while not (await client.health())["ok"]:
                    await asyncio.sleep(0.02)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE)


@contextlib.contextmanager
def lab() -> Any:
    name = f"bench-{secrets.token_hex(3)}"
    subprocess.run(
        [*MOBIKECTL, "lab", "up", "client-link-down", "--name", name], check=True, stdout=subprocess.DEVNULL
    )
    try:
        yield f"mobikectl-{name}-client", Path("/run/mobikectl-lab", name, "client", "charon.vici")
    finally:
        subprocess.run([*MOBIKECTL, "lab", "down", name], check=True, stdout=subprocess.DEVNULL)


async def latencies(moves: int) -> dict[str, Any]:
    """Take the link in use down, again and again, and follow the answer."""
    with lab() as (namespace, charon), tempfile.TemporaryDirectory() as home:
        sidecar = Sidecar(namespace, charon, Path(home))
        try:
            await sidecar.ready()
            async with ControlClient(sidecar.control) as client:
                with Links(namespace) as links:
                    return await _alternate(links, client, moves)
        finally:
            sidecar.stop()


class Links:
    """The client's uplinks, taken down and brought up again by netlink from a thread of their own."""

    HOPS: ClassVar = {"wan1": ("198.18.1.254", 100), "wan2": ("198.18.2.254", 200)}

    def __init__(self, namespace: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._ip = self._thread.submit(IPRoute, netns=namespace).result()

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.submit(self._ip.close).result()
        self._thread.shutdown()

    async def down(self, link: str) -> float:
        """Return the moment just before it went down."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._down, link)

    async def up(self, link: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._up, link)

    def _down(self, link: str) -> float:
        index = self._ip.link_lookup(ifname=link)[0]
        cause = time.monotonic()
        self._ip.link("set", index=index, state="down")
        return cause

    def _up(self, link: str) -> None:
        index = self._ip.link_lookup(ifname=link)[0]
        self._ip.link("set", index=index, state="up")
        gateway, metric = self.HOPS[link]
        self._ip.route("add", dst="0.0.0.0/0", gateway=gateway, oif=index, priority=metric)


async def _alternate(links: Links, client: ControlClient, moves: int) -> dict[str, Any]:
    steps: defaultdict[str, list[float]] = defaultdict(list)
    words = {"link-down": "netlink", "move": "decision", "move-requested": "route", "move-moved": "moved"}
    with Progress(transient=True) as bar:
        task = bar.add_task("moves", total=moves)
        async with contextlib.aclosing(client.events()) as events:
            for number in range(moves):
                link = ("wan1", "wan2")[number % 2]
                cause = await links.down(link)
                seen: dict[str, float] = {}
                async with asyncio.timeout(DEADLINE):
                    async for event in events:
                        if event["name"] in words and event["at"] >= cause:
                            seen.setdefault(words[event["name"]], event["at"])
                        if event["name"] in {"move-verified", "move-failed", "move-undone"}:
                            break
                for step, at in seen.items():
                    steps[f"cause to {step}"].append(at - cause)
                    if "netlink" in seen and step != "netlink":
                        steps[f"netlink to {step}"].append(at - seen["netlink"])
                await links.up(link)
                await _probed(events, link)
                bar.advance(task)
    return {name: quantiles(values) for name, values in sorted(steps.items())}


async def _probed(events: Any, link: str) -> None:
    """Wait until the sidecar found that the link works again."""
    async with asyncio.timeout(DEADLINE):
        async for event in events:
            if event["name"] == "path-up" and event["data"]["link"] == link:
                return


async def at_rest(count: int, idle_s: float) -> dict[str, Any]:
    """A gateway with `count` IKE_SAs: start, memory, CPU at rest and while all come up."""
    with tempfile.TemporaryDirectory(prefix="mkbench-") as home, ExitStack() as stack:
        gateway, clients = many.build(stack, count, Path(home))
        sessions = [(Session(node.socket, timeout=60.0), numbers) for node, numbers in clients]
        session = Session(gateway.socket, timeout=60.0)
        await many.load(session, sessions)
        sidecar = Sidecar(gateway.netns, gateway.socket, Path(home))
        try:
            await sidecar.ready()
            before = sidecar.cpu_s()
            start, up = await many.bring_up(session, sessions, count)
            async with ControlClient(sidecar.control) as client:
                in_step = await _in_step(client, count)
            coming_up = sidecar.cpu_s() - before
            await asyncio.sleep(3)
            idle_from = sidecar.cpu_s()
            await asyncio.sleep(idle_s)
            idle = sidecar.cpu_s() - idle_from
            return {
                "sas": count,
                "all up after s": round(up - start, 2),
                "model in step after further ms": round(max(0.0, in_step - up) * 1e3, 1),
                "CPU while they came up, ms per SA": round(coming_up / count * 1e3, 3),
                "idle CPU, % of a core": round(idle / idle_s * 100, 3),
                "RSS MB": round(sidecar.rss_mb(), 1),
            }
        finally:
            sidecar.stop()
            for one in (session, *(client for client, _ in sessions)):
                await one.aclose()


async def _in_step(client: ControlClient, count: int) -> float:
    async with asyncio.timeout(60):
        while True:
            state = await client.state()
            if len(state["sas"]) >= count:
                return time.monotonic()
            await asyncio.sleep(0.05)


def show(result: dict[str, Any]) -> None:
    print(f"{'latency':<24}{'n':>6}{'median ms':>12}{'p99 ms':>10}")
    for name, one in result["latency"].items():
        print(f"{name:<24}{one['n']:>6}{one['median_ms']:>12}{one['p99_ms']:>10}")
    for row in result["at rest"]:
        print(", ".join(f"{key} {value}" for key, value in row.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--sas", type=int, nargs="*", default=[1000, 3000])
    parser.add_argument("--idle", type=float, default=20.0)
    options = parser.parse_args()
    result = {
        "latency": asyncio.run(latencies(options.moves)),
        "at rest": [asyncio.run(at_rest(count, options.idle)) for count in options.sas],
    }
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
