"""The source of a move dies."""

from functools import partial

from mobikectl.lab.moving import Client
from mobikectl.lab.run import Run

MOMENTS = (0.0, 0.01, 0.02, 0.04, 0.07, 0.12, 0.25, 0.4)
"""Seconds after the source has begun: the handover takes about 0.5 s, of which 0.3 s are waiting for late packets."""


async def steps(run: Run) -> None:
    """Kill the source's sidecar so many seconds after the move has begun."""
    cluster, client = run.the_cluster, Client(run, "tunnel", desk="gateway3")
    await cluster.carrying({"gateway1": 1})
    owned = {"source": 0, "target": 0}
    for moment in MOMENTS:
        source = await client.owned()
        target = "gateway2" if source == "gateway1" else "gateway1"
        victim = source
        await cluster.present("gateway1", within=30.0)
        await cluster.present("gateway2", within=30.0)
        kill = partial(run.sidecar_kill, victim)
        number = await client.ordered_and(target, source, kill, after=moment)
        await run.sidecar_start(victim)
        await client.ended(number)
        owner = await client.owned()
        owned["source" if owner == source else "target"] += 1
        await client.answers()
        if owner == source:  # undisturbed it goes, and nothing of the failure is left
            await client.move(target)
    run.record("stayed", owned["source"])
    run.record("went", owned["target"])
    run.record("owned_once", sum(owned.values()))
    await cluster.quiet(2.0)
    await client.owned()
