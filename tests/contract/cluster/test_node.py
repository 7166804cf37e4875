"""Whole nodes on real stores: they report, one decides, each moves its own. Only charon and its clients are made up."""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.charon.session import LinkState, Status
from mobikectl.cluster.node_settings import Balance
from mobikectl.cluster.records import ClusterIntent, MoveRecord, MoveState, NodeIntent
from mobikectl.cluster.settings import (
    LeaseSettings,
    SqliteSettings,
    StoreKind,
    StoreSettings,
    open_store,
)
from mobikectl.node import reporter
from mobikectl.policy.cluster import Health, Mechanism, Reason
from mobikectl.policy.cluster_settings import BalanceSettings
from mobikectl.policy.track import ProbeError
from mobikectl.probe.sockets import ProbeFailedError

from .a_gateway import Client, World, a_world, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mobikectl.cluster.store import Store

    from .etcd_server import EtcdServer

POLICY = BalanceSettings(high=0.2, low=0.1, interval_s=0.2, settle_s=1.0, stale_after_s=2.0, cooldown_s=2.0)


@pytest.fixture(params=["sqlite", "etcd"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> StoreSettings:
    cluster, lease = prefix.split("/")[2], LeaseSettings(10)
    if request.param == "sqlite":
        return StoreSettings(StoreKind.SQLITE, cluster, sqlite=SqliteSettings(tmp_path / "c.db"), lease=lease)
    server: EtcdServer = request.getfixturevalue("shared_etcd")
    return StoreSettings(StoreKind.ETCD, cluster, etcd=server.settings(), lease=lease)


@pytest.fixture
async def store(settings: StoreSettings) -> AsyncIterator[Store]:
    store = open_store(settings)
    yield store
    await store.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Two gateways; the first has eight clients at its first address, the second none."""
    async with a_world(tmp_path) as world:
        first = world.gateways[0]
        for number in range(8):
            first.up(Client(f"peer-{number}", 10_000.0), first.addresses[0])
        yield world


async def moves(store: Store) -> list[MoveRecord]:
    return [move.value for move in (await store.journal()).moves]


async def test_lopsided_load_is_evened_out_by_moves_that_are_verified(
    world: World, settings: StoreSettings, store: Store
) -> None:
    first, second = world.gateways
    for gateway in world.gateways:
        gateway.start(settings, POLICY)
    await until(lambda: abs(first.load - second.load) <= 20_000.0, "the load is even")
    await until(lambda: all_done(store), "all moves have ended")
    assert len(first.sas) + len(second.sas) == 8
    found = await moves(store)
    assert {(move.state, move.mechanism, move.source) for move in found} == {
        (MoveState.VERIFIED, Mechanism.REDIRECT, "gw1")
    }
    assert len(found) <= 5, "no more than needed"
    json.dumps([gateway.state() for gateway in world.gateways])
    await until(lambda: "stays" not in str(first.state()["plan"]))
    await asyncio.sleep(2.0)
    assert len(await moves(store)) == len(found), "and then it is quiet"


async def all_done(store: Store) -> bool:
    return all(move.done for move in await moves(store))


async def test_what_nodes_report_is_what_they_serve(
    world: World, settings: StoreSettings, store: Store
) -> None:
    first, second = world.gateways
    for gateway in world.gateways:
        gateway.start(settings, POLICY, balance=Balance.MANUAL)

    async def told() -> bool:
        state = await store.state()
        report = state.reports.get("gw1")
        return report is not None and abs(report.value.bytes_per_s - 80_000) < 8_000

    await until(told, "the rates")
    await until(lambda: second.state()["store"]["state"] == "reachable")
    state = await store.state()
    report = state.reports["gw1"].value
    assert (report.ike_sas, report.child_sas, report.half_open) == (8, 8, 3)
    assert report.health is Health.HEALTHY
    sas = (await store.sas()).by_node()
    assert sas["gw2"] == ()
    assert {row.peer_id for row in sas["gw1"]} == {f"peer-{n}" for n in range(8)}
    await until(lambda: rates_are_told(store))
    assert first.state()["report"]["ike_sas"] == 8
    assert [gateway.state()["member"] for gateway in world.gateways] == [True, True]
    assert sorted(gateway.state()["role"] for gateway in world.gateways) == ["follower", "leader"]


async def rates_are_told(store: Store) -> bool:
    rows = (await store.sas()).by_node()["gw1"]
    return all(abs(row.bytes_per_s - 10_000) < 2_000 for row in rows)


async def test_a_drained_node_is_emptied_also_by_its_maintenance_file(
    world: World, settings: StoreSettings, store: Store
) -> None:
    first, second = world.gateways
    for gateway in world.gateways:
        gateway.start(settings, POLICY, balance=Balance.MANUAL)
    file = world.path / "gw1.maintenance"
    file.touch()
    await until(lambda: not first.sas, "the first is empty")
    assert {move.reason for move in await moves(store)} == {Reason.DRAIN}
    file.unlink()
    await until(lambda: maintenance_over(store))
    await store.set_intent("gw2", NodeIntent(drained=True), revision=0)
    await until(lambda: not second.sas, "the second is empty")
    assert len(first.sas) == 8


async def maintenance_over(store: Store) -> bool:
    return not (await store.state()).reports["gw1"].value.maintenance


async def test_a_node_whose_charon_hangs_says_so_and_nothing_is_planned_for_it(
    world: World, settings: StoreSettings, store: Store
) -> None:
    first, _ = world.gateways
    first.status = Status(LinkState.HUNG, 0.0, "no answer")
    for gateway in world.gateways:
        gateway.start(settings, POLICY)

    async def told() -> bool:
        report = (await store.state()).reports.get("gw1")
        return report is not None and report.value.health is Health.DEAD

    await until(told)
    await until(lambda: leader_says(world, "gw1: dead"))
    assert not await moves(store)
    first.status = Status(LinkState.UP, 1.0)
    await until(lambda: moves(store), "it is balanced again")


def leader_says(world: World, what: str) -> bool:
    leader = world.leader
    return leader is not None and what in str(leader.state()["plan"])


async def test_what_is_served_at_a_dead_uplink_moves_to_the_other_address(
    world: World, settings: StoreSettings, store: Store
) -> None:
    first, second = world.gateways
    for number in list(first.sas)[:4]:
        client = first.clients[number]
        first.down(number)
        second.up(client, second.addresses[0])
    for gateway in world.gateways:
        gateway.start(settings, POLICY)
    await until(lambda: leader_of(world))
    first.lost.add(first.addresses[0])
    await until(lambda: all(sa.path.local == first.addresses[1] for sa in first.sas.values()))
    await until(lambda: all_done(store))
    found = [move for move in await moves(store) if move.reason is Reason.UPLINK]
    assert {move.mechanism for move in found} == {Mechanism.IMPLICIT}


def leader_of(world: World) -> bool:
    return world.leader is not None


async def test_a_node_behind_which_nothing_answers_is_impaired_and_emptied(
    world: World, settings: StoreSettings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.gateways
    answers = {first.name: False, second.name: True}

    async def exchange(_local: object, target: object, _link: str, _how: object) -> None:
        if not answers[f"gw{str(target).rpartition('.')[2]}"]:
            raise ProbeFailedError(ProbeError.UNREACHABLE, "no")

    monkeypatch.setattr(reporter, "exchange", exchange)
    monkeypatch.setattr(reporter, "PROBE_S", 0.1)
    for number, gateway in enumerate(world.gateways, 1):
        gateway.start(settings, POLICY, balance=Balance.MANUAL, probe=ip_address(f"198.18.200.{number}"))
    await until(lambda: not first.sas, "the first is empty")
    assert {move.reason for move in await moves(store)} == {Reason.IMPAIRED}
    assert first.state()["report"]["health"] == "impaired"
    answers[first.name] = True
    await until(lambda: first.state()["report"]["health"] == "healthy")


async def test_when_the_leader_goes_the_other_decides_and_when_it_is_back_it_is_a_member(
    world: World, settings: StoreSettings, store: Store
) -> None:
    first, second = world.gateways
    first.start(settings, POLICY, balance=Balance.MANUAL)
    await until(lambda: world.leader is first)
    second.start(settings, POLICY, balance=Balance.MANUAL)
    await until(lambda: second.state()["member"])
    await first.stop()
    await until(lambda: world.leader is second)
    assert set((await store.state()).members) == {"gw2"}
    first.start(settings, POLICY, balance=Balance.MANUAL)
    await until(lambda: first.state()["member"])
    assert first.state()["role"] == "follower"
    await until(lambda: leader_says(world, "would be moved"))
    await store.set_cluster(ClusterIntent(apply=1), revision=0)
    await until(lambda: moves(store), "the order is heard")


async def test_a_failure_of_its_own_is_told_and_begun_anew(
    world: World, settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = world.gateways
    first.start(settings, POLICY)
    assert first.node is not None
    broken = True

    async def measure() -> None:
        if broken:
            raise RuntimeError("a bug")
        await asyncio.Event().wait()

    monkeypatch.setattr(first.node._reporter, "measure", measure)
    await until(lambda: "a bug" in first.state()["failure"])
    assert any(event.name == "cluster-failed" for event in first.events.recent())
    broken = False
    await until(lambda: first.state()["member"])


async def test_two_nodes_of_one_name_do_not_share_it(
    world: World, settings: StoreSettings, store: Store
) -> None:
    first, second = world.gateways
    second.name = first.name
    first.start(settings, POLICY)
    await until(lambda: first.state()["member"])
    second.start(settings, POLICY)
    await asyncio.sleep(1.0)
    assert not second.state()["member"]
    assert first.state()["member"]
    assert len((await store.state()).members) == 1
