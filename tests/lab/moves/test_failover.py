"""Who dies is followed by who stands by: with real charons, a store, and what the leader grants."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.failovers import grants
from mobikectl.cluster.records import Member, MoveState
from mobikectl.cluster.settings import SqliteSettings, StoreSettings, open_store
from mobikectl.errors import LostRaceError
from mobikectl.lab.capture import open_in
from mobikectl.node.failover import Failover
from mobikectl.node.watching import Step, TargetStep
from mobikectl.observe.events import EventLog
from mobikectl.policy.cluster import Reason, ServingAddress
from mobikectl.probe.ike import request
from mobikectl.probe.sockets import connect_datagram, open_bound
from mobikectl.protocol.handover import SourceState

from .lab import spis_of
from .standbys import Standbys, standbys_of
from .test_standbys import copied, die

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from mobikectl.cluster.records import MoveRecord
    from mobikectl.cluster.store import Store
    from mobikectl.model import IpAddress

    from .lab import MoveLab

pytestmark = [pytest.mark.netns, pytest.mark.charon]


@dataclass
class World:
    """Gateways that are members of a cluster whose leader grants what is claimed."""

    lab: MoveLab
    standbys: Standbys
    store: Store
    leases: dict[str, int]

    async def leave_cluster(self, name: str) -> None:
        await self.store.revoke(self.leases.pop(name))

    async def join(self, name: str) -> None:
        lease = (await self.store.grant(600)).id
        address = ServingAddress(ip_address(self.lab.address(name)))
        await self.store.join(Member(name, f"{name}-{lease}", (address,), transfer="x:1"), lease)
        self.leases[name] = lease

    async def failovers(self) -> list[MoveRecord]:
        moves = [move.value for move in (await self.store.journal()).moves]
        return [move for move in moves if move.reason is Reason.FAILOVER]

    async def until(self, met: Callable[[list[MoveRecord]], bool], timeout: float = 40) -> list[MoveRecord]:
        deadline = time.monotonic() + timeout
        while not met(moves := await self.failovers()):
            assert time.monotonic() < deadline, moves
            await asyncio.sleep(0.05)
        return moves


@pytest.fixture
async def world(ring: MoveLab, tmp_path: Path) -> AsyncIterator[World]:
    async with standbys_of(ring) as standbys, cluster_of(ring, standbys, tmp_path) as world:
        yield world


@asynccontextmanager
async def cluster_of(lab: MoveLab, standbys: Standbys, folder: Path) -> AsyncIterator[World]:
    store = open_store(StoreSettings(sqlite=SqliteSettings(folder / "cluster.db")))
    world = World(lab, standbys, store, {})
    for name in lab.gateways:
        await world.join(name)
        failover_of(world, name)
    works = [site.failover.run() for site in standbys.of.values() if site.failover is not None]
    running = [asyncio.create_task(work) for work in (lead(world), *works)]
    try:
        yield world
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await store.close()


async def lead(world: World) -> None:
    leader = await world.store.campaign("leader", "it", (await world.store.grant(600)).id)
    while True:
        state, journal = await world.store.state(), await world.store.journal()
        if granted := grants(state, journal, at=time.time()):
            try:
                await world.store.append(granted, token=leader.token)
            except LostRaceError:
                continue
        await asyncio.sleep(0.05)


def failover_of(world: World, name: str) -> Failover:
    lab, site = world.lab, world.standbys.of[name]
    own = ip_address(lab.address(name))

    async def probe(target: IpAddress) -> bool:
        sock = open_in(lab.gateways[name].ns, lambda: open_bound(socket.SOCK_DGRAM, 0, own, target, ""))
        with sock:
            connect_datagram(sock, target, 500)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, request(os.urandom(7) + b"\1"))
            try:
                return bool(await loop.sock_recv(sock, 4096))
            except OSError:
                return False

    async def gone(_: int) -> None:
        return None

    class Dropper:
        look = staticmethod(world.standbys.sites.sites[name].control.look)
        remove = staticmethod(lab.brokers[name].remove)

    site.failover = Failover(
        name, world.store, site.copies, world.standbys.caller(name), Dropper(), lab.brokers[name],
        EventLog(), probe=probe, lease=lambda: world.leases.get(name), address_for=lambda _: own, gone=gone,
    )  # fmt: skip
    return site.failover


async def works(lab: MoveLab, at: str) -> None:
    await lab.client.sa(remote_host=lab.address(at))
    await lab.flows()
    assert lab.client.log.count("initiating IKE_SA") == 1


async def test_a_dead_node_is_followed_by_its_standby(ring: MoveLab, world: World) -> None:
    standby = await copied(ring, world.standbys)
    await die(ring, "gw1")
    world.standbys.cut.add("gw1")
    await world.leave_cluster("gw1")
    [move] = await world.until(lambda moves: bool(moves) and moves[-1].done)
    assert (move.state, move.source, move.target) == (MoveState.VERIFIED, "gw1", standby)
    await works(ring, standby)
    assert not (await world.store.state()).claims or await _withdrawn(world)


async def _withdrawn(world: World) -> bool:
    deadline = time.monotonic() + 10
    while (await world.store.state()).claims:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return True


async def test_a_node_that_only_lost_the_store_goes_on(ring: MoveLab, world: World) -> None:
    await copied(ring, world.standbys)
    await world.leave_cluster("gw1")  # its lease is over; its charon serves its client
    await asyncio.sleep(4)
    assert not (await world.store.state()).claims
    assert not await world.failovers()
    await works(ring, "gw1")


async def test_a_node_that_only_its_standby_does_not_hear_goes_on(ring: MoveLab, world: World) -> None:
    standby = await copied(ring, world.standbys)
    site = world.standbys.of[standby]
    assert site.failover is not None

    async def deaf(_: IpAddress) -> bool:
        return False

    site.failover._probe = deaf
    await world.leave_cluster("gw1")
    await asyncio.sleep(4)
    assert not await world.failovers()
    await works(ring, "gw1")


async def test_a_node_that_stood_still_and_goes_on_holds_nothing_that_was_taken_over(
    ring: MoveLab, world: World
) -> None:
    standby = await copied(ring, world.standbys)
    spis = spis_of(await ring.gateways["gw1"].sa())
    process = ring.gateways["gw1"].process
    assert process is not None
    world.standbys.cut.add("gw1")
    os.kill(process.pid, signal.SIGSTOP)
    try:
        await world.leave_cluster("gw1")
        await world.until(lambda moves: bool(moves) and moves[-1].state is MoveState.VERIFIED)
        await works(ring, standby)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    world.standbys.cut.clear()
    deadline = time.monotonic() + 30
    while any(spis_of(sa) == spis for sa in await ring.sas("gw1")):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    await world.join("gw1")
    await works(ring, standby)
    assert "received DELETE for IKE_SA" not in ring.client.log


async def test_what_a_restarted_charon_lost_is_served_by_its_standby(ring: MoveLab, world: World) -> None:
    standby = await copied(ring, world.standbys)
    await die(ring, "gw1")
    await ring.gateways["gw1"].start()
    [move] = await world.until(lambda moves: bool(moves) and moves[-1].done, timeout=60)
    assert (move.state, move.target) == (MoveState.VERIFIED, standby)
    assert "lost" in move.steps[0].note
    await works(ring, standby)


@pytest.mark.parametrize(
    ("step", "r"),
    [(TargetStep.ANSWER, True), (SourceState.HOLDING, False), (SourceState.HANDED_OVER, True)],
)
async def test_a_target_whose_charon_dies_as_its_client_comes_is_followed_by_the_source(
    ring: MoveLab, world: World, step: TargetStep | SourceState, r: bool
) -> None:
    await copied(ring, world.standbys)
    world.standbys.cut.add("gw3")  # nobody but the source can have a copy

    async def watch(taken: Step) -> None:
        if taken.what is step:
            await die(ring, "gw2")

    sites = world.standbys.sites.sites
    sites["gw1"].handing._watch = sites["gw2"].intake._watch = watch
    assert (await world.standbys.sites.move("gw1", "gw2", r=r)).state is SourceState.HANDED_OVER
    await ring.gateways["gw2"].start()
    [move] = await world.until(lambda moves: bool(moves) and moves[-1].done, timeout=60)
    assert (move.state, move.source, move.target) == (MoveState.VERIFIED, "gw2", "gw1"), move.steps
    await works(ring, "gw1")
    assert not await ring.sas("gw2")


async def test_a_claim_of_what_another_node_serves_is_given_up(ring: MoveLab, world: World) -> None:
    standby = await copied(ring, world.standbys)
    other = next(name for name in ring.gateways if name not in {"gw1", standby})
    spis = spis_of(await ring.gateways["gw1"].sa())

    async def says(_: object) -> frozenset[object]:
        return frozenset({spis})

    world.standbys.of[other].copies.serving = says  # type: ignore[method-assign,assignment]
    await die(ring, "gw1")
    world.standbys.cut.add("gw1")
    await world.leave_cluster("gw1")
    deadline = time.monotonic() + 20
    while len(world.standbys.of[standby].copies):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert not await world.failovers()
