"""Switches: the responder asks, the initiator moves (draft-smyslov-ipsecme-ikev2-r-mobike-09 section 4.2)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import CharonRefusedError

if TYPE_CHECKING:
    from .lab import Lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(180),
]

FIRST = "first"
SECOND = "second/2"


async def lost(ping_result: tuple[int, int]) -> int:
    return ping_result[0] - ping_result[1]


async def ike_id(lab: Lab) -> str:
    return str((await lab.gateway.sa())["uniqueid"])


async def switch(lab: Lab, address: str, token: str = FIRST, **more: str) -> None:
    await lab.gateway.command(
        "switch-address", ike_id=await ike_id(lab), address=address, token=token, **more
    )


async def test_a_switch_moves_the_initiator_without_losing_a_ping(pair: Lab) -> None:
    ping = await pair.ping(300)
    await switch(pair, "198.18.2.11")
    received = await pair.client.event("switch-received")
    assert received["address"] == "198.18.2.11"
    await pair.gateway.event("switch-acked", token=FIRST)
    done = await pair.gateway.event("switch-done", token=FIRST)
    assert done["local"] == "198.18.2.11"
    updated = await pair.client.event("update-done", cause="switch")
    assert updated["remote"] == "198.18.2.11"
    assert await lost(await ping.result()) <= 1
    assert (await pair.client.sa())["remote-host"] == "198.18.2.11"
    assert (await pair.gateway.sa())["local-host"] == "198.18.2.11"


async def test_the_messages_are_those_of_section_4_2(pair: Lab) -> None:
    """The request, its empty response, then UPDATE_SA_ADDRESSES to the new address, which is tested before."""
    before = len(pair.client.log)
    await switch(pair, "198.18.2.11")
    await pair.client.event("update-done")
    log = pair.client.log[before:]
    wanted = [
        "received packet: from 198.18.2.10[4500] to 198.18.1.2[4500]",
        "parsed INFORMATIONAL request 0 [ N((41042)) ]",
        "generating INFORMATIONAL response 0 [ ]",
        "checking wanted path 198.18.1.2[4500] - 198.18.2.11[4500]",
        "N(UPD_SA_ADDR)",
        "sending packet: from 198.18.1.2[4500] to 198.18.2.11[4500]",
        "N(COOKIE2)",
    ]
    at = 0
    for line in wanted:
        assert line in log[at:], f"{line} is missing after\n{log[:at]}\nin\n{log[at:]}"
        at += log[at:].index(line)


async def test_a_client_behind_a_nat_follows_a_switch(lab: Lab) -> None:
    lab.masquerade()
    await lab.gateway.start()
    await lab.client.start()
    await lab.connect()
    assert (await lab.gateway.event("capability"))["nat-remote"] == "yes"
    ping = await lab.ping(300)
    await switch(lab, "198.18.2.11")
    await lab.gateway.event("switch-done", token=FIRST)
    assert await lost(await ping.result()) <= 1
    assert (await lab.client.sa())["remote-host"] == "198.18.2.11"


async def test_an_address_that_the_peer_never_told_is_refused_and_the_ike_sa_stays(pair: Lab) -> None:
    pair.gateway.shell("ip", "addr", "add", "198.18.2.99/24", "dev", "b0")
    pair.client.events.clear()
    await pair.client.command("set-policy", accept="listed")
    ping = await pair.ping(200)
    await switch(pair, "198.18.2.99", timeout="3")
    refused = await pair.client.event("switch-refused")
    assert refused["reason"] == "address-not-allowed"
    await pair.gateway.event("switch-acked", token=FIRST)
    assert (await pair.gateway.event("switch-timeout", token=FIRST))["reason"] == "no-update"
    assert await lost(await ping.result()) == 0
    assert (await pair.client.sa())["remote-host"] == "198.18.2.10"
    assert "update-done" not in pair.client.names()


async def test_a_refusal_is_followed_by_a_liveness_check(pair: Lab) -> None:
    await pair.client.command("set-policy", accept="none")
    before = len(pair.client.log)
    await switch(pair, "198.18.2.11", timeout="2")
    await pair.client.event("switch-refused")
    await pair.gateway.event("switch-timeout", token=FIRST)
    log = pair.client.log[before:]
    assert log.index("refusing to switch") < log.index("generating INFORMATIONAL request")


async def test_an_address_in_the_allow_list_is_accepted(pair: Lab) -> None:
    await pair.client.command("set-policy", accept="listed", allow="198.18.2.8/29, 2001:db8::/32")
    await switch(pair, "198.18.2.12")
    await pair.gateway.event("switch-done", token=FIRST)


async def test_a_dead_target_never_costs_the_ike_sa(pair: Lab) -> None:
    pair.block("198.18.2.11")
    ping = await pair.ping(900)
    await switch(pair, "198.18.2.11", timeout="14")
    failed = await pair.client.event("update-failed", timeout=30)
    assert failed["reason"] == "no-answer"
    assert failed["remote"] == "198.18.2.10"
    assert (await pair.gateway.event("switch-timeout", token=FIRST))["reason"] == "no-update"
    assert await lost(await ping.result()) == 0
    assert (await pair.client.sa())["remote-host"] == "198.18.2.10"
    assert (await pair.gateway.sa())["local-host"] == "198.18.2.10"


async def test_a_peer_that_did_not_announce_r_must_not_be_asked(lab: Lab) -> None:
    lab.client.plugin = False
    await lab.gateway.start()
    await lab.client.start()
    await lab.connect()
    capability = await lab.gateway.event("capability")
    assert capability["peer-r"] == "no"
    assert capability["mobike"] == "yes"
    before = len(lab.gateway.log)
    with pytest.raises(CharonRefusedError, match="peer-without-r"):
        await switch(lab, "198.18.2.11")
    assert "generating" not in lab.gateway.log[before:]


async def test_a_client_told_not_to_announce_r_is_not_asked(lab: Lab) -> None:
    lab.client.settings = "announce = no"
    await lab.gateway.start()
    await lab.client.start()
    await lab.connect()
    assert (await lab.gateway.event("capability"))["peer-r"] == "no"
    assert (await lab.client.event("capability"))["own-r"] == "no"


async def test_a_stock_responder_ignores_the_r(lab: Lab) -> None:
    lab.gateway.plugin = False
    await lab.gateway.start()
    await lab.client.start()
    await lab.connect()
    capability = await lab.client.event("capability")
    assert (capability["own-r"], capability["mobike"]) == ("yes", "yes")


async def test_a_responder_takes_no_action_on_a_switch_from_the_initiator(pair: Lab) -> None:
    client_id = (await pair.client.sa())["uniqueid"]
    pair.gateway.events.clear()
    await pair.client.command("send-notify", ike_id=client_id, token=FIRST, notifies=["41042:c612020b"])
    assert (await pair.gateway.event("switch-refused"))["reason"] == "not-initiator"
    answer = await pair.client.event("notify-answered", token=FIRST)
    assert not any(key.startswith("notify") for key in answer), "the response has to be empty"
    assert "ike-update" not in pair.gateway.names()


@pytest.mark.parametrize("data", ["", "c6", "c61202", "c612020b00", "00" * 15, "00" * 17, "ff" * 300])
async def test_malformed_notification_data_is_refused_and_the_ike_sa_lives(pair: Lab, data: str) -> None:
    gateway_id = await ike_id(pair)
    await pair.gateway.command("send-notify", ike_id=gateway_id, token=FIRST, notifies=[f"41042:{data}"])
    assert (await pair.client.event("switch-refused"))["reason"] == "malformed"
    await pair.gateway.event("notify-answered", token=FIRST)
    _, answered = await (await pair.ping(20)).result()
    assert answered


@pytest.mark.parametrize("data", ["00000000", "ffffffff", "e0000001", "ff02" + "00" * 13 + "01"])
async def test_an_address_that_cannot_be_a_gateway_is_refused(pair: Lab, data: str) -> None:
    await pair.client.command("set-policy", accept="any")
    number = await ike_id(pair)
    await pair.gateway.command("send-notify", ike_id=number, token=FIRST, notifies=[f"41042:{data}"])
    assert (await pair.client.event("switch-refused"))["reason"] == "malformed"


async def test_too_many_switches_are_refused(lab: Lab) -> None:
    lab.client.settings = "burst = 2\n interval_ms = 60000"
    await lab.gateway.start()
    await lab.client.start()
    await lab.connect()
    for token, address in ((FIRST, "198.18.2.11"), (SECOND, "198.18.2.12")):
        await switch(lab, address, token)
        await lab.gateway.event("switch-done", token=token)
    await switch(lab, "198.18.2.10", timeout="2")
    assert (await lab.client.event("switch-refused"))["reason"] == "too-many"
    assert (await lab.client.sa())["remote-host"] == "198.18.2.12"


async def test_a_newer_switch_supersedes_the_one_under_way(pair: Lab) -> None:
    pair.block("198.18.2.11")
    await switch(pair, "198.18.2.11", FIRST)
    await pair.gateway.event("switch-acked", token=FIRST)
    await switch(pair, "198.18.2.12", SECOND)
    await pair.gateway.event("switch-superseded", token=FIRST)
    done = await pair.gateway.event("switch-done", token=SECOND, timeout=30)
    assert done["local"] == "198.18.2.12"
    assert "switch-timeout" not in pair.gateway.names()


async def test_a_switch_to_an_ipv6_address_of_the_same_gateway(lab: Lab) -> None:
    await lab.gateway.start()
    await lab.client.start()
    await lab.connect("2001:db8:2::10")
    ping = await lab.ping(300)
    await switch(lab, "2001:db8:2::11")
    await lab.gateway.event("switch-done", token=FIRST)
    assert await lost(await ping.result()) <= 1
    assert (await lab.client.sa())["remote-host"] == "2001:db8:2::11"


async def test_twenty_switches_under_traffic_keep_one_ike_sa_and_its_pings(lab: Lab) -> None:
    lab.client.settings = "interval_ms = 0"
    await lab.gateway.start()
    await lab.client.start()
    await lab.connect()
    first = await ike_id(lab)
    ping = await lab.ping(800)
    for number in range(20):
        token = f"switch-{number}"
        await switch(lab, f"198.18.2.{11 + number % 2}", token)
        await lab.gateway.event("switch-done", token=token)
        await lab.client.event("update-done", since=0, remote=f"198.18.2.{11 + number % 2}")
    assert await lost(await ping.result()) <= 8
    assert await ike_id(lab) == first
    assert lab.gateway.names().count("switch-done") == 20


async def test_a_peer_that_is_gone_ends_in_a_timeout_event(pair: Lab) -> None:
    pair.block("198.18.1.2")
    await switch(pair, "198.18.2.11", timeout="2")
    assert (await pair.gateway.event("switch-timeout", token=FIRST))["reason"] == "no-answer"


async def test_an_ike_sa_that_is_deleted_ends_its_switch(pair: Lab) -> None:
    pair.block("198.18.1.2")
    await switch(pair, "198.18.2.11", timeout="60")
    async with pair.gateway.vici as session:
        await session.request("terminate", {"ike": "vpn", "force": "yes", "timeout": "-1"})
    assert (await pair.gateway.event("switch-timeout", token=FIRST))["reason"] == "ike-sa-gone"


async def test_switches_during_rekeyings_of_the_ike_sa_by_both_sides_arrive(pair: Lab) -> None:
    """Tokens survive: each switch ends as done although the IKE_SA's number changes under it."""
    await pair.client.command("set-policy", interval_ms="0")
    ping = await pair.ping(600)
    for number in range(6):
        token = f"rekey-{number}"
        address = f"198.18.2.{11 + number % 2}"
        node = (pair.gateway, pair.client)[number % 2]
        gateway_id = await ike_id(pair)
        async with node.vici as session:
            rekey = asyncio.create_task(session.request("rekey", {"ike": "vpn"}))
            await pair.gateway.command("switch-address", ike_id=gateway_id, address=address, token=token)
            await rekey
        await pair.gateway.event("switch-done", token=token, timeout=40)
        await settled(pair)
    assert await lost(await ping.result()) <= 6
    assert "ike-rekey" in pair.gateway.names()


async def test_switches_during_rekeyings_of_the_child_sa_arrive(pair: Lab) -> None:
    for number in range(4):
        token = f"child-{number}"
        node = (pair.gateway, pair.client)[number % 2]
        async with node.vici as session:
            rekey = asyncio.create_task(session.request("rekey", {"child": "net"}))
            await switch(pair, f"198.18.2.{11 + number % 2}", token)
            await rekey
        await pair.gateway.event("switch-done", token=token, timeout=40)
    ping = await pair.ping(20)
    assert await lost(await ping.result()) == 0


async def settled(lab: Lab) -> None:
    """Wait until each side has one IKE_SA, and it is established."""
    async with asyncio.timeout(20):
        while True:
            states = [[sa["state"] for sa in await node.sas()] for node in (lab.client, lab.gateway)]
            if states == [["ESTABLISHED"], ["ESTABLISHED"]]:
                return
            await asyncio.sleep(0.1)
