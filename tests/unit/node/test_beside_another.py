"""A client that left its IKE_SA and made another one: what is left of the first takes nothing of the second's traffic.

Who serves the first does not know that, and goes on to have it copied, and may move it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mobikectl.protocol.handover import SourceState

from .three_gateways import World, move, until
from .two_gateways import SPIS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def world() -> World:
    world = World()
    world.fit = {"gw2"}
    return world


@asynccontextmanager
async def at_work(world: World) -> AsyncIterator[None]:
    """gw1 has gw2 stand by."""
    running = asyncio.create_task(world.gw2.copies.run())
    try:
        async with world.standing_by("gw1"):
            yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_no_copy_is_taken_where_its_client_has_another_ike_sa(world: World) -> None:
    world.gw2.charon.client_comes_anew()
    async with at_work(world):
        standbys = world.gw1.replicator._standbys
        await until(lambda: "gw2" in standbys and bool(standbys["gw2"].resting))
        assert world.with_copy() == []
        assert "replay" not in world.gw2.charon.did
        world.gw2.charon.beside = None
        await until(lambda: world.with_copy() == ["gw2"])


async def test_a_copy_is_given_up_when_its_client_comes_anew(world: World) -> None:
    async with at_work(world):
        await until(lambda: world.with_copy() == ["gw2"])
        world.gw2.charon.client_comes_anew()
        await until(lambda: world.gw2.charon.sa is None)
        await asyncio.sleep(0.3)  # they compare their lists
        assert world.with_copy() == []


async def test_a_copy_whose_client_comes_while_it_is_made_is_given_up(world: World) -> None:
    charon, replay = world.gw2.charon, world.gw2.charon.replay

    async def meanwhile(chain: object) -> None:
        await replay(chain)  # type: ignore[arg-type]
        charon.client_comes_anew()

    charon.replay = meanwhile  # type: ignore[method-assign]
    async with at_work(world):
        await until(lambda: charon.did[-2:] == ["replay", "remove"], lambda: charon.did)
        assert charon.sa is None


async def test_copies_of_both_are_kept_where_neither_is_served(world: World) -> None:
    async with at_work(world):
        await until(lambda: world.with_copy() == ["gw2"])
        world.gw2.charon.client_comes_anew()
        assert world.gw2.charon.beside is not None
        world.gw2.charon.beside = replace(world.gw2.charon.beside, serving=False)
        await asyncio.sleep(0.3)
        assert world.with_copy() == ["gw2"]


async def test_a_copy_is_not_served_beside_another_ike_sa_of_its_client(world: World) -> None:
    async with world.standing_by("gw1"):
        await until(lambda: world.with_copy() == ["gw2"])
        world.gw2.charon.client_comes_anew()
        why = await world.gw2.copies.start(SPIS)
    assert why is not None
    assert "its client has" in why
    assert world.gw2.charon.sa is None
    assert not any(each.startswith("activate") for each in world.gw2.charon.did)


async def test_an_ike_sa_whose_client_has_another_at_the_target_stays(world: World) -> None:
    world.fit = set()
    world.gw2.charon.client_comes_anew()
    assert await move(world) is not SourceState.HANDED_OVER
    assert world.serving == ["gw1"]
    assert "replay" not in world.gw2.charon.did


async def test_what_was_handed_over_leaves_no_copy_where_its_client_has_another_ike_sa(world: World) -> None:
    world.gw3.cut = True
    world.fit = {"gw3"}
    world.steps[SourceState.DROPPING] = world.gw1.charon.client_comes_anew
    async with world.standing_by("gw2"):
        assert await move(world) is SourceState.HANDED_OVER
        await until(lambda: "drop" in world.gw1.charon.did)
        await asyncio.sleep(0.2)  # it would have its copy
        assert not len(world.gw1.copies)
    assert "replay" not in world.gw1.charon.did


async def test_a_copy_that_was_not_to_be_served_after_all_is_given_up_if_its_client_came_anew_meanwhile(
    world: World,
) -> None:
    async with at_work(world):
        await until(lambda: world.with_copy() == ["gw2"])
        world.gw1.cut = True
        world.gw2.copies.begun(SPIS)
        world.gw2.charon.client_comes_anew()
        await asyncio.sleep(0.02)
        await world.gw2.copies.again(SPIS)
        await until(lambda: world.gw2.charon.sa is None and not len(world.gw2.copies))
