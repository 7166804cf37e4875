"""Topologies as scenario files hold them."""

from __future__ import annotations

import copy
import tomllib
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from mobikectl.errors import LabError, NotFoundError
from mobikectl.lab.scenario import load_scenario, scenario_names
from mobikectl.lab.topology import Role, parse_topology

GOOD = tomllib.loads("""
[nodes.client]
role = "client"
inside = ["198.18.100.1/32"]
routes = [{ dst = "default", via = "198.18.1.254", dev = "wan1", metric = 100 }]
[nodes.nat]
role = "nat"
masquerade = ["up"]
[nodes.gateway]
role = "gateway"
inside = ["198.18.200.1/32"]
[[links]]
client = { dev = "wan1", addresses = ["198.18.1.1/24"] }
nat = { dev = "down", addresses = ["198.18.1.254/24"] }
[[links]]
nat = { dev = "up", addresses = ["198.18.9.254/24", "2001:db8:9::254/64"] }
gateway = { dev = "wan1", addresses = ["198.18.9.1/24", "2001:db8:9::1/64"] }
[tunnels.office]
client = "client"
gateway = "gateway"
remote = ["198.18.9.1"]
""")


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return data


def test_a_topology_holds_nodes_links_and_tunnels_as_written() -> None:
    topology = parse_topology(GOOD, where="here")
    assert topology.nodes["nat"].role is Role.NAT
    assert topology.nodes["nat"].masquerade == ("up",)
    assert [end.dev for end in topology.ends_of("nat")] == ["down", "up"]
    assert next(topology.ends_of("gateway")).addresses[1] == ip_interface("2001:db8:9::1/64")
    assert str(topology.nodes["client"].routes[0].dst) == "0.0.0.0/0"
    assert topology.tunnel("office").gateway_inside == ip_address("198.18.200.1")


def test_gateways_start_before_clients() -> None:
    assert parse_topology(GOOD, where="here").charons == ("gateway", "client")


def test_a_default_route_has_the_family_of_its_next_hop() -> None:
    route = {"dst": "default", "via": "2001:db8:1::254", "dev": "wan1"}
    topology = parse_topology(changed("nodes", "client", "routes", to=[route]), where="here")
    assert str(topology.nodes["client"].routes[0].dst) == "::/0"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed("nodes", "client", "role", to="king"), "role is one of"),
        (changed("nodes", "client", "color", to="red"), "unknown color"),
        (changed("nodes", "client", "inside", to=["198.18.100.1/99"]), "not an address with a prefix"),
        (changed("nodes", to={}), "expected a table 'nodes'"),
        (changed("links", 0, "client", "dev", to="a-device-name-too-long"), "at most 15"),
        (changed("links", 0, "third", to={"dev": "x"}), "exactly two nodes"),
        (changed("links", 1, "nat", "dev", to="down"), "two devices"),
        (changed("nodes", "nat", "masquerade", to=["nowhere"]), "no device 'nowhere'"),
        (changed("tunnels", "office", "client", to="gateway"), "not a node with role client"),
        (changed("tunnels", "office", "remote", to=["198.18.44.4"]), "no node has the address 198.18.44.4"),
        (changed("tunnels", "office", "remote", to=[]), "at least one address"),
        (changed("tunnels", "office", "auth", to="trust"), "auth is one of psk, certificate, eap-mschapv2"),
    ],
)
def test_a_wrong_topology_is_refused_with_the_place_and_the_reason(data: dict[str, Any], said: str) -> None:
    with pytest.raises(LabError, match="here") as caught:
        parse_topology(data, where="here")
    assert said in caught.value.message


MOVED_BY_REDIRECT = {"tunnels_lost", "silent", "doubles", "moves_open", "moves_twice", "routes_left", "lost"}


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_of_the_package_is_whole(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.description
    assert callable(scenario.steps())
    judged = {check.metric.rpartition(".")[2] for check in scenario.checks}
    wanted = {"ike_sa_init", "sas_lost", "lost" if name != "sidecar-killed" else "recovery_ms"}
    if scenario.topology.cluster:  # redirects make new IKE_SAs, moves do not
        carries = scenario.topology.cluster.settings.get("transfer")
        wanted = set() if carries else MOVED_BY_REDIRECT  # what is carried ends in many ways
    assert wanted <= judged


def test_an_unknown_scenario_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NotFoundError, match="client-link-down"):
        load_scenario("client-lunch")


def test_a_node_says_whether_its_charon_loads_the_plugin() -> None:
    with_plugin = parse_topology(changed("nodes", "client", "plugin", to=True), where="here")
    assert with_plugin.nodes["client"].plugin
    assert not with_plugin.nodes["gateway"].plugin


@pytest.mark.parametrize(("node", "value"), [("client", "yes"), ("nat", True)])
def test_a_plugin_is_a_truth_value_of_a_node_with_a_charon(node: str, value: Any) -> None:
    with pytest.raises(LabError, match="plugin"):
        parse_topology(changed("nodes", node, "plugin", to=value), where="here")


def test_a_tunnel_may_be_served_by_further_gateways() -> None:
    data = copy.deepcopy(GOOD)
    data["nodes"]["gateway2"] = {"role": "gateway", "inside": ["198.18.200.1/32"]}
    data["tunnels"]["office"]["also"] = ["gateway2"]
    assert parse_topology(data, where="here").tunnel("office").also == ("gateway2",)


@pytest.mark.parametrize("also", ["gateway", "client", "nobody"])
def test_a_further_gateway_is_another_one(also: str) -> None:
    with pytest.raises(LabError, match="also"):
        parse_topology(changed("tunnels", "office", "also", to=[also]), where="here")
