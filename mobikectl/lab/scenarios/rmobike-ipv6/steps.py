"""A responder asks for a switch over IPv6."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Ask the client to the gateway's second address."""
    switch = await run.switch("gateway", peer="client.lab.example", to="2001:db8:a::1", mechanism="notify")
    await run.served("home", "2001:db8:1::1", "2001:db8:a::1", after=switch, metric="switched_ms")
    await run.traffic(0.5)
