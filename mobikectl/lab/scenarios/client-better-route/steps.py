"""A better path appears."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Give wan1 its default route, wait for the failback, and see that it lasts."""
    better = await run.route_add("client", "default", via="198.18.1.254", dev="wan1", metric=100)
    await run.served("office", "198.18.1.1", "198.18.9.1", after=better, metric="failback_ms")
    await run.traffic(1.0)
