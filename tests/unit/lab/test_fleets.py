"""Fleets of clients and clusters in scenario files."""

from __future__ import annotations

import copy
import tomllib
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.errors import LabError
from mobikectl.lab import render
from mobikectl.lab.fleet import above_mean, serving
from mobikectl.lab.instance import Lab
from mobikectl.lab.record import Record
from mobikectl.lab.scenario import load_scenario, scenario_names, with_store
from mobikectl.lab.store import inline
from mobikectl.lab.topology import parse_topology
from mobikectl.lab.vici import CharonEvent

if TYPE_CHECKING:
    from pathlib import Path

GOOD = tomllib.loads("""
[nodes.clients]
role = "client"
[nodes.gateway1]
role = "gateway"
inside = ["198.18.200.1/32"]
[nodes.gateway2]
role = "gateway"
inside = ["198.18.200.1/32"]
[nodes.store]
role = "store"
inside = ["198.19.0.1/32"]
[[links]]
clients = { dev = "wan1", addresses = ["198.18.1.1/24"] }
gateway1 = { dev = "wan1", addresses = ["198.18.9.1/24", "198.18.10.1/24"] }
[[links]]
clients = { dev = "wan2", addresses = ["198.18.2.1/24"] }
gateway2 = { dev = "wan1", addresses = ["198.18.11.1/24"] }
[[links]]
gateway1 = { dev = "mgmt", addresses = ["198.19.1.1/24"] }
store = { dev = "gateway1", addresses = ["198.19.1.254/24"] }
[fleets.car]
client = "clients"
dev = "wan1"
count = 12
unreachable = "198.18.63.1"
outer = "198.18.64.1"
inside = "198.18.128.1"
gateways = ["gateway1", "gateway2"]
remote = ["198.18.9.1", "198.18.11.1"]
[cluster]
report_s = 0.5
uplink_bytes_per_s = 1000.0
[cluster.store.lease]
ttl_s = 2
[cluster.policy]
high = 0.1
""")


def changed(*path: str, to: Any) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return data


def test_each_client_of_a_fleet_is_a_tunnel_with_addresses_of_its_own() -> None:
    topology = parse_topology(GOOD, where="here")
    cars = topology.fleet("car")
    assert [car.name for car in cars[:2]] == ["car01", "car02"]
    assert len({car.local for car in cars}) == len({car.client_inside for car in cars}) == 12
    assert [car.gateway for car in cars[:3]] == ["gateway1", "gateway2", "gateway1"]
    assert cars[1].also == ("gateway1",)
    assert topology.alone == ()
    wan1 = next(topology.ends_of("clients"))
    assert [str(a) for a in wan1.addresses[:2]] == ["198.18.1.1/24", "198.18.63.1/32"]


def test_a_fleet_pings_as_often_with_kernel_esp_unless_it_says_otherwise() -> None:
    often = parse_topology(changed("fleets", "car", "ping_s", to=0.1), where="here").fleet("car")[0]
    assert (often.ping_s, often.kernel_ping_s) == (0.1, 0.1)
    data = changed("fleets", "car", "kernel_ping_s", to=0.05)
    oftener = parse_topology(data, where="here").fleet("car")[0]
    assert (oftener.ping_s, oftener.kernel_ping_s) == (0.2, 0.05)


def test_charon_tells_no_gateway_the_address_of_another_client_of_the_fleet() -> None:
    addresses = next(parse_topology(GOOD, where="here").ends_of("clients")).addresses
    told = [str(a.ip) for a in addresses[1:10]]
    assert all(ip.startswith("198.18.63.") for ip in told)
    assert str(addresses[10]) == "198.18.64.1/32"


def test_every_gateway_has_the_same_identity_for_a_fleet_so_that_redirects_authenticate() -> None:
    topology = parse_topology(GOOD, where="here")
    keys = {tunnel.name: "k" for tunnel in topology.tunnels}
    for gateway in ("gateway1", "gateway2"):
        text = render.swanctl_conf(topology, topology.nodes[gateway], keys)
        assert text.count("id = gateways.lab.example") == 12
        assert "id = car12.lab.example" in text
    assert "local_addrs = 198.18.64.12" in render.swanctl_conf(topology, topology.nodes["clients"], keys)


def test_what_charon_tells_its_peers_has_no_address_of_the_management_network() -> None:
    topology = parse_topology(GOOD, where="here")
    keys = {tunnel.name: "k" for tunnel in topology.tunnels}
    assert "198.19" not in render.swanctl_conf(topology, topology.nodes["gateway1"], keys)
    conf = render.strongswan_conf(topology.nodes["gateway1"], esp="kernel")
    assert "interfaces_ignore = lo,ipsec0,mgmt" in conf


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed("fleets", "car", "count", to=0), "count 0"),
        (changed("fleets", "car", "colour", to="red"), "unknown colour"),
        (changed("fleets", "car", "remote", to=["198.18.77.1"]), "no node has the address"),
        (changed("cluster", "stores", to=["paper"]), "some of sqlite, etcd"),
        (changed("nodes", "store", "inside", to=[]), "one node with role store"),
        (changed("fleets", to=["car"]), "expected tables"),
    ],
)
def test_a_fleet_or_cluster_that_does_not_fit_is_named(data: dict[str, Any], said: str) -> None:
    with pytest.raises(LabError, match=said):
        parse_topology(data, where="here")


def test_a_store_that_the_scenario_does_not_run_with_is_refused() -> None:
    with pytest.raises(LabError, match="not with 'etcd'"):
        parse_topology(changed("cluster", "stores", to=["sqlite"]), where="here", store="etcd")
    with pytest.raises(LabError, match="no cluster"):
        load_scenario("client-link-down+etcd")


@pytest.mark.parametrize("store", ["sqlite", "etcd"])
def test_each_gateway_is_configured_with_its_name_its_addresses_and_the_store(
    store: str, tmp_path: Path
) -> None:
    topology = parse_topology(GOOD, where="here", store=store)
    lab = Lab(Record("x", "s", "userland", {}), topology)
    assert lab.store is not None
    cluster = tomllib.loads(lab.store.configuration("gateway1", 'role = "gateway"'))["cluster"]
    assert cluster["node"] == "gateway1"
    assert [a["ip"] for a in cluster["addresses"]] == ["198.18.9.1", "198.18.10.1"]
    assert cluster["addresses"][0] == {"ip": "198.18.9.1", "dev": "wan1", "bytes_per_s": 1000.0}
    assert cluster["report_s"] == 0.5
    assert cluster["policy"] == {"high": 0.1}
    assert cluster["store"]["kind"] == store
    assert cluster["store"]["lease"] == {"ttl_s": 2}
    place = {"sqlite": {"path": "/run/cluster/cluster.db"}, "etcd": {"endpoints": ["198.19.0.1:2379"]}}
    assert cluster["store"][store] == place[store]


def test_a_clusters_scenario_is_listed_once_for_each_store() -> None:
    names = scenario_names()
    assert {"cluster-balance", "cluster-balance+etcd"} <= set(names)
    assert "client-link-down+etcd" not in names
    etcd = load_scenario(with_store("cluster-balance", "etcd"))
    assert etcd.name == "cluster-balance+etcd"
    assert load_scenario(etcd.argument).name == etcd.name


def test_a_table_becomes_toml() -> None:
    value = {"a": 1, "b": [True, 'x"y'], "c": {"d": 0.5}}
    assert tomllib.loads(f"v = {inline(value)}")["v"] == value
    with pytest.raises(LabError, match="cannot be written"):
        inline({"a b": 1})


def test_the_spread_is_how_far_the_largest_is_above_the_mean() -> None:
    assert above_mean([3.0, 1.0]) == 0.5
    assert above_mean([2.0, 2.0]) == 0.0
    assert above_mean([0.0, 0.0]) == 0.0


def test_a_client_moves_when_its_charon_has_another_gateway_address() -> None:
    tunnels = parse_topology(GOOD, where="here").fleet("car")[:2]
    before = {"clients": [(t.name, {"remote-host": "198.18.9.1"}) for t in tunnels]}

    def event(at: float, name: str, data: dict[str, Any], node: str = "clients") -> CharonEvent:
        return CharonEvent(at, node, name, data)

    events = [
        event(3.0, "ike-updown", {"up": "yes", "car01": {"remote-host": "198.18.11.1"}}),
        event(1.0, "ike-update", {"remote-host": "198.18.10.1", "car01": {}}),
        event(1.5, "ike-update", {"remote-host": "198.18.10.1", "car01": {}}),
        event(2.0, "ike-update", {"remote-host": "198.18.64.1", "car01": {}}, node="gateway1"),
        event(4.0, "ike-updown", {"car01": {"remote-host": "198.18.10.1"}}),
    ]
    served = serving(tunnels, before, events)
    assert [remote for _, remote in served["car01"]] == ["198.18.9.1", "198.18.10.1", "198.18.11.1"]
    assert len(served["car02"]) == 1
    assert ip_address(served["car02"][0][1])


def test_with_kernel_esp_a_cluster_runs_only_with_the_stores_that_add_something_there() -> None:
    assert set(scenario_names(esp="kernel")) < set(scenario_names(esp="userland")) == set(scenario_names())
    assert "cluster-drain-redirect" in scenario_names(esp="kernel")
    assert "cluster-drain-redirect+etcd" not in scenario_names(esp="kernel")
    with pytest.raises(LabError, match=r"cluster\.kernel"):
        parse_topology(changed("cluster", "kernel", to=["paper"]), where="here")
