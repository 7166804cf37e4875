"""A gateway loses the management network, and keeps its clients."""

import time

from mobikectl.lab.run import Run

GATEWAYS = ("gateway1", "gateway2", "gateway3")


async def steps(run: Run) -> None:
    """Cut the leader off, drain one of the others, and let the lone one come back."""
    cluster = run.the_cluster
    lone = await cluster.led()
    drained, other = (node for node in GATEWAYS if node != lone)
    await cluster.quiet(1.0)
    run.cause(f"{lone}: loses the management network")
    await cluster.cut_off(lone)
    at = time.monotonic()
    await cluster.led(not_by=(lone,))
    run.cause(f"operator: drain {drained}")
    await cluster.mobikectl(other, "drain", drained, "--mechanism", "redirect")
    await cluster.empty(drained, within=30.0)
    await cluster.quiet(1.0)
    run.record("drained_left", await cluster.served_by(drained))
    run.record("at_lone", await cluster.served_by(lone))
    run.record("given_while_away", cluster.moves_between(at, time.monotonic(), target=lone))
    run.record("taken_while_away", cluster.moves_between(at, time.monotonic(), source=lone))
    run.cause(f"{lone}: back on the management network")
    await cluster.join_again(lone)
    await cluster.present(lone)
    run.record("member_again", "yes")
    await run.traffic(2.0)
    await cluster.quiet(2.0)
    run.record("routes_left", await cluster.leaked_routes())
