"""Gateways that stand still, as a machine does that lost its power: nothing goes in or out, and nobody is told."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobikectl.lab.run import Run

ROUTER = "router"


async def stand_still(run: Run, gateways: Sequence[str], uplinks: Iterable[str]) -> None:
    """Given gateways, and their uplinks as the router calls them, stop their charons and sidecars and cut them off."""
    _signal(run, gateways, signal.SIGSTOP)
    for dev in uplinks:
        await run.drop(ROUTER, f"iif {dev}")


async def go_on(run: Run, gateways: Sequence[str]) -> None:
    """Given gateways that stand still, let them go on, and wait until they are members again. Raise LabError."""
    await run.undrop(ROUTER)
    run.cause(f"{' and '.join(gateways)} {'goes' if len(gateways) == 1 else 'go'} on")
    _signal(run, gateways, signal.SIGCONT)
    for gateway in gateways:
        await run.the_cluster.present(gateway)


def taken_over(run: Run, by: str) -> int:
    """Given who stood by, return how many IKE_SAs of others it serves by a failover."""
    return sum(
        move["reason"] == "failover" and move["target"] == by and move["steps"][-1]["state"] == "verified"
        for move in run.the_cluster.moves.values()
    )


def _signal(run: Run, gateways: Iterable[str], number: signal.Signals) -> None:
    for gateway in gateways:
        for who in (run.lab.charon(gateway), run.lab.newest(gateway, "sidecar")):
            run.lab.signal(who, number)
