"""A target that cannot take an IKE_SA over says no."""

import json

from mobikectl.lab.moving import Client
from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Take the connection from one gateway, order the client there, then to the other one."""
    cluster, client = run.the_cluster, Client(run, "tunnel", desk="gateway3")
    await cluster.carrying({"gateway1": 1})
    await run.command("gateway2", "rm", "/etc/swanctl/swanctl.conf", label="its connections are gone")
    await run.command("gateway2", "touch", "/etc/swanctl/swanctl.conf", label="and none is left")
    await run.command("gateway2", "swanctl", "--load-conns", label="unloaded")
    since = run.cause("a target that knows nothing of it")
    number = await client.order("gateway2")
    run.record("refused", await client.ended(number))
    told = cluster.moves[number]["steps"][-1]["note"]
    run.record("reason", "told" if "no connection" in told else told)
    run.record("stays", await client.owned())
    await run.losses("tunnel", since=since, metric="lost_refused")
    said = await client.move("gateway3")
    run.record("goes", "verified" if said["good"] else json.dumps(said))
    run.record("owner", await client.owned())
    await run.traffic(1.0)
