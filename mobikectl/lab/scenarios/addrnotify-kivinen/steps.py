"""Address lists, both ways."""

import asyncio
from ipaddress import ip_address

from mobikectl.bridge.events import Delivered, Restarted
from mobikectl.errors import LabError
from mobikectl.lab.exchange import log_end, messages_since
from mobikectl.lab.run import Cause, Run
from mobikectl.lab.speaking import Speaker, speaking
from mobikectl.protocol.addrnotify import Moved
from mobikectl.wire.bridge import Spoken


async def steps(run: Run) -> None:
    """Each end announces its other address, and is followed."""
    start = log_end(run.lab, "client")
    async with (
        speaking(run, "client", Spoken.KIVINEN) as client,
        speaking(run, "gateway", Spoken.KIVINEN, serve=False) as gateway,
    ):
        there = await announce(run, client, "198.18.2.1", "198.18.1.1")
        await client.until(Delivered)
        await run.served("home", "198.18.2.1", "198.18.9.1", after=there, metric="client_ms")
        run.record("gateway_followed", await followed(run, there))
        await run.traffic(0.5)
        back = await announce(run, gateway, "198.18.10.1", "198.18.9.1")
        run.record("client_followed", str((await client.until(Moved)).pair.path))
        await run.served("home", "198.18.2.1", "198.18.10.1", after=back, metric="gateway_ms")
        await run.traffic(0.5)
        run.show(
            "draft-kivinen-mobike-protocol-00, seen by the client", messages_since(run.lab, "client", start)
        )
        await run.drop("router", "to 198.18.9.1")
        seen = len(client.told)
        await announce(run, gateway, "198.18.9.1", "198.18.10.1")
        run.record("dead_address", (await client.until(Restarted, since=seen)).reason)
        await run.traffic(0.5)


async def announce(run: Run, end: Speaker, *addresses: str) -> Cause:
    """Have one end announce its addresses, the preferred one first."""
    cause = run.cause(f"{end.node}: prefers {addresses[0]}")
    await end.only(Spoken.KIVINEN).ask(
        lambda machine, now: machine.notify([ip_address(address) for address in addresses], now)
    )
    return cause


async def followed(run: Run, cause: Cause) -> str:
    """Wait until the gateway's sidecar tells that it has followed; return the pair that it uses."""
    try:
        async with asyncio.timeout(20):
            while not (moved := run.told("gateway", "moved", since=cause)):  # noqa: ASYNC110 (it comes by itself)
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise LabError("the gateway's sidecar told of no move", hint="see sidecar.out") from None
    pair = moved[-1]["data"]["pair"]
    return f"{pair['local']['ip']} -> {pair['remote']['ip']}"
