"""What the configuration says of a node of a cluster."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from mobikectl.cluster.node_settings import Balance, Placement
from mobikectl.cluster.settings import StoreKind
from mobikectl.config import parse
from mobikectl.errors import ConfigError
from mobikectl.policy.cluster import Mechanism


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, where="m.toml")
    return caught.value.message


CLUSTER = """
[cluster]
node = "gw1"
addresses = [{ ip = "198.18.9.1", dev = "wan1", bytes_per_s = 1e8 }, { ip = "2001:db8::1" }]
pools = ["a"]
balance = "manual"
placement = "anycast"
maintenance_file = "/run/x"
capacity.sas = 100
store.kind = "etcd"
store.etcd.endpoints = ["198.18.9.9:2379"]
policy.mechanisms = ["notify", "reconnect"]
"""


def test_a_node_of_a_cluster_says_what_it_is() -> None:
    got = parse(CLUSTER, where="m.toml").cluster
    assert got is not None
    assert (got.addresses[0].dev, got.addresses[0].bytes_per_s) == ("wan1", 1e8)
    assert got.addresses[1].ip == ip_address("2001:db8::1")
    assert (got.balance, got.placement) == (Balance.MANUAL, Placement.ANYCAST)
    assert got.maintenance_file == Path("/run/x")
    assert got.store.kind is StoreKind.ETCD
    assert got.policy.mechanisms == {Mechanism.NOTIFY, Mechanism.RECONNECT}
    member = got.member("mark", "1.0")
    assert member.addresses[0].bytes_per_s == 1e8
    assert member.pools == frozenset({"a"})
    assert member.capacity.sas == 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "cluster.addresses: this key is missing"),
        ("addresses = []", "cluster: addresses: expected 1 to 64 different ones, got 0"),
        ("addresses = [{ip = '198.18.0.1'}, {ip = '198.18.0.1'}]", "different ones, got 2"),
        ("addresses = [{ip = '198.18.0.1', bytes_per_s = 0}]", "bytes_per_s: expected a number above 0"),
        ("addresses = [{ip = '198.18.0.1'}]\nweight = nan", "weight: expected a number above 0, got nan"),
        ("addresses = [{ip = '198.18.0.1'}]\noverload_limit = 1.5", "a share in (0, 1], got 1.5"),
        ("addresses = [{ip = '198.18.0.1'}]\nreport_s = 20", "stale_after_s: expected at least two times"),
        ("addresses = [{ip = '198.18.0.1'}]\nmaintenance_file = 5", "maintenance_file: expected a text"),
        ("addresses = [{ip = '198.18.0.1'}]\npolicy.mechanisms = [1]", "expected one of notify, implicit"),
        ("addresses = [{ip = '198.18.0.1'}]\npolicy.high = 0", "cluster.policy: watermarks"),
        ("addresses = [{ip = '198.18.0.1'}]\nstore.kind = 'redis'", "one of sqlite, etcd, got 'redis'"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(text: str, expected: str) -> None:
    assert expected in complaint(f"[cluster]\nnode = 'gw1'\n{text}")


def test_a_node_needs_a_name_that_others_can_use() -> None:
    assert "is no name" in complaint("[cluster]\nnode = 'a/b'\naddresses = [{ip = '198.18.0.1'}]")
