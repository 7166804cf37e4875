"""A responder asks for a switch, there and back."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Ask the client to the second address and back; both times it follows."""
    there = await run.switch("gateway", peer="client.lab.example", to="198.18.10.1", mechanism="notify")
    await run.served("home", "198.18.1.1", "198.18.10.1", after=there, metric="switched_ms")
    await run.traffic(0.5)
    back = await run.switch("gateway", peer="client.lab.example", to="198.18.9.1")
    await run.served("home", "198.18.1.1", "198.18.9.1", after=back, metric="back_ms")
    await run.traffic(0.5)
