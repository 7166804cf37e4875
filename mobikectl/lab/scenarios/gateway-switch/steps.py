"""The responder moves one of its peers."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Switch client1 to the gateway's second address; without the sidecar by the route that it would install."""
    if run.sidecar:
        switch = await run.switch("gateway", peer="client1.lab.example", to="198.18.10.1")
    else:
        switch = await run.route_add(
            "gateway", "198.18.1.1/32", via="198.18.10.254", dev="wan2", src="198.18.10.1"
        )
    await run.served("one", "198.18.1.1", "198.18.10.1", after=switch, metric="switched_ms")
    await run.traffic(1.5)
    for event in run.told("gateway", "move-loss", since=switch):
        run.record("told_lost", event["data"]["lost_packets"])
