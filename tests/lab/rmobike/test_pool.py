"""Virtual IPs out of a stock that is filled from outside: commands, events, and what real clients get."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from mobikectl.charon.rmobike import PluginRefusedError, Rmobike
from mobikectl.charon.rmobike_pool import PoolStock, StockEntry
from mobikectl.errors import CharonError

if TYPE_CHECKING:
    from .lab import Lab

NETWORK = ip_network("198.19.8.0/24")
ANY = "0.0.0.0"  # noqa: S104 - any virtual IP, no listener
FIRST, SECOND, THIRD = (ip_address(f"198.19.8.{number}") for number in (1, 2, 3))

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(180),
]


async def load(lab: Lab, vips: str = ANY) -> None:
    """A client that asks for a virtual IP, and a gateway that gives it out of the pool `inside`."""
    dynamic = {"net": {"esp_proposals": ["aes128gcm16"], "rekey_time": "0"}}
    children_client = {"net": {**dynamic["net"], "remote_ts": ["198.19.2.1/32"]}}
    children_gateway = {"net": {**dynamic["net"], "local_ts": ["198.19.2.1/32"]}}
    await lab.gateway.load("gateway", "client", "%any", "", "", pools=["inside"], children=children_gateway)
    await lab.client.load("client", "gateway", "198.18.2.10", "", "", vips=[vips], children=children_client)


async def listed(plugin: Rmobike) -> dict[str, StockEntry]:
    return {str(entry.address): entry for entry in await PoolStock(plugin).list()}


async def terminate(lab: Lab) -> None:
    since = len(lab.gateway.events)
    async with lab.client.vici as session:
        await session.request("terminate", {"ike": "vpn", "timeout": "-1"})
    await lab.gateway.event("address-released", since=since)


@pytest.fixture
async def started(lab: Lab) -> Lab:
    await lab.gateway.start()
    await lab.client.start()
    return lab


async def test_a_client_gets_an_address_of_the_stock_and_the_same_when_it_comes_back(started: Lab) -> None:
    await load(started)
    async with Rmobike(started.gateway.directory / "rmobike") as plugin:
        stock = PoolStock(plugin)
        await stock.set_pool("inside", NETWORK)
        assert (
            await stock.add("inside", [(FIRST, "somebody else"), (SECOND, None), (THIRD, None)])
            == frozenset()
        )
        await started.client.initiate()
        told = await started.gateway.event("address-acquired")
        assert (told["address"], told["identity"], told["pool"], told["free"]) == (
            "198.19.8.2",
            "client",
            "inside",
            "1",
        )
        assert (await listed(plugin))["198.19.8.2"] == StockEntry("inside", SECOND, "client", 1, False, False)
        assert await stock.remove("inside", [SECOND, THIRD]) == {SECOND}, "one that is in use stays"
        assert await stock.add("inside", [(SECOND, None)]) == {SECOND}, "and stays its peer's"
        await terminate(started)
        assert (await listed(plugin))["198.19.8.2"].online == 0
        await stock.add("inside", [(THIRD, None)])
        await started.client.initiate()
        await started.gateway.event("address-acquired", address="198.19.8.2", free="1")


async def test_an_empty_stock_refuses_the_client_cleanly_and_says_so(started: Lab) -> None:
    await load(started)
    async with Rmobike(started.gateway.directory / "rmobike") as plugin:
        stock = PoolStock(plugin)
        await stock.set_pool("inside", NETWORK)
        await stock.add("inside", [(FIRST, "somebody else")])
        with contextlib.suppress(CharonError):  # the IKE_SA is up, its CHILD_SA is not
            await started.client.initiate()
        told = await started.gateway.event("pool-exhausted")
        assert (told["pool"], told["identity"]) == ("inside", "client")
        assert "INTERNAL_ADDRESS_FAILURE" in started.gateway.log
        assert (await listed(plugin))["198.19.8.1"].online == 0


@pytest.mark.parametrize("where", ["elsewhere", "held"])
async def test_an_address_that_an_ike_sa_may_have_is_given_only_to_its_peer_that_asks_for_it(
    started: Lab, where: str
) -> None:
    """A second device of the same user does not know the address; a client that was redirected does."""
    async with Rmobike(started.gateway.directory / "rmobike") as plugin:
        stock = PoolStock(plugin)
        await stock.set_pool("inside", NETWORK)
        await stock.add("inside", [(FIRST, "client")], elsewhere=where == "elsewhere", held=where == "held")
        await stock.add("inside", [(SECOND, None)])
        await load(started)
        await started.client.initiate()
        await started.gateway.event("address-acquired", address="198.19.8.2")
        await terminate(started)
        await stock.remove("inside", [SECOND])
        await load(started, "198.19.8.1")
        await started.client.initiate()
        await started.gateway.event("address-acquired", address="198.19.8.1")


async def test_what_cannot_be_a_pool_or_an_address_is_refused(started: Lab) -> None:
    async with Rmobike(started.gateway.directory / "rmobike") as plugin:
        stock = PoolStock(plugin)
        with pytest.raises(PluginRefusedError) as unknown:
            await stock.add("inside", [(FIRST, None)])
        assert unknown.value.code == "unknown-pool"
        await stock.set_pool("inside", NETWORK)
        outside = ip_address("198.19.9.1")
        assert await stock.add("inside", [(outside, None), (FIRST, None)]) == {outside}
        with pytest.raises(PluginRefusedError) as other:
            await stock.set_pool("inside", ip_network("198.19.12.0/24"))
        assert other.value.code == "pool-refused"
        for bad in ("nonsense", "198.19.8.5 ", "", "198.19.8.5 " + "x" * 600, "224.0.0.1"):
            with pytest.raises(PluginRefusedError) as wrong:
                await plugin.request("add-addresses", {"pool": "inside", "addresses": [bad]})
            assert wrong.value.code == "bad-request"
        assert await stock.remove("inside", [FIRST, SECOND]) == frozenset()
        await stock.set_pool("inside", ip_network("198.19.12.0/24"))
        assert await stock.list() == []
