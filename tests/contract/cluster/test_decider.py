"""The decider on real stores: what it writes down, and what it does when the store or its leadership goes."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.cluster.decider import Decider, DeciderSettings
from mobikectl.cluster.etcd import EtcdBackend
from mobikectl.cluster.leader import Election
from mobikectl.cluster.node_settings import Balance
from mobikectl.cluster.reading import read_view
from mobikectl.cluster.records import (
    ClusterIntent,
    Member,
    MoveRecord,
    MoveState,
    NodeIntent,
    NodeReport,
    SaPart,
    SaRow,
    Versioned,
)
from mobikectl.cluster.settings import LeaseSettings
from mobikectl.cluster.store import Store
from mobikectl.errors import StoreError
from mobikectl.policy.cluster import Capability, Capacity, Mechanism, Reason, ServingAddress
from mobikectl.policy.cluster_settings import BalanceSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .conftest import MakeBackend
    from .etcd_server import EtcdServer

DEADLINE_S = 60.0
POLICY = BalanceSettings(interval_s=0.3, settle_s=0.5, stale_after_s=3.0)
TTL_S = 10
"""Long: a busy machine is not what is looked for."""


@dataclass
class Node:
    """A node that only tells: it is a member, and reports itself and its IKE_SAs anew all the time."""

    store: Store
    name: str
    rates: list[float]
    sequence: int = 0
    _task: asyncio.Task[None] | None = None

    @property
    def address(self) -> Any:
        return ip_address(f"198.18.{self.name.removeprefix('gw')}.1")

    def rows(self) -> tuple[SaRow, ...]:
        return tuple(
            SaRow(
                f"{self.name}/peer-{number}#{number}",
                f"peer-{number}",
                f"198.19.0.{number}",
                self.address,
                bytes_per_s=rate,
                capability=Capability.REDIRECT,
            )
            for number, rate in enumerate(self.rates)
        )

    async def run(self) -> None:
        instance = secrets.token_hex(4)
        lease = (await self.store.grant(60)).id
        capacity = Capacity(bytes_per_s=100.0, sas=1000.0)
        await self.store.join(Member(self.name, instance, (ServingAddress(self.address),), capacity), lease)
        await self.store.report_sas([SaPart(self.name, instance, 1, 0, 1, self.rows())], lease)
        while True:
            self.sequence += 1
            with suppress(StoreError):
                await self.store.report(NodeReport(self.name, instance, self.sequence), lease)
            await asyncio.sleep(0.1)


@dataclass
class Cluster:
    """Two nodes, one of them with everything, and as many candidates as the test likes."""

    make: Callable[[], Any]
    nodes: list[Node] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def begin(self) -> Store:
        for name, rates in (("gw1", [10.0] * 8), ("gw2", [])):
            self.nodes.append(Node(await self.make(), name, rates))
            self.tasks.append(asyncio.create_task(self.nodes[-1].run()))
        store: Store = await self.make()
        await until(lambda: members(store), 2)
        return store

    async def candidate(
        self, name: str, balance: Balance = Balance.AUTO
    ) -> tuple[Decider, asyncio.Task[None]]:
        store = await self.make()
        decider = Decider(store, DeciderSettings(POLICY, balance))
        election = Election(store, name, secrets.token_hex(4), LeaseSettings(TTL_S))
        task = asyncio.create_task(election.run(decider.lead))
        self.tasks.append(task)
        return decider, task

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        for task in self.tasks:
            if not task.cancelled():
                task.result()


async def members(store: Store) -> int:
    return len((await store.state()).members)


async def moves(store: Store) -> list[MoveRecord]:
    return [move.value for move in (await store.journal()).moves]


async def planned(store: Store) -> int:
    return len([move for move in await moves(store) if move.state is MoveState.PLANNED])


async def until(ask: Callable[[], Any], wanted: object) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await ask() != wanted:  # noqa: ASYNC110 (the store tells no event for it)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def a_cluster(make: Callable[[], Any]) -> AsyncIterator[tuple[Cluster, Store]]:
    cluster = Cluster(make)
    try:
        yield cluster, await cluster.begin()
    finally:
        await cluster.end()


@pytest.fixture
def make_store(make_backend: MakeBackend, prefix: str) -> Callable[[], Any]:
    async def make() -> Store:
        return Store(await make_backend(), prefix.split("/")[2])

    return make


async def test_who_leads_writes_its_plan_into_the_journal_with_its_token(
    make_store: Callable[[], Any],
) -> None:
    async with a_cluster(make_store) as (cluster, store):
        decider, task = await cluster.candidate("gw1")
        await until(lambda: planned(store), 4)
        leader = await store.leader()
        assert leader is not None
        for move in await moves(store):
            assert (move.source, move.target, move.token) == ("gw1", "gw2", leader.token)
            assert (move.mechanism, move.reason) == (Mechanism.REDIRECT, Reason.SPREAD)
            assert "more than its share" in move.steps[0].note
        await asyncio.sleep(4 * POLICY.interval_s)
        assert await planned(store) == 4, "what is under way is not planned again"
        assert decider.decision is not None
        task.cancel()
        await asyncio.wait([task])
        assert decider.decision is None


async def test_a_second_leader_cancels_what_the_first_planned_and_plans_itself(
    make_store: Callable[[], Any],
) -> None:
    async with a_cluster(make_store) as (cluster, store):
        _, first = await cluster.candidate("gw1")
        await until(lambda: planned(store), 4)
        first.cancel()
        await asyncio.wait([first])
        begun = (await store.journal()).moves[0]
        assert begun.value.token
        _, _ = await cluster.candidate("gw2")
        await until(lambda: planned_by_the_present(store), 4)
        old = (await moves(store))[:4]
        assert {(move.state, move.steps[-1].note) for move in old} == {
            (MoveState.CANCELLED, "its leader was replaced")
        }


async def planned_by_the_present(store: Store) -> int:
    leader = await store.leader()
    if leader is None:
        return 0
    return len(
        [
            move
            for move in await moves(store)
            if move.state is MoveState.PLANNED and move.token == leader.token
        ]
    )


async def test_a_drain_a_pause_and_an_order_are_heard_at_once(make_store: Callable[[], Any]) -> None:
    async with a_cluster(make_store) as (cluster, store):
        decider, _ = await cluster.candidate("gw2", Balance.MANUAL)
        await until(lambda: _has_plan(decider), True)
        assert not await moves(store)
        await store.set_cluster(ClusterIntent(apply=1), revision=0)
        await until(lambda: planned(store), 4)
        paused = ClusterIntent(paused=True, apply=1)
        await store.set_cluster(paused, revision=(await store.state()).cluster.revision)
        await until(lambda: planned(store), 0)
        await store.set_intent("gw1", NodeIntent(drained=True), revision=0)
        await asyncio.sleep(3 * POLICY.interval_s)
        assert await planned(store) == 0, "paused"
        await store.set_cluster(ClusterIntent(apply=1), revision=(await store.state()).cluster.revision)
        await until(lambda: planned(store), 8)
        assert {move.reason for move in (await moves(store))[4:]} == {Reason.DRAIN}


async def _has_plan(decider: Decider) -> bool:
    return decider.decision is not None and decider.decision.plan.sa_count == 4


async def test_a_reader_sees_what_the_decider_sees(make_store: Callable[[], Any]) -> None:
    async with a_cluster(make_store) as (_, store):
        async with asyncio.timeout(DEADLINE_S):
            while True:
                reading = await read_view(store, POLICY, now=5.0)
                if len(reading.rows) == 8 and len(reading.state.reports) == 2:
                    break
                await asyncio.sleep(0.05)
        assert [node.name for node in reading.view.nodes] == ["gw1", "gw2"]
        assert reading.find("peer-3") == ("gw1/peer-3#3",)
        assert not reading.unreadable


async def test_while_the_store_is_away_nothing_is_decided_and_when_it_is_back_it_goes_on(
    own_etcd: EtcdServer, prefix: str
) -> None:
    backends: list[EtcdBackend] = []

    async def make() -> Store:
        backends.append(EtcdBackend(own_etcd.settings()))
        return Store(backends[-1], prefix.split("/")[2])

    try:
        async with a_cluster(make) as (cluster, store):
            decider, task = await cluster.candidate("gw1", Balance.MANUAL)
            await until(lambda: _has_plan(decider), True)
            await asyncio.to_thread(own_etcd.kill)
            await until(lambda: _is_idle(decider), True)
            assert not task.done()
            await asyncio.to_thread(own_etcd.start)
            await until(lambda: _has_plan(decider), True)
            assert not await moves(store)
    finally:
        for backend in backends:
            await backend.close()


async def _is_idle(decider: Decider) -> bool:
    """Whether the leader gave up, or says that it cannot reach the store."""
    return decider.decision is None or decider.error is not None


async def test_a_move_that_its_node_begins_at_the_moment_it_is_cancelled_goes_on(
    make_store: Callable[[], Any],
) -> None:
    async with a_cluster(make_store) as (cluster, store):
        await cluster.candidate("gw1")
        await until(lambda: planned(store), 4)
        first: Versioned[MoveRecord] = (await store.journal()).moves[0]
        await store.update(first, first.value.to(MoveState.REQUESTED, at=1.0))
        await store.set_cluster(ClusterIntent(paused=True), revision=0)
        await until(lambda: planned(store), 0)
        states = [move.state for move in await moves(store)]
        assert states == [MoveState.REQUESTED] + [MoveState.CANCELLED] * 3
