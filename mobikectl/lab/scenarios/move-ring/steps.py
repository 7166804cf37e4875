"""An IKE_SA is carried from gateway to gateway, and comes back to the first; once more with a busy tunnel."""

from mobikectl.lab.moving import Client
from mobikectl.lab.run import Run

ROUND = ((("drain gateway3", "drain gateway1"), "gateway2"),
         (("undrain gateway3", "drain gateway2"), "gateway3"),
         (("undrain gateway1", "drain gateway3"), "gateway1"))  # fmt: skip
"""What an operator says, and where the client can only be carried to then."""
PER_S = 1000
"""Packets in each direction."""
MARGIN = 0.7
"""Seconds around a move that are looked at: the store is told of its steps a little later."""


async def steps(run: Run) -> None:
    """Drain one gateway after the other, so that the client goes around all of them, twice."""
    cluster, client = run.the_cluster, Client(run, "tunnel", desk="gateway2")
    await cluster.led()
    for node in ("gateway1", "gateway2", "gateway3"):
        await cluster.present(node)
    before = await client.spis()
    began = run.cause("around")
    await around(run, moves=0)
    await run.losses("tunnel", since=began, metric="around.lost")
    await cluster.mobikectl("gateway2", "undrain", "gateway2")
    async with run.stream("tunnel", per_s=PER_S, metric="busy") as train:
        await run.traffic(1.0)
        await around(run, moves=len(ROUND))
    await cluster.quiet(1.0)
    moves = sorted(cluster.moves)[len(ROUND) :]
    spans = [
        (cluster.seen[move, "requested"] - MARGIN, cluster.seen[move, "verified"] + MARGIN) for move in moves
    ]
    lost = [p.sent for p in train.pings if p.received is None]
    run.record("busy.lost_by_moves", sum(start <= at <= end for at in lost for start, end in spans))
    run.record("spis_changed", len(before ^ await client.spis()))


async def around(run: Run, *, moves: int) -> None:
    """Once around all gateways; so many `moves` there were before."""
    cluster = run.the_cluster
    for number, (said, node) in enumerate(ROUND, moves + 1):
        run.cause(f"{said[-1]}: to {node}")
        for words in said:
            await cluster.mobikectl("gateway2", *words.split())
        await cluster.moved(number, within=60.0)
        run.record(f"served_by_{node}", await cluster.served_by(node))
        await run.traffic(1.0)
