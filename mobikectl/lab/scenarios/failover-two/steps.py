"""A gateway and one that stands by for it stand still together; the second standby goes on with all IKE_SAs."""

import time

from mobikectl.lab.run import Run
from mobikectl.lab.standstill import go_on, stand_still, taken_over

CLIENTS = 12
FALLEN = ("gateway1", "gateway2")
UPLINKS = ("gateway11", "gateway12", "gateway21", "gateway22")
"""Of these, as the router calls them."""


async def steps(run: Run) -> None:
    """Stop two gateways, wait until all clients are served by the third, and let the two go on."""
    cluster = run.the_cluster
    await cluster.carrying(dict.fromkeys((*FALLEN, "gateway3"), CLIENTS))
    await run.traffic(1.0)
    run.cause("gateway1 and gateway2 stand still")
    stopped = time.monotonic()
    await stand_still(run, FALLEN, UPLINKS)
    await cluster.until(
        lambda: taken_over(run, "gateway3") == CLIENTS, within=30.0, what="all are served by gateway3"
    )
    await run.traffic(1.0)
    run.record("back_ms", round((run.fleets["fleet"].back_after(stopped) - stopped) * 1000))
    await go_on(run, FALLEN)
    await cluster.empty("gateway1", within=10.0)
    await cluster.quiet(1.0)
    await run.traffic(1.0)
    run.record("taken_over", taken_over(run, "gateway3"))
    run.record("owned_twice", await cluster.owned_twice())
