"""Load is lopsided; the cluster evens it out."""

from mobikectl.lab.run import Run

HEAVY = 30_000.0
"""Bytes/s of a client that sends much."""
WINDOW = 2.0
"""Seconds over which the spread is measured on the wire."""


async def steps(run: Run) -> None:
    """Load the clients of one address while an operator has all moves wait, then let the cluster act."""
    fleet, cluster = run.fleets["fleet"], run.the_cluster
    await cluster.led()
    await cluster.mobikectl("gateway2", "pause")
    run.cause("clients: lopsided load")
    first = fleet.tunnels[0].remote
    fleet.load.set({t.name: HEAVY for t in fleet.tunnels if t.remote == first})
    await run.traffic(WINDOW)
    paused = cluster.count_begun()
    run.record("spread_before", fleet.spread(WINDOW))
    await cluster.mobikectl("gateway2", "resume")
    await cluster.begun(paused + 1)
    await cluster.quiet(5.0)
    await run.traffic(WINDOW)
    run.record("spread_after", fleet.spread(WINDOW))
    run.record("uplink_spread_after", fleet.uplink_spread(WINDOW))
    run.record("routes_left", await cluster.leaked_routes())
