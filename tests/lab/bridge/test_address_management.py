"""addrmgmt-dupont: peer address notifications, RR_COOKIE, and an update of all SAs."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.bridge.events import Delivered, PeerFault, Restarted
from mobikectl.bridge.speakers import pair_of
from mobikectl.model import Path
from mobikectl.protocol.addrmgmt import Cause, Declined, Ended, PeerSet, SasUpdated, UpdateDeclined
from mobikectl.wire.bridge import Spoken

from .conftest import Ends, beside, flows, patient

if TYPE_CHECKING:
    from mobikectl.protocol.addrmgmt_peer import AddrMgmtPeer

    from ..rmobike.lab import Lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(180),
]
DUPONT = patient(Spoken.DUPONT, allow_nat=True)
"""ESP in userland is in UDP always, which charon shows as NAT traversal."""
GATEWAY, UPLINK, SECOND = (ip_address(text) for text in ("198.18.2.10", "198.18.1.2", "198.18.3.2"))
ALL_SAS = "41044:d580000000"
"""The Peer Address Update payload with the A bit."""
MARKED_GATEWAY = "24802:00010001c612020a"
END = "41043:020100000000"


async def update(end: Ends, path: Path) -> None:
    def call(machine: AddrMgmtPeer, now: float) -> None:
        machine.update(pair_of(path), now)

    await end.only(Spoken.DUPONT).ask(call)


async def claim_a_dead_address(lab: Lab) -> None:
    await lab.client.command(
        "send-notify",
        ike_id=(await lab.client.sa())["uniqueid"],
        notifies=[ALL_SAS, "24801:00010001c61203c8", MARKED_GATEWAY, END],
    )


async def test_an_update_moves_all_sas_after_the_cookie_came_back(pair: Lab) -> None:
    before = await pair.gateway.sa()
    async with beside(pair.gateway, DUPONT) as gateway, beside(pair.client, DUPONT) as client:
        await update(client, Path(SECOND, GATEWAY))
        updated = await client.until(SasUpdated)
        assert (updated.pair.path, updated.ike) == (Path(SECOND, GATEWAY), True)
        seen = await gateway.until(SasUpdated)
        assert seen.pair.path == Path(GATEWAY, SECOND)
        await gateway.until(Delivered)  # the cookie
        assert SECOND in (await gateway.until(PeerSet)).addresses
    after = await pair.gateway.sa(remote_host=str(SECOND))
    assert after["initiator-spi"] == before["initiator-spi"]
    assert "N((24804))" in pair.gateway.log, "RR_COOKIE was on the wire"
    await flows(pair)


async def test_an_address_that_cannot_be_checked_is_declined(pair: Lab) -> None:
    async with beside(pair.gateway, DUPONT) as gateway, beside(pair.client, DUPONT):
        await claim_a_dead_address(pair)
        assert (await gateway.until(Declined)).address == ip_address("198.18.3.200")
        assert not any(isinstance(told.event, SasUpdated) for told in gateway.told)
    assert (await pair.gateway.sa())["remote-host"] == str(UPLINK)
    await flows(pair)


async def test_a_peer_that_gives_no_cookie_back_is_not_followed(pair: Lab) -> None:
    async with beside(pair.gateway, DUPONT) as gateway:
        await claim_a_dead_address(pair)
        assert (await gateway.until(Ended)).cause is Cause.COOKIE
        await gateway.until(Restarted)
        assert not any(isinstance(told.event, SasUpdated) for told in gateway.told)
    assert (await pair.gateway.sa())["remote-host"] == str(UPLINK), "the IKE_SA lives on"


async def test_a_request_that_breaks_the_draft_is_the_peers_fault(pair: Lab) -> None:
    number = (await pair.client.sa())["uniqueid"]
    async with beside(pair.gateway, DUPONT) as gateway, beside(pair.client, DUPONT) as client:
        for bad in (
            ["24801:00030001c6120302", MARKED_GATEWAY, END],
            ["24801:000100017f000001", MARKED_GATEWAY, END],
            [ALL_SAS, "24801:00010002c6120302", MARKED_GATEWAY, END],
            ["41044:d5ff", "24801:00010001c6120302", MARKED_GATEWAY, END],
            ["24804:00", END],
        ):
            seen = len(gateway.told)
            await pair.client.command("send-notify", ike_id=number, notifies=bad)
            await gateway.until(PeerFault, since=seen)
        await update(client, Path(SECOND, GATEWAY))
        await gateway.until(SasUpdated)
        await client.until(SasUpdated)
        assert not any(isinstance(told.event, UpdateDeclined) for told in client.told)


async def test_it_is_not_spoken_with_nat_traversal_unless_allowed(pair: Lab) -> None:
    async with beside(pair.gateway, patient(Spoken.DUPONT)) as gateway:
        assert gateway.bridge.sessions == ()
