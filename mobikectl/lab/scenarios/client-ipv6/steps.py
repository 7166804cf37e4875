"""The uplink in use goes down; IPv6."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Take wan1 down, wait for wan2, and see that it lasts."""
    down = await run.link_down("client", "wan1")
    await run.served("office", "2001:db8:2::1", "2001:db8:9::1", after=down, metric="recovery_ms")
    await run.traffic(1.0)
