"""A standby has what it needs to serve an IKE_SA at any moment, and serves it when its node is dead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mobikectl.node.passive import CopyTimes
from mobikectl.protocol.handover import SourceState
from mobikectl.wire.handover import Offer

from .lab import CLIENT_INSIDE, SERVICE, children_of, spis_of
from .standbys import Standbys, standbys_of
from .test_move_helper import ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.node.watching import Step

    from ..rmobike.lab import Node
    from .lab import MoveLab

pytestmark = [pytest.mark.netns, pytest.mark.charon]


@pytest.fixture
async def standbys(ring: MoveLab) -> AsyncIterator[Standbys]:
    async with standbys_of(ring) as standbys:
        yield standbys


async def rekey(node: Node, **what: str) -> None:
    mark = len(node.events)
    async with node.vici as session:
        await session.request("rekey", what)
    await node.event("ike-rekey" if "ike" in what else "child-rekey", since=mark)


async def die(lab: MoveLab, name: str) -> None:
    process = lab.gateways[name].process
    assert process is not None
    process.kill()
    await asyncio.to_thread(process.wait, 10)


async def copied(lab: MoveLab, standbys: Standbys) -> str:
    """Wait until the IKE_SA that gw1 serves now is at its standby with the same CHILD_SAs; return which that is."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        mine = [sa for sa in await lab.sas("gw1") if sa["state"] == "ESTABLISHED"]
        if len(mine) == 1:
            name = await standbys.standby_of("gw1", spis_of(mine[0]))
            theirs = [sa for sa in await lab.sas(name) if spis_of(sa) == spis_of(mine[0])]
            if len(theirs) == 1 and children_of(theirs[0]) == children_of(mine[0]):
                assert theirs[0]["state"] == "PASSIVE"
                return name
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


async def test_an_ike_sa_goes_on_at_its_standby_when_its_charon_is_killed(
    ring: MoveLab, standbys: Standbys
) -> None:
    standby = await copied(ring, standbys)
    spis = spis_of(await ring.gateways["gw1"].sa())
    await die(ring, "gw1")
    assert await standbys.of[standby].copies.start(spis) is None
    await ring.client.sa(remote_host=ring.address(standby))
    await ring.flows()
    assert ring.client.log.count("initiating IKE_SA") == 1
    await rekey(ring.client, ike="vpn")
    await rekey(ring.gateways[standby], child="net")


async def test_an_ike_sa_that_is_moved_to_its_standby_is_there_already(
    ring: MoveLab, standbys: Standbys
) -> None:
    standby = await copied(ring, standbys)
    ids = {sa["uniqueid"] for sa in await ring.sas(standby)}
    ended = await standbys.sites.move("gw1", standby)
    assert ended.state is SourceState.HANDED_OVER, ended
    (served,) = [sa for sa in await ring.sas(standby) if sa["state"] == "ESTABLISHED"]
    assert {served["uniqueid"]} == ids
    await ring.client.sa(remote_host=ring.address(standby))
    await ring.flows()


async def test_an_ike_sa_whose_charon_is_killed_while_it_is_offered_goes_on_at_its_standby(
    ring: MoveLab, standbys: Standbys
) -> None:
    standby = await copied(ring, standbys)
    site, spis = standbys.sites.sites["gw1"], spis_of(await ring.gateways["gw1"].sa())

    async def watch(step: Step) -> None:
        if step.what is SourceState.ASKING:
            await die(ring, "gw1")

    site.handing._watch = watch
    moving = asyncio.create_task(standbys.sites.move("gw1", standby))
    async with asyncio.timeout(60):
        while spis not in standbys.sites.sites[standby].intake.taken:  # noqa: ASYNC110 - it has no events
            await asyncio.sleep(0.01)
        await ring.gateways["gw1"].start()
        await moving
    assert await standbys.of[standby].copies.start(spis) is None
    await ring.client.sa(remote_host=ring.address(standby))
    assert ring.client.log.count("initiating IKE_SA") == 1
    await ring.flows()


async def test_a_standby_follows_rekeyings_and_exchanges(ring: MoveLab, standbys: Standbys) -> None:
    await copied(ring, standbys)
    gateway = ring.gateways["gw1"]
    await rekey(gateway, child="net")
    await copied(ring, standbys)
    await rekey(ring.client, ike="vpn")
    await copied(ring, standbys)
    await rekey(ring.client, child="net")
    await rekey(gateway, ike="vpn")
    standby = await copied(ring, standbys)
    spis = spis_of(next(sa for sa in await ring.sas("gw1") if sa["state"] == "ESTABLISHED"))
    await asyncio.sleep(0.3)
    await die(ring, "gw1")
    assert await standbys.of[standby].copies.start(spis) is None, ring.gateways[standby].log[-3000:]
    await ring.flows()


async def test_an_ike_sa_that_ends_ends_at_its_standby(ring: MoveLab, standbys: Standbys) -> None:
    standby = await copied(ring, standbys)
    async with ring.client.vici as session:
        await session.request("terminate", {"ike": "vpn"})
    deadline = asyncio.get_running_loop().time() + 20
    while await ring.sas(standby):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    assert not len(standbys.of[standby].copies)


async def test_a_standby_whose_memory_is_gone_takes_its_copy_up_again(
    ring: MoveLab, standbys: Standbys
) -> None:
    standby = await copied(ring, standbys)
    before = [sa["uniqueid"] for sa in await ring.sas(standby)]
    made = standbys.make(standby)
    made.served = []
    assert await made.copies.remember() == 1
    assert [sa["uniqueid"] for sa in await ring.sas(standby)] == before
    standbys.of[standby].copies._copies.clear()  # and without its notes
    await asyncio.sleep(3)
    await copied(ring, standbys)
    assert [sa["uniqueid"] for sa in await ring.sas(standby)] == before


async def test_a_standby_that_goes_is_replaced(ring: MoveLab, standbys: Standbys) -> None:
    standby = await copied(ring, standbys)
    standbys.cut.add(standby)
    standbys.fit.discard(standby)
    deadline = asyncio.get_running_loop().time() + 30
    other = next(name for name in ring.gateways if name not in {"gw1", standby})
    while not standbys.of[other].copies.of("gw1"):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    standbys.cut.clear()  # it is back: what it has is another's now
    while standbys.of[standby].copies.of("gw1") or await ring.sas(standby):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


async def test_a_client_that_does_not_answer_is_dropped(ring: MoveLab, standbys: Standbys) -> None:
    standby = await copied(ring, standbys)
    spis = spis_of(await ring.gateways["gw1"].sa())
    standbys.of[standby].copies._takeover._times = CopyTimes(appear_s=15, give_up_s=3)
    await die(ring, "gw1")
    await die_client(ring)
    why = await standbys.of[standby].copies.start(spis)
    assert why is not None
    assert "did not answer" in why
    assert not await ring.sas(standby)
    assert not len(standbys.of[standby].copies)


async def die_client(lab: MoveLab) -> None:
    process = lab.client.process
    assert process is not None
    process.kill()
    await asyncio.to_thread(process.wait, 10)


async def test_a_client_that_is_requests_ahead_of_what_its_standby_was_told_is_heard(
    ring: MoveLab, standbys: Standbys
) -> None:
    standby = await copied(ring, standbys)
    spis = spis_of(await ring.gateways["gw1"].sa())
    standbys.cut.add(standby)
    await ask(ring.client, 3)
    _, asked = ring.brokers["gw1"].counts(spis)
    await die(ring, "gw1")
    assert await standbys.of[standby].copies.start(spis) is None
    async with asyncio.timeout(20):
        while (ring.brokers[standby].counts(spis)[1] or 0) <= (asked or 0):  # noqa: ASYNC110 - it has no events
            await asyncio.sleep(0.02)
    await rekey(ring.client, ike="vpn")  # a client whose first request is dropped gives up after some seconds
    await ring.flows()
    assert "another node took those before it" in ring.gateways[standby].log
    assert ring.client.log.count("IKE_SA_INIT request") == 1


async def come_anew(lab: MoveLab, name: str) -> None:
    """The client leaves its IKE_SA without a word, and makes another one at a gateway."""
    await die_client(lab)
    await lab.client.start()
    await lab.client.load("client", "gateway", lab.address(name), f"{CLIENT_INSIDE}/32", f"{SERVICE}/32")
    await lab.client.initiate()
    await lab.flows()


async def test_what_a_client_left_takes_no_traffic_of_the_ike_sa_that_it_made_instead(
    ring: MoveLab, standbys: Standbys
) -> None:
    standby = await copied(ring, standbys)
    other = next(name for name in ring.gateways if name not in {"gw1", standby})
    await come_anew(ring, other)
    told = len(standbys.batches)
    standbys.fit = {other}
    async with asyncio.timeout(20):
        while not any(  # noqa: ASYNC110 - it has no events
            node == other and any(isinstance(item, Offer) for item in batch.items)
            for node, batch in standbys.batches[told:]
        ):
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)  # a copy would be made
    sent, answered = await (await ring.ping(20)).result()
    assert answered == sent
    assert [sa["state"] for sa in await ring.sas(other)] == ["ESTABLISHED"]


async def test_a_standby_gives_its_copy_up_when_another_ike_sa_of_the_client_is_moved_there(
    ring: MoveLab, standbys: Standbys
) -> None:
    standby = await copied(ring, standbys)
    other = next(name for name in ring.gateways if name not in {"gw1", standby})
    await come_anew(ring, other)  # made there, charon would end the copy by itself (INITIAL_CONTACT)
    ended = await standbys.sites.move(other, standby)
    assert ended.state is SourceState.HANDED_OVER, ended
    async with asyncio.timeout(20):
        while [sa["state"] for sa in await ring.sas(standby)] != ["ESTABLISHED"]:  # noqa: ASYNC110 - it has no events
            await asyncio.sleep(0.02)
    await ring.flows()
