"""What doctor finds of a cluster, each finding with its mend."""

from __future__ import annotations

import secrets
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from mobikectl.cluster.backend import Write
from mobikectl.cluster.node_settings import AddressSettings, ClusterSettings, Placement
from mobikectl.cluster.records import Member
from mobikectl.cluster.settings import EtcdSettings, SqliteSettings, StoreKind, StoreSettings
from mobikectl.cluster.sqlite import SqliteBackend
from mobikectl.cluster.store import Store
from mobikectl.doctor import Finding, Level, cluster
from mobikectl.model import Address, Link, NetState
from mobikectl.policy.cluster import ServingAddress

HERE = ip_address("198.18.1.1")
FILE = Path("/etc/strongswan.conf")


def settings(**more: Any) -> ClusterSettings:
    return ClusterSettings("gw1", more.pop("addresses", (AddressSettings(HERE),)), **more)


def net(*, up: bool = True) -> NetState:
    return NetState(MappingProxyType({1: Link(1, "wan1", up, up)}), frozenset({Address(1, HERE, 24)}))


def worst(findings: list[Finding]) -> Finding:
    order = list(Level)
    found = max(findings, key=lambda finding: order.index(finding.level))
    assert found.level is Level.GOOD or found.mend
    return found


@pytest.mark.parametrize(
    ("address", "up", "level", "said"),
    [
        (AddressSettings(HERE), True, Level.GOOD, "198.18.1.1"),
        (AddressSettings(HERE, "wan1"), True, Level.GOOD, "198.18.1.1"),
        (AddressSettings(HERE, "wan1"), False, Level.WARNING, "wan1 is down"),
        (AddressSettings(HERE, "wan7"), True, Level.PROBLEM, "no interface wan7"),
        (AddressSettings(ip_address("198.18.9.9")), True, Level.PROBLEM, "no interface has it"),
    ],
)
def test_the_nodes_addresses_have_to_be_here(
    address: AddressSettings, up: bool, level: Level, said: str
) -> None:
    found = worst(list(cluster.addresses(settings(addresses=(address,)), net(up=up))))
    assert found.level is level
    assert said in found.text


def daemon(*plugins: str) -> Any:
    return SimpleNamespace(has_plugin=lambda name: name in plugins)


@pytest.mark.parametrize(
    ("known", "level"),
    [
        ({}, Level.WARNING),
        ({"charon.install_routes": "yes"}, Level.WARNING),
        ({"charon.install_routes": "no"}, Level.GOOD),
        ({"charon.plugins.kernel-netlink.fwmark": "!0x42"}, Level.GOOD),
        ({"charon.plugins.kernel-netlink.fwmark": "0x42"}, Level.WARNING),
    ],
)
def test_charons_own_routes_make_each_steering_dear(known: dict[str, str], level: Level) -> None:
    (found,) = cluster.charon(settings(), known, daemon(), FILE)
    assert found.level is level


def test_placing_new_clients_needs_the_plugin() -> None:
    wanted = settings(placement=Placement.INIT)
    assert worst(list(cluster.charon(wanted, {}, daemon(), FILE))).subject == "placement"
    assert worst(list(cluster.charon(wanted, {}, daemon("rmobike"), FILE))).level is Level.WARNING


async def of_store(path: Path, *, runs: bool, member: Member | None = None, broken: bool = False) -> Any:
    sqlite = SqliteSettings(path / "c.db")
    backend = SqliteBackend(sqlite)
    store = Store(backend)
    await store.state()
    if member is not None:
        await store.join(member, (await store.grant(60)).id)
    if broken:
        await backend.commit([], [Write("/mobikectl/default/state/intents/gw1", b"{")])
    await backend.close()
    found = await cluster.store(settings(store=StoreSettings(sqlite=sqlite)), runs=runs)
    return {finding.subject: finding for finding in found if finding.level is not Level.NOTE}


def member(*ips: Any) -> Member:
    return Member("gw1", secrets.token_hex(4), tuple(ServingAddress(ip) for ip in ips or (HERE,)))


async def test_a_store_that_answers_is_good(tmp_path: Path) -> None:
    found = await of_store(tmp_path, runs=True, member=member())
    assert {finding.level for finding in found.values()} == {Level.GOOD}
    assert "1 nodes of cluster default, nobody leads" in found["store"].text


@pytest.mark.parametrize(
    ("runs", "there", "level", "said"),
    [
        (True, None, Level.WARNING, "is no member"),
        (False, None, Level.GOOD, "gw1"),
        (False, member(), Level.PROBLEM, "does not run"),
        (True, member(ip_address("198.18.7.7")), Level.PROBLEM, "198.18.7.7"),
    ],
)
async def test_a_name_is_of_one_node(
    tmp_path: Path, runs: bool, there: Member | None, level: Level, said: str
) -> None:
    found = await of_store(tmp_path, runs=runs, member=there)
    assert found["node"].level is level
    assert said in found["node"].text


async def test_what_cannot_be_read_keeps_the_cluster_from_planning(tmp_path: Path) -> None:
    found = await of_store(tmp_path, runs=False, broken=True)
    assert found["store"].level is Level.PROBLEM
    assert "nothing is planned" in found["store"].text


@pytest.mark.parametrize(("runs", "level"), [(False, Level.NOTE), (True, Level.PROBLEM)])
async def test_the_file_of_a_store_is_looked_for_and_not_made(
    tmp_path: Path, runs: bool, level: Level
) -> None:
    file = tmp_path / "c.db"
    (found,) = await cluster.store(settings(store=StoreSettings(sqlite=SqliteSettings(file))), runs=runs)
    assert (found.level, found.subject) == (level, "store")
    assert "no such store" in found.text
    assert found.mend
    assert not file.exists()


async def test_a_store_that_does_not_answer_is_a_problem() -> None:
    away = StoreSettings(StoreKind.ETCD, etcd=EtcdSettings(("127.0.0.1:1",), timeout_s=0.5))
    (found,) = await cluster.store(settings(store=away), runs=False)
    assert (found.level, found.subject) == (Level.PROBLEM, "store")
    assert found.mend
