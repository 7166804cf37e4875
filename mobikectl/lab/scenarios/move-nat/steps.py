"""A client behind a NAT is carried to another gateway and back."""

from mobikectl.lab.moving import Client
from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Order it there and back, each time by name."""
    cluster, client = run.the_cluster, Client(run, "tunnel", desk="gateway3")
    await cluster.carrying({"gateway1": 1})
    mechanisms = set()
    before = await client.spis()
    for target in ("gateway2", "gateway1"):
        said = await client.move(target)
        mechanisms |= {move["mechanism"] for move in said["moves"]}
        run.record(f"owner_{target}", await client.owned())
        await run.traffic(1.0)
    run.record("spis_changed", len(before ^ await client.spis()))
    run.record("mechanism", " ".join(sorted(mechanisms)))
