"""Takes the pictures of docs/pictures from labs of real charons: the web page during a drain, and two timelines.

`make pictures` runs it, as root. It needs Chromium, and calls itself in a gateway's namespace, where the page is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from mobikectl.errors import LabError
from mobikectl.lab.engine import bring_up
from mobikectl.lab.instance import Lab
from mobikectl.lab.scenario import SCENARIOS
from mobikectl.lab.sidecars import start_sidecar
from mobikectl.lab.store import CONFIGURATION
from mobikectl.lab.topology import parse_topology
from tests.browser.devtools import browser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

PICTURES = Path(__file__).parent / "pictures"
CLIENTS = 20
"""Of the failover's lab."""
SAS = 60
"""What a gateway carries: its bars are to be seen."""
COLOURS = 160
PORT = 9110
MOBIKECTL = (sys.executable, "-m", "mobikectl")
WIDTH, HEIGHT = 1280, 860
MIDWAY = 15
"""So many IKE_SAs have arrived when the page is taken."""
READY = "ready"


@contextlib.asynccontextmanager
async def running(scenario: str) -> AsyncIterator[Lab]:
    """Give a scenario's lab with its sidecars, each of which serves the page on its loopback."""
    folder_of = SCENARIOS / scenario
    data = tomllib.loads((folder_of / "scenario.toml").read_text())
    data["cluster"] |= {"capacity": {"sas": SAS}, "balance": "manual"}
    topology = parse_topology(data, where=scenario, store="sqlite")
    made = Lab.new(f"pictures-{secrets.token_hex(2)}", scenario, topology, esp="userland")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gateways = [node for node in topology.nodes.values() if node.sidecar]
        for gateway in gateways:
            text = (folder_of / gateway.sidecar).read_text()
            (folder / gateway.sidecar).write_text(f"{text}\n[web]\nport = {PORT}\n")
        try:
            await made.up()
            await bring_up(made)
            await asyncio.gather(*(start_sidecar(made, gateway.name, folder) for gateway in gateways))
            yield made
        finally:
            await made.down()


async def mobikectl(lab: Lab, *args: str) -> str:
    """Run a command on the second gateway, and return what it says."""
    return await lab.run_in("gateway2", *MOBIKECTL, *args, "--config", f"/run/{CONFIGURATION}", deadline=90)


async def drawn(lab: Lab, name: str, title: str) -> None:
    """Draw what the lab's cluster did."""
    await mobikectl(lab, "timeline", "--history", "--title", title, "--out", str(PICTURES / name))


async def until(lab: Lab, true: Callable[[Any], bool], *args: str) -> None:
    """Run a command on the second gateway until what it tells is so."""
    async with asyncio.timeout(150):
        while not true(json.loads(await mobikectl(lab, *args, "--json"))):  # noqa: ASYNC110 (a command is asked)
            await asyncio.sleep(0.5)


async def drain() -> None:
    """The page in the middle of a drain, and the drain's timeline."""
    async with running("drain-live") as lab:
        await until(lab, lambda told: all(node["carries"] for node in told["nodes"]), "nodes")
        argv = lab.command("gateway2", (sys.executable, "-m", "docs.pictures", "page"))
        taker = await asyncio.create_subprocess_exec(
            *argv, env=lab.environment("gateway2"), stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(180):
            if taker.stdout is None or (await taker.stdout.readline()).decode().strip() != READY:
                raise LabError("the page did not come", hint="open it by hand: mobikectl lab up drain-live")
            await mobikectl(lab, "drain", "gateway1", "--rate", "4", "--note", "new disk")
            if await taker.wait() != 0:
                raise LabError("the page was not taken", hint="see above")
        await until(
            lab, lambda told: told["nodes"][0]["ike_sas"] == 0 and not told["moves_under_way"], "nodes"
        )
        await drawn(lab, "drain-live.svg", "drain-live: 50 clients are carried over to gateway2")


async def page() -> None:
    """Take the page, light and dark, while dots are on their way. Runs inside the gateway's namespace."""
    with tempfile.TemporaryDirectory() as name:
        async with browser(Path(name)) as seen:
            await seen.open(f"http://127.0.0.1:{PORT}/")
            await seen.picture(Path(name) / "warm.png", width=WIDTH, height=HEIGHT, dark=False)
            await seen.until("document.querySelectorAll('[data-node=gateway1] .dots i').length >= 50")
            sys.stdout.write(f"{READY}\n")
            sys.stdout.flush()
            await seen.until(f"document.querySelectorAll('[data-node=gateway2] .dots i').length >= {MIDWAY}")
            for dark in (False, True):
                file = PICTURES / f"page-{'dark' if dark else 'light'}.png"
                await seen.picture(file, width=WIDTH, height=HEIGHT, dark=dark)
                with Image.open(file) as taken:
                    small = taken.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT)
                small.save(file, optimize=True)


async def failover() -> None:
    """The timeline of a gateway that stands still."""
    async with running("failover-live") as lab:
        await until(lab, lambda told: all(ready(told)), "nodes")
        for who in (lab.charon("gateway1"), lab.newest("gateway1", "sidecar")):
            lab.signal(who, signal.SIGSTOP)
        await until(lab, lambda moves: sum(map(stood_in, moves)) >= CLIENTS, "history")
        await drawn(lab, "failover-live.svg", "failover-live: gateway1 stands still")
        for who in (lab.charon("gateway1"), lab.newest("gateway1", "sidecar")):
            lab.signal(who, signal.SIGCONT)


def ready(told: Any) -> Iterator[bool]:
    """Given what `nodes` tells, yield whether the first gateway serves all, and the second has a copy of each."""
    for node in told["nodes"]:
        yield node["ike_sas" if node["node"] == "gateway1" else "standby"] >= CLIENTS


def stood_in(move: Any) -> bool:
    """Given a move as `history` tells it, return whether a gateway serves a dead one's client since then."""
    return bool(move["reason"] == "failover" and move["state"] == "verified")


def main() -> None:
    """Take all, or the one that is named."""
    if os.geteuid() != 0:
        sys.exit("run this as root: it makes network namespaces")
    PICTURES.mkdir(exist_ok=True)
    works = {"drain": drain, "failover": failover, "page": page}
    for name in sys.argv[1:] or ["drain", "failover"]:
        asyncio.run(works[name]())


if __name__ == "__main__":
    main()
