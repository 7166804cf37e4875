"""An IKE_SA is carried from gateway to gateway, and comes back to the first."""

import asyncio

from mobikectl.lab.run import Run
from mobikectl.lab.vici import list_sas

ROUND = ((("drain gateway3", "drain gateway1"), "gateway2"),
         (("undrain gateway3", "drain gateway2"), "gateway3"),
         (("undrain gateway1", "drain gateway3"), "gateway1"))  # fmt: skip
"""What an operator says, and where the client can only be carried to then."""


async def steps(run: Run) -> None:
    """Drain one gateway after the other, so that the client goes around all of them."""
    cluster = run.the_cluster
    await cluster.led()
    for node in ("gateway1", "gateway2", "gateway3"):
        await cluster.present(node)
    before = await spis(run)
    for number, (said, node) in enumerate(ROUND, 1):
        run.cause(f"{said[-1]}: to {node}")
        for words in said:
            await cluster.mobikectl("gateway2", *words.split())
        await cluster.moved(number, within=60.0)
        run.record(f"served_by_{node}", await cluster.served_by(node))
        await run.traffic(1.0)
    await cluster.quiet(1.0)
    run.record("spis_kept", "yes" if await spis(run) == before else "no")


async def spis(run: Run) -> set[str]:
    """Return the SPIs of the client's IKE_SA and of its CHILD_SAs."""
    found = set()
    for _, sa in await asyncio.to_thread(list_sas, run.lab.vici_socket("client")):
        children = [child for child in sa["child-sas"].values() if child["state"] == "INSTALLED"]
        found |= {sa["initiator-spi"], sa["responder-spi"], *(child["spi-in"] for child in children)}
    return found
