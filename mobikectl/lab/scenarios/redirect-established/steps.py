"""A client with an established IKE_SA is sent to another gateway."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Redirect, and wait until the client is served by the second gateway."""
    switch = await run.switch("gateway1", peer="client.lab.example", to="198.18.10.1", mechanism="redirect")
    await run.served("home", "198.18.1.1", "198.18.10.1", after=switch, metric="switched_ms")
    await run.traffic(0.5)
