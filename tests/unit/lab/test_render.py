"""strongSwan's configuration from the templates."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import LabError
from mobikectl.lab import render
from mobikectl.lab.scenario import load_scenario
from mobikectl.lab.topology import AUTHENTICATIONS, End, Node, Role, Wire

if TYPE_CHECKING:
    from pathlib import Path

    from mobikectl.lab.topology import Topology

TOPOLOGY = load_scenario("gateway-switch").topology
CLIENT, GATEWAY = TOPOLOGY.nodes["client1"], TOPOLOGY.nodes["gateway"]


def test_userland_esp_is_loaded_before_the_kernels() -> None:
    text = render.strongswan_conf(CLIENT, esp="userland")
    assert text.index("kernel-libipsec") < text.index("kernel-netlink")


def load_line(text: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith("load ="))


def test_kernel_esp_goes_without_the_userland_plugin() -> None:
    assert "libipsec" not in load_line(render.strongswan_conf(CLIENT, esp="kernel"))


def test_a_gateway_with_kernel_esp_installs_no_routes_of_its_own() -> None:
    assert "install_routes = no" in render.strongswan_conf(GATEWAY, esp="kernel")
    assert "install_routes = yes" in render.strongswan_conf(GATEWAY, esp="userland")
    assert "install_routes = yes" in render.strongswan_conf(CLIENT, esp="kernel")


def test_both_sides_follow_the_best_path() -> None:
    for node in (CLIENT, GATEWAY):
        assert "prefer_best_path = yes" in render.strongswan_conf(node, esp="kernel")


def test_the_two_ends_of_a_tunnel_mirror_each_other() -> None:
    keys = {"one": "k1", "two": "k2"}
    client = render.swanctl_conf(TOPOLOGY, CLIENT, keys)
    gateway = render.swanctl_conf(TOPOLOGY, GATEWAY, keys)
    assert "local_ts = 198.18.101.1" in client
    assert "remote_ts = 198.18.101.1" in gateway
    assert "k1" in client
    assert "k2" not in client, "a client gets no other client's key"
    assert "k1" in gateway
    assert "k2" in gateway


def test_nothing_is_left_to_replace() -> None:
    assert "${" not in render.swanctl_conf(TOPOLOGY, GATEWAY, {"one": "k", "two": "k"})


def authenticated_by(auth: str) -> Topology:
    return replace(TOPOLOGY, tunnels=tuple(replace(tunnel, auth=auth) for tunnel in TOPOLOGY.tunnels))


@pytest.mark.parametrize("auth", AUTHENTICATIONS)
def test_however_they_authenticate_both_ends_are_told_the_same_and_move(auth: str) -> None:
    topology, keys = authenticated_by(auth), {"one": "k1", "two": "k2"}
    client, gateway = (render.swanctl_conf(topology, node, keys) for node in (CLIENT, GATEWAY))
    assert "${" not in client + gateway
    assert "mobike = yes" in client
    assert "mobike = yes" in gateway
    assert {"id = client1.lab.example", "id = gateway.lab.example"} <= {
        line.strip() for line in client.splitlines()
    }
    assert ("k1" in client, "k1" in gateway) == (auth != "certificate",) * 2


def test_certificates_are_made_for_those_who_show_one() -> None:
    assert render.certified(TOPOLOGY) == {}
    password = render.certified(authenticated_by("eap-mschapv2"))
    assert password == {"gateway": {"gateway.lab.example": "gateway"}, "client1": {}, "client2": {}}
    both = render.certified(authenticated_by("certificate"))
    assert both["client2"] == {"client2.lab.example": "client"}


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"strongswan\.conf\.in is missing"):
        render.strongswan_conf(CLIENT, esp="kernel", templates=tmp_path)


def test_the_plugin_is_loaded_after_vici_where_it_is_wanted_and_nowhere_else() -> None:
    assert "vici rmobike! updown" in load_line(
        render.strongswan_conf(replace(CLIENT, plugin=True), esp="kernel")
    )
    assert "rmobike" not in load_line(render.strongswan_conf(CLIENT, esp="kernel"))


def test_a_further_gateway_has_the_same_identity_and_its_own_addresses() -> None:
    second = Node("second", Role.GATEWAY)
    ends = (
        End("second", "wan1", (ip_interface("198.18.11.1/24"),)),
        End("router", "second", (ip_interface("198.18.11.254/24"),)),
    )
    one = replace(TOPOLOGY.tunnel("one"), also=("second",))
    nodes = {**TOPOLOGY.nodes, "second": second}
    topology = replace(TOPOLOGY, nodes=nodes, wires=(*TOPOLOGY.wires, Wire(ends)), tunnels=(one,))
    text = render.swanctl_conf(topology, second, {"one": "k"})
    assert "local_addrs = 198.18.11.1" in text
    assert "id = gateway.lab.example" in text
