"""Moves of the journal, carried out by real sidecars on real charons."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.records import MoveState
from mobikectl.policy.cluster import Mechanism

from .stage import CLIENTS, GW1, GW2, peers, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .stage import Stage

    MakeStage = Callable[..., Awaitable[Stage]]

pytestmark = [pytest.mark.netns, pytest.mark.charon, pytest.mark.timeout(180)]

WAN2_OF_GW1, WAN1_OF_GW2 = "198.18.10.1", "198.18.11.1"
STAYS = "prefer_best_path = no"
S = MoveState


async def test_clients_with_the_plugin_are_switched_to_another_address_of_their_gateway(
    make_stage: MakeStage,
) -> None:
    stage = await make_stage(client_settings=STAYS, plugin=True)
    keys = await stage.keys(GW1)
    moves = await stage.ended(await stage.plan(Mechanism.NOTIFY, keys, GW1, GW1, WAN2_OF_GW1))
    assert [move.state for move in moves] == [S.VERIFIED] * len(keys), moves
    assert {ours for ours, _ in (await stage.served(GW1)).values()} == {WAN2_OF_GW1}
    assert len(await stage.routes(GW1)) == len(keys)


async def test_stock_clients_follow_an_implicit_switch(make_stage: MakeStage) -> None:
    stage = await make_stage(client_settings=STAYS)
    key, *_ = await stage.keys(GW1)
    (move,) = await stage.ended(await stage.plan(Mechanism.IMPLICIT, [key], GW1, GW1, WAN2_OF_GW1))
    assert move.state is S.VERIFIED, move
    (peer,) = peers([key])
    assert (await stage.served(GW1))[peer][0] == WAN2_OF_GW1


async def test_redirected_clients_are_seen_at_the_other_gateway_and_no_route_is_left(
    make_stage: MakeStage,
) -> None:
    stage = await make_stage(client_settings=STAYS, plugin=True)
    keys = await stage.keys(GW1)
    await stage.ended(await stage.plan(Mechanism.NOTIFY, keys, GW1, GW1, WAN2_OF_GW1))
    assert await stage.routes(GW1)
    await stage.told(GW1, WAN2_OF_GW1)
    moves = await stage.ended(await stage.plan(Mechanism.REDIRECT, keys, GW1, GW2, WAN1_OF_GW2))
    assert [move.state for move in moves] == [S.VERIFIED] * len(keys), moves
    assert await stage.served(GW1) == {}
    assert len(await stage.served(GW2)) == CLIENTS

    async def clean() -> bool:
        return await stage.routes(GW1) == []

    await until(clean, what="the steering routes of clients that left are gone")


async def test_peers_that_follow_no_redirects_refuse_and_stay(make_stage: MakeStage) -> None:
    stage = await make_stage(client_settings=f"{STAYS}\nfollow_redirects = no")
    key, other, *_ = await stage.keys(GW1)
    (move,) = await stage.ended(await stage.plan(Mechanism.REDIRECT, [key], GW1, GW2, WAN1_OF_GW2))
    assert move.state is S.REFUSED, move
    assert peers([key, other]) <= (await stage.served(GW1)).keys()


async def test_a_charon_that_is_killed_in_the_middle_has_its_moves_ended_and_its_routes_removed(
    make_stage: MakeStage,
) -> None:
    stage = await make_stage(client_settings=STAYS, plugin=True)
    keys = await stage.keys(GW1)
    await stage.ended(await stage.plan(Mechanism.NOTIFY, keys[:2], GW1, GW1, WAN2_OF_GW1))
    stage.charon(GW1, signal.SIGSTOP)
    numbers = await stage.plan(Mechanism.NOTIFY, keys[2:], GW1, GW1, WAN2_OF_GW1)
    await stage.begun(numbers[0])
    stage.charon(GW1, signal.SIGKILL)
    moves = await stage.ended(numbers, within=60)
    assert {move.state for move in moves} <= {S.TIMED_OUT, S.ROLLED_BACK, S.REFUSED, S.CANCELLED}, moves


@pytest.mark.parametrize("mechanism", [Mechanism.NOTIFY, Mechanism.REDIRECT])
async def test_a_sidecar_that_is_killed_in_the_middle_ends_its_moves_truthfully_when_it_is_back(
    make_stage: MakeStage, mechanism: Mechanism
) -> None:
    stage = await make_stage(client_settings=STAYS, plugin=True)
    keys = await stage.keys(GW1)
    redirects = mechanism is Mechanism.REDIRECT
    target, to = (GW2, WAN1_OF_GW2) if redirects else (GW1, WAN2_OF_GW1)
    numbers = await stage.plan(mechanism, keys, GW1, target, to)
    await stage.begun(numbers[0])
    stage.kill_sidecar(GW1)
    await asyncio.sleep(1.0)
    await stage.sidecar_start(GW1)
    moves = await stage.ended(numbers, within=60)
    here, there = await stage.served(GW1), await stage.served(GW2)
    for move in moves:
        (peer,) = peers(list(move.sas))
        asked = [step.state for step in move.steps].count(S.REQUESTED)
        assert asked <= 1
        if move.state is S.VERIFIED and redirects:
            assert peer in there, move
        elif move.state is S.VERIFIED:
            assert here[peer][0] == WAN2_OF_GW1, move
        else:
            assert move.state in {S.ROLLED_BACK, S.CANCELLED}, move
            assert peer in here, move
