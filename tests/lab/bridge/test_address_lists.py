"""addrnotify-kivinen: each end tells its addresses, the other follows."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.bridge.events import Delivered, NotSent, Restarted
from mobikectl.model import Path
from mobikectl.protocol.addrnotify import Gone, Moved
from mobikectl.wire.bridge import Spoken

from .conftest import Ends, beside, flows, patient

if TYPE_CHECKING:
    from mobikectl.protocol.addrnotify import AddressNotifyPeer

    from ..rmobike.lab import Lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(180),
]
KIVINEN = patient(Spoken.KIVINEN)
UPLINK, SECOND = ip_address("198.18.1.2"), ip_address("198.18.3.2")
GATEWAY, OTHER = ip_address("198.18.2.10"), ip_address("198.18.2.11")


async def announce(end: Ends, *addresses: str) -> None:
    def call(machine: AddressNotifyPeer, now: float) -> None:
        machine.notify([ip_address(address) for address in addresses], now)

    await end.only(Spoken.KIVINEN).ask(call)


def moves(end: Ends) -> list[Path]:
    return [told.event.pair.path for told in end.told if isinstance(told.event, Moved)]


async def test_a_client_that_prefers_another_address_is_followed(pair: Lab) -> None:
    async with beside(pair.gateway, KIVINEN) as gateway, beside(pair.client, KIVINEN) as client:
        await announce(client, str(SECOND), str(UPLINK))
        await client.until(Delivered)
        await pair.client.sa(local_host=str(SECOND))
        await pair.gateway.sa(remote_host=str(SECOND))
        await gateway.until(Moved)
        await gateway.until(Delivered)  # dead peer detection: the new address answers
        assert moves(gateway) == [Path(GATEWAY, SECOND)]
    await flows(pair)


async def test_a_gateway_that_prefers_another_address_is_followed(pair: Lab) -> None:
    before = await pair.client.sa()
    async with beside(pair.gateway, KIVINEN) as gateway, beside(pair.client, KIVINEN) as client:
        await announce(gateway, str(OTHER), str(GATEWAY))
        await client.until(Moved)
        await client.until(Delivered)
        assert moves(client) == [Path(UPLINK, OTHER)]
        after = await pair.client.sa(remote_host=str(OTHER))
        assert after["initiator-spi"] == before["initiator-spi"]
    await flows(pair)


async def test_an_address_that_is_dead_costs_no_ike_sa(pair: Lab) -> None:
    before = await pair.gateway.sa()
    async with beside(pair.gateway, KIVINEN) as gateway:
        number = (await pair.client.sa())["uniqueid"]
        await pair.client.command(
            "send-notify", ike_id=number, notifies=["42004:c61203c8", "41043:010100000000"]
        )
        assert (await gateway.until(NotSent)).path == Path(GATEWAY, ip_address("198.18.3.200"))
        await gateway.until(Gone)
        await gateway.until(Restarted, reason="the machine came to its end")
        after = await pair.gateway.sa()
        assert (after["remote-host"], after["initiator-spi"]) == (str(UPLINK), before["initiator-spi"])
    await flows(pair)


async def test_a_restart_of_charon_ends_what_was_there_and_serves_what_comes(pair: Lab) -> None:
    async with beside(pair.gateway, KIVINEN) as gateway:
        old = gateway.only(Spoken.KIVINEN)
        await pair.gateway.stop()
        await gateway.until(Restarted)
        await pair.gateway.start()
        since = len(pair.client.events)
        await pair.load_pair()
        async with pair.client.vici as session:
            await session.request("initiate", {"child": "net", "ike": "vpn", "timeout": "-1"})
        await pair.client.event("ike-updown", since=since, up="yes")
        async with beside(pair.client, KIVINEN) as client:
            await gateway.bridge.ready()
            assert gateway.only(Spoken.KIVINEN) is not old
            await announce(client, str(SECOND), str(UPLINK))
            await client.until(Delivered)
            await gateway.until(Moved)


async def test_a_rekeying_ends_no_session(pair: Lab) -> None:
    async with beside(pair.gateway, KIVINEN) as gateway, beside(pair.client, KIVINEN) as client:
        sessions = gateway.only(Spoken.KIVINEN), client.only(Spoken.KIVINEN)
        async with pair.gateway.vici as session:
            await session.request("rekey", {"ike": "vpn"})
        await pair.client.event("ike-rekey")
        await announce(client, str(SECOND), str(UPLINK))
        await gateway.until(Moved)
        await gateway.until(Delivered)
        assert sessions == (gateway.only(Spoken.KIVINEN), client.only(Spoken.KIVINEN))
    await pair.gateway.sa(remote_host=str(SECOND))
