"""A gateway and one that stands by for it stand still together; the second standby goes on with all IKE_SAs."""

import signal
import time

from mobikectl.lab.run import Run

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
    for who in [who for node in FALLEN for who in (run.lab.charon(node), run.lab.newest(node, "sidecar"))]:
        run.lab.signal(who, signal.SIGSTOP)
    for dev in UPLINKS:
        await run.drop("router", f"iif {dev}")
    await cluster.until(lambda: taken_over(run) == CLIENTS, within=30.0, what="all are served by gateway3")
    await run.traffic(1.0)
    run.record("back_ms", round((run.fleets["fleet"].back_after(stopped) - stopped) * 1000))
    await run.undrop("router")
    run.cause("gateway1 and gateway2 go on")
    for who in [who for node in FALLEN for who in (run.lab.charon(node), run.lab.newest(node, "sidecar"))]:
        run.lab.signal(who, signal.SIGCONT)
    for node in FALLEN:
        await cluster.present(node)
    await cluster.empty("gateway1", within=10.0)
    await cluster.quiet(1.0)
    await run.traffic(1.0)
    run.record("taken_over", taken_over(run))
    run.record("owned_twice", await cluster.owned_twice())


def taken_over(run: Run) -> int:
    """Return how many IKE_SAs of gateway1 are served by the second standby."""
    return sum(
        move["reason"] == "failover"
        and move["target"] == "gateway3"
        and move["steps"][-1]["state"] == "verified"
        for move in run.the_cluster.moves.values()
    )
