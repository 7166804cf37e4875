"""The store is away in the middle of a plan."""

import time

from mobikectl.lab.run import Run

AWAY_S = {"etcd": 30.0, "sqlite": 15.0}
"""How long; far longer than a lease, of which a file needs less to be looked at again."""
UNDER_WAY_S = 4.0
"""What had begun before may end in this time."""


async def steps(run: Run) -> None:
    """Drain slowly, take the store away, and see that nothing begins; then it goes on."""
    cluster, fleet = run.the_cluster, run.fleets["fleet"]
    await cluster.led()
    run.cause("operator: drain gateway1")
    await cluster.mobikectl("gateway2", "drain", "gateway1", "--mechanism", "redirect", "--rate", "2")
    await cluster.begun(3)
    away = AWAY_S[cluster.store.kind] / (1 if run.lab.record.esp == "userland" else 2)
    run.cause("store: stands still")
    await cluster.store.stop()
    await run.traffic(UNDER_WAY_S)
    at = time.monotonic()
    run.record("still_to_go", await cluster.served_by("gateway1"))
    await run.traffic(away / 2 - UNDER_WAY_S)
    if cluster.store.kind == "etcd":
        run.cause("store: etcd is killed")
        await cluster.store.kill()
    await run.traffic(away / 2)
    run.record("begun_while_away", fleet.inits(at, time.monotonic()))
    run.cause("store: back")
    await (cluster.store.start() if cluster.store.kind == "etcd" else cluster.store.go_on())
    await cluster.empty("gateway1", within=40.0)
    await cluster.quiet(2.0)
    run.record("routes_left", await cluster.leaked_routes())
