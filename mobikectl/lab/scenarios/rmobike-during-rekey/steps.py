"""Switches in the middle of rekeyings."""

import asyncio
import signal
from typing import Any

from mobikectl.lab import vici
from mobikectl.lab.run import Run

PAUSE_S = 0.1
"""How long the client leaves the gateway's requests without an answer: less than it takes to be sent again."""


async def steps(run: Run) -> None:
    """Three times: the gateway begins to rekey, the client is slow to answer, and the switch is asked for meanwhile."""
    overlaps = 0
    for number, (what, target) in enumerate(
        (("ike", "198.18.10.1"), ("child", "198.18.9.1"), ("ike", "198.18.10.1"))
    ):
        client = run.lab.charon("client")
        run.lab.signal(client, signal.SIGSTOP)
        try:
            await run.command(
                "gateway", "swanctl", "--rekey", f"--{what}", "home", label=f"rekeys the {what}"
            )
            asking = asyncio.create_task(run.switch("gateway", peer="client.lab.example", to=target))
            await asyncio.sleep(PAUSE_S)
            overlaps += "REKEYING" in states(await _listed(run))
        finally:
            run.lab.signal(client, signal.SIGCONT)
        switch = await asking
        await run.served("home", "198.18.1.1", target, after=switch, metric=f"switched_{number}_ms")
        await run.traffic(0.3)
    run.record("overlaps", overlaps)
    run.record("left", sum(sa["state"] == "ESTABLISHED" for _, sa in await _listed(run)))


async def _listed(run: Run) -> list[tuple[str, dict[str, Any]]]:
    return await asyncio.to_thread(vici.list_sas, run.lab.vici_socket("gateway"))


def states(listed: list[tuple[str, dict[str, Any]]]) -> set[str]:
    """Given listed IKE_SAs, return the states of them and of their CHILD_SAs."""
    children = (child for _, sa in listed for child in sa.get("child-sas", {}).values())
    return {sa["state"] for _, sa in listed} | {child["state"] for child in children}
