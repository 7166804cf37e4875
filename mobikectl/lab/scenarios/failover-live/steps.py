"""A gateway stands still; who stands by goes on with its IKE_SAs; it comes back to none of them."""

import time

from mobikectl.lab.run import Run
from mobikectl.lab.standstill import go_on, stand_still, taken_over

CLIENTS = 20
UPLINKS = ("gateway11", "gateway12")
"""Of gateway1, as the router calls them."""


async def steps(run: Run) -> None:
    """Stop a gateway's charon and sidecar, wait until all of its clients are served elsewhere, and let it go on."""
    cluster = run.the_cluster
    await cluster.carrying(
        {"gateway1": CLIENTS, "gateway2": CLIENTS}
    )  # the one serves them, the other stands by
    await run.traffic(1.0)
    run.cause("gateway1 stands still")
    stopped = time.monotonic()
    await stand_still(run, ["gateway1"], UPLINKS)
    await cluster.until(
        lambda: taken_over(run, "gateway2") == CLIENTS, within=30.0, what="all are served elsewhere"
    )
    await run.traffic(2.0)
    run.record("back_ms", round((run.fleets["fleet"].back_after(stopped) - stopped) * 1000))
    await go_on(run, ["gateway1"])
    await cluster.empty("gateway1", within=10.0)
    await run.traffic(2.0)
    await cluster.quiet(1.0)
    run.record("taken_over", taken_over(run, "gateway2"))
    run.record("owned_twice", await cluster.owned_twice())
