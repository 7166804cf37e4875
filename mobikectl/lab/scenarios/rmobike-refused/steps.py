"""A client that refuses."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Ask; the client acknowledges, and does not follow."""
    why = await run.switch_fails(
        "gateway", peer="client.lab.example", to="198.18.10.1", mechanism="notify", timeout=2.0
    )
    run.record("reason", "no-update" if "(no-update)" in why else why)
    await run.traffic(0.5)
