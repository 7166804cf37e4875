"""The uplink is renumbered with an overlap, as by router advertisements or a DHCP server that plans it."""

from mobikectl.lab.run import Run


async def steps(run: Run) -> None:
    """Add the new address and its route, let the old one run out, and take it away.

    charon alone keeps an address that works, deprecated or not: it moves when the address goes.
    """
    await run.address_add("client", "wan1", "198.18.3.1/24")
    await run.route_add("client", "default", via="198.18.3.254", dev="wan1", metric=50)
    deprecated = await run.address_deprecate("client", "wan1", "198.18.1.1/24")
    if run.sidecar:
        await run.served("office", "198.18.3.1", "198.18.9.1", after=deprecated, metric="moved_ms")
    await run.traffic(0.5)
    gone = await run.address_del("client", "wan1", "198.18.1.1/24")
    if not run.sidecar:
        await run.served("office", "198.18.3.1", "198.18.9.1", after=gone, metric="moved_ms")
    await run.traffic(1.0)
