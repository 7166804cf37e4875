"""A router drops packets silently."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Drop what comes from and goes to wan1, wait for wan2, and see that it lasts."""
    drops = await run.drop("router", "iif client1")
    await run.drop("router", "to 198.18.1.1")
    if not run.sidecar:
        await run.traffic(3.0)
        return
    await run.served("office", "198.18.2.1", "198.18.9.1", after=drops, metric="recovery_ms")
    await run.traffic(1.0)
