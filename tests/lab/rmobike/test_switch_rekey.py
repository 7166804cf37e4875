"""A switch and a rekeying that cross each other, whichever comes first and however close they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import CharonRefusedError

if TYPE_CHECKING:
    from .lab import Lab, Node

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.slow,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(300),
]

ADDRESSES = ("198.18.2.11", "198.18.2.12")
DELAYS_MS = range(0, 61, 3)
FIRST = "first"


async def switch(lab: Lab, ike_id: str, address: str, token: str) -> None:
    """Ask for a switch of the IKE_SA with this number, or with the one that it got meanwhile."""
    try:
        await lab.gateway.command("switch-address", ike_id=ike_id, address=address, token=token, timeout="8")
    except CharonRefusedError as error:
        if "unknown-ike-id" not in error.message:
            raise
        ike_id = str((await lab.gateway.sa())["uniqueid"])
        await lab.gateway.command("switch-address", ike_id=ike_id, address=address, token=token, timeout="8")


async def rekey(node: Node, what: dict[str, str]) -> None:
    async with node.vici as session:
        await session.request("rekey", what)


async def settled(lab: Lab, address: str) -> str:
    """Wait until each side has one IKE_SA, established, on this address. Return the gateway's ike-id."""
    wanted = [[("ESTABLISHED", address)]] * 2
    async with asyncio.timeout(30):
        while True:
            client, gateway = await lab.client.sas(), await lab.gateway.sas()
            seen = [
                [(sa["state"], sa["remote-host"]) for sa in client],
                [(sa["state"], sa["local-host"]) for sa in gateway],
            ]
            if seen == wanted:
                return str(gateway[0]["uniqueid"])
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("side", ["gateway", "client"])
@pytest.mark.parametrize("what", [{"ike": "vpn"}, {"child": "net"}], ids=["ike", "child"])
@pytest.mark.parametrize("order", ["switch-first", "rekey-first"])
async def test_a_switch_is_done_on_both_sides_however_a_rekeying_crosses_it(
    pair: Lab, side: str, what: dict[str, str], order: str
) -> None:
    node: Node = getattr(pair, side)
    await pair.client.command("set-policy", interval_ms="0")
    ike_id = str((await pair.gateway.sa())["uniqueid"])
    undone = []
    for number, delay in enumerate(DELAYS_MS):
        token, address = f"{delay}-ms", ADDRESSES[number % 2]
        since = len(pair.client.events)
        if order == "switch-first":
            await switch(pair, ike_id, address, token)
            await asyncio.sleep(delay / 1000)
            await rekey(node, what)
        else:
            await rekey(node, what)
            await asyncio.sleep(delay / 1000)
            await switch(pair, ike_id, address, token)
        try:
            await pair.gateway.event("switch-done", token=token, timeout=10)
            ike_id = await settled(pair, address)
            updated = await pair.client.event("update-done", since=since, cause="switch", timeout=10)
            assert updated["remote"] == address
        except (AssertionError, TimeoutError) as error:
            undone.append((delay, str(error)[:3000]))
            ike_id = str((await pair.gateway.sa())["uniqueid"])
    assert not undone, f"{[delay for delay, _ in undone]}: {undone[0][1]}"


def drop(lab: Lab, source: str, destination: str, *, after: int) -> None:
    """Let the router drop packets from one address to another after so many of them passed."""
    lab.nft(
        f"""table ip crossing {{
              chain passing {{
                type filter hook forward priority -10
                ip saddr {source} ip daddr {destination} numgen inc mod 1000000 >= {after} drop
              }}
            }}
        """
    )


async def on_path(node: Node, **fields: str) -> None:
    """Wait until one of the IKE_SAs has these values, in whatever state it is."""
    wanted = {key.replace("_", "-"): value for key, value in fields.items()}
    async with asyncio.timeout(20):
        while True:
            if any(wanted.items() <= sa.items() for sa in await node.sas()):
                return
            await asyncio.sleep(0.02)


async def test_an_update_that_is_lost_while_the_gateway_rekeys_is_sent_on_the_new_ike_sa(pair: Lab) -> None:
    """The client moved already, the gateway does not know: the new IKE_SAs begin on different paths."""
    drop(pair, "198.18.1.2", "198.18.2.11", after=1)
    ike_id = str((await pair.gateway.sa())["uniqueid"])
    await switch(pair, ike_id, "198.18.2.11", FIRST)
    await on_path(pair.client, remote_host="198.18.2.11")
    await rekey(pair.gateway, {"ike": "vpn"})
    await pair.client.event("ike-rekey")
    pair.nft("delete table ip crossing")
    await pair.gateway.event("switch-done", token=FIRST)
    await settled(pair, "198.18.2.11")
    assert "switch-timeout" not in pair.gateway.names()
    ping = await pair.ping(20)
    sent, answered = await ping.result()
    assert sent == answered


async def test_an_update_of_the_rekeyed_ike_sa_does_not_pass_for_one_of_the_new(pair: Lab) -> None:
    """The DELETE of the old IKE_SA is lost, so that the update is completed on it."""
    ike_id = str((await pair.gateway.sa())["uniqueid"])
    pair.block("198.18.2.11")
    await switch(pair, ike_id, "198.18.2.11", FIRST)
    await pair.gateway.event("switch-acked", token=FIRST)
    drop(pair, "198.18.2.10", "198.18.1.2", after=1)
    await rekey(pair.gateway, {"ike": "vpn"})
    await pair.client.event("ike-rekey")
    pair.nft("delete table ip dead")
    await on_path(pair.client, remote_host="198.18.2.11")
    pair.nft("delete table ip crossing")
    await pair.gateway.event("switch-done", token=FIRST)
    await settled(pair, "198.18.2.11")
    assert pair.client.names().count("update-done") == 1
    assert pair.gateway.names().count("switch-done") == 1


async def test_the_number_of_an_ike_sa_that_was_rekeyed_and_deleted_leads_to_its_successor(pair: Lab) -> None:
    """A controller may ask for a switch at the very moment of a rekeying."""
    first = str((await pair.gateway.sa())["uniqueid"])
    for number in range(8):
        since = len(pair.gateway.events)
        await rekey((pair.gateway, pair.client)[number % 2], {"ike": "vpn"})
        await pair.gateway.event("ike-rekey", since=since)
        await settled(pair, "198.18.2.10")
    await pair.gateway.command("switch-address", ike_id=first, address="198.18.2.11", token=FIRST)
    await pair.gateway.event("switch-done", token=FIRST)
