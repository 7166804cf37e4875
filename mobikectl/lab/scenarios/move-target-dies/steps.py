"""The target of a move dies."""

import asyncio

from mobikectl.lab.chaos.faults import Faults
from mobikectl.lab.chaos.plan import What
from mobikectl.lab.moving import Client
from mobikectl.lab.run import Run
from mobikectl.lab.steps import SOURCE_STEPS
from mobikectl.lab.wait import until

DEATHS = (
    (What.SIDECAR, "target: import"),
    (What.SIDECAR, "target: accept"),
    (What.SIDECAR, "target: activate"),
    (What.SIDECAR, "target: hear"),
    (What.SIDECAR, "target: answer"),
    (What.CHARON, "target: import"),
    (What.CHARON, "target: accept"),
    (What.CHARON, "target: activate"),
    (What.CHARON, "target: answer"),
    (What.CHARON, "source: handed over"),
)
"""What of the target's is killed, and which step it or the source is about to take then. From ``target: answer`` on the
client is there; in the end the source knows, and nobody but it need have a copy yet."""
AGAIN_S = 1.0


async def steps(run: Run) -> None:
    """Kill the target's sidecar, then its charon, at each step; after each death an undisturbed move has to go."""
    cluster, client, faults = run.the_cluster, Client(run, "tunnel", desk="gateway3"), Faults(run)
    await cluster.carrying({"gateway1": 1})
    owned = {"source": 0, "target": 0}
    for what, step in DEATHS:
        source = await client.owned()
        target = "gateway2" if source == "gateway1" else "gateway1"
        await faults.well()

        async def goes(target: str = target) -> bool:
            return bool((await client.move(target, check=False))["good"])

        trap = run.handovers.trap(source if step in SOURCE_STEPS else target, step)
        ordering = asyncio.create_task(client.order(target))
        try:
            await trap.sprung(within=60.0)
            mend = await faults.inflict(what, target)
        finally:
            run.handovers.remove(trap)
        await mend()
        await client.ended(await ordering)
        owner = await client.owned()
        owned["source" if owner == source else "target"] += 1
        await client.answers()
        if owner == source:
            await until(goes, within=60.0, what=f"it goes to {target} undisturbed", every=AGAIN_S)
    run.record("stayed", owned["source"])
    run.record("went", owned["target"])
    run.record("owned_once", sum(owned.values()))
    await cluster.quiet(2.0)
    await client.owned()
