"""The sidecar dies, at several moments."""

from mobikectl.lab.run import Run

STALE = "198.18.77.1"
"""Where a steering route leads that nobody uses any more."""


async def steps(run: Run) -> None:
    """Kill it idle, start it again over a stale route, kill it while a link goes down, start it again."""
    if run.sidecar:
        killed = await run.sidecar_kill("client")
        await run.traffic(0.5)
        await run.losses("office", since=killed, metric="lost_idle")
        await run.route_add(
            "client", STALE, via="198.18.2.254", dev="wan2", src="198.18.2.1", table=109, metric=10, proto=109
        )
        await run.sidecar_start("client")
        await run.routes_gone("client", STALE, metric="stale_routes")
    down = await run.link_down("client", "wan1")
    if run.sidecar:
        await run.sidecar_kill("client")
    await run.served("office", "198.18.2.1", "198.18.9.1", after=down, metric="recovery_ms")
    if run.sidecar:
        await run.sidecar_start("client")
    await run.traffic(1.0)
