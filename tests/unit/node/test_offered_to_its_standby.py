"""An IKE_SA that is offered to the node that stands by for it has a standby all the while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mobikectl.node.watching import TargetStep
from mobikectl.protocol.handover import SourceState
from mobikectl.wire.handover import Recall, Stands, Start
from mobikectl.wire.standby import Batch, Touch

from .three_gateways import World, move, until
from .two_gateways import CLIENT, HERE, SPIS, THERE, chain, order, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """gw1 serves it; gw2, which is the next to serve it, is the only one that stands by for it."""
    world = World()
    world.fit = {"gw2"}
    world.gw1.charon.told = 4, 9
    async with world.standing_by("gw1"):
        await until(lambda: world.with_copy() == ["gw2"] and not world.gw1.replicator.behind)
        world.gw2.charon.did.clear()
        yield world


async def test_what_its_charon_has_is_what_is_offered(world: World) -> None:
    assert await move(world) is SourceState.HANDED_OVER
    assert world.gw2.charon.did == ["activate roam=False peer_r=True own_r=True"]
    assert world.serving == ["gw2"]
    assert world.client_goes_on("gw2")


async def test_when_it_is_served_it_is_no_copy(world: World) -> None:
    await move(world)
    assert not len(world.gw2.copies)


async def test_a_copy_that_is_another_is_made_anew(world: World) -> None:
    """Its client moved, and the standby was not told yet."""
    world.gw2.charon.chain = chain().at(HERE, CLIENT)
    assert await move(world) is SourceState.HANDED_OVER
    assert world.gw2.charon.did[:2] == ["remove", "replay"]
    assert not len(world.gw2.copies)


@pytest.mark.parametrize("another", [False, True])
async def test_an_offer_that_is_taken_back_leaves_the_copy(world: World, another: bool) -> None:
    if another:
        world.gw2.charon.chain = chain().at(HERE, CLIENT)
    world.gw1.charon.switch_fails = True
    assert await move(world) is SourceState.KEPT
    assert world.serving == ["gw1"]
    assert world.with_copy() == ["gw2"]
    assert world.gw2.charon.sa is not None
    assert not world.gw2.intake.taken


@pytest.mark.parametrize("step", [SourceState.ASKING, TargetStep.IMPORT, TargetStep.ACCEPT])
async def test_a_source_whose_charon_dies_before_it_stops_serving_is_taken_over(
    world: World, step: SourceState | TargetStep
) -> None:
    def dies() -> None:
        world.gw1.charon_dies()
        world.gw1.charon.switch_fails = True

    world.steps[step] = dies
    assert await move(world) is SourceState.LOST
    await until(lambda: (copy := world.gw2.copies.find(SPIS)) is not None and copy.lost)
    assert await world.gw2.copies.start(SPIS) is None
    assert world.serving == ["gw2"]
    assert world.client_goes_on("gw2")


@pytest.mark.parametrize("step", [SourceState.ASKING, SourceState.FREEZING, SourceState.STARTING])
async def test_a_source_that_dies_before_the_target_serves_is_taken_over(
    world: World, step: SourceState
) -> None:
    world.steps[step] = world.gw1.dies
    moving = asyncio.create_task(world.gw1.handing.hand_over(order(r=True)))
    await until(lambda: world.gw1.cut)
    assert await world.gw2.copies.start(SPIS) is None
    moving.cancel()
    await asyncio.gather(moving, return_exceptions=True)
    assert world.serving == ["gw2"]
    assert world.client_goes_on("gw2")
    assert not world.gw2.intake.taken


async def test_a_client_that_does_not_come_leaves_the_copy(world: World) -> None:
    world.client.sends = 77
    assert await move(world) is SourceState.KEPT
    assert world.serving == ["gw1"]
    assert world.with_copy() == ["gw2"]
    copy = world.gw2.copies.find(SPIS)
    assert copy is not None
    assert not copy.starting
    assert world.gw2.charon.sa is not None


async def test_nothing_is_told_to_charon_of_what_it_serves(world: World) -> None:
    """What the source told before it stopped serving may arrive after that."""
    copies, charon = world.gw2.copies, world.gw2.charon

    async def watch(step: object) -> None:
        if getattr(step, "what", None) is TargetStep.HEAR:
            batch = Batch((Touch(SPIS, (4, 9), ()),))
            assert not (await copies.take("gw1", batch)).missing

    world.gw2.intake._watch = watch
    assert await move(world) is SourceState.HANDED_OVER
    assert "follow" not in charon.did
    assert not len(copies)


async def test_what_was_taken_over_meanwhile_is_served_whatever_the_source_asks(world: World) -> None:
    """Its source was away for so long that it was taken for dead."""
    offered: list[Stands] = []

    async def taken_over(step: object) -> None:
        assert await world.gw2.copies.start(SPIS) is None
        offered.append((await world.gw2.intake.recall(Recall(3, SPIS), "gw1")).stands)
        start = Start(3, SPIS, (4, 9), roam=True)
        offered.append((await world.gw2.intake.start(start, "gw1")).stands)

    async def watch(step: object) -> None:
        if getattr(step, "what", None) is SourceState.STARTING:
            await taken_over(step)

    world.gw1.handing._watch = watch
    await within(5, world.gw1.handing.hand_over(order(r=True)))
    assert offered == [Stands.SERVED, Stands.SERVED]
    assert world.serving == ["gw2"]


async def test_an_offer_that_nobody_takes_up_leaves_the_copy(world: World) -> None:
    intake = world.gw2.intake
    offered = asyncio.Event()

    async def watch(step: object) -> None:
        if getattr(step, "what", None) is SourceState.ASKING:
            offered.set()
            await asyncio.Event().wait()

    world.gw1.handing._watch = watch
    moving = asyncio.create_task(world.gw1.handing.hand_over(order(r=True)))
    await within(2, offered.wait())
    moving.cancel()
    expiring = asyncio.create_task(intake.expire())
    await until(lambda: not intake.taken)
    for task in (expiring, moving):
        task.cancel()
    await asyncio.gather(expiring, moving, return_exceptions=True)
    assert world.with_copy() == ["gw2"]
    assert world.gw2.charon.sa is not None


async def test_a_copy_at_another_address_than_the_offers_is_made_anew(world: World) -> None:
    assert world.gw2.charon.chain is not None
    world.gw2.charon.chain = world.gw2.charon.chain.at(THERE, HERE)
    await move(world)
    assert "replay" in world.gw2.charon.did
