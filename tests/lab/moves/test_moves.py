"""An IKE_SA goes around three gateways, and stays where it is when something is wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.node.handing import _Work
from mobikectl.node.intake import IntakeTimes
from mobikectl.protocol.handover import Handover
from mobikectl.protocol.handover import SourceState as S

from .lab import spis_of
from .sites import Sites, sites_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .lab import MoveLab

pytestmark = [pytest.mark.netns, pytest.mark.charon]


@pytest.fixture
async def sites(ring: MoveLab) -> AsyncIterator[Sites]:
    async with sites_of(ring) as sites:
        yield sites


async def serving(lab: MoveLab) -> list[str]:
    """Return the gateways that serve it; no other may have it at all."""
    found = {name: await lab.sas(name) for name in lab.gateways}
    assert sum(len(sas) for sas in found.values()) == 1, found
    return [name for name, sas in found.items() if sas and sas[0]["state"] == "ESTABLISHED"]


ROUND = (("gw1", "gw2"), ("gw2", "gw3"), ("gw3", "gw1"))


@pytest.mark.parametrize("r", [False, True], ids=["by-address-list", "by-switch"])
async def test_around_the_ring_with_the_same_ike_sa(ring: MoveLab, sites: Sites, r: bool) -> None:
    before = await ring.gateways["gw1"].sa()
    ping = await ring.ping(2500)
    await asyncio.sleep(0.3)
    for source, target in ROUND:
        ended = await sites.move(source, target, r=r)
        assert ended.state is S.HANDED_OVER, (
            ended,
            ring.gateways[target].log[-3000:],
            ring.client.log[-3000:],
        )
        assert await serving(ring) == [target]
        await ring.client.sa(remote_host=ring.address(target))
    assert spis_of(await ring.gateways["gw1"].sa()) == spis_of(before)
    sent, answered = await ping.result()
    # Userland ESP: the CHILD_SA is rekeyed at each target, and until then the client takes its packets for replays.
    assert sent - answered <= 3 * 60
    assert ring.client.log.count("initiating IKE_SA") == 1
    assert "received DELETE for IKE_SA" not in ring.client.log


async def test_a_client_behind_a_nat_is_moved_by_a_switch(ring: MoveLab, sites: Sites) -> None:
    ring.masquerade()
    async with ring.client.vici as session:
        await session.request("terminate", {"ike": "vpn"})
    await ring.connect()
    before = await ring.client.sa()
    for source, target in ROUND[:2]:
        ended = await sites.move(source, target, r=True)
        assert ended.state is S.HANDED_OVER, (
            ended,
            ring.gateways[target].log[-3000:],
            ring.client.log[-3000:],
        )
        await ring.client.sa(remote_host=ring.address(target))
        assert await serving(ring) == [target]
    assert spis_of(await ring.client.sa()) == spis_of(before)
    ping = await ring.ping(50)
    sent, answered = await ping.result()
    assert answered == sent


@pytest.mark.parametrize("r", [False, True], ids=["by-address-list", "by-switch"])
async def test_a_client_that_does_not_come_stays_without_loss(ring: MoveLab, sites: Sites, r: bool) -> None:
    if r:
        async with ring.client.control as session:
            await session.request("set-policy", {"accept": "listed", "allow": ""})
    else:
        ring.block(ring.address("gw2"))
    sites.sites["gw2"].intake._times = IntakeTimes(appear_s=10, answer_s=1.0)
    ping = await ring.ping(500)
    await asyncio.sleep(0.3)
    ended = await sites.move("gw1", "gw2", r=r)
    assert ended.state is S.KEPT
    assert "did not come" in ended.why
    assert await serving(ring) == ["gw1"]
    sent, answered = await ping.result()
    assert answered == sent
    async with ring.client.vici as session:  # and the IKE_SA works in both directions
        await session.request("rekey", {"child": "net"})
    await ring.client.event("child-rekey")
    mark = len(ring.gateways["gw1"].events)
    async with ring.gateways["gw1"].vici as session:
        await session.request("rekey", {"ike": "vpn"})
    await ring.gateways["gw1"].event("ike-rekey", since=mark)


async def test_a_client_that_hears_the_target_and_is_not_heard_there_hears_the_source_again(
    ring: MoveLab, sites: Sites
) -> None:
    ring.block(ring.address("gw2"), answers=False)
    sites.sites["gw2"].intake._times = IntakeTimes(appear_s=10, answer_s=1.0)
    before = spis_of(await ring.client.sa())
    ended = await sites.move("gw1", "gw2")
    assert ended.state is S.KEPT
    assert "did not come" in ended.why
    assert await serving(ring) == ["gw1"]
    await ring.client.sa(remote_host=ring.address("gw1"))
    async with ring.client.vici as session:  # its requests are answered there
        await session.request("rekey", {"child": "net"})
    await ring.client.event("child-rekey")
    assert spis_of(await ring.client.sa()) == before


async def test_a_client_that_was_asked_and_does_not_reach_the_target_is_asked_back(
    ring: MoveLab, sites: Sites
) -> None:
    ring.block(ring.address("gw2"))
    sites.sites["gw2"].intake._times = IntakeTimes(appear_s=10, answer_s=1.0)
    ended = await sites.move("gw1", "gw2", r=True)
    assert ended.state is S.KEPT
    assert "did not come" in ended.why
    assert await serving(ring) == ["gw1"]
    await ring.client.sa(remote_host=ring.address("gw1"))
    await ring.flows()


async def test_a_client_that_was_asked_to_go_comes_back_to_a_gateway_that_was_silent_for_long(
    ring: MoveLab, sites: Sites
) -> None:
    assert (await sites.move("gw1", "gw2", r=True)).state is S.HANDED_OVER
    ring.block(ring.address("gw3"))
    gateway, client = ring.gateways["gw2"], ring.client
    ike_id = (await gateway.sa())["uniqueid"]
    mark = len(client.events)
    await sites.sites["gw2"].control.ask_to_switch(int(ike_id), ip_address(ring.address("gw3")), timeout=5)
    await gateway.command("freeze", **{"ike-id": ike_id, "timeout-ms": "12000"})  # its sidecar was killed
    await gateway.event("thawed", timeout=20)
    deadline = asyncio.get_running_loop().time() + 30
    while not {"update-done", "update-failed"} & set(client.names(mark)):
        assert asyncio.get_running_loop().time() < deadline, client.log[-3000:]
        await asyncio.sleep(0.1)
    assert "giving up after" not in client.log
    assert client.log.count("initiating IKE_SA") == 1
    assert await serving(ring) == ["gw2"]


async def test_a_rekeyed_ike_sa_with_a_rekeyed_child_moves(ring: MoveLab, sites: Sites) -> None:
    gateway = ring.gateways["gw1"]
    for node, what in ((ring.client, {"ike": "vpn"}), (gateway, {"child": "net"}), (gateway, {"ike": "vpn"})):
        mark = len(node.events)
        async with node.vici as session:
            await session.request("rekey", what)
        await node.event("ike-rekey" if "ike" in what else "child-rekey", since=mark)
    ended = await sites.move("gw1", "gw2")
    assert ended.state is S.HANDED_OVER, (ended, ring.gateways["gw2"].log[-3000:])
    assert await serving(ring) == ["gw2"]
    for node, what in ((ring.client, {"ike": "vpn"}), (ring.gateways["gw2"], {"ike": "vpn"})):
        mark = len(node.events)
        async with node.vici as session:
            await session.request("rekey", what)
        await node.event("ike-rekey", since=mark)
    ended = await sites.move("gw2", "gw3")
    assert ended.state is S.HANDED_OVER, (ended, ring.gateways["gw3"].log[-3000:])


async def test_a_target_that_does_not_know_the_connection_refuses(ring: MoveLab, sites: Sites) -> None:
    async with ring.gateways["gw2"].vici as session:
        await session.request("unload-conn", {"name": "vpn"})
    ended = await sites.move("gw1", "gw2")
    assert ended.state is S.KEPT
    assert "no connection vpn" in ended.why
    assert await serving(ring) == ["gw1"]


STEPS = ["asking", "freezing", "starting", "holding", "dropping"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_source_killed_at_any_step_leaves_one_that_serves(
    ring: MoveLab, sites: Sites, step: str
) -> None:
    source = sites.sites["gw1"]
    order = await sites.order("gw1", "gw2")
    reached = asyncio.Event()
    source.handing._told = lambda _, handover: reached.set() if handover.state.value == step else None
    running = asyncio.create_task(source.handing._run(_Work(order), Handover()))
    await asyncio.wait_for(reached.wait(), 30)
    running.cancel()  # as if it was killed: nothing of it runs any more
    await asyncio.gather(running, return_exceptions=True)
    ended = await sites.make("gw1").handing.settle(order)
    found = await serving(ring)
    assert found == [{S.HANDED_OVER: "gw2", S.KEPT: "gw1"}[ended.state]]
    await ring.client.sa(remote_host=ring.address(found[0]))
    await ring.flows()


async def test_a_target_cut_off_after_it_was_started_is_asked_until_it_answers(
    ring: MoveLab, sites: Sites
) -> None:
    source = sites.sites["gw1"]
    cuts: list[S] = []

    def cut(_: object, handover: Handover) -> None:
        if handover.state is S.STARTING:
            sites.lose_answers = 1
        elif handover.state is S.RECALLING and not cuts:
            cuts.append(handover.state)
            sites.cut.add("gw2")
            asyncio.get_running_loop().call_later(1.0, sites.cut.clear)

    source.handing._told = cut
    ended = await sites.move("gw1", "gw2")
    assert ended.state is S.HANDED_OVER
    assert await serving(ring) == ["gw2"]


async def test_what_the_source_asked_while_the_target_was_silent_does_not_deafen_the_client_to_the_target(
    ring: MoveLab, sites: Sites
) -> None:
    source = sites.sites["gw1"]
    source.handing._times = replace(source.handing._times, meanwhile_s=0.5)

    def cut(_: object, handover: Handover) -> None:
        if handover.state is S.STARTING:
            sites.lose_answers = 1
        elif handover.state is S.RECALLING and S.RECALLING not in handover.seen:
            sites.cut.add("gw2")

    source.handing._told = cut
    moving = asyncio.create_task(sites.move("gw1", "gw2", r=True))
    served = await ring.gateways["gw2"].sa()
    async with asyncio.timeout(30):
        while (here := await ring.sas("gw1"))[0]["state"] != "ESTABLISHED":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    asking = {"ike_id": int(here[0]["uniqueid"]), "token": "dpd", "notifies": ["50001"]}
    await ring.gateways["gw1"].command("send-notify", **asking)  # as its dead peer detection would
    await asyncio.sleep(0.3)
    source.handing._told = lambda *_: None
    sites.cut.clear()
    assert (await asyncio.wait_for(moving, 60)).state is S.HANDED_OVER
    assert await serving(ring) == ["gw2"]
    mark = len(ring.gateways["gw2"].events)
    async with ring.gateways["gw2"].vici as session:
        await session.request("rekey", {"ike-id": served["uniqueid"]})
    await ring.gateways["gw2"].event("ike-rekey", since=mark)
    await ring.flows()


async def test_a_source_whose_charon_is_killed_is_followed_by_the_target(ring: MoveLab, sites: Sites) -> None:
    source = sites.sites["gw1"]

    def die(_: object, handover: Handover) -> None:
        process = ring.gateways["gw1"].process
        if handover.state is S.FREEZING and process is not None:
            process.kill()
            process.wait(10)

    source.handing._told = die
    order = await sites.order("gw1", "gw2")
    running = asyncio.create_task(source.handing.hand_over(order))
    await asyncio.sleep(2)
    await ring.gateways["gw1"].start()
    ended = await asyncio.wait_for(running, 60)
    assert ended.state is S.HANDED_OVER, ended
    await ring.gateways["gw2"].sa()
    await ring.flows()
