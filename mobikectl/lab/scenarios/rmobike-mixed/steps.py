"""A gateway with two kinds of clients."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Switch both clients; the stock one is not asked."""
    one = await run.switch("gateway", peer="client1.lab.example", to="198.18.10.1", metric="mechanism_one")
    await run.served("one", "198.18.1.1", "198.18.10.1", after=one, metric="one_ms")
    why = await run.switch_fails("gateway", peer="client2.lab.example", to="198.18.10.1", mechanism="notify")
    run.record("refused", "yes" if "did not announce" in why else why)
    two = await run.switch("gateway", peer="client2.lab.example", to="198.18.10.1", metric="mechanism_two")
    await run.served("two", "198.18.2.1", "198.18.10.1", after=two, metric="two_ms")
    await run.traffic(0.5)
