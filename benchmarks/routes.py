"""What one change of a route costs the charon of a gateway with N IKE_SAs, as its settings are.

    python benchmarks/routes.py [--json OUT] [--sas 500]

Needs what benchmarks/charon.py needs, whose lab it is. There are two routes for each IKE_SA: one to the client's own
address, and the one that ESP in userland makes to its virtual address.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from charon import bring_up, build, load

from mobikectl.charon import Session, commands

if TYPE_CHECKING:
    from charon import Node

CHANGES = 5
SETTLE_S = 3.0
QUIET_S = 1.5
"""charon reacts 100 ms after a change, and is done when it used no processor for so long."""

WAYS = {
    "install_routes = no": "",
    "install_routes = yes": "charon { install_routes = yes }",
    "install_routes = yes, fwmark": "charon { install_routes = yes\n plugins { kernel-netlink { fwmark = !0x42 }"
    " socket-default { fwmark = 0x42 } } }",
}


async def quiet(gateway: Node) -> tuple[float, float]:
    """Wait until charon is quiet; return its CPU time by then and when it was last busy (seconds)."""
    used, busy = gateway.cpu(), time.monotonic()
    while time.monotonic() - busy < QUIET_S:
        await asyncio.sleep(0.05)
        if (now := gateway.cpu()) != used:
            used, busy = now, time.monotonic()
    return used, busy


def routes(gateway: Node) -> int:
    shown = subprocess.run(
        ["ip", "-n", gateway.netns, "route", "show", "table", "all"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return len(shown.stdout.splitlines())


async def measure(count: int, conf: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mkbench-") as home, ExitStack() as stack:
        gateway, clients = build(stack, count, Path(home), gateway_conf=conf)
        async with Session(gateway.socket, timeout=60.0) as session:
            sessions = [(Session(node.socket, timeout=60.0), numbers) for node, numbers in clients]
            await load(session, sessions)
            await bring_up(session, sessions, count)
            for client, _ in sessions:
                await client.aclose()
            await asyncio.sleep(SETTLE_S)
            cpu, took = [], []
            for number in range(CHANGES):
                before, start = gateway.cpu(), time.monotonic()
                gateway.ip(f"route add 198.18.{100 + number}.0/24 via 198.18.200.2")
                used, busy = await quiet(gateway)
                cpu.append(used - before)
                took.append(busy - start)
            sas = (await commands.stats(session)).ike_sas
        return {
            "sas": float(sas),
            "routes": float(routes(gateway)),
            "charon_cpu_s": statistics.median(cpu),
            "quiet_after_s": statistics.median(took),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sas", type=int, default=500)
    args = parser.parse_args()
    results = {}
    for name, conf in WAYS.items():
        results[name] = asyncio.run(measure(args.sas, conf))
        told = ", ".join(f"{key} {value:.2f}" for key, value in results[name].items())
        print(f"{name}: {told}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
