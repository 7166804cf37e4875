"""Moves in the middle of rekeyings."""

import asyncio
import signal
from functools import partial

from mobikectl.lab import vici
from mobikectl.lab.moving import Client
from mobikectl.lab.run import Run
from mobikectl.lab.wait import until

SLOW_S = 0.2
"""How long the client still leaves the gateway's requests without an answer when the move has begun."""
ROUNDS = ("child", "ike", "ike", "child")


async def rekeys(run: Run, gateway: str) -> bool:
    """Whether a gateway's charon is in the middle of a rekeying."""
    listed = await asyncio.to_thread(vici.list_sas, run.lab.vici_socket(gateway))
    states = {sa["state"] for _, sa in listed}
    return "REKEYING" in states | {
        child["state"] for _, sa in listed for child in sa.get("child-sas", {}).values()
    }


async def steps(run: Run) -> None:
    """Four times: as a move begins, its source begins to rekey, and the client is slow to answer."""
    cluster, client = run.the_cluster, Client(run, "tunnel", desk="gateway3")
    charon = run.lab.charon("client")
    await cluster.carrying({"gateway1": 1})
    overlaps = moved = arrived = 0
    for what in ROUNDS:
        source = await client.owned()
        target = "gateway2" if source == "gateway1" else "gateway1"
        trap = run.handovers.trap(source, "source: offering")
        ordering = asyncio.create_task(client.order(target))
        try:
            await trap.sprung(within=60.0)
            run.lab.signal(charon, signal.SIGSTOP)
            swanctl = ("swanctl", "--rekey", f"--{what}", "tunnel")
            rekeying = asyncio.create_task(run.command(source, *swanctl, label=f"rekeys the {what}"))
            await until(partial(rekeys, run, source), within=10.0, what=f"{source} rekeys", every=0.01)
            trap.release()
            await asyncio.sleep(SLOW_S)
            overlaps += await rekeys(run, source)
        finally:
            run.handovers.remove(trap)
            run.lab.signal(charon, signal.SIGCONT)
        await rekeying
        moved += await client.ended(await ordering) == "verified"
        arrived += await client.owned() == target
        await client.answers()
    run.record("overlaps", overlaps)
    run.record("moved", moved)
    run.record("arrived", arrived)
