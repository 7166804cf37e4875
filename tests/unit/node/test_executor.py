"""What becomes of planned moves, on a gateway whose peers do as the test says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.records import ClusterIntent, MoveState, NodeIntent, Pin
from mobikectl.model import Path
from mobikectl.node.queue import Limits
from mobikectl.policy.cluster import Capability, Mechanism, Reason
from mobikectl.policy.cluster_settings import BalanceSettings
from tests.unit.node.a_gateway import OTHER, WAN1, WAN2, Gateway, Life, until

if TYPE_CHECKING:
    from mobikectl.cluster.records import MoveRecord
    from mobikectl.model import IpAddress

S = MoveState


async def a_gateway() -> Gateway:
    gateway = Gateway()
    await gateway.lead()
    return gateway


def states_of(record: MoveRecord) -> list[MoveState]:
    return [step.state for step in record.steps]


async def test_a_peer_that_follows_is_verified_step_by_step() -> None:
    gateway = await a_gateway()
    key = gateway.add(1)
    (number,) = await gateway.plan(Mechanism.NOTIFY, [key])
    async with Life(gateway).lived():
        await gateway.settled()
    record = await gateway.record(number)
    assert states_of(record) == [S.PLANNED, S.REQUESTED, S.ACKNOWLEDGED, S.MOVED, S.VERIFIED]
    assert gateway.sas[1].path.local == WAN2


@pytest.mark.parametrize(
    ("does", "mechanism", "ends"),
    [
        ("refuse", Mechanism.NOTIFY, S.REFUSED),
        ("refuse", Mechanism.REDIRECT, S.REFUSED),
        ("stay", Mechanism.NOTIFY, S.TIMED_OUT),
        ("break", Mechanism.NOTIFY, S.ROLLED_BACK),
        ("break", Mechanism.IMPLICIT, S.ROLLED_BACK),
        ("impossible", Mechanism.NOTIFY, S.REFUSED),
        ("die", Mechanism.IMPLICIT, S.TIMED_OUT),
        ("die", Mechanism.REDIRECT, S.TIMED_OUT),
        ("follow", Mechanism.REDIRECT, S.VERIFIED),
    ],
)
async def test_each_end_is_told_from_where_the_ike_sa_is(
    does: str, mechanism: Mechanism, ends: MoveState
) -> None:
    gateway = await a_gateway()
    gateway.add(2)
    await gateway._appear("somebody")
    (number,) = await gateway.plan(mechanism, [gateway.add(1, does)])
    async with Life(gateway).lived():
        await gateway.settled()
    record = await gateway.record(number)
    assert record.state is ends, record.steps


async def test_a_client_that_left_for_a_node_that_tells_nothing_is_taken_to_have_arrived() -> None:
    gateway = await a_gateway()
    (number,) = await gateway.plan(Mechanism.REDIRECT, [gateway.add(1, "die")])
    async with Life(gateway).lived():
        await gateway.settled()
    record = await gateway.record(number)
    assert record.state is S.VERIFIED
    assert "does not tell" in record.steps[-1].note


async def test_all_behind_an_address_are_verified_each() -> None:
    gateway = await a_gateway()
    shared = ip_address("198.19.7.7")
    keys = [gateway.add(n, remote=shared) for n in (1, 2, 3)]
    (number,) = await gateway.plan(Mechanism.IMPLICIT, keys)
    async with Life(gateway).lived():
        await gateway.settled()
    assert (await gateway.record(number)).state is S.VERIFIED
    assert {order.sa for order in gateway.orders} == {1, 2, 3}


async def test_one_behind_an_address_that_does_not_work_brings_all_back() -> None:
    gateway = await a_gateway()
    shared = ip_address("198.19.7.7")
    keys = [gateway.add(n, does, remote=shared) for n, does in ((1, "follow"), (2, "break"))]
    (number,) = await gateway.plan(Mechanism.IMPLICIT, keys)
    async with Life(gateway).lived():
        await gateway.settled()
    assert (await gateway.record(number)).state is S.ROLLED_BACK
    assert {sa.path.local for sa in gateway.sas.values()} == {WAN1}


async def test_an_address_that_others_came_to_is_not_steered() -> None:
    gateway = await a_gateway()
    shared = ip_address("198.19.7.7")
    key = gateway.add(1, remote=shared)
    gateway.add(2, remote=shared)
    (number,) = await gateway.plan(Mechanism.IMPLICIT, [key])
    async with Life(gateway).lived():
        await gateway.settled()
    assert (await gateway.record(number)).state is S.CANCELLED
    assert gateway.orders == []


async def test_a_move_of_a_leader_that_was_replaced_is_not_begun() -> None:
    gateway = await a_gateway()
    (number,) = await gateway.plan(Mechanism.NOTIFY, [gateway.add(1)])
    await gateway.store.resign(gateway.token)
    await gateway.lead()
    async with Life(gateway).lived():
        await gateway.settled()
    assert (await gateway.record(number)).state is S.CANCELLED
    assert gateway.orders == []


async def test_its_outcome_is_recorded_though_the_leader_was_replaced_meanwhile() -> None:
    gateway = await a_gateway()
    (number,) = await gateway.plan(Mechanism.NOTIFY, [gateway.add(1)])
    async with Life(gateway).lived():
        await until(lambda: bool(gateway.orders))
        await gateway.store.resign(gateway.token)
        await gateway.settled()
    assert (await gateway.record(number)).state is S.VERIFIED


@pytest.mark.parametrize("why", ["paused", "not in step", "no member"])
async def test_nothing_is_begun_while(why: str) -> None:
    gateway = await a_gateway()
    life = Life(gateway)
    await gateway.store.set_cluster(ClusterIntent(paused=why == "paused"), revision=0)
    life.in_step, life.may_begin = why != "not in step", why != "no member"
    await gateway.plan(Mechanism.NOTIFY, [gateway.add(1)])
    async with life.lived():
        await asyncio.sleep(0.05)
        assert await gateway.states() == [S.PLANNED]
        life.in_step = life.may_begin = True
        await gateway.store.set_cluster(
            ClusterIntent(), revision=(await gateway.store.state()).cluster.revision
        )
        await gateway.settled()
    assert await gateway.states() == [S.VERIFIED]


async def test_a_pin_stops_what_was_planned_before() -> None:
    gateway = await a_gateway()
    key = gateway.add(1)
    await gateway.store.pin(Pin(key), revision=0)
    (number,) = await gateway.plan(Mechanism.NOTIFY, [key])
    async with Life(gateway).lived():
        await gateway.settled()
    assert (await gateway.record(number)).state is S.CANCELLED


async def test_a_reconnect_needs_to_be_allowed() -> None:
    gateway = await a_gateway()
    allowed = BalanceSettings(mechanisms=frozenset(Mechanism))
    await gateway.plan(Mechanism.RECONNECT, [gateway.add(1)])
    async with Life(gateway).lived():
        await gateway.settled()
    await gateway.plan(Mechanism.RECONNECT, [gateway.add(2)])
    async with Life(gateway).lived(policy=allowed):
        await gateway.settled()
    assert await gateway.states() == [S.REFUSED, S.VERIFIED]


async def test_a_client_is_not_redirected_the_fifth_time() -> None:
    gateway = await a_gateway()
    life = Life(gateway)
    for _ in range(4):
        life.memory.redirected("peer1")
    (number,) = await gateway.plan(Mechanism.REDIRECT, [gateway.add(1)])
    async with life.lived():
        await gateway.settled()
    record = await gateway.record(number)
    assert (record.state, gateway.orders) == (S.CANCELLED, [])
    assert "RFC 5685" in record.steps[-1].note


async def test_a_mechanism_that_was_refused_is_not_offered_to_the_next_plan() -> None:
    gateway = await a_gateway()
    key = gateway.add(1, "refuse")
    life = Life(gateway)
    await gateway.plan(Mechanism.NOTIFY, [key])
    async with life.lived():
        await gateway.settled()
    full = Capability.MOBIKE | Capability.SWITCH | Capability.REDIRECT
    assert life.memory.capability(key, full) == Capability.MOBIKE | Capability.REDIRECT
    assert life.memory.refused_for(key) == 0.0
    gateway.peers[1] = "follow"
    await gateway.plan(Mechanism.IMPLICIT, [key])
    async with life.lived():
        await gateway.settled()
    assert life.memory.capability(key, full) == full


async def test_no_more_than_the_limit_are_under_way_and_one_at_each_steered_address() -> None:
    gateway = await a_gateway()
    shared = ip_address("198.19.7.7")
    keys = [gateway.add(n) for n in range(1, 9)] + [gateway.add(n, remote=shared) for n in (9, 10)]
    await gateway.plan(Mechanism.NOTIFY, *([key] for key in keys))
    most = 0
    async with Life(gateway).lived(limits=Limits(moves=3)) as executor:
        async with asyncio.timeout(5):
            while not all(move.value.done for move in (await gateway.store.journal()).moves):
                most = max(most, executor._queue.running)
                await asyncio.sleep(0)
    assert 1 < most <= 3


async def test_a_drain_goes_at_the_pace_that_the_operator_named() -> None:
    gateway = await a_gateway()
    await gateway.store.set_intent("gw1", NodeIntent(drained=True, rate_per_s=20.0), revision=0)
    await gateway.plan(Mechanism.NOTIFY, *([gateway.add(n)] for n in range(1, 7)), reason=Reason.DRAIN)
    begun = asyncio.get_running_loop().time()
    async with Life(gateway).lived():
        await gateway.settled()
    assert asyncio.get_running_loop().time() - begun >= 5 / 20.0


async def test_while_the_store_is_away_what_is_under_way_ends_here_and_is_recorded_later() -> None:
    gateway = await a_gateway()
    first, second = gateway.add(1), gateway.add(2)
    await gateway.plan(Mechanism.NOTIFY, [first])
    async with Life(gateway).lived() as executor:
        await until(lambda: bool(gateway.orders))
        gateway.backend.away = True
        await until(lambda: executor._outbox.behind)
        assert gateway.sas[1].path.local == WAN2
        gateway.backend.away = False
        await gateway.plan(Mechanism.NOTIFY, [second])
        await gateway.settled()
    assert await gateway.states() == [S.VERIFIED, S.VERIFIED]
    assert executor.under_way == 0


@pytest.mark.parametrize("lost", [1, 2])
async def test_an_answer_of_the_store_that_is_lost_begins_nothing_twice(lost: int) -> None:
    gateway = await a_gateway()
    (number,) = await gateway.plan(Mechanism.NOTIFY, [gateway.add(1)])
    gateway.backend.answers_lost = lost
    async with Life(gateway).lived():
        await gateway.settled()
    record = await gateway.record(number)
    assert (record.state, gateway.orders) == (S.ROLLED_BACK, [])
    assert "never begun" in record.steps[-1].note


async def test_a_store_that_did_not_take_the_request_has_the_move_planned_still() -> None:
    gateway = await a_gateway()
    (number,) = await gateway.plan(Mechanism.NOTIFY, [gateway.add(1)])
    life = Life(gateway)
    life.may_begin = False
    async with life.lived() as executor:
        await until(lambda: executor._wishes.known is not None and bool(executor._queue))
        gateway.backend.away = life.may_begin = True
        executor.wake()
        await until(lambda: executor._outbox.behind)
        gateway.backend.away = False
        await gateway.settled()
    assert (await gateway.record(number)).state is S.VERIFIED
    assert len(gateway.orders) == 1


async def test_a_stop_undoes_what_a_route_steers_and_says_so() -> None:
    gateway = await a_gateway()
    (number,) = await gateway.plan(Mechanism.IMPLICIT, [gateway.add(1, "follow")])
    async with Life(gateway).lived():
        await until(lambda: bool(gateway.orders))
    assert (await gateway.record(number)).state is S.ROLLED_BACK
    assert gateway.sas[1].path.local == WAN1


async def test_a_peer_that_was_asked_before_a_stop_may_follow_after_it_and_the_next_start_says_so() -> None:
    gateway = await a_gateway()
    (number,) = await gateway.plan(Mechanism.NOTIFY, [gateway.add(1, "follow")])
    async with Life(gateway).lived():
        await until(lambda: bool(gateway.orders))
    assert (await gateway.record(number)).state is S.REQUESTED
    async with Life(gateway).lived():
        await gateway.settled()
    assert (await gateway.record(number)).state is S.VERIFIED
    assert len(gateway.orders) == 1


@pytest.mark.parametrize(
    ("second", "ends", "where"), [("follow", S.VERIFIED, WAN2), ("break", S.ROLLED_BACK, WAN1)]
)
async def test_a_steered_address_that_a_start_finds_at_the_target_is_verified_or_undone(
    second: str, ends: MoveState, where: IpAddress
) -> None:
    gateway = await a_gateway()
    shared = ip_address("198.19.7.7")
    keys = [gateway.add(n, does, remote=shared) for n, does in ((1, "follow"), (2, second))]
    await gateway.plan(Mechanism.IMPLICIT, keys)
    (move,) = (await gateway.store.journal()).moves
    await gateway.store.update(move, move.value.to(S.REQUESTED, at=2.0))
    for number, sa in gateway.sas.items():
        gateway.sas[number] = replace(sa, path=Path(WAN2, shared))
    async with Life(gateway).lived():
        await gateway.settled()
    assert await gateway.states() == [ends]
    assert {sa.path.local for sa in gateway.sas.values()} == {where}
    assert {order.sa for order in gateway.orders if "restart" in order.cause} == {1, 2}


@pytest.mark.parametrize(
    ("mechanism", "found", "where", "ends"),
    [
        (Mechanism.NOTIFY, S.REQUESTED, WAN2, S.VERIFIED),
        (Mechanism.NOTIFY, S.REQUESTED, WAN1, S.ROLLED_BACK),
        (Mechanism.NOTIFY, S.MOVED, WAN2, S.VERIFIED),
        (Mechanism.NOTIFY, S.ROLLING_BACK, WAN1, S.ROLLED_BACK),
        (Mechanism.NOTIFY, S.ROLLING_BACK, WAN2, S.TIMED_OUT),
        (Mechanism.NOTIFY, S.ACKNOWLEDGED, None, S.TIMED_OUT),
        (Mechanism.NOTIFY, S.ACKNOWLEDGED, OTHER, S.TIMED_OUT),
        (Mechanism.REDIRECT, S.REQUESTED, WAN1, S.ROLLED_BACK),
        (Mechanism.REDIRECT, S.REQUESTED, None, S.TIMED_OUT),
        (Mechanism.REDIRECT, S.MOVED, None, S.TIMED_OUT),
    ],
)
async def test_what_a_start_finds_begun_is_ended_by_where_the_ike_sa_is(
    mechanism: Mechanism, found: MoveState, where: IpAddress | None, ends: MoveState
) -> None:
    gateway = await a_gateway()
    await gateway._appear("somebody")
    key = gateway.add(1)
    await gateway.plan(mechanism, [key])
    (move,) = (await gateway.store.journal()).moves
    record = move.value.to(S.REQUESTED, at=2.0)
    if found is not S.REQUESTED:
        record = record.to(found, at=3.0)
    await gateway.store.update(move, record)
    if where is None:
        gateway.put(1, None)
    else:
        gateway.sas[1] = replace(gateway.sas[1], path=Path(where, gateway.sas[1].path.remote))
    async with Life(gateway).lived():
        await gateway.settled()
    assert await gateway.states() == [ends]
    assert gateway.orders == [], "it is not begun a second time"
    assert bool(gateway.held) == (ends is S.VERIFIED and mechanism is Mechanism.NOTIFY)
