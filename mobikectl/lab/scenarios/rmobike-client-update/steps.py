"""The uplink in use goes down; the plugin updates the addresses."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Take wan1 down, wait for wan2, and see that it lasts."""
    down = await run.link_down("client", "wan1")
    await run.served("office", "198.18.2.1", "198.18.9.1", after=down, metric="recovery_ms")
    await run.traffic(1.0)
    verified = [event for _, event in run.journal.sidecar_events if event["name"] == "move-verified"]
    if verified:
        run.record("mechanism", verified[-1]["data"]["mechanism"])
