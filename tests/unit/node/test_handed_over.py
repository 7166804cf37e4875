"""Nobody is alone with an IKE_SA that was just moved: its source can go on with it until a standby has it."""

from __future__ import annotations

import asyncio

import pytest

from mobikectl.node.takeover import LEAST_JUMP
from mobikectl.node.watching import Step, TargetStep
from mobikectl.protocol.handover import SourceState

from .three_gateways import SENT, World, move, until
from .two_gateways import SPIS, Client


@pytest.fixture
def world() -> World:
    return World()


async def test_the_source_has_a_copy_until_the_targets_standby_has_one(world: World) -> None:
    world.gw3.cut = True
    world.fit = {"gw3"}
    async with world.standing_by():
        assert await move(world) is SourceState.HANDED_OVER
        await asyncio.sleep(0.3)
        assert world.with_copy() == ["gw1"]
        world.gw3.cut = False
        await until(lambda: world.with_copy() == ["gw3"], world.with_copy)
        assert world.gw1.charon.sa is None
    assert world.serving == ["gw2"]


async def test_a_source_that_is_told_of_the_standby_in_time_makes_no_copy(world: World) -> None:
    world.fit = {"gw3"}

    async def watch(step: Step) -> None:
        if step.what is SourceState.DROPPING:
            await until(lambda: world.with_copy() == ["gw3"] and not len(world.gw1.copies))

    world.gw1.handing._watch = watch
    async with world.standing_by():
        assert await move(world) is SourceState.HANDED_OVER
        assert world.with_copy() == ["gw3"]
        assert "replay" not in world.gw1.charon.did


async def test_a_source_that_is_the_standby_keeps_its_copy(world: World) -> None:
    world.fit = {"gw1"}
    async with world.standing_by():
        assert await move(world) is SourceState.HANDED_OVER

        def is_told() -> bool:
            copy = world.gw1.copies.find(SPIS)
            return copy is not None and copy.offer.name.startswith("gw2/")

        await until(is_told)
        await asyncio.sleep(0.1)
        assert world.with_copy() == ["gw1"]
    assert world.gw1.charon.did.count("replay") == 1


async def test_no_copy_is_left_of_what_ended_at_the_target(world: World) -> None:
    world.fit = set()
    world.gw2.seen = False
    async with world.standing_by():
        assert await move(world) is SourceState.HANDED_OVER
        world.gw2.replicator._heard(SPIS, True)
        await until(lambda: world.with_copy() == [])
        assert world.gw1.charon.sa is None


async def test_no_copy_is_left_of_what_its_client_ends_as_it_comes(world: World) -> None:
    world.steps[TargetStep.ANSWER] = world.gw2.charon.end
    async with world.standing_by():
        assert await move(world) is SourceState.HANDED_OVER
        await until(lambda: not len(world.gw1.copies))
    assert world.gw1.charon.sa is None


async def test_no_copy_is_left_where_the_move_came_to_nothing(world: World) -> None:
    world.client.sends = 77  # it does not come
    async with world.standing_by():
        assert await move(world) is SourceState.KEPT
    assert world.serving == ["gw1"]
    assert not any(len(node.copies) for node in world.nodes.values())


@pytest.mark.parametrize("r", [True, False])
@pytest.mark.parametrize(
    "step", [TargetStep.ANSWER, SourceState.HOLDING, SourceState.DROPPING, SourceState.HANDED_OVER]
)
async def test_wherever_the_targets_charon_dies_after_its_client_came_the_source_goes_on(
    world: World, step: TargetStep | SourceState, r: bool
) -> None:
    world.fit = {"gw3"}
    world.gw3.cut = True  # it has no copy yet
    world.gw2.seen = False  # nor did anybody see it at the target
    world.steps[step] = world.gw2.charon_dies
    async with world.standing_by():
        assert await move(world, r=r) is SourceState.HANDED_OVER
        assert world.serving == []
        await until(lambda: world.with_copy() == ["gw1"], world.with_copy)

        def lost() -> bool:
            copy = world.gw1.copies.find(SPIS)
            return copy is not None and copy.lost

        await until(lost)
        assert await world.gw1.copies.start(SPIS) is None
    assert world.serving == ["gw1"]
    assert world.client_goes_on("gw1")
    assert world.gw1.charon.kernel[101].oseq >= SENT + LEAST_JUMP


@pytest.mark.parametrize("r", [True, False])
@pytest.mark.parametrize("step", [SourceState.HOLDING, SourceState.DROPPING, SourceState.HANDED_OVER])
async def test_wherever_the_target_dies_after_its_client_came_the_source_goes_on(
    world: World, step: SourceState, r: bool
) -> None:
    world.fit = {"gw3"}
    world.gw3.cut = True
    world.steps[step] = world.gw2.dies
    async with world.standing_by():
        assert await move(world, r=r) is SourceState.HANDED_OVER
        assert world.with_copy() == ["gw1"]
        assert await world.gw1.copies.start(SPIS) is None
    assert world.serving == ["gw1"]
    assert world.client_goes_on("gw1")
    assert world.gw1.charon.kernel[101].oseq >= SENT + LEAST_JUMP


@pytest.mark.parametrize("r", [True, False])
async def test_a_target_whose_charon_is_away_says_that_its_client_came(world: World, r: bool) -> None:
    def goes() -> None:
        world.gw2.charon_dies()
        world.gw2.charon.down = True

    world.steps[TargetStep.ANSWER] = goes
    async with world.standing_by():
        assert await move(world, r=r) is SourceState.HANDED_OVER
        assert world.with_copy() == ["gw1"]


async def test_a_client_that_did_not_get_the_targets_request_is_found_all_the_same(world: World) -> None:
    """charon tells of a request when it sends it."""
    world.fit = {"gw3"}
    world.gw3.cut = True
    world.gw2.seen = False

    def dies() -> None:
        world.gw2.charon.told = 5, 9
        world.gw2.charon_dies()

    world.client.takes = 4
    world.steps[TargetStep.HEAR] = dies
    world.gw2.charon.client = Client(takes=77)
    async with world.standing_by():
        assert await move(world, r=False) is SourceState.HANDED_OVER
        await until(lambda: world.with_copy() == ["gw1"], world.with_copy)
        assert await world.gw1.copies.start(SPIS) is None
    assert world.client_goes_on("gw1")


async def test_a_target_whose_charon_dies_before_anything_was_said_gives_it_back(world: World) -> None:
    world.steps[TargetStep.ACTIVATE] = world.gw2.charon_dies
    async with world.standing_by():
        assert await move(world) is SourceState.KEPT
    assert world.serving == ["gw1"]


@pytest.mark.parametrize("r", [True, False])
@pytest.mark.parametrize("step", [TargetStep.ACTIVATE, TargetStep.HEAR, TargetStep.ANSWER])
async def test_a_target_that_dies_without_a_word_leaves_the_client_with_the_source(
    world: World, step: TargetStep, r: bool
) -> None:
    """Whether the client came, and what it asked there, nobody says but the client."""
    world.steps[step] = world.gw2.dies
    async with world.standing_by():
        assert await move(world, r=r) is SourceState.KEPT
    assert world.serving == ["gw1"]
    assert world.client_goes_on("gw1")
    assert not len(world.gw1.copies)


async def test_what_is_frozen_and_not_handed_over_yet_is_served_here_to_all_who_ask(world: World) -> None:
    asked: list[frozenset[object]] = []

    def ask() -> None:
        asked.append(frozenset())

    async def look(step: Step) -> None:
        if step.what in {SourceState.STARTING, SourceState.DROPPING}:
            asked.append(await world.gw1.copies.serving([SPIS]))

    world.gw1.handing._watch = look
    async with world.standing_by():
        await move(world)
    assert asked == [{SPIS}, frozenset()]


async def test_a_copy_is_used_up_when_another_node_took_it_over(world: World) -> None:
    world.fit = {"gw1"}
    async with world.standing_by():
        await move(world)
        await until(lambda: world.with_copy() == ["gw1"])
    world.gw2.dies()
    copy = world.gw1.copies.taken_over(SPIS, "gw2")
    assert copy is not None
    assert await world.gw1.copies.start(SPIS) is not None
    await world.gw1.copies.give_up(SPIS, copy)
    assert world.gw1.charon.sa is None
    assert world.gw1.copies.taken_over(SPIS, "gw2") is None
