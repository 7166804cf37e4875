"""A gateway stands still; who stands by goes on with its IKE_SAs; it comes back to none of them."""

import signal
import time

from mobikectl.lab.run import Run

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
    for who in (run.lab.charon("gateway1"), run.lab.newest("gateway1", "sidecar")):
        run.lab.signal(who, signal.SIGSTOP)
    for dev in UPLINKS:
        await run.drop("router", f"iif {dev}")
    await cluster.until(lambda: taken_over(run) == CLIENTS, within=30.0, what="all are served elsewhere")
    await run.traffic(2.0)
    run.record("back_ms", round((run.fleets["fleet"].back_after(stopped) - stopped) * 1000))
    await run.undrop("router")
    run.cause("gateway1 goes on")
    for who in (run.lab.charon("gateway1"), run.lab.newest("gateway1", "sidecar")):
        run.lab.signal(who, signal.SIGCONT)
    await cluster.present("gateway1")
    await cluster.empty("gateway1", within=10.0)
    await run.traffic(2.0)
    await cluster.quiet(1.0)
    run.record("taken_over", taken_over(run))
    run.record("owned_twice", await cluster.owned_twice())


def taken_over(run: Run) -> int:
    """Return how many IKE_SAs of gateway1 are served by who stood by."""
    return sum(
        move["reason"] == "failover" and move["steps"][-1]["state"] == "verified"
        for move in run.the_cluster.moves.values()
    )
