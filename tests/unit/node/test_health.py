"""What a node can still do."""

from __future__ import annotations

from ipaddress import ip_address
from types import MappingProxyType
from typing import Any

import pytest

from mobikectl.charon.session import LinkState, Status
from mobikectl.cluster.node_settings import AddressSettings
from mobikectl.model import Address, Link, NetState
from mobikectl.node.health import down, judge
from mobikectl.policy.cluster import Health

ONE, OTHER = ip_address("198.18.0.1"), ip_address("198.18.0.2")


def net(*, wan: bool = True, **more: Any) -> NetState:
    links = {1: Link(1, "lo", True, True, loopback=True), 2: Link(2, "wan1", True, wan)}
    addresses = more.get("addresses", {Address(2, ONE, 24), Address(1, OTHER, 32)})
    return NetState(MappingProxyType(links), frozenset(addresses))


def test_an_address_is_down_when_its_uplink_is() -> None:
    configured = [AddressSettings(ONE), AddressSettings(OTHER, "wan1")]
    assert down(configured, net()) == ()
    assert down(configured, net(wan=False)) == (ONE, OTHER)
    assert down([AddressSettings(OTHER)], net(wan=False)) == ()


def test_an_address_that_no_interface_has_is_down() -> None:
    assert down([AddressSettings(ip_address("198.18.9.9"), "wan1")], net()) == (ip_address("198.18.9.9"),)
    assert down([AddressSettings(ONE, "wan7")], net()) == (ONE,)
    tentative = net(addresses={Address(2, ONE, 64, tentative=True)})
    assert down([AddressSettings(ONE)], tentative) == (ONE,)


@pytest.mark.parametrize(
    ("change", "health", "why"),
    [
        ({}, Health.HEALTHY, ""),
        ({"charon": LinkState.HUNG}, Health.DEAD, "does not answer: it\\nhangs"),
        ({"charon": LinkState.DOWN}, Health.DEAD, "is away"),
        ({"down": (ONE,)}, Health.HEALTHY, ""),
        ({"down": (ONE, OTHER)}, Health.DEAD, "no uplink"),
        ({"in_step": False}, Health.UNKNOWN, "not known yet"),
        ({"measured": False}, Health.UNKNOWN, "not measured yet"),
        ({"measured": False, "probe": False}, Health.IMPAIRED, "behind the gateway"),
        ({"probe": True}, Health.HEALTHY, ""),
        ({"probe": False}, Health.IMPAIRED, "behind the gateway"),
        ({"probe": False, "charon": LinkState.DOWN}, Health.DEAD, "is away"),
    ],
)
def test_health_is_the_worst_of_what_is_known(change: dict[str, Any], health: Health, why: str) -> None:
    fields: dict[str, Any] = {"in_step": True, "measured": True, "addresses": 2, "down": (), "probe": None}
    fields |= change
    status = Status(fields.pop("charon", LinkState.UP), 0.0, "it\nhangs")
    verdict = judge(status, **fields)
    assert verdict.health is health
    assert why in verdict.note
    assert verdict.note.isprintable()
