"""New clients go where there is room, and nowhere while nobody knows where that is."""

import asyncio
import time
from collections.abc import Callable
from ipaddress import ip_address

from mobikectl.charon.rmobike import RedirectExchange, Rmobike
from mobikectl.lab.run import Run

WITHIN = 20.0
"""Seconds within which redirects, and clients, follow what happens."""


async def steps(run: Run) -> None:
    """Have a client come anew; take the gateway's store from it; drain it, and have another client come."""
    cluster = run.the_cluster
    await cluster.led()
    async with Rmobike(run.lab.plugin_socket("gateway1")) as plugin:
        await _until(run, plugin, any)
        run.record("placed", await _comes(run, plugin, 1))
        run.cause("gateway1 loses the store")
        await cluster.cut_off("gateway1")
        alone = await _until(run, plugin, lambda found: not any(found))
        run.record("redirected_when_alone", sum(gateway is not None for gateway in alone))
        await cluster.join_again("gateway1")
        await _until(run, plugin, any)
        await cluster.mobikectl("gateway2", "pause", "--note", "only new clients are looked at")
        await cluster.mobikectl("gateway2", "drain", "gateway1")
        drained = await _until(run, plugin, all)
        run.record("kept_when_drained", sum(gateway is None for gateway in drained))
        run.record("placed_when_drained", await _comes(run, plugin, 2))
    run.record("routes_left", await cluster.leaked_routes())


async def _gateways(run: Run, plugin: Rmobike) -> list[str | None]:
    """Return where each client would be sent now; None: it would be kept."""
    exchange = RedirectExchange.IKE_SA_INIT
    clients = [ip_address(str(tunnel.local)) for tunnel in run.fleets["fleet"].tunnels]
    return [(await plugin.explain_redirect(exchange, client)).gateway for client in clients]


async def _until(run: Run, plugin: Rmobike, true: Callable[[list[str | None]], bool]) -> list[str | None]:
    async with asyncio.timeout(WITHIN):
        while not true(found := await _gateways(run, plugin)):  # noqa: ASYNC110 (the plugin tells no event)
            await asyncio.sleep(0.1)
    return found


async def _comes(run: Run, plugin: Rmobike, count: int) -> int:
    """Have the next client that would be sent away come anew; return how many the second gateway serves then."""
    fleet = run.fleets["fleet"]
    gateways = await _gateways(run, plugin)
    sent = [tunnel for tunnel, gateway in zip(fleet.tunnels, gateways, strict=True) if gateway]
    await run.reconnect("clients", sent[count - 1].name)
    deadline = time.monotonic() + WITHIN
    served = 0
    while served < count and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        served = await run.the_cluster.served_by("gateway2")
    await run.traffic(1.0)
    return await run.the_cluster.served_by("gateway2")
