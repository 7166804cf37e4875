"""Switches with a rekeying close behind."""

import asyncio
from typing import Any

from mobikectl.lab import vici
from mobikectl.lab.run import Run

TARGETS = ("198.18.10.1", "198.18.9.1")
DELAYS_MS = (0, 10, 20, 25, 40)
"""The client starts its update 20 ms after it was asked. It follows five switches at once, by default."""


async def steps(run: Run) -> None:
    """Ask for a switch, rekey the IKE_SA so long after it, and see both through."""
    for number, delay in enumerate(DELAYS_MS):
        target = TARGETS[number % 2]
        asking = asyncio.create_task(run.switch("gateway", peer="client.lab.example", to=target))
        await asyncio.sleep(delay / 1000)
        run.cause(f"gateway: rekeys, {delay} ms after the switch")
        await asyncio.to_thread(vici.call, run.lab.vici_socket("gateway"), _rekey)
        switch = await asking
        await run.served("home", "198.18.1.1", target, after=switch, metric=f"switched_{delay}_ms")
        await run.traffic(0.3)
    listed = await asyncio.to_thread(vici.list_sas, run.lab.vici_socket("gateway"))
    run.record("left", sum(sa["state"] == "ESTABLISHED" for _, sa in listed))


def _rekey(session: Any) -> None:
    session.rekey({"ike": "home"})
