"""Load is lopsided; the cluster evens it out."""

from mobikectl.lab.run import Run

HEAVY = 20_000.0
"""Bytes/s of a client that sends much."""
AT_FIRST = 0.5
WINDOW = 2.0
"""Seconds over which the spread is measured on the wire: at first before anybody has reported it."""


async def steps(run: Run) -> None:
    """Load the clients of the first gateway, wait until nothing is planned any more, and look at the spread."""
    fleet, cluster = run.fleets["fleet"], run.the_cluster
    run.cause("lopsided load")
    fleet.load.set({t.name: HEAVY for t in fleet.tunnels if t.gateway == "gateway1"})
    await run.traffic(AT_FIRST)
    run.record("spread_before", fleet.spread(AT_FIRST))
    if run.sidecar:
        await cluster.moved(1)
        await cluster.quiet(4.0)
    await run.traffic(WINDOW)
    run.record("spread_after", fleet.spread(WINDOW))
    run.record("uplink_spread_after", fleet.uplink_spread(WINDOW))
    run.record("routes_left", await cluster.leaked_routes())
