"""Who decides dies, or stands still, in the middle of a plan."""

import time

from mobikectl.lab.run import Run

GATEWAYS = ("gateway1", "gateway2", "gateway3")
RATE = "4"
"""IKE_SAs in a second: slow enough that the leader goes in the middle."""


async def steps(run: Run) -> None:
    """Kill the leader during one drain, stop the next one during another."""
    cluster = run.the_cluster
    killed = await cluster.led()
    first = next(node for node in GATEWAYS if node != killed)
    before = len(cluster.moves)
    await _drain(run, first)
    await cluster.begun(before + 3)
    gone = await run.sidecar_kill(killed)
    stopped = await cluster.led(not_by=(killed,))
    run.record("new_leader_ms", round((time.monotonic() - gone.at) * 1000))
    await _emptied(run, first)
    run.record("first_empty", await cluster.served_by(first))
    twice = cluster.twice(since=before)

    await run.sidecar_start(killed)
    await cluster.mobikectl(killed, "undrain", first)
    before = len(cluster.moves)
    second = next(node for node in GATEWAYS if node not in {first, stopped})
    await _drain(run, second)
    await cluster.begun(cluster.count_begun() + 3)
    old = cluster.token
    run.cause(f"{stopped}: SIGSTOP of the sidecar")
    await cluster.stop(stopped)
    await cluster.led(not_by=(stopped,))
    at = time.monotonic()
    await run.traffic(1.0)
    run.cause(f"{stopped}: SIGCONT of the sidecar")
    cluster.go_on(stopped)
    await _emptied(run, second)
    run.record("second_empty", await cluster.served_by(second))
    run.record("old_leader_acts", cluster.acts_of(old, since=at))
    run.record("moves_twice", twice + cluster.twice(since=before))
    run.record("routes_left", await cluster.leaked_routes())


async def _drain(run: Run, node: str) -> None:
    run.cause(f"operator: drain {node}")
    await run.the_cluster.mobikectl(node, "drain", node, "--mechanism", "redirect", "--rate", RATE)


async def _emptied(run: Run, node: str) -> None:
    await run.the_cluster.empty(node, within=30.0)
    await run.the_cluster.quiet(1.0)
