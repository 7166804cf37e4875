"""A switch to an address that does not work."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Have the router drop what goes to the new address, and ask for it all the same."""
    await run.drop("router", "to 198.18.10.1")
    why = await run.switch_fails(
        "gateway", peer="client.lab.example", to="198.18.10.1", mechanism="notify", timeout=3.0
    )
    run.record("reason", "no-update" if "(no-update)" in why else why)
    await run.traffic(0.5)
