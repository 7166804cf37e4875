"""A client behind a NAT: only one of the two ways works."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Try the implicit way, which fails; then ask the client, which follows."""
    peer = "client.lab.example"
    await run.switch_fails("gateway", peer=peer, to="198.18.10.1", mechanism="implicit", timeout=1.0)
    run.record("implicit", "failed")
    await run.traffic(0.3)
    switch = await run.switch("gateway", peer=peer, to="198.18.10.1")
    await run.served("home", "198.18.1.1", "198.18.10.1", after=switch, metric="switched_ms")
    await run.traffic(0.5)
